"""Several independent L-BFGS minimisations that share each pass over the data.

Nocedal & Wright, *Numerical Optimization* (2nd ed.), algorithms 7.4 and 7.5, with
backtracking on the sufficient-decrease condition (3.4). The searches never exchange
anything, so a problem's path is the same alone or in company.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

__all__ = ["minimise_together"]

_MEMORY = 10
_DECREASE = 1e-4
_MAX_HALVINGS = 20

Evaluate = Callable[[dict[int, np.ndarray]], dict[int, tuple[float, np.ndarray]]]


class _Search:
    """One minimisation: where it is, where it goes next, when it is done."""

    def __init__(self, start: np.ndarray) -> None:
        self.x = self.trial = start
        self.loss = np.inf
        self.done = False
        self.n_iter = 0
        self._pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_MEMORY)
        self._gradient = self._direction = np.zeros_like(start)
        self._step, self._slope, self._halvings = 1.0, 0.0, 0

    def take(self, loss: float, gradient: np.ndarray, tol: float) -> None:
        """Accept or shorten the step, given what the trial point is worth."""
        first = not np.isfinite(self.loss)
        if not first and loss > self.loss + _DECREASE * self._step * self._slope:
            self._halvings += 1
            self._step /= 2
            self.done = self._halvings > _MAX_HALVINGS
            self.trial = self.x + self._step * self._direction
            return
        if not first:
            self.n_iter += 1
            moved, turned = self.trial - self.x, gradient - self._gradient
            curvature = float(moved @ turned)
            if curvature > 1e-12 * float(turned @ turned):
                self._pairs.append((moved, turned, curvature))
            self.done = self.loss - loss <= tol * max(abs(loss), 1e-6)
        self.x, self.loss, self._gradient = self.trial, loss, gradient
        self._direction = -self._times_inverse_hessian(gradient)
        self._slope = float(self._direction @ gradient)
        self.done |= self._slope >= -1e-14
        self._step, self._halvings = 1.0, 0
        self.trial = self.x + self._direction

    def _times_inverse_hessian(self, vector: np.ndarray) -> np.ndarray:
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


def minimise_together(
    evaluate: Evaluate,
    starts: list[np.ndarray],
    *,
    max_iter: int,
    tol: float,
    after_pass: Callable[[list[float]], None] = lambda losses: None,
) -> tuple[list[np.ndarray], list[int]]:
    """Minimise several functions, evaluating those still active in one call.

    Parameters
    ----------
    evaluate : callable
        Maps {problem: point} to {problem: (value, gradient)}.
    starts : list of ndarray
        One start a problem. Points should be scaled so that the Hessian is near the
        identity: the first step is tried at full length.
    max_iter : int
        Accepted steps a problem.
    tol : float
        A problem is done when a step lowers its value by less than this fraction.
    after_pass : callable
        Called with the values after each pass.

    Returns
    -------
    points : list of ndarray
    n_iter : list of int
    """
    searches = [_Search(start) for start in starts]
    for _ in range(max_iter + 1 + _MAX_HALVINGS):
        active = {
            i: s.trial
            for i, s in enumerate(searches)
            if not s.done and s.n_iter < max_iter
        }
        if not active:
            break
        for i, (loss, gradient) in evaluate(active).items():
            searches[i].take(loss, gradient, tol)
        after_pass([s.loss for s in searches])
    return [s.x for s in searches], [s.n_iter for s in searches]
