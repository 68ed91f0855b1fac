"""Metrics of predictions, ignoring unlabelled entries.

Metrics are functions of arrays; for tasks there are also accumulators, by name.
"""

from mtsk.metrics.boundaries import boundary_curve, boundary_f1, boundary_matches
from mtsk.metrics.named import (
    lower_is_better,
    make_task_scorer,
    mean_skill,
    metric_names,
    task_metric,
)
from mtsk.metrics.objects import (
    AveragePrecision,
    Matches,
    box_iou,
    instance_iou,
    match_instances,
)
from mtsk.metrics.regions import class_table, confusion, iou_per_class, mean_iou

__all__ = [
    "AveragePrecision",
    "Matches",
    "boundary_curve",
    "boundary_f1",
    "boundary_matches",
    "box_iou",
    "class_table",
    "confusion",
    "instance_iou",
    "iou_per_class",
    "lower_is_better",
    "match_instances",
    "make_task_scorer",
    "mean_iou",
    "mean_skill",
    "metric_names",
    "task_metric",
]
