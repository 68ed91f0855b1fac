"""Ridge systems of scores with equal row weights, over all rows and by fold."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from mtsk.heads.statistics import Moments, inverse_std

__all__ = ["Block", "solve_penalised", "solve_ridge", "squared_error"]


def solve_ridge(
    moments: Moments, alphas: list[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (coef, intercept) for each penalty.

    Parameters
    ----------
    moments : Moments
    alphas : list of float
        Relative to the mean variance of standardised features, which is 1.

    Returns
    -------
    list of (ndarray of shape (d, k), ndarray of shape (k,))
    """
    covariance, cross = moments.covariance(), moments.cross_covariance()
    scale = inverse_std(np.diag(covariance), moments.x_mean)
    correlation = covariance * scale[:, None] * scale[None, :]
    out = []
    for alpha in alphas:
        inner = solve_penalised(correlation, alpha, cross * scale[:, None])
        coef = inner * scale[:, None]
        out.append((coef, moments.t_mean - moments.x_mean @ coef))
    return out


def solve_penalised(
    correlation: np.ndarray, alpha: float, right: np.ndarray
) -> np.ndarray:
    """Return (correlation + alpha · 1)⁻¹ right, of shape (d, k)."""
    system = correlation + alpha * np.eye(len(correlation))
    try:
        return cho_solve(cho_factor(system), right)
    except LinAlgError:  # rounding made a tiny penalty's system indefinite
        values, vectors = np.linalg.eigh(system)
        least = np.finfo(float).eps * len(values) * np.abs(values).max()
        kept = np.abs(values) > least  # the least solution, as of lstsq
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=kept)
        return vectors @ (inverse[:, None] * (vectors.T @ right))


def squared_error(
    moments: Moments, coef: np.ndarray, intercept: np.ndarray
) -> np.ndarray:
    """Return Σ w (t − xᵀ coef − intercept)², by target, from moments."""
    shift = intercept + moments.centre @ coef
    fitted = np.einsum("dk,de,ek->k", coef, moments.xx, coef, optimize=True)
    cross = (moments.xt * coef).sum(axis=0) + shift * moments.t_sum
    linear = shift * (moments.x_sum @ coef)
    total = moments.tt - 2 * cross + fitted + 2 * linear + moments.weight * shift**2
    return total


class Block:
    """Scores with equal row weights, which share one covariance matrix."""

    def __init__(
        self,
        X: np.ndarray,
        T: np.ndarray,
        W: np.ndarray,
        fold: np.ndarray,
        cols: np.ndarray,
    ) -> None:
        self.cols, self.fold = cols, fold.astype(np.int16)
        weight = W[:, cols[0]]
        self.folds = np.unique(fold[weight > 0])
        self.parts = [
            Moments.of(X, T[:, cols], np.where(fold == k, weight, 0.0))
            for k in self.folds
        ]
        self.whole = Moments.merge(self.parts)

    @property
    def nbytes(self) -> int:
        sums = sum(moments.xx.nbytes for moments in [self.whole, *self.parts])
        return sums + self.fold.nbytes

    def without(self, fold: int) -> Moments:
        """Return the moments of the other folds, or of all rows if there are none."""
        place = np.flatnonzero(self.folds == fold)
        leave = len(place) and len(self.parts) > 1
        return self.whole - self.parts[place[0]] if leave else self.whole

    def held_out(self, fold: int) -> Moments | None:
        """Return the moments of one fold; None where ``without`` omits no rows."""
        place = np.flatnonzero(self.folds == fold)
        return self.parts[place[0]] if len(place) and len(self.parts) > 1 else None

    def held_out_errors(self, alphas: list[float]) -> np.ndarray:
        """Return each score's held-out squared error, (alphas, scores)."""
        errors = np.zeros((len(alphas), len(self.cols)))
        if len(self.parts) < 2:
            return errors
        for part in self.parts:
            fits = solve_ridge(self.whole - part, alphas)
            errors += [squared_error(part, *fit) for fit in fits]
        return errors
