"""Losses of column groups, and those of the null model."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from mtsk.tasks.columns import ColumnGroup

__all__ = ["each_loss", "null_loss", "prior_of"]

_LEAST = 1e-3  # of a null model's loss: a task with one class must not divide by 0


def each_loss(
    group: ColumnGroup, scores: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Return the loss of each entry: cross-entropy, or half the squared error.

    Parameters
    ----------
    group : ColumnGroup
    scores : tensor of shape (n, group.size)
    target : tensor of shape (n, group.n_columns)
        Codes, or standardised numbers.

    Returns
    -------
    tensor of shape (n, group.n_columns)
    """
    if group.kind == "nominal":
        codes = target[:, 0].long()
        return functional.cross_entropy(scores, codes, reduction="none")[:, None]
    if group.kind == "binary":
        return functional.binary_cross_entropy_with_logits(
            scores, target, reduction="none"
        )
    return (scores - target) ** 2 / 2


def prior_of(group: ColumnGroup, target: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Return the share of each class in each column, weighted.

    Parameters
    ----------
    group : ColumnGroup
        Nominal or binary; numbers have no prior.
    target, mass : ndarray of shape (n, group.n_columns)
        Codes (arbitrary where missing) and weights (0 where missing).

    Returns
    -------
    ndarray of shape (n_columns, n_classes)
        Shares that sum to 1 over all columns.
    """
    if group.kind == "real":
        return np.ones((group.size, 1)) / group.size
    n_classes = group.size if group.kind == "nominal" else 2
    counts = [
        np.bincount(codes.astype(np.intp), own, minlength=n_classes)
        for codes, own in zip(target.T, mass.T, strict=True)
    ]
    return np.stack(counts) / mass.sum()


def null_loss(group: ColumnGroup, prior: np.ndarray) -> float:
    """Return the mean loss of predicting the prior, at least 1e-3.

    Parameters
    ----------
    group : ColumnGroup
    prior : ndarray of shape (n_columns, n_classes)
        As `prior_of` gives it.

    Returns
    -------
    float
        The entropy of the classes, given the column; ½ for standardised numbers.
    """
    if group.kind == "real":
        return 0.5
    share = prior / np.maximum(prior.sum(axis=1, keepdims=True), 1e-300)
    return max(_LEAST, float(-(prior * np.log(share.clip(1e-12))).sum()))
