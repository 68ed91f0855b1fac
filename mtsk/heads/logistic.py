"""JointLogistic: all tasks' generalised linear models, fitted in shared passes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mtsk._progress import progress_bar
from mtsk._resources import one_blas_thread
from mtsk._validation import Interval, check_parameters
from mtsk.heads.base import COLUMNS, JointLinear, Memo, from_memo
from mtsk.heads.capabilities import Capabilities
from mtsk.heads.class_weights import (
    CLASS_WEIGHT,
    ClassWeight,
    class_weights,
    prior_corrections,
)
from mtsk.heads.glm import Basis, Objective, minimise, warm_start
from mtsk.heads.products import TallTable
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = ["JointLogistic"]


class JointLogistic(JointLinear):
    """Linear models of nominal, binary and real columns, missing entries allowed.

    For each column group, over its labelled rows with weights w of mean 1::

        minimise  mean(w · loss(y, x̃ᵀV + b)) + alpha / 2 · ‖V‖²

    where x̃ is x standardised over the group's rows and loss is the multinomial
    (nominal), Bernoulli (binary) or, for real columns, half the squared one of the
    standardised numbers, with ``alpha_real`` for alpha. Every label and every number is
    minimised separately, by L-BFGS: the joint fit equals separate fits. Only
    computation is shared: one pass over the table serves all that have not converged.
    The search runs along the principal axes of the rows, where second derivatives are
    nearly diagonal, and ends when the scores of the rows no longer change, so that the
    result depends on the rows, not on their order or on rounding.

    Parameters
    ----------
    alpha : float, default=0.01
        Strength of the penalty on classes and labels, relative to standardised
        features.
    alpha_real : float, default=0.3
        The same for numbers. The squared loss has constant curvature, the others hardly
        any where they are confident, so it needs a larger penalty.
    class_weight : {"sqrt", "balanced"}, float in [0, 1] or None, default="sqrt"
        Classes and labels of frequency f weigh ∝ 1/√f, 1/f, f to the power of minus
        this number, or 1: decisions favour rare classes. Probabilities are corrected
        for it.
    columns : list of ColumnGroup, default=None
        What the columns of ``y`` are (then coded, NaN missing). None reads integer,
        bool and str columns as classes, float ones as numbers.
    max_iter : int, default=300
        Maximum number of steps; a ConvergenceWarning is issued if not sufficient.
    tol : float, default=5e-4
        A label is done when two steps in a row change no labelled row's score by more
        than this (in logits; numbers, in their standard deviations).
    verbose : int, default=0
        Above 0 shows a progress bar.

    Attributes
    ----------
    coef_ : ndarray of float32, shape (n_features, n_scores)
    intercept_ : ndarray of float32, shape (n_scores,)
    groups_ : list of ColumnGroup
    prior_corrections_ : ndarray of float32, shape (n_scores,)
        Added to scores in ``predict_proba``, where classes have their own frequencies.
    n_iter_ : list of int
        Steps taken by group: the maximum over its labels or numbers.

    See Also
    --------
    JointRidge : Closed form, mergeable, chooses ``alpha`` itself.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import JointLogistic
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> JointLogistic().fit(X, ["low", "low", "high", "high"]).predict([[0.2], [2.9]])
    array(['low', 'high'], dtype='<U4')
    """

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        alpha_real: float = 0.3,
        class_weight: ClassWeight = "sqrt",
        columns: Sequence[ColumnGroup] | None = None,
        max_iter: int = 300,
        tol: float = 5e-4,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.alpha_real = alpha_real
        self.class_weight = class_weight
        self.columns = columns
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose

    @property
    def capabilities(self) -> Capabilities:
        """What the head can do."""
        return Capabilities(
            is_joint=True, is_linear=True, takes_memo=True, takes_entry_weights=True
        )

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, memo: Memo | None = None
    ) -> Self:
        """Fit all groups.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
        sample_weight : array-like of shape (n_samples,) or as ``y``, default=None
        memo : object with ``get`` and ``put``, default=None
            Caches the eigendecomposition between fits. One memo per ``X``.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError

        Warns
        -----
        ConvergenceWarning
            Where ``max_iter`` steps were not enough.
        """
        check_parameters(self, _CONSTRAINTS)
        X, Y, weight = self.check_table(X, y, sample_weight)
        bases: dict[bytes, Basis] = {}
        by_group = [
            list(self._objectives(group, Y[:, part], X, weight[:, part], bases, memo))
            for group, part, _ in labelled_columns(self.groups_)
        ]
        objectives = [objective for own in by_group for objective in own]
        with (
            progress_bar(
                total=self.max_iter, desc="head", disable=not self.verbose, unit="pass"
            ) as bar,
            one_blas_thread(),
        ):
            table = TallTable(X)
            warm_start(X, table, objectives, self.max_iter)
            minimise(table, objectives, self.max_iter, self.tol, bar.update)
        if not all(objective.done for objective in objectives):
            warnings.warn(
                f"JointLogistic stopped after max_iter={self.max_iter} steps before it "
                "converged; raise `max_iter`, or `alpha`",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.n_iter_ = [max(o.n_iter for o in own) for own in by_group]
        parts = [objective.linear() for objective in objectives]
        self.prior_corrections_ = prior_corrections(
            self.groups_, Y, weight, self.class_weight
        )
        self.coef_ = np.concatenate([w for w, _ in parts], axis=1).astype(np.float32)
        self.intercept_ = np.concatenate([b for _, b in parts]).astype(np.float32)
        return self

    def _objectives(
        self,
        group: ColumnGroup,
        Y: np.ndarray,
        X: np.ndarray,
        weight: np.ndarray,
        bases: dict[bytes, Basis],
        memo: Memo | None,
    ) -> Iterator[Objective]:
        """Yield a group's objectives: one of all classes, or one per label or number.

        Features are standardised over the rows where any column of the group is known.
        """
        rows = np.where(np.isnan(Y), 0.0, weight).max(axis=1)
        if not rows.any():
            raise ValueError("a column group has no labelled row of positive weight")
        key = rows.tobytes()
        if key not in bases:
            bases[key] = from_memo(memo, [rows], lambda: Basis.of(X, rows))
        entries = class_weights(group, Y, weight, self.class_weight)
        alpha = self.alpha_real if group.kind == "real" else self.alpha
        size = group.size if group.kind == "nominal" else 1
        for target, mass in zip(np.nan_to_num(Y).T, entries.T, strict=True):
            total = mass.sum()
            share = mass / total if total > 0 else mass
            yield Objective(group.kind, size, target, share, alpha, bases[key])


_CONSTRAINTS: dict[str, list] = {
    "alpha": [Interval(Real, 0, None, closed="neither")],
    "alpha_real": [Interval(Real, 0, None, closed="neither")],
    "columns": COLUMNS,
    "class_weight": CLASS_WEIGHT,
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
}
