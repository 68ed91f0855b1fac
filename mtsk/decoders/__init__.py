"""Decoders: convolutional heads that all tasks share."""

from mtsk.data.augmentation import Augmentation
from mtsk.decoders.decoder import SharedDecoder
from mtsk.decoders.training_set import TrainingSet

__all__ = ["Augmentation", "SharedDecoder", "TrainingSet"]
