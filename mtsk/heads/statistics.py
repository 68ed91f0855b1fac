"""Weighted second moments of a table, mergeable in any order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Self

import numpy as np
from scipy.linalg.blas import ssyrk

__all__ = ["Moments", "inverse_std", "mean_and_variance"]

_ADDED = ("weight", "x_sum", "xx", "t_sum", "xt", "tt")
_BLOCK = 8192  # rows of a float32 product before it is added up in float64
_SIDE = 128  # of blocks that are transposed within the cache


@dataclass
class Moments:
    """Weight, means, and second moments about a provisional centre.

    For rows x, targets t and weights w, with a centre c near the mean:
    ``weight`` = Σ w, ``x_sum`` = Σ w (x − c), ``xx`` = Σ w (x − c)(x − c)ᵀ,
    ``t_sum`` = Σ w t, ``xt`` = Σ w (x − c) tᵀ, ``tt`` = Σ w t². Products are made in
    float32 blocks and added up in float64: without centring, float32 gave negative
    eigenvalues.

    Attributes
    ----------
    centre : ndarray of shape (d,)
    weight : float
    x_sum : ndarray of shape (d,)
    xx : ndarray of shape (d, d)
    t_sum, tt : ndarray of shape (k,)
    xt : ndarray of shape (d, k)
    """

    centre: np.ndarray
    weight: float
    x_sum: np.ndarray
    xx: np.ndarray
    t_sum: np.ndarray
    xt: np.ndarray
    tt: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, T: np.ndarray, w: np.ndarray) -> Self:
        """Return the moments of a table.

        Parameters
        ----------
        X : ndarray of float32, shape (n, d)
        T : ndarray of shape (n, k)
        w : ndarray of shape (n,)
            At least 0; rows of weight 0 are not read.

        Returns
        -------
        Moments
        """
        rows = np.flatnonzero(w > 0)
        d, k = X.shape[1], T.shape[1]
        # Exactly the float32 numbers that are subtracted from the rows below.
        centre = X[rows[:_BLOCK]].mean(axis=0).astype(np.float32).astype(np.float64)
        out = cls(
            centre,
            float(w[rows].sum()),
            np.zeros(d),
            np.zeros((d, d)),
            np.zeros(k),
            np.zeros((d, k)),
            np.zeros(k),
        )
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            out._add(X[some], T[some].astype(np.float64), w[some])
        _mirror(out.xx)
        return out

    def _add(self, x: np.ndarray, t: np.ndarray, w: np.ndarray) -> None:
        root = np.sqrt(w)
        scaled = (x - self.centre.astype(np.float32)) * root[:, None].astype(np.float32)
        self.xx += ssyrk(1.0, scaled.T, lower=0)
        self.x_sum += root @ scaled
        self.xt += scaled.T @ (t * root[:, None]).astype(np.float32)
        self.t_sum += w @ t
        self.tt += w @ t**2

    @property
    def x_mean(self) -> np.ndarray:
        """Weighted mean of the rows."""
        return self.centre + self.x_sum / self.weight

    @property
    def t_mean(self) -> np.ndarray:
        """Weighted mean of the targets."""
        return self.t_sum / self.weight

    def variance(self) -> np.ndarray:
        """Return the (d,) diagonal of the covariance."""
        return np.diag(self.xx) / self.weight - (self.x_sum / self.weight) ** 2

    def covariance(self) -> np.ndarray:
        """Return the (d, d) weighted covariance (divisor: the weight)."""
        mean = self.x_sum / self.weight
        return self.xx / self.weight - np.outer(mean, mean)

    def cross_covariance(self) -> np.ndarray:
        """Return the (d, k) weighted covariance of rows and targets."""
        return self.xt / self.weight - np.outer(self.x_sum / self.weight, self.t_mean)

    def moved_to(self, centre: np.ndarray) -> Moments:
        """Return the same moments about another centre (the parallel-axis rule)."""
        return Moments(centre, *self._about(centre))

    def _about(self, centre: np.ndarray) -> tuple:
        """Return all fields except the centre, about another centre."""
        shift = self.centre - centre
        if not shift.any():
            return tuple(getattr(self, name) for name in _ADDED)
        return (
            self.weight,
            self.x_sum + self.weight * shift,
            self._xx_about(shift),
            self.t_sum,
            self.xt + np.outer(shift, self.t_sum),
            self.tt,
        )

    def _xx_about(self, shift: np.ndarray) -> np.ndarray:
        """Return ``xx`` about a shifted centre; exactly symmetric."""
        out = np.empty_like(self.xx)
        half = self.x_sum + self.weight / 2 * shift
        for start in range(0, len(out), _SIDE):
            here, on = slice(start, start + _SIDE), slice(start, None)
            block = np.outer(half[here], shift[on])
            block += np.outer(shift[here], half[on])
            np.add(block, self.xx[here, on], out=out[here, on])
        _mirror(out)
        return out

    def times(self, factor: float) -> Moments:
        """Return the moments with every weight multiplied."""
        return Moments(self.centre, *(getattr(self, n) * factor for n in _ADDED))

    def __add__(self, other: Moments) -> Moments:
        more = zip(_ADDED, other._about(self.centre), strict=True)
        return Moments(self.centre, *(getattr(self, name) + m for name, m in more))

    def __sub__(self, other: Moments) -> Moments:
        return self + other.times(-1)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle only half of the symmetric ``xx``, to halve transfers from workers."""
        upper = [row[i:] for i, row in enumerate(self.xx)]
        return {**vars(self), "xx": np.concatenate(upper)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        d = len(self.centre)
        self.xx = np.empty((d, d))
        ends = np.cumsum(np.arange(d, 0, -1))
        for i, (row, end) in enumerate(zip(self.xx, ends, strict=True)):
            row[i:] = state["xx"][end - (d - i) : end]
        _mirror(self.xx)

    @staticmethod
    def merge(parts: list[Moments]) -> Moments:
        """Return the moments of the rows of all parts."""
        return reduce(Moments.__add__, parts)


def _mirror(square: np.ndarray) -> None:
    """Copy the upper triangle to the lower one, by blocks, in place."""
    for start in range(0, len(square), _SIDE):
        here, after = slice(start, start + _SIDE), slice(start + _SIDE, None)
        square[after, here] = square[here, after].T
        block = square[here, here]
        rows, columns = np.tril_indices(len(block), -1)
        block[rows, columns] = block[columns, rows]


def mean_and_variance(X: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean and variance of each feature.

    Parameters
    ----------
    X : ndarray of float32, shape (n, d)
    w : ndarray of shape (n,)
        At least 0; rows of weight 0 are not read.

    Returns
    -------
    mean, variance : ndarray of float64, shape (d,)
    """
    rows = np.flatnonzero(w > 0)
    centre = X[rows[:_BLOCK]].mean(axis=0).astype(np.float32)
    sums, squares = np.zeros((2, X.shape[1]))
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        weight = w[some].astype(np.float32)
        centred = X[some] - centre
        sums += weight @ centred
        squares += weight @ np.square(centred, out=centred)
    shift = sums / w[rows].sum()
    return centre + shift, (squares / w[rows].sum() - shift**2).clip(min=0)


def inverse_std(variance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return 1/std of each feature, and 0 where it varies no more than by rounding.

    Parameters
    ----------
    variance, mean : ndarray of shape (d,)

    Returns
    -------
    ndarray of shape (d,)
    """
    floor = (1e-6 * (np.abs(mean) + 1e-12)) ** 2
    return np.where(variance > floor, 1 / np.sqrt(np.maximum(variance, floor)), 0.0)
