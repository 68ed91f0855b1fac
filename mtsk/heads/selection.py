"""JointSelectionRidge: ridge regressions that select the same features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mtsk._validation import Interval
from mtsk.heads.base import ClassWeight
from mtsk.heads.sharing_ridge import Equations, SharingRidge, separate_weights
from mtsk.tasks.columns import ColumnGroup

__all__ = ["JointSelectionRidge", "selection_weights"]

_SELECTIONS = (0.0, 0.01, 0.03, 0.1, 0.3)
_MAX_STEPS, _CHECK = 20_000, 20  # steps in all, and between two looks at the gap
_FEW = 64  # features that a smaller working set may grow by
_POWERS, _MARGIN = 50, 1.1  # power iteration comes close, from below


def selection_weights(
    equations: Sequence[Equations],
    alphas: np.ndarray,
    selections: Sequence[float],
    tol: float = 1e-5,
) -> list[np.ndarray]:
    """Return V of each strength, each found from that of the next stronger one.

    Parameters
    ----------
    equations : sequence of Equations
    alphas : ndarray of shape (T,)
        Penalty of each target.
    selections : sequence of float
        Relative to the least strength at which no feature is selected.
    tol : float, default=1e-5
        Duality gap, for each target in units of its variance, at which to stop. Unlike
        the size of a step, it bounds how much there is left to gain.

    Returns
    -------
    list of ndarray of shape (d, T)
    """
    problem = _Problem(equations, alphas)
    V = np.zeros((len(equations[0].correlation), len(alphas)))
    none = _norms(problem.gradient(V)).max()
    path = {}
    for selection in sorted(set(selections), reverse=True):
        if selection == 0:
            V = separate_weights(equations, alphas)
        elif selection < 1:
            V = _on_working_set(problem, selection * none, V, tol * len(alphas))
        path[selection] = V
    return [path[selection] for selection in selections]


@dataclass
class _Problem:
    """Half of what is minimised, without what selects: ½ Σ_t v_tᵀH_t v_t − c_tᵀv_t.

    H is C + alpha.

    Attributes
    ----------
    equations : sequence of Equations
    alphas : ndarray of shape (T,)
    """

    equations: Sequence[Equations]
    alphas: np.ndarray

    def gradient(self, V: np.ndarray) -> np.ndarray:
        """Return HV − c, (d, T)."""
        out = V * self.alphas
        for system in self.equations:
            own = system.correlation @ V[:, system.cols] - system.cross
            out[:, system.cols] += own
        return out

    def gap(self, V: np.ndarray, gradient: np.ndarray, strength: float) -> float:
        """Return by how much V may miss the least objective, in targets' variances.

        The dual point is the residual, made smaller until it is feasible. With the
        ridge penalty as more rows, its sums are those of targets of variance 1.
        """
        cross = sum(float((V[:, e.cols] * e.cross).sum()) for e in self.equations)
        along = len(self.alphas) - cross  # targets · residuals
        squares = along + float((V * gradient).sum())  # of residuals
        steepest = float(_norms(gradient).max(initial=0.0))
        factor = 1.0 if steepest <= strength else strength / steepest
        primal = squares + 2 * strength * float(_norms(V).sum())
        return primal - (2 * factor * along - factor**2 * squares)

    def of_features(self, rows: np.ndarray) -> _Problem:
        """Return the problem in which other features have no weight."""
        some = [
            replace(
                system,
                correlation=system.correlation[np.ix_(rows, rows)],
                cross=system.cross[rows],
            )
            for system in self.equations
        ]
        return _Problem(some, self.alphas)

    def curvature(self) -> float:
        """Return a Lipschitz constant of the gradient, by power iteration."""
        out = 0.0
        for system in self.equations:
            v = np.random.default_rng(0).normal(size=len(system.correlation))
            for _ in range(_POWERS):
                v = system.correlation @ (v / max(float(np.linalg.norm(v)), 1e-300))
            own = _MARGIN * np.linalg.norm(v) + self.alphas[system.cols].max()
            out = max(out, float(own))
        return out


def _norms(V: np.ndarray) -> np.ndarray:
    """Return ‖V_j·‖ of each feature."""
    return np.sqrt((V**2).sum(axis=1))


def _on_working_set(
    problem: _Problem, strength: float, start: np.ndarray, tol: float
) -> np.ndarray:
    """Return V, solved on some features, then with those that the gradient misses."""
    V, rows = start.copy(), _norms(start) > 0
    while True:
        own = problem.of_features(rows)
        V[rows] = _proximal_gradient(own, strength, V[rows], tol / 2)
        gradient = problem.gradient(V)
        missed = np.where(rows, 0, _norms(gradient))
        more = np.argsort(-missed)[: max(_FEW, rows.sum())]
        more = more[missed[more] > strength]
        if not len(more) or problem.gap(V, gradient, strength) <= tol:
            return V
        rows[more] = True


def _proximal_gradient(
    problem: _Problem, strength: float, V: np.ndarray, tol: float
) -> np.ndarray:
    """Return V by accelerated steps, which start anew where they go uphill.

    FISTA (Beck & Teboulle, SIAM J. Imaging Sci. 2009) with the restart of O'Donoghue &
    Candès (Found. Comput. Math. 2015, eq. 12); the proximal step as in Liu, Ji & Ye
    (UAI 2009).
    """
    step = 1 / problem.curvature()
    ahead, pace = V, 1.0
    for i in range(_MAX_STEPS):
        if i % _CHECK == 0 and problem.gap(V, problem.gradient(V), strength) <= tol:
            return V
        new = _shrunk(ahead - step * problem.gradient(ahead), step * strength)
        if ((ahead - new) * (new - V)).sum() > 0:
            pace = 1.0
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = new + (pace - 1) / faster * (new - V)
        V, pace = new, faster
    warnings.warn(
        f"JointSelectionRidge has not converged in {_MAX_STEPS} steps; a larger "
        "`alpha` or `selection` makes it easier",
        ConvergenceWarning,
        stacklevel=2,
    )
    return V


def _shrunk(V: np.ndarray, by: float) -> np.ndarray:
    """Return V with each row's norm made smaller by a number, or 0."""
    norms = _norms(V)
    return V * (1 - by / np.maximum(norms, by))[:, None]


class JointSelectionRidge(SharingRidge):
    """Ridge regression whose scores select features jointly.

    The group lasso over tasks (Obozinski, Taskar & Jordan, Stat. Comput. 2010, eq. 2;
    Argyriou, Evgeniou & Pontil, Mach. Learn. 2008): with V the weights on standardised
    features, one column a score in units of its target's standard deviation, ::

        minimise  Σ_t mean_t(w (t − x̃ᵀv_t − b_t)²) + Σ_t alpha_t ‖v_t‖²
                  + selection · λ · Σ_j ‖V_j·‖

    where a row V_j· is what all scores make of feature j, and λ the least strength at
    which no feature is selected. Solved by accelerated proximal gradient steps on
    a growing set of features, until the duality gap is small. Targets labelled on other
    rows have statistics of their own. ``selection=0`` is exactly `JointRidge`.

    Parameters
    ----------
    alpha : float, sequence of float, or "cv", default="cv"
        As for `JointRidge`, where nothing is selected.
    selection : float in [0, 1], sequence of float, or "cv", default="cv"
        Strength of the selection: 0 selects all features, 1 none. From several
        (``"cv"``: 0, 0.01, 0.03, 0.1, 0.3), the one with the least loss on
        held-out folds, as `RelatedRidge` has it.
    class_weight, calibrate, n_folds, columns
        As for `JointRidge`.

    Attributes
    ----------
    selection_ : float
    selected_ : ndarray of bool, shape (n_features,)
        Whether any score has a weight on a feature.
    coef_, intercept_, groups_, alpha_
        As for `JointRidge`. Calibration (of classes) mixes scores within a group.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.heads import JointSelectionRidge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(40, 20))
    >>> y = X[:, :2] @ rng.normal(size=(2, 4))  # four readings of two features
    >>> head = JointSelectionRidge(alpha=0.01, selection=0.2).fit(X, y)
    >>> np.flatnonzero(head.selected_)
    array([0, 1])
    """

    _SHARING, _NUMBERS = "selection", ("alpha", "selection")
    _ONE_VALUE = Interval(Real, 0, 1, closed="both")

    selection_: float

    def __init__(
        self,
        alpha: float | Sequence[float] | str = "cv",
        *,
        selection: float | Sequence[float] | str = "cv",
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
        self.selection = selection

    def _strengths(self, n_scores: int) -> list[float]:
        cv = isinstance(self.selection, str)
        values = _SELECTIONS if cv else np.atleast_1d(self.selection)
        return sorted(float(value) for value in values)

    def _shared_weights(
        self, equations: Sequence[Equations], alphas: np.ndarray, strengths: list[float]
    ) -> list[np.ndarray]:
        return selection_weights(equations, alphas, strengths)

    def _describe(self, V: np.ndarray) -> None:
        self.selected_ = _norms(V) > 0
