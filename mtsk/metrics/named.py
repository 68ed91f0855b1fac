"""Metrics by name: accumulators of tasks, and scorers for model selection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from mtsk._validation import parameter_error
from mtsk.exceptions import UnknownTaskError
from mtsk.metrics.meters import (
    AveragePrecisionMeter,
    BoundaryCurveMeter,
    BoundaryF1Meter,
    ConfusionMeter,
)
from mtsk.metrics.number_meters import (
    AngularMeter,
    CountMeter,
    DepthMeter,
    PictureMeter,
    RankMeter,
    ResidualMeter,
)
from mtsk.metrics.object_meters import OVERLAPS, BoxMeter, InstanceMeter, MaskMeter
from mtsk.metrics.regions import iou_per_class, mean_iou, ratio
from mtsk.tasks.base import Task
from mtsk.tasks.image import Ordinal

__all__ = [
    "lower_is_better",
    "make_task_scorer",
    "mean_skill",
    "metric_names",
    "task_metric",
]


def _global(counts: np.ndarray) -> float:
    return float(np.diag(counts).sum() / counts.sum()) if counts.sum() else float("nan")


def _class_accuracy(counts: np.ndarray) -> float:
    recall = ratio(np.diag(counts), counts.sum(axis=1))
    return float(np.nanmean(recall)) if counts.sum() else float("nan")


def _positive_iou(counts: np.ndarray) -> float:
    return float(iou_per_class(counts)[1])


def _accuracy(task: Task) -> Any:
    if isinstance(task, Ordinal):
        return RankMeter(task, "accuracy")
    return ConfusionMeter(task, _global)


_METRICS: dict[str, Callable[[Task], Any]] = {
    "miou": lambda task: ConfusionMeter(task, mean_iou),
    "iou": lambda task: ConfusionMeter(task, _positive_iou),
    "accuracy": _accuracy,
    "class_accuracy": lambda task: ConfusionMeter(task, _class_accuracy),
    "balanced_accuracy": lambda task: ConfusionMeter(task, _class_accuracy),
    "boundary_f1": BoundaryF1Meter,
    "ods": partial(BoundaryCurveMeter, per_image=False),
    "ois": partial(BoundaryCurveMeter, per_image=True),
    "average_precision": AveragePrecisionMeter,
    "r2": partial(ResidualMeter, kind="r2"),
    "rmse": partial(ResidualMeter, kind="rmse"),
    "mae": partial(ResidualMeter, kind="mae"),
    "abs_rel": partial(DepthMeter, kind="abs_rel"),
    "delta1": partial(DepthMeter, kind="delta1"),
    "silog": partial(DepthMeter, kind="silog"),
    "angular_error": partial(AngularMeter, within=None),
    "within_30": partial(AngularMeter, within=30.0),
    "count_r2": partial(CountMeter, kind="r2"),
    "count_mae": partial(CountMeter, kind="mae"),
    "count_rmse": partial(CountMeter, kind="rmse"),
    "rank_mae": partial(RankMeter, kind="rank_mae"),
    "kappa": partial(RankMeter, kind="kappa"),
    "psnr": partial(PictureMeter, kind="psnr"),
    "ssim": partial(PictureMeter, kind="ssim"),
    "threat_score_50": partial(InstanceMeter, least=0.5, quality="threat_score"),
    "threat_score_70": partial(InstanceMeter, least=0.7, quality="threat_score"),
    "pq": partial(InstanceMeter, least=0.5, quality="panoptic_quality"),
    "mask_ap": MaskMeter,
    "box_ap50": partial(BoxMeter, overlaps=OVERLAPS[:1]),
    "box_ap75": partial(BoxMeter, overlaps=OVERLAPS[5:6]),
    "box_ap": partial(BoxMeter, overlaps=OVERLAPS),
}
_LOWER_IS_BETTER = (
    "rmse",
    "mae",
    "abs_rel",
    "silog",
    "angular_error",
    "count_mae",
    "count_rmse",
    "rank_mae",
)


def metric_names() -> list[str]:
    """Return the names that `task_metric` knows."""
    return list(_METRICS)


def lower_is_better(name: str) -> bool:
    """Return whether lower values of a metric are better.

    Parameters
    ----------
    name : str
        One of `metric_names`.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        Where there is no such metric.
    """
    if name not in _METRICS:
        raise ValueError(f"no metric {name!r}; the metrics are {list(_METRICS)}")
    return name in _LOWER_IS_BETTER


def task_metric(task: Task, name: str | None = None) -> Any:
    """Return an accumulator of a task's metric.

    Parameters
    ----------
    task : Task
        Fitted.
    name : str, optional
        One of ``task.metrics``. None is the first of them.

    Returns
    -------
    object
        With ``update(columns, scores)``, to be called once per image with the outputs
        of ``task.encode`` and the head; ``merge(other)``, which adds the images of
        another accumulator; and ``compute() -> float``.

    Raises
    ------
    ValueError
        Where the task has no such metric.
    """
    name = name or task.metrics[0]
    if name not in task.metrics or name not in _METRICS:
        raise ValueError(
            f"{type(task).__name__} has the metrics {list(task.metrics)}, not {name!r}"
        )
    return _METRICS[name](task)


def mean_skill(metrics: Iterable[Any]) -> float:
    """Return the mean skill of tasks over predictions that are the same everywhere.

    The skill of a metric m, of which more is better and 1 is the best, is
    (m − m₀) / (1 − m₀) where m₀ is what the best constant prediction would get on the
    same labels (Murphy, *Monthly Weather Review* 1988, equation 4): 0 of knowing
    nothing, 1 of knowing all. It puts metrics of several kinds on one scale: an R² is
    its own skill, an accuracy of 0.9 where 80 % are of one class has skill 0.5. A task
    far worse than a constant counts −1, so that it does not decide alone.

    Parameters
    ----------
    metrics : iterable of accumulators
        As `task_metric` returns.

    Returns
    -------
    float
        NaN where no metric is defined.
    """
    skills = []
    for metric in metrics:
        found = metric.compute()
        null = metric.null_score() if hasattr(metric, "null_score") else 0.0
        if np.isnan(found) or null >= 1:  # nothing to be known that is not constant
            continue
        skills.append(max((found - null) / (1 - null), -1.0))
    return float(np.mean(skills)) if skills else float("nan")


def make_task_scorer(
    task: str | None = None,
    metric: str | None = None,
    *,
    max_pixels_per_image: int | None = None,
) -> TaskScorer:
    """Return a scorer of one task and metric, for ``GridSearchCV(scoring=...)``.

    Parameters
    ----------
    task : str, default=None
        Name of the task. None is ``score`` of the segmenter: the metric of the only
        task, or the mean skill of several.
    metric : str, default=None
        One of the task's metrics; errors (``"rmse"``, ``"mae"``) are negated, so
        that more is better. None is the task's default.
    max_pixels_per_image : int, default=None
        Maximum number of labelled pixels scored per image. None is all. Some hundreds
        suffice to compare candidates, and take a tenth of the time. Metrics of
        boundaries need all.

    Returns
    -------
    TaskScorer
        Called with a fitted segmenter, images and targets.

    Raises
    ------
    InvalidParameterError, ValueError
        Where there is no such metric.

    Examples
    --------
    >>> from mtsk import make_task_scorer
    >>> scoring = {"edges": make_task_scorer("edges", "boundary_f1")}
    >>> quick = make_task_scorer(max_pixels_per_image=500)
    """
    return TaskScorer(task, metric, max_pixels_per_image)


class TaskScorer:
    """What `make_task_scorer` returns."""

    def __init__(
        self,
        task: str | None,
        metric: str | None,
        max_pixels_per_image: int | None,
    ) -> None:
        if task is not None and not isinstance(task, str):
            raise parameter_error("task", "make_task_scorer", "a name, or None", task)
        if task is None and metric is not None:
            raise ValueError(f"metric={metric!r} needs a `task`")
        if metric is not None and metric not in _METRICS:
            allowed = f"one of {list(_METRICS)}, or None"
            raise parameter_error("metric", "make_task_scorer", allowed, metric)
        count = max_pixels_per_image
        whole = isinstance(count, Integral) and not isinstance(count, bool)
        if count is not None and not (whole and count > 0):
            allowed = "an int > 0, or None"
            raise parameter_error(
                "max_pixels_per_image", "make_task_scorer", allowed, count
            )
        self.task = task
        self.metric = metric
        self.max_pixels_per_image = max_pixels_per_image

    def __call__(self, estimator: Any, X: Any, Y: Any) -> float:
        """Return the score of a fitted MultiTaskSegmenter on images and targets."""
        if self.task is None:
            return estimator.score(X, Y, max_pixels_per_image=self.max_pixels_per_image)
        if self.task not in estimator.tasks_:
            raise UnknownTaskError(
                f"no task {self.task!r}; the tasks are {list(estimator.tasks_)}"
            )
        metric = self.metric or estimator.tasks_[self.task].metrics[0]
        metrics = {self.task: metric}
        scores = estimator.score_tasks(
            X, Y, metrics=metrics, max_pixels_per_image=self.max_pixels_per_image
        )
        return -scores[self.task] if metric in _LOWER_IS_BETTER else scores[self.task]

    def __repr__(self) -> str:
        return (
            f"make_task_scorer({self.task!r}, {self.metric!r}, "
            f"max_pixels_per_image={self.max_pixels_per_image})"
        )
