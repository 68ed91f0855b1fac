"""Displays of fitted models and results (matplotlib, the optional extra ``[plot]``)."""

from mtsk.displays.attribution import AttributionDisplay
from mtsk.displays.confusion import ConfusionDisplay
from mtsk.displays.relatedness import TaskRelatednessDisplay
from mtsk.displays.segmentation import SegmentationDisplay
from mtsk.displays.sharing import SharingDisplay
from mtsk.displays.uncertainty import UncertaintyDisplay

__all__ = [
    "ConfusionDisplay",
    "AttributionDisplay",
    "SegmentationDisplay",
    "SharingDisplay",
    "TaskRelatednessDisplay",
    "UncertaintyDisplay",
]
