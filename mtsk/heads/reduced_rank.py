"""ReducedRankRidge: ridge regressions that read a few shared directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg

from mtsk._validation import Interval
from mtsk.heads.base import ClassWeight
from mtsk.heads.sharing_ridge import Equations, SharingRidge, separate_weights
from mtsk.tasks.columns import ColumnGroup

__all__ = ["ReducedRankRidge", "reduced_rank_weights"]

_MAX_TURNS, _MAX_STEPS = 50, 20
_LEAST_ALPHA = 1e-4  # of the preconditioner, whose Cholesky factor must exist


def reduced_rank_weights(
    equations: Sequence[Equations],
    alphas: np.ndarray,
    ranks: Sequence[int],
    tol: float = 1e-5,
) -> list[np.ndarray]:
    """Return V of each rank: in closed form, or from there by alternating.

    With H = C + alpha, the penalised error is ‖V − V°‖² in the metric of H, up to a
    constant, where V° is the separate fit. With one H for all targets, the best V is
    V° P Pᵀ, with P the leading eigenvectors of V°ᵀ H V° (Mukherjee & Zhu, 2011).

    Parameters
    ----------
    equations : sequence of Equations
    alphas : ndarray of shape (T,)
        Penalty of each target.
    ranks : sequence of int
    tol : float, default=1e-5
        Relative gain in explained variance at which turns end.

    Returns
    -------
    list of ndarray of shape (d, T)
    """
    separate = separate_weights(equations, alphas)
    mean = _mean_system(equations, alphas)
    axes = np.linalg.eigh(separate.T @ (mean @ separate))[1][:, ::-1]
    alike = len(equations) == 1 and (alphas == alphas[0]).all()
    turns = None if alike else _Turns(equations, alphas, mean, tol)
    out = []
    for rank in ranks:
        A, B = separate @ axes[:, :rank], axes[:, :rank].T
        if rank >= min(separate.shape):
            out.append(separate)
        else:
            out.append(A @ B if turns is None else turns.run(A, B))
    return out


def _mean_system(equations: Sequence[Equations], alphas: np.ndarray) -> np.ndarray:
    """Return H, averaged over targets; of penalties, the geometric mean."""
    mean = np.zeros_like(equations[0].correlation)
    for system in equations:
        mean += len(system.cols) / len(alphas) * system.correlation
    mean[np.diag_indices_from(mean)] += np.exp(np.log(alphas).mean())
    return mean


class _Turns:
    """Alternating least squares on V = A B: the shared layer, then each target's.

    Parameters
    ----------
    equations : sequence of Equations
    alphas : ndarray of shape (T,)
    mean : ndarray of shape (d, d)
        H, averaged over targets: the preconditioner.
    tol : float
    """

    def __init__(
        self,
        equations: Sequence[Equations],
        alphas: np.ndarray,
        mean: np.ndarray,
        tol: float,
    ) -> None:
        self.equations, self.alphas, self.tol = equations, alphas, tol
        self.cross = np.empty((len(mean), len(alphas)))
        for system in equations:
            self.cross[:, system.cols] = system.cross
        self.factor = cho_factor(mean + _LEAST_ALPHA * np.eye(len(mean)))

    def run(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Return V once turns explain no more."""
        before = -np.inf
        for _ in range(_MAX_TURNS):
            A = np.linalg.qr(A)[0]
            B = self.targets_step(A)
            V = A @ B
            explained = float((V * self.cross).sum())
            if explained - before <= self.tol * explained:
                break
            before = explained
            turned, triangle = np.linalg.qr(B.T)
            A = self.layer_step(A @ triangle.T, turned.T)
        return V

    def targets_step(self, A: np.ndarray) -> np.ndarray:
        """Return the best B of an A with orthonormal columns, (r, T)."""
        right = A.T @ self.cross
        B = np.empty_like(right)
        for system in self.equations:
            gram = A.T @ (system.correlation @ A)
            for t in system.cols:
                penalised = gram + self.alphas[t] * np.eye(len(gram))
                B[:, t] = np.linalg.solve(penalised, right[:, t])
        return B

    def layer_step(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        """Return a better A for a B with orthonormal rows, by conjugate gradients."""

        def product(flat: np.ndarray) -> np.ndarray:
            return (self.times_system(flat.reshape(A.shape) @ B) @ B.T).ravel()

        def precondition(flat: np.ndarray) -> np.ndarray:
            return cho_solve(self.factor, flat.reshape(A.shape)).ravel()

        size = (A.size, A.size)
        solution, _ = cg(
            _operator(size, product),
            (self.cross @ B.T).ravel(),
            A.ravel(),
            rtol=0.1 * np.sqrt(self.tol),
            maxiter=_MAX_STEPS,
            M=_operator(size, precondition),
        )
        return solution.reshape(A.shape)

    def times_system(self, V: np.ndarray) -> np.ndarray:
        """Return C_b V_b + V_b diag(alpha) of all systems b."""
        out = V * self.alphas
        for system in self.equations:
            out[:, system.cols] += system.correlation @ V[:, system.cols]
        return out


def _operator(
    shape: tuple[int, int], product: Callable[[np.ndarray], np.ndarray]
) -> LinearOperator:
    return LinearOperator(shape, matvec=product, dtype=np.float64)


class ReducedRankRidge(SharingRidge):
    """Ridge regression through a linear layer that all scores share.

    Reduced-rank ridge regression (Izenman, J. Multivariate Anal. 1975; Mukherjee &
    Zhu, Stat. Anal. Data Min. 2011): with V the weights on standardised features, one
    column a score in units of its target's standard deviation, ::

        minimise  Σ_t mean_t(w (t − x̃ᵀv_t − b_t)²) + Σ_t alpha_t ‖v_t‖²
                  over V = A B of rank at most ``rank``

    In closed form where scores share their rows and penalty. Targets labelled on other
    rows have statistics of their own; then A and B are solved by turns, from a
    low-rank approximation of the separate fit on: B target by target, A by
    conjugate gradients. A rank that is no constraint gives exactly `JointRidge`.

    Parameters
    ----------
    alpha : float, sequence of float, or "cv", default="cv"
        As for `JointRidge`, where nothing is shared.
    rank : int >= 1, sequence of int, or "cv", default="cv"
        Greatest rank of the weights. From several (``"cv"``: powers of two below the
        number of scores, and that), the one with the least loss on held-out folds,
        as `RelatedRidge` has it.
    class_weight, calibrate, n_folds, columns
        As for `JointRidge`.

    Attributes
    ----------
    rank_ : int
        At most the number of scores and that of features.
    components_ : ndarray of shape (n_components, n_features)
        The shared layer, of ``rank_`` rows: orthonormal directions of standardised
        features, the one
        that scores rely on most first.
    coef_, intercept_, groups_, alpha_
        As for `JointRidge`. Calibration (of classes) mixes scores within a group.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.heads import ReducedRankRidge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(40, 20))
    >>> y = X[:, :1] + rng.normal(size=(40, 4))  # four views of one thing
    >>> head = ReducedRankRidge(alpha=0.1).fit(X, y)
    >>> head.rank_
    1
    >>> int(np.abs(head.components_[0]).argmax())
    0
    """

    _SHARING, _NUMBERS = "rank", ("alpha", "rank")
    _ONE_VALUE = Interval(Integral, 1, None, closed="left")

    rank_: int

    def __init__(
        self,
        alpha: float | Sequence[float] | str = "cv",
        *,
        rank: int | Sequence[int] | str = "cv",
        class_weight: ClassWeight = "sqrt",
        calibrate: bool = True,
        n_folds: int = 5,
        columns: Sequence[ColumnGroup] | None = None,
    ) -> None:
        super().__init__(
            alpha,
            class_weight=class_weight,
            calibrate=calibrate,
            n_folds=n_folds,
            columns=columns,
        )
        self.rank = rank

    def _strengths(self, n_scores: int) -> list[int]:
        full = min(n_scores, self.n_features_in_)
        if isinstance(self.rank, str):
            ranks = [2**p for p in range(full.bit_length())] + [full]
        else:
            ranks = [int(rank) for rank in np.atleast_1d(self.rank)]
        return sorted({min(rank, full) for rank in ranks}, reverse=True)

    def _shares_nothing(self, strength: int, n_scores: int) -> bool:
        return strength >= min(n_scores, self.n_features_in_)

    def _shared_weights(
        self, equations: Sequence[Equations], alphas: np.ndarray, strengths: list[int]
    ) -> list[np.ndarray]:
        return reduced_rank_weights(equations, alphas, strengths)

    def _describe(self, V: np.ndarray) -> None:
        self.components_ = np.linalg.svd(V, full_matrices=False)[0].T[: self.rank_]
