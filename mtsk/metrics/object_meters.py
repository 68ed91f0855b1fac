"""Accumulators for instances and boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtsk.metrics.objects import (
    AveragePrecision,
    Matches,
    box_iou,
    instance_iou,
    match_instances,
)

__all__ = ["BoxMeter", "InstanceMeter", "MaskMeter"]

Task = Any  # of mtsk.tasks, fitted
OVERLAPS = np.linspace(0.5, 0.95, 10)


class InstanceMeter:
    """Matches of instances at one overlap, summed over images."""

    from_targets = True
    needs_maps = True

    def __init__(self, task: Task, least: float, quality: str) -> None:
        self.task, self.least, self.quality = task, least, quality
        self.total = Matches(0, 0, 0, 0.0)

    def update(self, target: Any, scores: np.ndarray) -> None:
        truth = self.task.canonical(target, scores.shape[:2])
        new = match_instances(instance_iou(truth, self.task.decode(scores)), self.least)
        self.total = self.total.plus(new)

    def merge(self, other: InstanceMeter) -> None:
        self.total = self.total.plus(other.total)

    def compute(self) -> float:
        return float(getattr(self.total, self.quality))


class MaskMeter:
    """COCO's average precision of instances, by their scores."""

    from_targets = True
    needs_maps = True

    def __init__(self, task: Task) -> None:
        self.task = task
        self.curve = AveragePrecision(1, OVERLAPS.tolist())

    def update(self, target: Any, scores: np.ndarray) -> None:
        truth = self.task.canonical(target, scores.shape[:2])
        ids, confidence = self.task.instances(scores)
        iou, confidence = _seen(truth, ids, confidence)
        self.curve.update(
            iou.T,
            confidence,
            np.zeros(len(confidence), int),
            np.zeros(len(iou), int),
        )

    def merge(self, other: MaskMeter) -> None:
        self.curve.merge(other.curve)

    def compute(self) -> float:
        return float(np.mean(self.curve.compute()))


class BoxMeter:
    """COCO's average precision of boxes, averaged over classes and overlaps.

    Each label unseen by ``fit`` is one more class, which is never predicted.
    """

    from_targets = True
    needs_maps = True

    def __init__(self, task: Task, overlaps: np.ndarray) -> None:
        self.task = task
        self.curve = AveragePrecision(len(task.classes_) + 1, overlaps.tolist())
        self.unseen: set[Any] = set()

    def update(self, target: Any, scores: np.ndarray) -> None:
        truth = self.task.canonical(target, scores.shape[:2])
        found = self.task.detect(scores, threshold=_LEAST_SCORE)
        boxes = found["boxes"]
        within = box_iou(boxes, truth["ignore"], within=True)
        self.curve.update(
            box_iou(boxes, truth["boxes"]),
            found["scores"],
            found["codes"],
            truth["codes"],
            within.max(axis=1, initial=0.0),
        )

    def note_unseen(self, labels: set[Any]) -> None:
        """Note labels of an image that are classes unknown to the task."""
        self.unseen |= labels

    def merge(self, other: BoxMeter) -> None:
        self.curve.merge(other.curve)
        self.unseen |= other.unseen

    def compute(self) -> float:
        found = self.curve.compute()
        known = ~np.isnan(found).all(axis=0)
        n_others = max(0, len(self.unseen) - 1)  # the first is among those found
        total = found[:, known].mean(axis=0).sum() if known.any() else np.nan
        return float(total / (known.sum() + n_others))


_LEAST_SCORE = 0.01  # boxes below it change precision at no recall that matters


def _seen(
    truth: np.ndarray, ids: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return IoU (n_true, n_guessed) and scores of objects in labelled areas."""
    known = truth >= 0
    area = np.bincount(ids.ravel(), minlength=len(confidence) + 1)[1:]
    inside = np.bincount(ids[known], minlength=len(confidence) + 1)[1:]
    kept = 2 * inside >= area
    name = np.zeros(len(confidence) + 1, int)
    name[1:][kept] = np.arange(1, kept.sum() + 1)
    return instance_iou(truth, name[ids]), confidence[kept]
