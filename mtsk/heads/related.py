"""RelatedRidge: ridge regressions that learn how their tasks are related."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from mtsk._resources import one_blas_thread
from mtsk._validation import Interval
from mtsk.heads.class_weights import ClassWeight
from mtsk.heads.sharing_ridge import Equations, SharingRidge
from mtsk.tasks.columns import ColumnGroup

__all__ = ["RelatedRidge", "System", "solve_related", "task_covariance"]

# Linear map of lists of matrices, one per system.
_Linear = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
_SHARES = (0.0, 0.1, 1.0, 10.0)
_LEAST = 1e-3  # lower bound of Ω's eigenvalues, as a share of their mean
_MAX_TURNS, _MAX_STEPS = 30, 200


@dataclass
class System:
    """Equations in the eigenbasis of their correlation matrix.

    Attributes
    ----------
    values : ndarray of shape (d,)
        Eigenvalues of the features' correlation matrix.
    axes : ndarray of shape (d, d)
        Its eigenvectors.
    cross : ndarray of shape (d, k)
        Covariance of standardised features and targets, rotated to the axes.
    cols : ndarray of int, shape (k,)
        Indices of the targets.
    """

    values: np.ndarray
    axes: np.ndarray
    cross: np.ndarray
    cols: np.ndarray

    @classmethod
    def of(cls, equations: Equations) -> System:
        """Return equations in their eigenbasis."""
        values, axes = np.linalg.eigh(equations.correlation)
        cross = axes.T @ equations.cross
        return cls(values.clip(min=0), axes, cross, equations.cols)


def task_covariance(gram: np.ndarray) -> np.ndarray:
    """Return Ω = (VᵀV)^½ / tr (VᵀV)^½, kept non-singular.

    Parameters
    ----------
    gram : ndarray of shape (T, T)
        VᵀV.

    Returns
    -------
    ndarray of shape (T, T)
        Symmetric, positive definite, of trace 1.
    """
    values, axes = np.linalg.eigh(gram)
    root = np.sqrt(values.clip(min=0))
    total = root.sum()
    if total <= 0:
        return np.eye(len(gram)) / len(gram)
    share = root / total + _LEAST / len(gram)
    return (axes * (share / share.sum())) @ axes.T


def solve_related(
    systems: Sequence[System], alphas: np.ndarray, share: float, tol: float = 1e-5
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return weights and covariance of tasks, by alternating minimisation.

    Parameters
    ----------
    systems : sequence of System
    alphas : ndarray of shape (T,)
        Penalty of each target.
    share : float
        λ, the strength of sharing.
    tol : float, default=1e-5
        Relative change of the weights at which iteration stops.

    Returns
    -------
    weights : list of ndarray of shape (d, k)
        Weights of each system, in its axes.
    covariance : ndarray of shape (T, T)
    """
    weights = [s.cross / (s.values[:, None] + alphas[s.cols]) for s in systems]
    covariance = task_covariance(_gram(systems, weights, len(alphas)))
    if share == 0:
        return weights, covariance
    for _ in range(_MAX_TURNS):
        precision = np.linalg.inv(covariance) / len(alphas)
        new = _solve_weights(systems, alphas, share * precision, weights, tol)
        moved = sum(
            float(((a - b) ** 2).sum()) for a, b in zip(new, weights, strict=True)
        )
        size = sum(float((a**2).sum()) for a in new)
        weights = new
        covariance = task_covariance(_gram(systems, weights, len(alphas)))
        if moved <= tol**2 * max(size, 1e-300):
            break
    return weights, covariance


def _solve_weights(
    systems: Sequence[System],
    alphas: np.ndarray,
    coupling: np.ndarray,
    start: Sequence[np.ndarray],
    tol: float,
) -> list[np.ndarray]:
    """Solve C_b V_b + V_b diag(alpha) + (V coupling)_b = cross_b for all systems b.

    One system is solved exactly, several by conjugate gradients, with the exact
    solution of each system alone as preconditioner (Saad, Iterative Methods for Sparse
    Linear Systems, 2003, algorithm 9.1).
    """
    inner = []
    for system in systems:
        own = coupling[np.ix_(system.cols, system.cols)].copy()
        own[np.diag_indices_from(own)] += alphas[system.cols]
        inner.append(np.linalg.eigh(own))

    def each_alone(right: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [
            (part @ turn / (system.values[:, None] + values)) @ turn.T
            for part, system, (values, turn) in zip(right, systems, inner, strict=True)
        ]

    def together(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        shared = _turned_back(systems, weights, len(alphas)) @ coupling
        return [
            s.values[:, None] * own
            + own * alphas[s.cols]
            + s.axes.T @ shared[:, s.cols]
            for s, own in zip(systems, weights, strict=True)
        ]

    right = [system.cross for system in systems]
    if len(systems) == 1:
        return each_alone(right)
    return _conjugate_gradients(together, each_alone, right, start, tol)


def _conjugate_gradients(
    apply: _Linear,
    precondition: _Linear,
    right: Sequence[np.ndarray],
    start: Sequence[np.ndarray],
    tol: float,
) -> list[np.ndarray]:
    """Solve apply(x) = right for x, a list of matrices, to a relative tolerance."""
    found = list(start)
    left = _sum(right, -1.0, apply(found))
    ahead = eased = precondition(left)
    size = _dot(left, eased)
    for _ in range(_MAX_STEPS):
        if _dot(eased, eased) <= (0.1 * tol) ** 2 * max(_dot(found, found), 1e-300):
            break
        change = apply(ahead)
        step = size / _dot(ahead, change)
        found = _sum(found, step, ahead)
        left = _sum(left, -step, change)
        eased = precondition(left)
        before, size = size, _dot(left, eased)
        ahead = _sum(eased, size / before, ahead)
    return found


def _dot(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return sum(float(np.vdot(x, y)) for x, y in zip(a, b, strict=True))


def _sum(
    a: Sequence[np.ndarray], times: float, b: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return a + times · b."""
    return [x + times * y for x, y in zip(a, b, strict=True)]


def _turned_back(
    systems: Sequence[System], weights: Sequence[np.ndarray], n_targets: int
) -> np.ndarray:
    """Return V, (d, T), from weights in the axes of each system."""
    V = np.zeros((len(systems[0].values), n_targets))
    for system, own in zip(systems, weights, strict=True):
        V[:, system.cols] = system.axes @ own
    return V


def _gram(
    systems: Sequence[System], weights: Sequence[np.ndarray], n_targets: int
) -> np.ndarray:
    """Return VᵀV over all systems, whose axes differ."""
    V = _turned_back(systems, weights, n_targets)
    return V.T @ V


class RelatedRidge(SharingRidge):
    """Ridge regression that learns a covariance of tasks.

    Multi-task relationship learning (Zhang & Yeung, UAI 2010): with V the weights on
    standardised features, one column per score in units of its target's standard
    deviation, ::

        minimise  Σ_t mean_t(w (t − x̃ᵀv_t − b_t)²) + Σ_t alpha_t ‖v_t‖²
                  + share · ᾱ · tr(V Ω⁻¹ Vᵀ) / T     over V and Ω ⪰ 0, tr Ω = 1

    alternately: Ω = (VᵀV)^½ / tr (VᵀV)^½, and V by a Sylvester equation in the
    eigenbases of both sides. Targets labelled on different rows have separate
    statistics; their equations are solved jointly, by conjugate gradients. ``share=0``
    is exactly `JointRidge`.

    Parameters
    ----------
    alpha : float, sequence of float, or "cv", default="cv"
        As for `JointRidge`, chosen without sharing; ᾱ is their geometric mean.
    share : float >= 0, sequence of float, or "cv", default="cv"
        Strength of sharing. From several (``"cv"``: 0, 0.1, 1, 10), the one with the
        least loss on held-out folds: cross-entropy, of scores calibrated there, for
        classes and labels, squared error for numbers, each relative to the loss of the
        prior.
    class_weight, calibrate, n_folds, columns
        As for `JointRidge`.

    Attributes
    ----------
    share_ : float
    covariance_ : ndarray of shape (n_scores, n_scores)
        Ω, the covariance of scores, of trace 1.
    coef_, intercept_, groups_, alpha_
        As for `JointRidge`.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.heads import RelatedRidge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(40, 20))
    >>> y = X[:, :1] + rng.normal(size=(40, 4))  # four views of one thing
    >>> head = RelatedRidge(alpha=0.1, share=10.0).fit(X, y)
    >>> bool(head.covariance_[0, 1] > 0.1)
    True
    """

    _SHARING, _NUMBERS = "share", ("alpha", "share")
    _ONE_VALUE = Interval(Real, 0, None, closed="left")

    def __init__(
        self,
        alpha: float | Sequence[float] | str = "cv",
        *,
        share: float | Sequence[float] | str = "cv",
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
        self.share = share

    def _strengths(self, n_scores: int) -> list[float]:
        shares = _SHARES if isinstance(self.share, str) else np.atleast_1d(self.share)
        return sorted(float(share) for share in shares)

    def _shared_weights(
        self, equations: Sequence[Equations], alphas: np.ndarray, strengths: list[float]
    ) -> list[np.ndarray]:
        systems = [System.of(each) for each in equations]
        mean = float(np.exp(np.log(alphas).mean()))
        out = []
        for share in strengths:
            with one_blas_thread():
                weights, _ = solve_related(systems, alphas, share * mean)
            out.append(_turned_back(systems, weights, len(alphas)))
        return out

    def _describe(self, V: np.ndarray) -> None:
        self.covariance_ = task_covariance(V.T @ V)
