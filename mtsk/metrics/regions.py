"""Metrics of class overlap, from one table of counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "class_table",
    "confusion",
    "iou_per_class",
    "mean_iou",
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

    Raises
    ------
    ValueError
        On non-integer codes, guesses out of range, or different sizes.
    """
    if n_classes < 1:
        raise ValueError(f"n_classes must be >= 1, got {n_classes}")
    true, guess = np.asarray(truth, float).ravel(), np.asarray(guess).ravel()
    if true.size != guess.size:
        raise ValueError(f"truth has {true.size} codes, and guess has {guess.size}")
    if guess.size and guess.dtype.kind not in "iub":
        raise ValueError(f"guesses must be integers, got dtype {guess.dtype}")
    known = true >= 0  # False for NaN
    truth, guess = true[known].astype(np.intp), guess[known]
    if not np.array_equal(truth, true[known]):
        raise ValueError("truth must hold whole numbers, or NaN where unlabelled")
    if guess.size and not 0 <= guess.min() <= guess.max() < n_classes:
        raise ValueError(
            f"guesses must be codes 0 to {n_classes - 1}, got {guess.min()} to "
            f"{guess.max()}"
        )
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
    counts = _checked(counts)
    hits = np.diag(counts).astype(float)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean of `iou_per_class` over the classes that occur in the truth.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.metrics import confusion, mean_iou
    >>> counts = confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3)
    >>> round(mean_iou(counts), 3)
    0.583
    """
    true = _checked(counts).sum(axis=1) > 0
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
        It can be passed to ``pandas.DataFrame``.
    """
    hits, true, guessed = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    names = [*classes, *["unseen"] * (len(counts) - len(classes))]
    return {
        "class": names,
        "iou": iou_per_class(counts).tolist(),
        "recall": ratio(hits, true).tolist(),
        "precision": ratio(hits, guessed).tolist(),
        "count": true.tolist(),
    }


def _checked(counts: Any) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(
            f"counts must be of shape (n_classes, n_classes), got {counts.shape}"
        )
    return counts


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN where the divisor is not positive."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
