"""Second derivatives of a multinomial objective, estimated from a sample of rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mtsk.heads.products import TallTable

__all__ = ["SampledHessian", "stratified_rows"]

_MOST_STEPS = 15  # of conjugate gradients
_LEFT = 0.1  # relative residual that ends them earlier
_FLAT = 1e-7  # relative to the diagonal's curvature: no more than rounding


class SampledHessian:
    """The Hessian of a multinomial objective with a penalty, over a sample of rows.

    A product with it costs a fraction of a pass over all rows, so that systems can be
    solved with it at every step: subsampled Newton (Byrd, Chin, Neveitt & Nocedal, SIAM
    J. Optim. 21, 2011, §2), which here starts the recursion of L-BFGS.

    Parameters
    ----------
    rows : TallTable
        The sample, standardised and along the axes of the search, (m, r).
    mass : ndarray of shape (m,)
        Weights of the rows, of sum 1.
    alpha : float
    size : int
        Classes.
    """

    def __init__(
        self, rows: TallTable, mass: np.ndarray, alpha: float, size: int
    ) -> None:
        self.rows, self.alpha, self.size = rows, alpha, size
        self.mass = torch.from_numpy(mass.astype(np.float32))[:, None]

    def move_to(self, point: np.ndarray) -> None:
        """Set the point at which derivatives are evaluated."""
        self._probability = torch.softmax(self._scores(point), dim=1)

    def _scores(self, point: np.ndarray) -> torch.Tensor:
        weights = point[: -self.size].reshape(-1, self.size)
        intercept = torch.from_numpy(point[-self.size :].astype(np.float32))
        return self.rows.times(weights).add_(intercept)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Return the product with a vector of weights and intercepts."""
        change = self._probability * self._scores(vector)
        change -= self._probability * change.sum(dim=1, keepdim=True)
        change *= self.mass
        by_weights = self.rows.transposed_times(change).ravel()
        by_weights += self.alpha * vector[: -self.size]
        by_score = change.sum(dim=0, dtype=torch.float64).numpy()
        return np.concatenate([by_weights, by_score])

    def solve(
        self,
        vector: np.ndarray,
        diagonal: np.ndarray,
        project: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Return the approximate product of the inverse with a vector.

        By conjugate gradients (Nocedal & Wright, algorithm 5.3), until a tenth of the
        residual is left, for 15 steps, or until a direction has no curvature. At
        least the product with the diagonal is returned.

        Parameters
        ----------
        vector : ndarray of shape (n,)
        diagonal : ndarray of shape (n,)
            Approximate inverse second derivatives.
        project : callable
            Projection onto the subspace of the solution.

        Returns
        -------
        ndarray of shape (n,)
        """
        solution, residual = np.zeros_like(vector), project(vector)
        scaled = project(diagonal * residual)
        direction, left = scaled, float(residual @ scaled)
        enough = _LEFT**2 * left
        for _ in range(_MOST_STEPS):
            if left <= enough:
                break
            image = project(self.times(direction))
            curvature = float(direction @ image)
            if not curvature > _FLAT * float(direction @ (direction / diagonal)):
                break  # zero curvature, or negative by rounding
            distance = left / curvature
            solution += distance * direction
            residual = residual - distance * image
            scaled = project(diagonal * residual)
            before, left = left, float(residual @ scaled)
            direction = scaled + left / before * direction
        return solution if solution.any() else diagonal * vector


def stratified_rows(
    codes: np.ndarray, mass: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a sample of rows balanced by class, and their weights.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        Class of each row.
    mass : ndarray of shape (n,)
        Weights of rows, of sum 1; rows of weight 0 are left out.
    most : int
        Rows of all classes together, up to twice this.

    Returns
    -------
    rows : ndarray of int, shape (m,)
    mass : ndarray of shape (m,)
        Of sum 1; each class keeps the total weight of its rows.
    """
    known = np.flatnonzero(mass > 0)
    classes = np.unique(codes[known])
    rows, weights = [], []
    for code in classes:
        own = known[codes[known] == code]
        some = own[:: max(1, len(own) * len(classes) // most)]
        rows.append(some)
        weights.append(mass[some] * (mass[own].sum() / mass[some].sum()))
    order = np.argsort(np.concatenate(rows))
    return np.concatenate(rows)[order], np.concatenate(weights)[order]
