"""Confusion matrix of a task, drawn as by scikit-learn."""

from __future__ import annotations

import os
from typing import Any, Literal, Self

import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from mtsk._validation import parameter_error
from mtsk.data.targets import as_targets
from mtsk.displays.axes import check_segmenter
from mtsk.exceptions import TargetError, UnknownTaskError

__all__ = ["ConfusionDisplay"]

_AT_ONCE = 8  # images predicted at once


class ConfusionDisplay(ConfusionMatrixDisplay):
    """Confusion matrix of one task.

    scikit-learn's ``ConfusionMatrixDisplay``, filled from a segmenter image by image.
    Pixel tasks count pixels; unlabelled ones are ignored.

    Parameters
    ----------
    confusion_matrix : ndarray of shape (n_classes, n_classes)
        Rows are true, columns predicted.
    display_labels : ndarray of shape (n_classes,), default=None

    Attributes
    ----------
    im_, text_, ax_, figure_
        As in scikit-learn.

    Examples
    --------
    >>> from mtsk import MultiTaskSegmenter
    >>> from mtsk.displays import ConfusionDisplay
    >>> from mtsk.testing import toy_images
    >>> X, masks = toy_images()
    >>> model = MultiTaskSegmenter(random_state=0).fit(X, masks)
    >>> display = ConfusionDisplay.from_estimator(model, X, masks)  # doctest: +SKIP
    >>> display.confusion_matrix.shape  # doctest: +SKIP
    (2, 2)
    """

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        *,
        task: str | None = None,
        normalize: Literal["true", "pred", "all"] | None = None,
        **style: Any,
    ) -> Self:
        """Predict images and draw their confusion matrix.

        Parameters
        ----------
        estimator : MultiTaskSegmenter
            Fitted.
        X : images
        Y : targets, as for ``fit``
        task : str, default=None
            A task of classes or a mask. None takes the only one.
        normalize : {"true", "pred", "all"} or None, default=None
            Shares of rows, of columns, of all; None is counts.
        **style
            As for scikit-learn's ``plot``: ``ax``, ``cmap``, ``values_format``, …

        Returns
        -------
        ConfusionDisplay

        Raises
        ------
        ValueError
            Where the task has no classes, or there are several and none is named.
        TargetError, UnknownTaskError, ImageError, NotFittedError
        """
        check_segmenter(estimator, cls.__name__)
        if isinstance(X, str | os.PathLike):
            raise TypeError(f"X must be a sequence of images, got {X!r}")
        if normalize not in ("true", "pred", "all", None):
            allowed = "'true', 'pred', 'all' or None"
            raise parameter_error("normalize", cls.__name__, allowed, normalize)
        targets, bare = as_targets(Y, len(X), getattr(X, "stems", None))
        classed = {n: c for n, t in estimator.tasks_.items() if (c := _classes(t))}
        if task is None and len(classed) == 1:
            (task,) = classed
        if not isinstance(task, str) or task not in classed:
            allowed = f"one of {list(classed)}" if classed else "one with classes"
            raise ValueError(
                f"`task` must be {allowed}, got {task!r}; the model's are "
                f"{list(estimator.tasks_)}"
            )
        column = targets.task_names[0] if bare else task
        if column not in targets.task_names:
            raise UnknownTaskError(f"Y has {targets.task_names}, not {task!r}")
        codes = range(len(classed[task]))
        total = np.zeros((len(codes), len(codes)), int)
        entries, known = targets[column], targets.labelled(column)
        for start in range(0, len(known), _AT_ONCE):
            some = known[start : start + _AT_ONCE].tolist()
            found = estimator.predict([X[i] for i in some], tasks=[task])[task]
            for i, guess in zip(some, found, strict=True):
                if guess is not None:
                    pair = (
                        _codes(estimator.tasks_[task], y, i, guess)
                        for y in (entries[i], guess)
                    )
                    truth, guess = (c.ravel() for c in pair)
                    seen = ~np.isnan(truth)
                    total += confusion_matrix(truth[seen], guess[seen], labels=codes)
        if not total.any():
            raise TargetError(f"nothing of task {task!r} is labelled")
        return cls(_normalised(total, normalize), display_labels=classed[task]).plot(
            **style
        )


def _classes(task: Any) -> list[Any]:
    """Return the classes of a task that has one label per pixel or image; else none."""
    (group, *more) = task.groups_
    if more or group.kind == "real":
        return []
    if group.kind == "binary" and group.size == 1:
        return ["no", "yes"]
    ordered = type(task).__name__ == "Ordinal"
    if group.kind == "nominal" or ordered:
        return np.asarray(task.classes_).tolist()
    return []


def _codes(task: Any, entry: Any, index: int, guess: Any) -> np.ndarray:
    """Return an entry as class indices, NaN unlabelled."""
    shape = np.shape(guess)[:2] if task.is_of_pixels else (0, 0)
    try:
        columns = task.encode(entry, shape)
    except TargetError as error:
        raise TargetError(f"image {index}: {error}") from None
    return columns[..., 0] if columns.shape[-1] == 1 else columns.sum(axis=-1)


def _normalised(counts: np.ndarray, by: str | None) -> np.ndarray:
    if by is None:
        return counts
    axis = {"true": 1, "pred": 0, "all": None}[by]
    sums = counts.sum(axis=axis, keepdims=True)
    return np.divide(counts, sums, out=np.zeros(counts.shape), where=sums > 0)
