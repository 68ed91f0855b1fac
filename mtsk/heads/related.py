"""RelatedRidge: ridge regressions that learn how their tasks are related."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np

from mtsk._resources import one_blas_thread
from mtsk._validation import Interval, SequenceOf, StrOptions, parameter_error
from mtsk.heads.base import ClassWeight
from mtsk.heads.ridge import JointRidge, squared_error
from mtsk.heads.statistics import Moments, inverse_std
from mtsk.tasks.columns import ColumnGroup

__all__ = ["RelatedRidge", "System", "solve_related", "task_covariance"]

_SHARES = (0.0, 0.1, 1.0, 10.0)
_LEAST = 1e-3  # share of the mean eigenvalue that each of Ω's has at least
_MAX_TURNS, _MAX_SWEEPS = 30, 200


@dataclass
class System:
    """The normal equations of the targets that are labelled on the same rows.

    ``correlation @ v = cross`` is least squares without a penalty, for weights v on
    standardised features, in units of each target's standard deviation.

    Attributes
    ----------
    values : ndarray of shape (d,)
        Eigenvalues of the features' correlation matrix.
    axes : ndarray of shape (d, d)
        Its eigenvectors.
    cross : ndarray of shape (d, k)
        Covariance of standardised features and targets, turned into the axes.
    cols : ndarray of int, shape (k,)
        The targets' places among all.
    """

    values: np.ndarray
    axes: np.ndarray
    cross: np.ndarray
    cols: np.ndarray

    @classmethod
    def of(cls, moments: Moments, cols: np.ndarray) -> System:
        """Return the equations behind the moments of some rows."""
        covariance = moments.covariance()
        scale = inverse_std(np.diag(covariance), moments.x_mean)
        values, axes = np.linalg.eigh(covariance * scale[:, None] * scale[None, :])
        cross = moments.cross_covariance() * scale[:, None] / _spread(moments)
        return cls(values.clip(min=0), axes, axes.T @ cross, cols)

    def weights(self, inner: np.ndarray, moments: Moments) -> np.ndarray:
        """Return weights on x in the targets' units, (d, k)."""
        scale = inverse_std(np.diag(moments.covariance()), moments.x_mean)
        return (self.axes @ inner) * scale[:, None] * _spread(moments)


def _spread(moments: Moments) -> np.ndarray:
    """Return each target's standard deviation, 1 where it is constant."""
    variance = moments.tt / moments.weight - moments.t_mean**2
    return np.where(variance > 1e-12, np.sqrt(variance.clip(min=1e-12)), 1.0)


def task_covariance(gram: np.ndarray) -> np.ndarray:
    """Return Ω = (VᵀV)^½ / tr (VᵀV)^½, kept away from singular.

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
    """Return weights and covariance of tasks by turns, until neither moves.

    Parameters
    ----------
    systems : sequence of System
    alphas : ndarray of shape (T,)
        Penalty of each target.
    share : float
        λ, the strength of what is shared.
    tol : float, default=1e-5
        Relative change of the weights at which turns end.

    Returns
    -------
    weights : list of ndarray of shape (d, k)
        Of each system, in its axes.
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
    """Solve C_b V_b + V_b diag(alpha) + (V coupling)_b = cross_b for all systems b."""
    weights = list(start)
    for _ in range(_MAX_SWEEPS if len(systems) > 1 else 1):
        moved = size = 0.0
        for b, system in enumerate(systems):
            rest = system.cross.copy()
            for c, other in enumerate(systems):
                if c != b:
                    far = coupling[np.ix_(other.cols, system.cols)]
                    rest -= system.axes.T @ (other.axes @ (weights[c] @ far))
            own = coupling[np.ix_(system.cols, system.cols)].copy()
            own[np.diag_indices_from(own)] += alphas[system.cols]
            values, turn = np.linalg.eigh(own)
            new = (rest @ turn / (system.values[:, None] + values)) @ turn.T
            moved += float(((new - weights[b]) ** 2).sum())
            size += float((new**2).sum())
            weights[b] = new
        if moved <= (0.1 * tol) ** 2 * max(size, 1e-300):
            break
    return weights


def _gram(
    systems: Sequence[System], weights: Sequence[np.ndarray], n_targets: int
) -> np.ndarray:
    """Return VᵀV over all systems, whose axes differ."""
    V = np.zeros((len(systems[0].values), n_targets))
    for system, own in zip(systems, weights, strict=True):
        V[:, system.cols] = system.axes @ own
    return V.T @ V


class RelatedRidge(JointRidge):
    """Ridge regression that learns a covariance of tasks.

    Multi-task relationship learning (Zhang & Yeung, UAI 2010): with V the weights on
    standardised features, one column a score in units of its target's standard
    deviation, ::

        minimise  Σ_t mean_t(w (t − x̃ᵀv_t − b_t)²) + Σ_t alpha_t ‖v_t‖²
                  + share · ᾱ · tr(V Ω⁻¹ Vᵀ) / T     over V and Ω ⪰ 0, tr Ω = 1

    by turns: Ω = (VᵀV)^½ / tr (VᵀV)^½, and V by a Sylvester equation in the
    eigenbases of both sides. Targets labelled on other rows have statistics of their
    own, and are solved one after the other until nothing moves. ``share=0`` is exactly
    `JointRidge`.

    Parameters
    ----------
    alpha : float, sequence of float, or "cv", default="cv"
        As for `JointRidge`, where nothing is shared; ᾱ is their geometric mean.
    share : float >= 0, sequence of float, or "cv", default="cv"
        Strength of what is shared. From several (``"cv"``: 0, 0.1, 1, 10), the one
        with the least squared error on held-out folds, in units of each target's
        variance.
    class_weight, calibrate, n_folds, columns
        As for `JointRidge`.

    Attributes
    ----------
    share_ : float
    covariance_ : ndarray of shape (n_scores, n_scores)
        Ω: how scores are related. Of trace 1.
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

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        memo: Any = None,
    ) -> Self:
        """Fit all groups; see `JointRidge.fit`."""
        self._check_share()
        return super().fit(X, y, sample_weight, groups, memo)

    def _check_share(self) -> None:
        good = Interval(Real, 0, None, closed="left")
        options = [good, SequenceOf(good), StrOptions({"cv"})]
        if not any(option.is_satisfied_by(self.share) for option in options):
            allowed = "a number >= 0, a sequence of them, or 'cv'"
            raise parameter_error("share", self, allowed, self.share)

    def _shares(self) -> list[float]:
        if isinstance(self.share, str):
            return list(_SHARES)
        return [float(s) for s in np.atleast_1d(self.share)]

    def _compares(self, alphas: list[float]) -> bool:
        return super()._compares(alphas) or len(self._shares()) > 1

    def _prepare_sharing(self, blocks: list[Any], alphas: np.ndarray) -> None:
        """Choose the strength on held-out folds, of equals the weakest."""
        shares = sorted(self._shares())
        self.share_ = shares[0]
        folds = np.unique(np.concatenate([block.folds for block in blocks]))
        if len(shares) == 1 or len(folds) < 2:
            return
        errors = np.zeros(len(shares))
        for fold in folds:
            parts = [(block.without(fold), block.cols) for block in blocks]
            systems = [System.of(*part) for part in parts]
            for i, share in enumerate(shares):
                coef, intercept = _fit_systems(systems, parts, alphas, share)[:2]
                for block in blocks:
                    for k, held in zip(block.folds, block.parts, strict=True):
                        if k == fold and len(block.parts) > 1:
                            cols = block.cols
                            each = squared_error(held, coef[:, cols], intercept[cols])
                            unit = block.whole.weight * _spread(block.whole) ** 2
                            errors[i] += float((each / unit).sum())
        self.share_ = shares[int(errors.argmin())]

    def _solve(
        self, parts: Sequence[tuple[Moments, np.ndarray]], alphas: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        self._check_share()
        share = float(self.share) if isinstance(self.share, Real) else self.share_
        if share == 0:
            coef, intercept = super()._solve(parts, alphas)
            self.covariance_ = task_covariance(_gram_of(coef, parts))
            return coef, intercept
        systems = [System.of(*part) for part in parts]
        coef, intercept, self.covariance_ = _fit_systems(systems, parts, alphas, share)
        return coef, intercept


def _gram_of(
    coef: np.ndarray, parts: Sequence[tuple[Moments, np.ndarray]]
) -> np.ndarray:
    """Return VᵀV for weights on x in the targets' units."""
    V = np.zeros_like(coef)
    for moments, cols in parts:
        scale = inverse_std(np.diag(moments.covariance()), moments.x_mean)
        std = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0.0)
        V[:, cols] = coef[:, cols] * std[:, None] / _spread(moments)
    return V.T @ V


def _fit_systems(
    systems: Sequence[System],
    parts: Sequence[tuple[Moments, np.ndarray]],
    alphas: np.ndarray,
    share: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (coef, intercept) on x and in the targets' units, and the covariance."""
    strength = share * float(np.exp(np.log(alphas).mean()))
    with one_blas_thread():
        weights, covariance = solve_related(systems, alphas, strength)
    coef = np.empty((len(systems[0].values), len(alphas)))
    intercept = np.empty(len(alphas))
    for system, own, (moments, cols) in zip(systems, weights, parts, strict=True):
        coef[:, cols] = system.weights(own, moments)
        intercept[cols] = moments.t_mean - moments.x_mean @ coef[:, cols]
    return coef, intercept, covariance
