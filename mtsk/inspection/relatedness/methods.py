"""Measures of task relatedness: each computes a matrix from weighted rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtsk.heads import JointRidge, Moments, RelatedRidge
from mtsk.heads.blocks import solve_ridge
from mtsk.heads.class_weights import ClassWeight, class_weights
from mtsk.heads.from_sums import one_hot
from mtsk.heads.ridge import penalties
from mtsk.inspection.relatedness.sample import Sample
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = ["STATISTICS", "Fits", "Statistic", "joint_correlation"]

Statistic = Callable[[np.ndarray], np.ndarray]
"""From weights of rows to a matrix (T, T)."""


@dataclass(frozen=True)
class Fits:
    """Settings of the regressions; see the parameters of `TaskRelatedness`."""

    alpha: float | Sequence[float] | str
    share: float | Sequence[float] | str
    class_weight: ClassWeight
    n_folds: int

    def ridge(self, groups: list[ColumnGroup], alpha: Any) -> JointRidge:
        """Return an unfitted regression."""
        return JointRidge(
            alpha,
            class_weight=self.class_weight,
            calibrate=False,
            n_folds=self.n_folds,
            columns=groups,
        )

    def penalties(self, sample: Sample) -> list[float]:
        """Return each task's penalty, the best on held-out folds."""
        head = self.ridge(sample.groups, self.alpha)
        return head.fit(sample.X, sample.Y, groups=sample.fold).alpha_


def _blocks(S: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return ‖S_ij‖ / √(‖S_ii‖ ‖S_jj‖), signed where both tasks have one score."""
    norms = np.array([[_norm(S[np.ix_(a, b)]) for b in parts] for a in parts])
    own = np.diag(norms)
    scale = np.sqrt(np.outer(own, own))
    return np.divide(norms, scale, out=np.full_like(norms, np.nan), where=scale > 0)


def _norm(block: np.ndarray) -> float:
    return float(block[0, 0]) if block.size == 1 else float(np.linalg.norm(block))


def _by_weights(sample: Sample, fits: Fits) -> Statistic:
    penalties = fits.penalties(sample)
    table = labelled_columns(sample.groups)

    def statistic(weight: np.ndarray) -> np.ndarray:
        read = np.empty((len(sample.X), sum(g.size for g in sample.groups)))
        for alpha in set(penalties):
            own = [t for t, a in zip(table, penalties, strict=True) if a == alpha]
            columns = np.concatenate([np.r_[t[1]] for t in own])
            head = fits.ridge([t[0] for t in own], alpha)
            head.fit(sample.X, sample.Y[:, columns], sample_weight=weight)
            scores = np.concatenate([np.r_[t[2]] for t in own])
            read[:, scores] = sample.X @ head.coef_
        read -= np.average(read, axis=0, weights=weight)
        return _blocks(read.T @ (read * weight[:, None]), sample.parts)

    return statistic


def _by_covariance(sample: Sample, fits: Fits) -> Statistic:
    head = RelatedRidge(
        fits.alpha,
        share=fits.share,
        class_weight=fits.class_weight,
        calibrate=False,
        n_folds=fits.n_folds,
        columns=sample.groups,
    ).fit(sample.X, sample.Y, groups=sample.fold)
    alpha = float(np.exp(np.mean(np.log(head.alpha_))))
    head.set_params(alpha=alpha, share=head.share_)

    def statistic(weight: np.ndarray) -> np.ndarray:
        head.fit(sample.X, sample.Y, sample_weight=weight)
        return _blocks(head.covariance_, sample.parts)

    return statistic


class _HeldOut:
    """Scores of tasks from fits that left some folds out."""

    def __init__(self, sample: Sample, fits: Fits) -> None:
        self.sample, self.fits = sample, fits
        self.penalties = fits.penalties(sample)
        self.folds = np.unique(sample.fold)
        self._heads: dict[tuple[int, frozenset[int]], Any] = {}

    def head(self, task: int, without: frozenset[int]) -> Any:
        """Return a task's regression, fitted without some folds."""
        key = task, without
        if key not in self._heads:
            sample = self.sample
            group, columns, _ = labelled_columns(sample.groups)[task]
            rows = sample.known(task) & ~np.isin(sample.fold, list(without))
            head = self.fits.ridge([group], self.penalties[task])
            self._heads[key] = head.fit(sample.X[rows], sample.Y[rows, columns])
        return self._heads[key]

    def scores(self, task: int, without: int | None = None) -> np.ndarray:
        """Return scores of all rows, from fits without the row's fold and one more."""
        sample = self.sample
        out = np.empty((len(sample.X), sample.groups[task].size))
        for fold in self.folds:
            rows = sample.fold == fold
            left_out = frozenset({int(fold), int(fold if without is None else without)})
            out[rows] = self.head(task, left_out).decision_function(sample.X[rows])
        return out


def _by_residual(sample: Sample, fits: Fits) -> Statistic:
    held_out = _HeldOut(sample, fits)
    left: list[np.ndarray] = []
    for i, (group, columns, scores) in enumerate(labelled_columns(sample.groups)):
        own = sample.Y[:, columns]
        part = sample.parts[i] - scores.start
        residual = (one_hot(group, own) - held_out.scores(i))[:, part]
        missing = np.isnan(own) if group.kind != "nominal" else np.isnan(own[:, [0]])
        left.append(np.where(missing, np.nan, residual))

    def statistic(weight: np.ndarray) -> np.ndarray:
        out = np.ones((len(left), len(left)))
        for i, a in enumerate(left):
            for j, b in enumerate(left[:i]):
                out[i, j] = out[j, i] = joint_correlation(a, b, weight)
        return out

    return statistic


def joint_correlation(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    """Return the root of RV, or r, of two tables over the complete rows."""
    both = np.c_[a, b]
    rows = ~np.isnan(both).any(axis=1) & (weight > 0)
    if not rows.any():
        return float("nan")
    both, weight = both[rows], weight[rows]
    both = both - np.average(both, axis=0, weights=weight)
    S = both.T @ (both * weight[:, None])
    width = a.shape[1]
    parts = [np.arange(width), np.arange(width, both.shape[1])]
    return float(_blocks(S, parts)[0, 1])


def _by_transfer(sample: Sample, fits: Fits) -> Statistic:
    held_out = _HeldOut(sample, fits)
    tasks = range(len(sample.groups))
    losses: list[Any] = [0.0 for _ in tasks]
    for fold in held_out.folds:
        others = [held_out.scores(i, int(fold)) for i in tasks]
        table = np.concatenate([sample.X, *others], axis=1).astype(np.float32)
        for j in tasks:
            losses[j] = losses[j] + _held_out_losses(sample, fits, table, fold, j)
    each = np.stack(losses)
    best = each.sum(axis=3).argmin(axis=2)
    chosen = np.take_along_axis(each, best[..., None, None], axis=2)[:, :, 0]
    first = np.unique(sample.units, return_index=True)[1]

    def statistic(weight: np.ndarray) -> np.ndarray:
        loss = chosen @ weight[first]
        nothing = np.full((len(tasks), len(tasks)), np.nan)
        alone = loss[:, -1:]
        return 1 - np.divide(loss[:, :-1], alone, out=nothing, where=alone > 0).T

    return statistic


def _held_out_losses(
    sample: Sample, fits: Fits, table: np.ndarray, fold: int, task: int
) -> np.ndarray:
    """Return a task's losses on a fold, with each task's scores, and with none (last).

    Shape (n_tasks + 1, n_alphas, n_units), 0 outside the fold.
    """
    d, alphas = sample.X.shape[1], penalties(fits.alpha)
    group, columns, _ = labelled_columns(sample.groups)[task]
    targets, test = one_hot(group, sample.Y[:, columns]), sample.fold == fold
    ones = np.ones(sample.Y[:, columns].shape)
    entries = class_weights(group, sample.Y[:, columns], ones, fits.class_weight)
    offers = [s for _, _, s in labelled_columns(sample.groups)] + [slice(0, 0)]
    out = np.zeros((len(offers), len(alphas), len(sample.labelled)))
    for c, weight in enumerate(entries.T):
        own = targets if group.kind == "nominal" else targets[:, [c]]
        moments = Moments.of(table, own, np.where(test, 0.0, weight))
        for i, offer in enumerate(offers):
            some = np.r_[:d, d + np.r_[offer]].astype(int)
            rows = table[np.ix_(test, some)]
            for a, fit in enumerate(solve_ridge(_some(moments, some), alphas)):
                error = ((own[test] - rows @ fit[0] - fit[1]) ** 2).sum(axis=1)
                out[i, a] += np.bincount(
                    sample.units[test], weight[test] * error, out.shape[2]
                )
    return out


def _some(moments: Moments, features: np.ndarray) -> Moments:
    """Return the moments of some of the features."""
    return Moments(
        moments.centre[features],
        moments.weight,
        moments.x_sum[features],
        moments.xx[np.ix_(features, features)],
        moments.t_sum,
        moments.xt[features],
        moments.tt,
    )


STATISTICS: dict[str, Callable[[Sample, Fits], Statistic]] = {
    "weights": _by_weights,
    "transfer": _by_transfer,
    "covariance": _by_covariance,
    "residual": _by_residual,
}
