"""The estimator of several tasks, and what it is made of."""

from mtsk.segmenter.head_choice import HeadChoice
from mtsk.segmenter.predictor import Predictor
from mtsk.segmenter.segmenter import (
    MultiTaskSegmenter,
    check_is_segmenter,
    predictor_of,
)

__all__ = [
    "HeadChoice",
    "MultiTaskSegmenter",
    "Predictor",
    "check_is_segmenter",
    "predictor_of",
]
