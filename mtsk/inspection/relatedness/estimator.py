"""Task relatedness: a task × task matrix with intervals, from a table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.utils import check_random_state

from mtsk._progress import progress_bar
from mtsk._validation import (
    Interval,
    SequenceOf,
    StrOptions,
    check_parameters,
    group_numbers,
    parameter_error,
)
from mtsk.heads.base import COLUMNS, JointTable
from mtsk.heads.class_weights import ClassWeight
from mtsk.inspection.relatedness.methods import STATISTICS, Fits, Statistic
from mtsk.inspection.relatedness.sample import Sample, deal, leading_axes
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = ["TaskRelatedness"]

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")


class TaskRelatedness(JointTable):
    """Relatedness of the tasks of one table, with bootstrap intervals over images.

    A task is a group of columns. Entry (i, j) of ``relatedness_`` is, by ``method``:

    ``"weights"``
        Similarity of the linear read-outs of two tasks. With V_i the ridge weights of
        task i's scores and C the covariance of the features, S_ij = V_iᵀ C V_j is the
        covariance of the read-outs, and the entry ‖S_ij‖ / √(‖S_ii‖ ‖S_jj‖) in
        Frobenius norms: the root of the RV coefficient (Escoufier, Biometrics 1973;
        Robert & Escoufier, Applied Statistics 1976). It does not depend on the scale of
        features, as the cosine of weights would.
    ``"transfer"``
        Directed, from i to j: 1 − L_j(with i) / L_j(alone), the relative decrease of
        task j's held-out loss when task i's scores are added to the features; below 0,
        they hurt. Similar to Taskonomy (Zamir et al., CVPR 2018), with linear models.
        For each fold k that j is evaluated on, the scores of i on fold a ≠ k come from
        a fit without a and k, those on k from a fit without k, so no label of k is
        seen; j is a ridge regression on the features and these scores, all
        standardised. L is the mean squared error of coded targets, weighted by
        ``class_weight``, at the penalty that makes it least, with i and without.
    ``"covariance"``
        Ω of multi-task relationship learning (Zhang & Yeung, UAI 2010; see
        `RelatedRidge`), with its blocks in place of S.
    ``"residual"``
        Similarity of the held-out residuals of two tasks, on the rows labelled for
        both: S is their covariance.

    Entries between tasks of one score (a number, a label, the second of two classes)
    have the sign of their correlation; with several scores they are never negative.

    Parameters
    ----------
    method : {"weights", "transfer", "covariance", "residual"}, default="weights"
    columns : list of ColumnGroup, default=None
        What the columns of ``y`` are (then coded, NaN missing), one group a task.
        None reads integer, bool and str columns as classes, float ones as numbers.
    task_names : sequence of str, default=None
        None takes the columns' names where ``y`` is a DataFrame and ``columns`` None,
        else ``"task 0"`` and so on.
    alpha : float, sequence of float, or "cv", default="cv"
        Penalty of the regressions, as for `JointRidge`; of several, each task has the
        best on held-out folds of all its rows, and keeps it. ``"covariance"`` takes
        their geometric mean.
    share : float >= 0, sequence of float, or "cv", default="cv"
        Strength of sharing in ``"covariance"``, as for `RelatedRidge`.
    class_weight : {"sqrt", "balanced", None}, default="sqrt"
        Classes and labels of frequency f weigh ∝ 1/√f, 1/f or 1.
    n_bootstrap : int, default=100
        Number of bootstrap draws. 0: no intervals.
    confidence : float in (0, 1), default=0.95
        Confidence level of each pair's interval.
    max_rows : int, default=20000
        Maximum number of labelled rows per task; more are subsampled at random, the
        same rows for tasks labelled at the same rows. None keeps all.
    n_components : int, power of 2, default=256
        Wider tables are first projected on their leading principal axes (of the
        correlation matrix), to make draws affordable; ``alpha`` is then relative to the
        mean variance of these axes. None keeps all features.
    n_folds : int, default=5
        Folds, of whole groups.
    random_state : int, RandomState or None, default=None
        For subsampling, folds and draws of groups.
    verbose : int, default=0
        Above 0 shows a progress bar of the draws.

    Attributes
    ----------
    relatedness_ : ndarray of shape (T, T)
        1 on the diagonal, 0 for ``"transfer"``. NaN for a task that does not vary in
        the rows used (a warning names it), for ``"weights"`` where no feature has an
        effect, and for ``"residual"`` where no row is labelled for both.
    lower_, upper_ : ndarray of shape (T, T)
        Interval of each entry; NaN without draws.
    task_names_ : list of str
    groups_ : list of ColumnGroup
    classes_ : list of ndarray or None
    n_rows_ : int
        Number of labelled rows used after subsampling.
    n_features_in_ : int

    See Also
    --------
    TaskRelatednessDisplay : Draws the matrix.
    compare_sharing : Whether a model's tasks gain from joint training, by fitting it.

    Notes
    -----
    Groups are drawn with replacement, and again where a task is left without a label.
    ``"weights"`` and ``"covariance"`` are fitted anew to each draw, with the penalty
    kept: with K features after projection, n rows and T tasks labelled at different
    rows or of different classes, a draw takes about T (n K² + K³ / 3) multiplications,
    and 10 and more eigenvalue problems for ``"covariance"``. ``"transfer"`` and
    ``"residual"`` fit once, and draw among held-out losses and residuals: their
    intervals cover the choice of evaluation images, not of training images.

    Intervals are percentiles. A norm of several scores, however, is never below 0 and
    grows with noise, more so in a draw than in the estimate. Its interval is the basic
    one of its square, 2 r² less the percentiles, with the sign kept under the root
    (Davison & Hinkley, Bootstrap Methods, 1997, section 5.2). It covers 0 where noise
    explains the norm, and then may lie below the estimate.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.inspection import TaskRelatedness
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 5))
    >>> y = np.c_[X[:, 0], -X[:, 0], X[:, 1]] + rng.normal(size=(1000, 3))
    >>> relatedness = TaskRelatedness(random_state=0).fit(X, y)
    >>> relatedness.relatedness_[0].round()
    array([ 1., -1., -0.])
    >>> bool(relatedness.upper_[0, 1] < 0 < relatedness.upper_[0, 2])
    True
    """

    def __init__(
        self,
        method: Literal["weights", "transfer", "covariance", "residual"] = "weights",
        *,
        columns: Sequence[ColumnGroup] | None = None,
        task_names: Sequence[str] | None = None,
        alpha: float | Sequence[float] | str = "cv",
        share: float | Sequence[float] | str = "cv",
        class_weight: ClassWeight = "sqrt",
        n_bootstrap: int = 100,
        confidence: float = 0.95,
        max_rows: int | None = 20_000,
        n_components: int | None = 256,
        n_folds: int = 5,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.method = method
        self.columns = columns
        self.task_names = task_names
        self.alpha = alpha
        self.share = share
        self.class_weight = class_weight
        self.n_bootstrap = n_bootstrap
        self.confidence = confidence
        self.max_rows = max_rows
        self.n_components = n_components
        self.n_folds = n_folds
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Estimate the relatedness of the tasks.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
            NaN is missing, and None among strings.
        groups : array-like of shape (n_samples,), default=None
            The image of each row: rows of one image are drawn together and share a
            fold. None treats every row as a separate image, which makes intervals of
            pixels far too narrow.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError
        """
        self._check()
        table, Y, _ = self.check_table(X, y, None)
        self.task_names_ = self._names(y)
        random = check_random_state(self.random_state)
        n_rows = len(table)
        units = np.arange(n_rows) if groups is None else group_numbers(groups, n_rows)
        rows = self._rows(Y, random)
        self.n_rows_ = len(rows)
        sample = self._sample(table[rows], Y[rows], units[rows], random)
        self._warn_of_constant(sample)
        fits = Fits(self.alpha, self.share, self.class_weight, self.n_folds)
        statistic = STATISTICS[self.method](sample, fits)
        self.relatedness_ = self._related(statistic, sample, np.ones(len(rows)))
        self.lower_, self.upper_ = self._intervals(statistic, sample, random)
        return self

    def _check(self) -> None:
        check_parameters(self, _CONSTRAINTS)
        k = self.n_components
        if k is not None and k & (k - 1):
            raise parameter_error("n_components", self, "a power of 2, or None", k)

    def _names(self, y: Any) -> list[str]:
        n_tasks = len(self.groups_)
        if self.task_names is None:
            own = getattr(y, "columns", None) if self.columns is None else None
            return [f"task {i}" if own is None else str(own[i]) for i in range(n_tasks)]
        names = [str(name) for name in self.task_names]
        if len(names) != n_tasks or len(set(names)) != n_tasks:
            allowed = f"{n_tasks} different names, one a task"
            raise parameter_error("task_names", self, allowed, self.task_names)
        return names

    def _rows(self, Y: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        """Return the rows used: with a label, and of a task at most ``max_rows``."""
        rank = random.permutation(len(Y))
        keep = np.zeros(len(Y), bool)
        for name, (_, columns, _) in zip(
            self.task_names_, labelled_columns(self.groups_), strict=True
        ):
            known = ~np.isnan(Y[:, columns])
            if not known.any(axis=0).all():
                raise ValueError(f"{name!r} has a column without any label")
            places = np.flatnonzero(known.any(axis=1))
            keep[places[np.argsort(rank[places])][: self.max_rows]] = True
        return np.flatnonzero(keep)

    def _sample(
        self, X: np.ndarray, Y: np.ndarray, units: np.ndarray, random: Any
    ) -> Sample:
        units = np.unique(units, return_inverse=True)[1]
        labelled = np.zeros((units.max() + 1, Y.shape[1]), bool)
        np.logical_or.at(labelled, units, ~np.isnan(Y))
        X = leading_axes(X, self.n_components)
        fold = deal(labelled, self.n_folds, random)[units]
        sample = Sample(X, Y, units, labelled, fold, self.groups_)
        needed = {"residual": 2, "transfer": 3}.get(self.method, 1)
        self._check_labels(sample, needed)
        return sample

    def _check_labels(self, sample: Sample, folds_needed: int) -> None:
        """Raise where a task is labelled on too few groups for folds or draws."""
        n_units = sample.labelled.sum(axis=0)
        if len(sample.labelled) < 2 and (self.n_bootstrap or folds_needed > 1):
            raise ValueError(
                "intervals and held-out scores need at least 2 groups (rows, where "
                f"`groups` is None), got 1; of X, as far as `max_rows` keeps it, "
                f"n_samples = {len(sample.X)}"
            )
        for name, (_, columns, _) in zip(
            self.task_names_, labelled_columns(self.groups_), strict=True
        ):
            rows = ~np.isnan(sample.Y[:, columns])
            n_folds = min(len(np.unique(sample.fold[own])) for own in rows.T)
            if n_folds < folds_needed:
                raise ValueError(
                    f"method={self.method!r} needs labels of {name!r} in at least "
                    f"{folds_needed} folds, it has {n_folds}: label more groups"
                )
            if self.n_bootstrap and n_units[columns].min() < 2:
                raise ValueError(
                    f"{name!r} is labelled in 1 group, intervals need at least 2; "
                    "n_bootstrap=0 makes none"
                )

    def _related(
        self, statistic: Statistic, sample: Sample, weight: np.ndarray
    ) -> np.ndarray:
        """Return the matrix of a draw, NaN for tasks that do not vary in it."""
        out = statistic(weight)
        if self.method == "transfer":
            np.fill_diagonal(out, 0.0)
        still = self._constant(sample.Y[weight > 0])
        out[still] = out[:, still] = np.nan
        return out

    def _constant(self, Y: np.ndarray) -> list[int]:
        """Return the tasks that do not vary."""
        low, high = np.nanmin(Y, axis=0), np.nanmax(Y, axis=0)
        table = enumerate(labelled_columns(self.groups_))
        return [i for i, (_, columns, _) in table if (low == high)[columns].all()]

    def _warn_of_constant(self, sample: Sample) -> None:
        for i in self._constant(sample.Y):
            warnings.warn(
                f"{self.task_names_[i]!r} does not vary in the {len(sample.Y)} rows "
                f"used (max_rows={self.max_rows}): its entries are NaN",
                stacklevel=3,
            )

    def _intervals(
        self, statistic: Statistic, sample: Sample, random: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = np.full((2, *self.relatedness_.shape), np.nan)
        if not self.n_bootstrap:
            return lower, upper
        draws = np.stack(
            [
                self._related(statistic, sample, weight)
                for weight in progress_bar(
                    sample.draws(self.n_bootstrap, random),
                    desc=self.method,
                    total=self.n_bootstrap,
                    disable=not self.verbose,
                )
            ]
        )
        tail = 50 * (1 - self.confidence)
        single = [len(part) == 1 for part in sample.parts]
        for i, j in zip(*np.nonzero(~np.isnan(self.relatedness_)), strict=True):
            values = draws[:, i, j][~np.isnan(draws[:, i, j])]
            norm = self.method != "transfer" and not (single[i] and single[j])
            ends = _basic if norm else _percentiles
            if len(values):
                bounds = ends(self.relatedness_[i, j], values, tail)
                lower[i, j], upper[i, j] = bounds
        return lower, upper


_CONSTRAINTS: dict[str, list] = {
    "method": [StrOptions({"weights", "transfer", "covariance", "residual"})],
    "columns": COLUMNS,
    "task_names": [SequenceOf(str), None],
    "alpha": [_POSITIVE, SequenceOf(_POSITIVE), StrOptions({"cv"})],
    "share": [_NOT_NEGATIVE, SequenceOf(_NOT_NEGATIVE), StrOptions({"cv"})],
    "class_weight": [StrOptions({"sqrt", "balanced"}), None],
    "n_bootstrap": [Interval(Integral, 0, None, closed="left")],
    "confidence": [Interval(Real, 0, 1, closed="neither")],
    "max_rows": [Interval(Integral, 1, None, closed="left"), None],
    "n_components": [Interval(Integral, 1, None, closed="left"), None],
    "n_folds": [Interval(Integral, 2, None, closed="left")],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def _percentiles(
    estimate: float, draws: np.ndarray, tail: float
) -> tuple[float, float]:
    lower, upper = np.percentile(draws, [tail, 100 - tail])
    return float(lower), float(upper)


def _basic(estimate: float, draws: np.ndarray, tail: float) -> tuple[float, float]:
    """Return the basic interval of a norm, from that of its square."""
    ends = 2 * estimate**2 - np.percentile(draws**2, [100 - tail, tail])
    lower, upper = np.sign(ends) * np.sqrt(np.abs(ends))
    return max(float(lower), -1.0), min(float(upper), 1.0)
