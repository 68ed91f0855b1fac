"""Accumulators for classes, masks and boundaries: one image at a time.

So scoring never holds more than one image's scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from mtsk.metrics.boundaries import (
    boundary_curve,
    boundary_matches,
    f1_of,
    label_boundaries,
)
from mtsk.metrics.regions import confusion
from mtsk.tasks.postprocess import thin_ridges

__all__ = [
    "AveragePrecisionMeter",
    "BoundaryCurveMeter",
    "BoundaryF1Meter",
    "ConfusionMeter",
]

Task = Any  # of mtsk.tasks, fitted
_THRESHOLDS = np.linspace(0.05, 0.95, 19)


class ConfusionMeter:
    """Metrics of classes: from one table of counts."""

    def __init__(self, task: Task, reduce: Callable[[np.ndarray], float]) -> None:
        self.task, self.reduce = task, reduce
        binary = task.group_.kind == "binary"
        self.size = 2 if binary else task.group_.size
        self.counts = np.zeros((self.size, self.size), int)
        self.unseen: set[Any] = set()
        self.needs_maps = getattr(task, "postprocess", None) is not None

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        binary = self.task.group_.kind == "binary"
        if binary:
            guess = scores > threshold_of(self.task)
        else:
            guess, columns = scores.argmax(axis=-1), columns[..., 0]
        if self.needs_maps:  # neighbours change what is predicted
            guess = self.task.codes(scores)
            guess = (guess > 0)[..., None] if binary else guess
        self._add(confusion(columns, guess, self.size))

    def note_unseen(self, labels: set[Any]) -> None:
        """Note labels of an image that are classes unknown to the task."""
        self.unseen |= labels

    def merge(self, other: ConfusionMeter) -> None:
        self._add(other.counts.copy())
        self.unseen |= other.unseen

    def _add(self, counts: np.ndarray) -> None:
        """Add counts, possibly of additional classes unseen by ``fit``."""
        if len(counts) > len(self.counts):
            self.counts, counts = counts, self.counts
        self.counts[: len(counts), : len(counts)] += counts

    def compute(self) -> float:
        return self._reduced(self.counts)

    def null_score(self) -> float:
        """Return the metric of the best prediction that is one class everywhere."""
        found = []
        for k in range(self.size):
            counts = np.zeros_like(self.counts)
            counts[:, k] = self.counts.sum(axis=1)
            found.append(self._reduced(counts))
        return float(np.nanmax([*found, 0.0]))

    def _reduced(self, counts: np.ndarray) -> float:
        return self.reduce(_split_last(counts, self.size, len(self.unseen)))


def _split_last(counts: np.ndarray, size: int, n_unseen: int) -> np.ndarray:
    """Return counts in which unseen classes, counted as one, are several.

    None of them is ever predicted: the recall and the overlap of each are 0, whichever
    of the pixels counted together are whose.
    """
    if len(counts) <= size or n_unseen < 2:
        return counts
    out = np.zeros((size + n_unseen,) * 2, counts.dtype)
    out[: size + 1, : size + 1] = counts[: size + 1, : size + 1]
    for row in range(size + 1, size + n_unseen):
        column = int(out[size].argmax())
        out[size, column] -= 1
        out[row, column] += 1
    return out


class BoundaryF1Meter:
    """F1 from matches summed over images."""

    needs_maps = True  # depends on neighbours, so single pixels are not enough

    def __init__(self, task: Task) -> None:
        self.task = task
        self.tolerance = getattr(task, "tolerance", 0.0075)
        self.matches = np.zeros(4, int)

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        tolerance_pixels = self.tolerance * float(np.hypot(*scores.shape[:2]))
        truth = np.nan_to_num(columns[..., 0], nan=-1).astype(int)
        if self.task.group_.kind == "nominal":
            edges = label_boundaries(truth, self.task.codes(scores))
        elif type(self.task).__name__ == "Boundary":
            guess = scores[..., 0] > threshold_of(self.task)
            edges = truth == 1, guess & (truth >= 0)
        else:
            edges = label_boundaries(truth, self.task.codes(scores).astype(int))
        self.matches += boundary_matches(*edges, tolerance_pixels)

    def merge(self, other: BoundaryF1Meter) -> None:
        self.matches += other.matches

    def compute(self) -> float:
        return f1_of(*self.matches.tolist())


class BoundaryCurveMeter:
    """F1 of thinned boundaries at the best threshold (Arbeláez et al., PAMI 2011).

    ODS: one threshold for all images. OIS: the best one of every image.
    """

    needs_maps = True

    def __init__(self, task: Task, per_image: bool) -> None:
        self.task, self.per_image = task, per_image
        self.total = np.zeros((len(_THRESHOLDS), 4), int)
        self.best = np.zeros(4, int)

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        truth = columns[..., 0]
        tolerance_pixels = self.task.tolerance * float(np.hypot(*truth.shape))
        curve = boundary_curve(
            truth == 1,
            thin_ridges(self.task.probabilities(scores)[..., 0]),
            _THRESHOLDS,
            tolerance_pixels,
            np.isnan(truth),
        )
        self.total += curve
        self.best += curve[np.nanargmax([-1.0, *(f1_of(*row) for row in curve)]) - 1]

    def merge(self, other: BoundaryCurveMeter) -> None:
        self.total += other.total
        self.best += other.best

    def compute(self) -> float:
        if self.per_image:
            return f1_of(*self.best.tolist())
        found = [f1_of(*row) for row in self.total.tolist()]
        return float(np.nanmax(found)) if not np.isnan(found).all() else float("nan")


class AveragePrecisionMeter:
    """Mean over labels of scikit-learn's average precision, over all entries."""

    def __init__(self, task: Task) -> None:
        self.truths: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        width = columns.shape[-1]
        known = ~np.isnan(columns.reshape(-1, width)).all(axis=1)
        self.truths.append(columns.reshape(-1, width)[known])
        self.scores.append(scores.reshape(-1, width)[known].astype(np.float32))

    def merge(self, other: AveragePrecisionMeter) -> None:
        self.truths += other.truths
        self.scores += other.scores

    def compute(self) -> float:
        return self._mean(average_precision_score)

    def null_score(self) -> float:
        """Return the metric of scores that are the same everywhere: the prevalence."""
        return self._mean(lambda truth, scores: truth.mean())

    def _mean(self, score: Callable[[np.ndarray, np.ndarray], float]) -> float:
        """Return the mean of a score over the labels that occur."""
        if not self.truths:
            return float("nan")
        truth, scores = np.concatenate(self.truths), np.concatenate(self.scores)
        each = []
        for t, s in zip(truth.T, scores.T, strict=True):
            known = ~np.isnan(t)
            if (t[known] == 1).any():
                each.append(score(t[known] == 1, s[known]))
        return float(np.mean(each)) if each else float("nan")


def threshold_of(task: Task) -> float:
    """Return the logit above which a binary task predicts yes."""
    share = getattr(task, "threshold", 0.5)
    return (
        float(np.log(share / (1 - share))) if 0 < share < 1 else (share - 0.5) * np.inf
    )
