"""The estimator of several tasks, and what it is made of."""

from mtsk.segmenter.predictor import Predictor
from mtsk.segmenter.segmenter import (
    MultiTaskSegmenter,
    check_is_segmenter,
    predictor_of,
)

__all__ = ["MultiTaskSegmenter", "Predictor", "check_is_segmenter", "predictor_of"]
