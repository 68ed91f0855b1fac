"""The rows by which tasks are related: selection, axes, folds and draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh, hadamard

from mtsk.heads import Moments
from mtsk.heads.statistics import inverse_std
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = ["Sample", "deal", "leading_axes"]

_BLOCK = 8192  # rows that are standardised at a time


@dataclass
class Sample:
    """The rows by which tasks are related.

    Attributes
    ----------
    X : ndarray of float32, shape (n, d)
    Y : ndarray of float32, shape (n, n_columns)
    units : ndarray of int, shape (n,)
        Unit of the draws: the image of each row, 0 … n_units − 1.
    labelled : ndarray of bool, shape (n_units, n_columns)
    fold : ndarray of int, shape (n,)
    groups : list of ColumnGroup
    """

    X: np.ndarray
    Y: np.ndarray
    units: np.ndarray
    labelled: np.ndarray
    fold: np.ndarray
    groups: list[ColumnGroup]

    @property
    def parts(self) -> list[np.ndarray]:
        """Indices of each task's scores; of two classes, only the second."""
        return [
            np.arange(scores.start, scores.stop)[-1:]
            if group.kind == "nominal" and group.size == 2
            else np.arange(scores.start, scores.stop)
            for group, _, scores in labelled_columns(self.groups)
        ]

    def draws(self, n: int, random: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield weights of rows: how often their unit was drawn."""
        n_units = len(self.labelled)
        while n:
            counts = np.bincount(random.randint(n_units, size=n_units), None, n_units)
            if (counts @ self.labelled > 0).all():
                yield counts[self.units].astype(float)
                n -= 1

    def known(self, task: int) -> np.ndarray:
        """Return which rows have a label of a task."""
        columns = labelled_columns(self.groups)[task][1]
        return ~np.isnan(self.Y[:, columns]).all(axis=1)


def deal(labelled: np.ndarray, n_folds: int, random: Any) -> np.ndarray:
    """Return the fold of each unit, so that rare labels are spread over folds.

    Units are assigned in turn: those of the rarest label first, and among them those
    labelled for the same tasks. The order of the tasks does not matter.
    """
    shuffled = random.permutation(len(labelled))
    count = labelled.sum(axis=0)
    rarest = np.where(labelled, count, len(labelled)).min(axis=1)[shuffled]
    _, first, pattern = np.unique(
        labelled[shuffled], axis=0, return_index=True, return_inverse=True
    )
    order = np.lexsort((first[pattern], rarest))
    fold = np.empty(len(labelled), int)
    fold[shuffled[order]] = np.arange(len(labelled)) % min(n_folds, len(labelled))
    return fold


def leading_axes(X: np.ndarray, n_components: int | None) -> np.ndarray:
    """Return a table in its leading principal axes, rotated to equal variances.

    Parameters
    ----------
    X : ndarray of float32, shape (n, d)
    n_components : int or None
        A power of 2. None, or at least d: no change.

    Returns
    -------
    ndarray of float32, shape (n, min(d, n_components))
    """
    d = X.shape[1]
    if n_components is None or d <= n_components:
        return X
    moments = Moments.of(X, np.empty((len(X), 0)), np.ones(len(X)))
    covariance, mean = moments.covariance(), moments.x_mean
    scale = inverse_std(np.diag(covariance), mean)
    covariance *= scale[:, None] * scale
    _, axes = eigh(covariance, subset_by_index=(d - n_components, d - 1))
    # Heads scale each feature to variance 1, which would amplify the last axes. After
    # rotation by a Hadamard matrix all have equal variance, and the penalty is
    # unchanged.
    turn = scale[:, None] * (axes @ hadamard(n_components)) / np.sqrt(n_components)
    blocks = (X[start : start + _BLOCK] for start in range(0, len(X), _BLOCK))
    turn, mean = turn.astype(np.float32), mean.astype(np.float32)
    return np.concatenate([(block - mean) @ turn for block in blocks])
