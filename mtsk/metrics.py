"""How good predictions are, ignoring what is unlabelled.

Each metric comes as a function of arrays and, for tasks, as an accumulator that sees
one image at a time, so that scoring never holds more than one image's scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import find_boundaries
from sklearn.metrics import average_precision_score

from mtsk.exceptions import UnknownTaskError
from mtsk.tasks.base import Task

__all__ = [
    "boundary_f1",
    "boundary_matches",
    "class_table",
    "confusion",
    "iou_per_class",
    "less_is_better",
    "mean_iou",
    "metric_names",
    "task_metric",
    "task_scorer",
]


def confusion(truth: np.ndarray, guess: np.ndarray, n_classes: int) -> np.ndarray:
    """Count pairs of codes.

    Parameters
    ----------
    truth : ndarray of float or int
        Codes 0 … n_classes − 1; NaN and negative codes are unlabelled. Codes from
        n_classes on are classes that are never guessed.
    guess : ndarray of int, of the same shape
        Codes 0 … n_classes − 1.
    n_classes : int

    Returns
    -------
    ndarray of int, shape (m, m), m >= n_classes
        Row: truth. Column: guess.
    """
    truth = np.asarray(truth, float).ravel()
    known = truth >= 0  # False for NaN
    truth, guess = truth[known].astype(np.intp), np.asarray(guess).ravel()[known]
    size = max(n_classes, int(truth.max(initial=-1)) + 1)
    counts = np.bincount(truth * size + guess, minlength=size * size)
    return counts.reshape(size, size)


def iou_per_class(counts: np.ndarray) -> np.ndarray:
    """Return intersection over union of each class, NaN where it never occurs.

    A class occurs where it is true or guessed (TP + FP + FN > 0).

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes)
        As `confusion` gives them.

    Returns
    -------
    ndarray of shape (n_classes,)
    """
    hits = np.diag(counts).astype(float)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean of `iou_per_class` over the classes that are true somewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.metrics import confusion, mean_iou
    >>> counts = confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3)
    >>> round(mean_iou(counts), 3)
    0.583
    """
    true = counts.sum(axis=1) > 0
    return float(iou_per_class(counts)[true].mean()) if true.any() else float("nan")


def class_table(counts: np.ndarray, classes: Sequence[Any]) -> dict[str, list]:
    """Return IoU, recall, precision and pixels of each class, as columns.

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes)
    classes : sequence
        Names of the classes.

    Returns
    -------
    dict of str to list
        ``pandas.DataFrame`` takes it as it is.
    """
    hits, true, guessed = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    names = [*classes, *["unseen"] * (len(counts) - len(classes))]
    return {
        "class": names,
        "iou": iou_per_class(counts).tolist(),
        "recall": _ratio(hits, true).tolist(),
        "precision": _ratio(hits, guessed).tolist(),
        "count": true.tolist(),
    }


def boundary_matches(
    truth: np.ndarray, guess: np.ndarray, tolerance: float
) -> tuple[int, int, int, int]:
    """Match two maps of boundary pixels within a distance.

    Parameters
    ----------
    truth, guess : ndarray of bool, shape (H, W)
    tolerance : float
        Distance in pixels.

    Returns
    -------
    (int, int, int, int)
        Guessed pixels near a true one, guessed pixels, true pixels near a guessed
        one, true pixels.
    """
    near_truth = _within(truth, tolerance)
    near_guess = _within(guess, tolerance)
    return (
        int((guess & near_truth).sum()),
        int(guess.sum()),
        int((truth & near_guess).sum()),
        int(truth.sum()),
    )


def boundary_f1(
    truth: np.ndarray, guess: np.ndarray, tolerance: float = 0.0075
) -> float:
    """Return the F1 of the boundaries of two label maps.

    Precision and recall are the shares of boundary pixels (of either side) within a
    tolerance of the other's (Csurka et al., "What is a good evaluation measure for
    semantic segmentation?", BMVC 2013), over all classes at once.

    Parameters
    ----------
    truth, guess : ndarray of int, shape (H, W)
        Label maps; negative truth is unlabelled, and nothing there or at its rim
        counts.
    tolerance : float, default=0.0075
        As a fraction of the image's diagonal.

    Returns
    -------
    float
        NaN where neither has a boundary.
    """
    reach = tolerance * float(np.hypot(*truth.shape))
    return _f1(*boundary_matches(*_label_boundaries(truth, guess), reach))


def _label_boundaries(
    truth: np.ndarray, guess: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    void = truth < 0
    ignored = void | find_boundaries(void, mode="thick")
    edges = (find_boundaries(m, mode="thick") & ~ignored for m in (truth, guess))
    return next(edges), next(edges)


def _within(mask: np.ndarray, reach: float) -> np.ndarray:
    if not mask.any():
        return np.zeros_like(mask)
    return distance_transform_edt(~mask) <= reach


def _f1(near_truth: int, guessed: int, near_guess: int, true: int) -> float:
    if guessed + true == 0:
        return float("nan")
    precision = near_truth / guessed if guessed else 0.0
    recall = near_guess / true if true else 0.0
    return 2 * precision * recall / max(precision + recall, 1e-300)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


class _Confusion:
    """Metrics of classes: from one table of counts."""

    def __init__(self, task: Task, reduce: Callable[[np.ndarray], float]) -> None:
        self.task, self.reduce = task, reduce
        binary = task.group_.kind == "binary"
        self.size = 2 if binary else task.group_.size
        self.counts = np.zeros((self.size, self.size), int)

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        if self.task.group_.kind == "binary":
            guess = scores > _threshold(self.task)
        else:
            guess, columns = scores.argmax(axis=-1), columns[..., 0]
        new = confusion(columns, guess, self.size)
        if len(new) > len(self.counts):
            self.counts, new = new, self.counts
        self.counts[: len(new), : len(new)] += new

    def result(self) -> float:
        return self.reduce(self.counts)


class _BoundaryF1:
    """F1 from matches summed over images."""

    needs_maps = True  # neighbours count, so single pixels will not do

    def __init__(self, task: Task) -> None:
        self.task = task
        self.tolerance = getattr(task, "tolerance", 0.0075)
        self.matches = np.zeros(4, int)

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        reach = self.tolerance * float(np.hypot(*scores.shape[:2]))
        truth = np.nan_to_num(columns[..., 0], nan=-1).astype(int)
        if self.task.group_.kind == "nominal":
            edges = _label_boundaries(truth, scores.argmax(axis=-1))
        elif type(self.task).__name__ == "Boundary":
            guess = scores[..., 0] > _threshold(self.task)
            edges = truth == 1, guess & (truth >= 0)
        else:
            mask = (scores[..., 0] > _threshold(self.task)).astype(int)
            edges = _label_boundaries(truth, mask)
        self.matches += boundary_matches(*edges, reach)

    def result(self) -> float:
        return _f1(*self.matches.tolist())


class _AveragePrecision:
    """Mean over labels of scikit-learn's average precision, over all entries."""

    def __init__(self, task: Task) -> None:
        self.truths: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        width = columns.shape[-1]
        known = ~np.isnan(columns.reshape(-1, width)).all(axis=1)
        self.truths.append(columns.reshape(-1, width)[known])
        self.scores.append(scores.reshape(-1, width)[known].astype(np.float32))

    def result(self) -> float:
        if not self.truths:
            return float("nan")
        truth, scores = np.concatenate(self.truths), np.concatenate(self.scores)
        each = []
        for t, s in zip(truth.T, scores.T, strict=True):
            known = ~np.isnan(t)
            if (t[known] == 1).any():
                each.append(average_precision_score(t[known] == 1, s[known]))
        return float(np.mean(each)) if each else float("nan")


class _Residuals:
    """Metrics of numbers, from sums of truths and residuals."""

    def __init__(self, task: Task, kind: str) -> None:
        self.kind = kind
        self.n = np.zeros(task.group_.size)
        self.t, self.tt, self.absolute, self.squared = (self.n.copy() for _ in range(4))

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        truth = columns.reshape(-1, columns.shape[-1]).astype(float)
        known = ~np.isnan(truth)
        residual = np.where(known, truth - scores.reshape(truth.shape), 0)
        truth = np.where(known, truth, 0)
        self.n += known.sum(axis=0)
        self.t += truth.sum(axis=0)
        self.tt += (truth**2).sum(axis=0)
        self.absolute += np.abs(residual).sum(axis=0)
        self.squared += (residual**2).sum(axis=0)

    def result(self) -> float:
        used = self.n > 0
        if not used.any():
            return float("nan")
        n, squared = self.n[used], self.squared[used]
        if self.kind == "rmse":
            return float(np.sqrt(squared / n).mean())
        if self.kind == "mae":
            return float((self.absolute[used] / n).mean())
        spread = self.tt[used] - self.t[used] ** 2 / n
        spread[spread <= 1e-12 * self.tt[used]] = 0  # constant up to rounding
        flat = np.where(squared == 0, 1.0, 0.0)
        explained = 1 - np.divide(squared, spread, out=1 - flat, where=spread > 0)
        return float(explained.mean())


def _threshold(task: Task) -> float:
    """Return the logit above which a binary task says yes."""
    share = getattr(task, "threshold", 0.5)
    return (
        float(np.log(share / (1 - share))) if 0 < share < 1 else (share - 0.5) * np.inf
    )


def _global(counts: np.ndarray) -> float:
    return float(np.diag(counts).sum() / counts.sum()) if counts.sum() else float("nan")


def _class_accuracy(counts: np.ndarray) -> float:
    recall = _ratio(np.diag(counts), counts.sum(axis=1))
    return float(np.nanmean(recall)) if counts.sum() else float("nan")


def _positive_iou(counts: np.ndarray) -> float:
    return float(iou_per_class(counts)[1])


_METRICS: dict[str, Callable[[Task], Any]] = {
    "miou": lambda task: _Confusion(task, mean_iou),
    "iou": lambda task: _Confusion(task, _positive_iou),
    "accuracy": lambda task: _Confusion(task, _global),
    "class_accuracy": lambda task: _Confusion(task, _class_accuracy),
    "balanced_accuracy": lambda task: _Confusion(task, _class_accuracy),
    "boundary_f1": _BoundaryF1,
    "average_precision": _AveragePrecision,
    "r2": lambda task: _Residuals(task, "r2"),
    "rmse": lambda task: _Residuals(task, "rmse"),
    "mae": lambda task: _Residuals(task, "mae"),
}
_LESS_IS_BETTER = ("rmse", "mae")


def metric_names() -> list[str]:
    """Return the names that `task_metric` knows."""
    return list(_METRICS)


def less_is_better(name: str) -> bool:
    """Tell whether a metric is an error, of which less is better.

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
    return name in _LESS_IS_BETTER


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
        With ``update(columns, scores)``, to be called once an image with what
        ``task.encode`` and the head give, and ``result() -> float``.

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


class task_scorer:
    """A scorer of one task and metric, for ``GridSearchCV(scoring=...)``.

    Parameters
    ----------
    task : str, default=None
        Name of the task. None is the mean over all tasks.
    metric : str, default=None
        One of the task's metrics; errors (``"rmse"``, ``"mae"``) are negated, so
        that more is better. None is the task's own choice.
    n_pixels : int, default=None
        Score at most so many labelled pixels of each image. None is all. Some
        hundreds suffice to compare candidates, and take a tenth of the time. Metrics
        of boundaries need all.

    Examples
    --------
    >>> from mtsk import task_scorer
    >>> scoring = {"edges": task_scorer("edges", "boundary_f1")}
    >>> quick = task_scorer(n_pixels=500)
    """

    def __init__(
        self,
        task: str | None = None,
        metric: str | None = None,
        *,
        n_pixels: int | None = None,
    ) -> None:
        if task is None and metric is not None:
            raise ValueError(f"metric={metric!r} needs a `task`")
        self.task = task
        self.metric = metric
        self.n_pixels = n_pixels

    def __call__(self, estimator: Any, X: Any, Y: Any) -> float:
        """Return the score of a fitted MultiTaskSegmenter on images and targets."""
        if self.task is None:
            scores = estimator.score_tasks(X, Y, n_pixels=self.n_pixels)
            known = [s for s in scores.values() if not np.isnan(s)]
            return float(np.mean(known)) if known else float("nan")
        if self.task not in estimator.tasks_:
            raise UnknownTaskError(
                f"no task {self.task!r}; the tasks are {list(estimator.tasks_)}"
            )
        metrics = {self.task: self.metric}
        scores = estimator.score_tasks(X, Y, metrics=metrics, n_pixels=self.n_pixels)
        return (
            -scores[self.task] if self.metric in _LESS_IS_BETTER else scores[self.task]
        )

    def __repr__(self) -> str:
        return f"task_scorer({self.task!r}, {self.metric!r}, n_pixels={self.n_pixels})"
