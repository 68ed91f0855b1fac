"""Inspection of fitted models and their tasks."""

from mtsk.inspection.attribution import LayerAttribution, layer_attribution
from mtsk.inspection.relatedness import TaskRelatedness
from mtsk.inspection.sharing import SharingReport, compare_sharing
from mtsk.inspection.suggestion import Suggestion, suggest_labels
from mtsk.inspection.superpixel_bound import superpixel_upper_bound
from mtsk.inspection.task_table import TaskTable, task_table

__all__ = [
    "LayerAttribution",
    "SharingReport",
    "Suggestion",
    "TaskRelatedness",
    "TaskTable",
    "compare_sharing",
    "layer_attribution",
    "suggest_labels",
    "superpixel_upper_bound",
    "task_table",
]
