"""SharingRidge: ridge regressions with a chosen strength of sharing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtsk._validation import SequenceOf, StrOptions, check_parameters
from mtsk.heads.blocks import Block, solve_penalised
from mtsk.heads.calibration import relative_loss
from mtsk.heads.ridge import JointRidge
from mtsk.heads.statistics import Moments, inverse_std
from mtsk.tasks.columns import labelled_columns

__all__ = ["Equations", "SharingRidge", "separate_weights"]

_COMPARED = 20_000  # rows on which strengths are compared
_ROUNDING = 1e-6  # relative: sums are made of float32 products


@dataclass
class Equations:
    """The normal equations of the targets that are labelled on the same rows.

    ``correlation @ v = cross`` is least squares without a penalty, for weights v on
    standardised features, in units of each target's standard deviation.

    Attributes
    ----------
    correlation : ndarray of shape (d, d)
        Correlation matrix of the features.
    cross : ndarray of shape (d, k)
        Covariance of standardised features and targets in their units.
    cols : ndarray of int, shape (k,)
        Indices of the targets.
    x_mean, x_scale : ndarray of shape (d,)
        Mean and 1/std of each feature; 0 where it is constant.
    t_mean, t_std : ndarray of shape (k,)
        Mean and unit of each target.
    """

    correlation: np.ndarray
    cross: np.ndarray
    cols: np.ndarray
    x_mean: np.ndarray
    x_scale: np.ndarray
    t_mean: np.ndarray
    t_std: np.ndarray

    @classmethod
    def of(cls, moments: Moments, cols: np.ndarray) -> Equations:
        """Return the equations of the moments of some rows."""
        scale, std = _units(moments)
        return cls(
            moments.covariance() * scale[:, None] * scale[None, :],
            moments.cross_covariance() * scale[:, None] / std,
            cols,
            moments.x_mean,
            scale,
            moments.t_mean,
            std,
        )

    def on_x(self, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (coef, intercept) on x and in the targets' units, from (d, k)."""
        coef = V * self.x_scale[:, None] * self.t_std
        return coef, self.t_mean - self.x_mean @ coef


def _units(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's 1/std and each target's std; 0 and 1 where constant."""
    variance = moments.tt / moments.weight - moments.t_mean**2
    std = np.where(variance > 1e-12, np.sqrt(variance.clip(min=1e-12)), 1.0)
    return inverse_std(moments.variance(), moments.x_mean), std


def separate_weights(equations: Sequence[Equations], alphas: np.ndarray) -> np.ndarray:
    """Return the weights without sharing, (d, T)."""
    V = np.empty((len(equations[0].correlation), len(alphas)))
    for system in equations:
        own = alphas[system.cols]
        for alpha in np.unique(own):
            some = own == alpha
            V[:, system.cols[some]] = solve_penalised(
                system.correlation, alpha, system.cross[:, some]
            )
    return V


class SharingRidge(JointRidge):
    """Base of the ridge regressions with sharing between scores.

    With V the weights on standardised features, one column per score in units of its
    target's standard deviation, ``_shared_weights`` of a subclass minimises ::

        Σ_t mean_t(w (t − x̃ᵀv_t − b_t)²) + Σ_t alpha_t ‖v_t‖²

    under its form of sharing, for each value of the parameter that ``_SHARING`` names.
    Of several values, the one with the least loss on held-out folds is chosen:
    cross-entropy, of scores calibrated there, for classes and labels, squared error for
    numbers, each relative to the loss of the prior. Without sharing, the fit is exactly
    that of `JointRidge`.
    """

    _SHARING: ClassVar[str]
    _ONE_VALUE: ClassVar[Any]  # what one value of that parameter may be

    def _strengths(self, n_scores: int) -> list[Any]:
        """Return the values to compare, the one that shares least first."""
        raise NotImplementedError

    def _shares_nothing(self, strength: Any, n_scores: int) -> bool:
        return strength == 0

    def _shared_weights(
        self, equations: Sequence[Equations], alphas: np.ndarray, strengths: list[Any]
    ) -> list[np.ndarray]:
        """Return V, of shape (d, T), for each strength."""
        raise NotImplementedError

    def _describe(self, V: np.ndarray) -> None:
        """Set the attributes that describe the sharing."""
        raise NotImplementedError

    def chosen_parameters(self) -> dict[str, Any]:
        """Return the parameters that give another fit the same sharing strength.

        Returns
        -------
        dict
        """
        return {self._SHARING: getattr(self, f"{self._SHARING}_")}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        allowed = [self._ONE_VALUE, SequenceOf(self._ONE_VALUE), StrOptions({"cv"})]
        check_parameters(self, {self._SHARING: allowed})

    def _compares(self, alphas: list[float]) -> bool:
        n_scores = sum(group.size for group in self.groups_)
        return super()._compares(alphas) or len(self._strengths(n_scores)) > 1

    def _prepare_sharing(
        self,
        X: np.ndarray,
        T: np.ndarray,
        W: np.ndarray,
        blocks: list[Block],
        alphas: np.ndarray,
    ) -> None:
        """Choose the strength on held-out folds; ties go to the least sharing."""
        strengths = self._strengths(len(alphas))
        chosen = strengths[0]
        if len(strengths) > 1 and any(len(block.folds) > 1 for block in blocks):
            losses = self._held_out_losses(X, T, W, blocks, alphas, strengths)
            least = np.min(losses)
            equal = losses <= least + _ROUNDING * abs(least)
            chosen = strengths[int(np.argmax(equal))]
        setattr(self, f"{self._SHARING}_", chosen)

    def _held_out_losses(
        self,
        X: np.ndarray,
        T: np.ndarray,
        W: np.ndarray,
        blocks: list[Block],
        alphas: np.ndarray,
        strengths: list[Any],
    ) -> np.ndarray:
        """Return each strength's held-out loss, summed over columns."""
        some = _spread(np.flatnonzero(W.any(axis=1)))
        scores = np.zeros((len(strengths), len(some), len(alphas)), np.float32)
        judged = np.zeros(len(alphas), bool)
        for fold in np.unique(np.concatenate([block.folds for block in blocks])):
            parts = [Equations.of(block.without(fold), block.cols) for block in blocks]
            for i, V in enumerate(self._shared_weights(parts, alphas, strengths)):
                for system, block in zip(parts, blocks, strict=True):
                    if block.held_out(fold) is None:
                        continue
                    rows = np.flatnonzero(block.fold[some] == fold)
                    coef, intercept = system.on_x(V[:, block.cols])
                    found = X[some[rows]] @ coef.astype(np.float32) + intercept
                    scores[i][np.ix_(rows, block.cols)] = found
                    judged[block.cols] = True
        losses = np.zeros(len(strengths))
        for group, _, own in labelled_columns(self.groups_):
            nominal = group.kind == "nominal"
            for start in range(own.start, own.stop, group.size if nominal else 1):
                part = slice(start, start + (group.size if nominal else 1))
                target = T[some, part]
                about = target.argmax(axis=1) if nominal else target[:, 0]
                for i in range(len(strengths) if judged[start] else 0):
                    losses[i] += relative_loss(
                        group.kind, scores[i][:, part], about, W[some, start]
                    )
        return losses

    def _solve(
        self, parts: Sequence[tuple[Moments, np.ndarray]], alphas: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        strengths = self._strengths(len(alphas))
        if len(strengths) == 1:  # partial_fit has prepared nothing
            setattr(self, f"{self._SHARING}_", strengths[0])
        strength = getattr(self, f"{self._SHARING}_")
        if self._shares_nothing(strength, len(alphas)):
            coef, intercept = super()._solve(parts, alphas)
            self._describe(_on_standardised(coef, parts))
            return coef, intercept
        equations = [Equations.of(*part) for part in parts]
        (V,) = self._shared_weights(equations, alphas, [strength])
        self._describe(V)
        coef, intercept = np.empty_like(V), np.empty(len(alphas))
        for system in equations:
            own = system.cols
            coef[:, own], intercept[own] = system.on_x(V[:, own])
        return coef, intercept


def _spread(rows: np.ndarray) -> np.ndarray:
    """Return an evenly spaced subset of many rows."""
    return rows[:: -(-len(rows) // _COMPARED)]


def _on_standardised(
    coef: np.ndarray, parts: Sequence[tuple[Moments, np.ndarray]]
) -> np.ndarray:
    """Return V for weights on x in the targets' units."""
    V = np.zeros_like(coef)
    for moments, cols in parts:
        scale, target_std = _units(moments)
        std = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0.0)
        V[:, cols] = coef[:, cols] * std[:, None] / target_std
    return V
