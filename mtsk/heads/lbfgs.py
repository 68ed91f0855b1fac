"""The two parts of an L-BFGS step: a direction, and how far to go along it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

__all__ = ["InverseHessian", "distance_along"]

_MEMORY = 10  # pairs kept
_FLAT = 0.1  # share of the slope at the start that may be left at the end
_MAX_TRIALS = 8


class InverseHessian:
    """An approximate inverse Hessian from the last steps.

    The two-loop recursion (Nocedal & Wright, *Numerical Optimization*, 2nd ed.,
    algorithm 7.4, with the scaling of equation 7.20).
    """

    def __init__(self) -> None:
        self._pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_MEMORY)

    def learn(self, moved: np.ndarray, turned: np.ndarray) -> None:
        """Take in a step and the change of the gradient over it.

        Parameters
        ----------
        moved, turned : ndarray of shape (n,)
        """
        curvature = float(moved @ turned)
        if curvature > 1e-12 * float(turned @ turned):
            self._pairs.append((moved, turned, curvature))

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Return the product with a vector.

        Parameters
        ----------
        vector : ndarray of shape (n,)

        Returns
        -------
        ndarray of shape (n,)
        """
        out, shares = vector.copy(), []
        for moved, turned, curvature in reversed(self._pairs):
            share = float(moved @ out) / curvature
            out -= share * turned
            shares.append(share)
        if self._pairs:
            moved, turned, curvature = self._pairs[-1]
            out *= curvature / float(turned @ turned)
        for (moved, turned, curvature), share in zip(
            self._pairs, reversed(shares), strict=True
        ):
            out += (share - float(turned @ out) / curvature) * moved
        return out


def distance_along(slope_at: Callable[[float], float], slope: float) -> float:
    """Return about where a convex function is least on a ray.

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
    for _ in range(_MAX_TRIALS):
        here = slope_at(distance)
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
    return distance
