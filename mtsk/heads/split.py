"""SplitHead: several joint heads, each of some of the column groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from mtsk._validation import parameter_error
from mtsk.heads.base import JointHead
from mtsk.heads.capabilities import Capabilities, capabilities_of
from mtsk.tasks.columns import ColumnGroup, column_slices, score_slices

__all__ = ["SplitHead"]


class SplitHead(JointHead):
    """Joint heads side by side: each learns some of the column groups together.

    Parameters
    ----------
    heads : sequence of estimator
        Joint heads, whose parameter ``columns`` is set.
    members : sequence of sequence of int
        The indices of the column groups that each head learns. Every group has one
        head.
    columns : list of ColumnGroup
        What the columns of ``y`` are.

    Attributes
    ----------
    heads_ : list of estimator
        Fitted.
    groups_ : list of ColumnGroup
    """

    def __init__(
        self,
        heads: Sequence[Any],
        members: Sequence[Sequence[int]],
        columns: Sequence[ColumnGroup] | None = None,
    ) -> None:
        self.heads = heads
        self.members = members
        self.columns = columns

    @property
    def capabilities(self) -> Capabilities:
        """What the heads can do together."""
        return Capabilities(is_joint=True, takes_groups=True, takes_entry_weights=True)

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Fit every head to its columns.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples, n_columns)
        sample_weight : array-like of shape (n_samples,) or as ``y``, default=None
        groups : array-like of shape (n_samples,), default=None
            For heads that take it: rows of one group, such as the pixels of one image.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError
            Where a column group has not one head.
        """
        X, Y, weight = self.check_table(X, y, sample_weight)
        given = [list(own) for own in self.members]
        if sorted(g for own in given for g in own) != list(range(len(self.groups_))):
            allowed = f"each of the {len(self.groups_)} column groups once"
            raise parameter_error("members", self, allowed, self.members)
        parts = column_slices(self.groups_)
        self.heads_ = []
        for head, own in zip(self.heads, given, strict=True):
            able = capabilities_of(head) or Capabilities()
            columns = np.concatenate([np.r_[parts[g]] for g in own])
            extra: dict[str, Any] = {}
            if sample_weight is not None:
                entries = weight[:, columns]
                extra["sample_weight"] = (
                    entries if able.takes_entry_weights else entries.max(axis=1)
                )
            if groups is not None and able.takes_groups:
                extra["groups"] = groups
            fitted = clone(head).set_params(columns=[self.groups_[g] for g in own])
            self.heads_.append(fitted.fit(X, Y[:, columns], **extra))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of every group, side by side.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of float32, shape (n_samples, n_scores)
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float32, order="C")
        return self._joined([head.decision_function(X) for head in self.heads_])

    def to_torch(self) -> nn.Module:
        """Return a network that maps rows to scores as `decision_function` does.

        Returns
        -------
        torch.nn.Module
        """
        check_is_fitted(self)
        n_scores = sum(group.size for group in self.groups_)
        order = np.arange(n_scores, dtype=np.float32)
        parts = score_slices(self.groups_)
        given = np.concatenate([order[parts[g]] for own in self.members for g in own])
        return _SideBySide(
            [head.to_torch() for head in self.heads_],
            torch.from_numpy(given.argsort()),
        )

    @property
    def prior_corrections(self) -> np.ndarray:
        """What is added to scores before they become probabilities, (n_scores,)."""
        return self._joined(
            [
                np.broadcast_to(
                    head.prior_corrections, sum(g.size for g in head.groups_)
                )
                for head in self.heads_
            ]
        )

    def _joined(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Put the heads' scores, along the last axis, in the order of the groups."""
        parts = score_slices(self.groups_)
        shape = (*scores[0].shape[:-1], parts[-1].stop)
        out = np.empty(shape, np.float32)
        for own, found in zip(self.members, scores, strict=True):
            start = 0
            for g in own:
                size = self.groups_[g].size
                out[..., parts[g]] = found[..., start : start + size]
                start += size
        return out


class _SideBySide(nn.Module):
    """Networks of the same rows, whose scores are put in another order."""

    order: torch.Tensor

    def __init__(self, heads: Sequence[nn.Module], order: torch.Tensor) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.register_buffer("order", order)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([head(rows) for head in self.heads], -1)[..., self.order]
