"""Pictures of what was learnt and found (matplotlib, the optional extra ``[plot]``)."""

from mtsk.displays.relatedness import TaskRelatednessDisplay
from mtsk.displays.segmentation import SegmentationDisplay
from mtsk.displays.sharing import SharingDisplay

__all__ = ["SegmentationDisplay", "SharingDisplay", "TaskRelatednessDisplay"]
