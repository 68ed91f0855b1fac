"""Weights of table entries and of classes, and what undoes them in probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import check_array

from mtsk._validation import Interval, StrOptions, check_sample_weight
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = [
    "CLASS_WEIGHT",
    "ClassWeight",
    "check_entry_weights",
    "class_power",
    "class_weights",
    "log_priors",
    "prior_corrections",
]

ClassWeight = Literal["sqrt", "balanced"] | float | None
CLASS_WEIGHT: list = [
    StrOptions({"sqrt", "balanced"}),
    Interval(Real, 0, 1, closed="both"),
    None,
]
"""What `class_weight` of a head may be."""


def check_entry_weights(sample_weight: Any, X: np.ndarray, n_columns: int) -> Any:
    """Return the weight of every entry of y, checked.

    Parameters
    ----------
    sample_weight : array-like of shape (n,) or (n, n_columns), or None
        Of rows, or of entries; None is 1.
    X : ndarray of shape (n, d)
    n_columns : int

    Returns
    -------
    ndarray of float64, shape (n, n_columns)
        Not to be written to.

    Raises
    ------
    ValueError
    """
    if sample_weight is None or np.asarray(sample_weight).ndim != 2:
        weight = check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        return np.broadcast_to(weight[:, None], (len(X), n_columns))
    weight = check_array(
        sample_weight,
        dtype=np.float64,
        ensure_non_negative=True,
        input_name="sample_weight",
    )
    if weight.shape != (len(X), n_columns):
        raise ValueError(
            f"sample_weight must have the shape of y, {(len(X), n_columns)}, or "
            f"{(len(X),)}, got {weight.shape}"
        )
    return weight


def class_power(class_weight: ClassWeight) -> float:
    """Return p, where classes of frequency f weigh ∝ f ** −p."""
    if isinstance(class_weight, str):
        return {"sqrt": 0.5, "balanced": 1.0}[class_weight]
    return 0.0 if class_weight is None else float(class_weight)


def class_weights(
    group: ColumnGroup, Y: np.ndarray, weight: np.ndarray, power: ClassWeight
) -> np.ndarray:
    """Return the weight of each entry, of mean 1 over the labelled ones, 0 elsewhere.

    An entry of a class with frequency f weighs ∝ f^−p, with p from `class_power`, times
    its own weight.

    Parameters
    ----------
    group : ColumnGroup
    Y : ndarray of shape (n, group.n_columns)
        Coded, NaN where missing.
    weight : ndarray of shape (n, group.n_columns)
    power : {"sqrt", "balanced"}, float in [0, 1] or None

    Returns
    -------
    ndarray of float64, shape (n, group.n_columns)
    """
    valid = ~np.isnan(Y)
    out = np.where(valid, weight, 0.0)
    if group.kind != "real":
        size = group.size if group.kind == "nominal" else 2
        for j in range(Y.shape[1]):
            code = np.where(valid[:, j], Y[:, j], 0).astype(np.intp)
            mass = np.bincount(code, out[:, j], minlength=size)
            share = np.where(mass > 0, mass / max(mass.sum(), 1e-300), 1.0)
            out[:, j] *= share[code] ** -class_power(power)
    total = out.sum(axis=0)
    return out * np.where(
        total > 0, valid.sum(axis=0) / np.where(total > 0, total, 1), 0
    )


def prior_corrections(
    groups: Sequence[ColumnGroup],
    Y: np.ndarray,
    weight: np.ndarray,
    class_weight: ClassWeight,
) -> np.ndarray:
    """Return what turns scores learnt with class weights into calibrated ones.

    A classifier learnt with weights w_k gives posteriors ∝ w_k p(k | x); with
    w_k ∝ f_k ** −p, adding p · log f_k to the scores undoes that (Elkan, *The
    foundations of cost-sensitive learning*, IJCAI 2001, theorem 2).

    Parameters
    ----------
    groups : sequence of ColumnGroup
    Y : ndarray of shape (n, n_columns)
        Coded, NaN where missing.
    weight : ndarray of shape (n, n_columns)
        Of entries.
    class_weight : {"sqrt", "balanced"}, float in [0, 1] or None

    Returns
    -------
    ndarray of float32, shape (n_scores,)
        0 for numbers, and for classes that do not occur.
    """
    power = class_power(class_weight)
    parts = []
    for group, columns, _ in labelled_columns(list(groups)):
        shares = np.stack(
            [
                _class_shares(group, column, mass)
                for column, mass in zip(
                    Y[:, columns].T, weight[:, columns].T, strict=True
                )
            ]
        )
        parts.append(power * log_priors(group, shares))
    return np.concatenate(parts).astype(np.float32)


def log_priors(group: ColumnGroup, shares: np.ndarray) -> np.ndarray:
    """Return the log frequency (odds, of labels) that belongs to each score of a group.

    Parameters
    ----------
    group : ColumnGroup
    shares : ndarray of shape (n_columns, n_classes)
        Frequencies; of numbers not looked at.

    Returns
    -------
    ndarray of shape (group.size,)
        0 for numbers, and for classes that do not occur.
    """
    if group.kind == "real":
        return np.zeros(group.size)
    logs = np.log(np.where(shares > 0, shares, 1.0))
    if group.kind == "nominal":
        return logs[0]
    return np.where((shares > 0).all(axis=1), logs[:, 1] - logs[:, 0], 0.0)


def _class_shares(group: ColumnGroup, y: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Return the frequency of each class in a column; 1 where it has none."""
    size = {"nominal": group.size, "binary": 2, "real": 1}[group.kind]
    if group.kind == "real":
        return np.ones(1)
    known = ~np.isnan(y)
    counts = np.bincount(y[known].astype(np.intp), mass[known], minlength=size)
    return counts / max(counts.sum(), 1e-300)
