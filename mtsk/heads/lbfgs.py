"""The two parts of an L-BFGS step: direction and line search."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

__all__ = ["InverseHessian", "distance_along"]

_MEMORY = 60  # pairs kept: against 10, a third fewer steps on the tables of shared/data
_FLAT = 0.1  # share of the initial slope at which the line search ends
_MAX_TRIALS = 8


class InverseHessian:
    """Approximate inverse Hessian from the last steps and an initial estimate.

    The two-loop recursion (Nocedal & Wright, *Numerical Optimization*, 2nd ed.,
    algorithm 7.4), where the initial estimate may change at every step.
    """

    def __init__(self) -> None:
        self._pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_MEMORY)

    def update(self, step: np.ndarray, change: np.ndarray) -> None:
        """Record a step and the change of the gradient over it.

        Parameters
        ----------
        step, change : ndarray of shape (n,)
        """
        curvature = float(step @ change)
        if curvature > 1e-12 * float(np.abs(step).max() * np.abs(change).max()):
            self._pairs.append((step, change, curvature))

    def times(
        self, vector: np.ndarray, start: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Return the product with a vector.

        Parameters
        ----------
        vector : ndarray of shape (n,)
        start : callable
            Multiplies a vector by the initial estimate of the inverse Hessian.

        Returns
        -------
        ndarray of shape (n,)
        """
        out, shares = vector.copy(), []
        for step, change, curvature in reversed(self._pairs):
            share = float(step @ out) / curvature
            out -= share * change
            shares.append(share)
        out = start(out)
        for (step, change, curvature), share in zip(
            self._pairs, reversed(shares), strict=True
        ):
            out += (share - float(change @ out) / curvature) * step
        return out

    def scale_of(self, diagonal: np.ndarray) -> float:
        """Return the scale factor of a diagonal initial estimate.

        Equation 7.20, in the metric of the diagonal.

        Parameters
        ----------
        diagonal : ndarray of shape (n,)

        Returns
        -------
        float
        """
        if not self._pairs:
            return 1.0
        _, change, curvature = self._pairs[-1]
        return curvature / float(change @ (diagonal * change))


def distance_along(slope_at: Callable[[float], float], slope: float) -> float:
    """Return the approximate minimiser of a convex function on a ray.

    The root of its slope is bracketed by doubling, then narrowed by regula falsi in
    the Illinois variant (Dowell & Jarratt, BIT 11, 1971), until a tenth of the slope
    at 0 is left.

    Parameters
    ----------
    slope_at : callable
        The slope at a distance > 0.
    slope : float
        The slope at 0, negative.

    Returns
    -------
    float
        A distance > 0.
    """
    low, low_slope, distance = 0.0, slope, 1.0
    high: float | None = None
    high_slope, side = 0.0, 0
    best, flattest = 1.0, np.inf
    for _ in range(_MAX_TRIALS):
        here = slope_at(distance)
        if abs(here) < flattest:
            best, flattest = distance, abs(here)
        if abs(here) <= _FLAT * abs(slope):
            break
        if here < 0:
            low, low_slope = distance, here
            high_slope = high_slope / 2 if side < 0 else high_slope
            side = -1
        else:
            high, high_slope = distance, here
            low_slope = low_slope / 2 if side > 0 else low_slope
            side = 1
        if high is None:
            distance *= 2
        else:
            distance = (low * high_slope - high * low_slope) / (high_slope - low_slope)
    return best
