"""JointRidge: closed form for all tasks, from mergeable statistics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np

from mtsk._validation import (
    Interval,
    SequenceOf,
    StrOptions,
    check_parameters,
    group_numbers,
)
from mtsk.heads.base import COLUMNS, Memo, from_memo
from mtsk.heads.blocks import Block, solve_ridge
from mtsk.heads.calibration import calibrate_classes, calibrate_label
from mtsk.heads.capabilities import Capabilities
from mtsk.heads.class_weights import (
    CLASS_WEIGHT,
    ClassWeight,
    class_weights,
    prior_corrections,
)
from mtsk.heads.from_sums import FromSums, Part, one_hot
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = ["JointRidge"]

_POSITIVE = Interval(Real, 0, None, closed="neither")


class JointRidge(FromSums):
    """Ridge regression on coded targets, in closed form, missing entries allowed.

    For each column of targets, over its labelled rows with weights w of mean 1::

        minimise  mean(w (t − x̃ᵀv − b)²) + alpha · ‖v‖²

    where x̃ is x standardised over those rows, and t is 0/1 for classes and labels.
    Everything is computed from sums over rows (`Moments`), so a fit of all rows equals
    the merged fits of parts (``partial_fit``), and ``alpha`` is chosen by
    cross-validation without another pass over the data: the sums of a fold are
    subtracted from the total sums.

    Parameters
    ----------
    alpha : float, sequence of float, or "cv", default="cv"
        Strength of the penalty, relative to standardised features. From several
        (``"cv"``: 1e-5 … 10), each group gets the one with the least squared error on
        held-out folds.
    class_weight : {"sqrt", "balanced"}, float in [0, 1] or None, default="sqrt"
        Classes and labels of frequency f weigh ∝ 1/√f, 1/f, f to the power of minus
        this number, or 1.
    calibrate : bool, default=True
        Whether scores of classes and labels are calibrated to logits, by a model of the
        out-of-fold scores: logistic for labels, multinomial or one common scale for
        classes, whichever does better on held-out folds. Not possible in
        ``partial_fit``, which keeps no rows.
    n_folds : int, default=5
        Number of folds for both. Rows of one group (``groups`` of ``fit``) stay
        together.
    columns : list of ColumnGroup, default=None
        What the columns of ``y`` are (then coded, NaN missing). None reads integer,
        bool and str columns as classes, float ones as numbers.

    Attributes
    ----------
    coef_ : ndarray of float32, shape (n_features, n_scores)
    intercept_ : ndarray of float32, shape (n_scores,)
    groups_ : list of ColumnGroup
    alpha_ : list of float
        The penalty of each group.

    See Also
    --------
    JointLogistic : Better on classes, at slightly higher cost.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import JointRidge
    >>> X = np.arange(6.0)[:, None]
    >>> JointRidge(alpha=1e-6).fit(X, 2 * X[:, 0] + 1).predict([[10.0]]).round(2)
    array([21.], dtype=float32)
    """

    _NUMBERS: ClassVar[tuple[str, ...]] = ("alpha",)  # what partial_fit cannot choose

    def __init__(
        self,
        alpha: float | Sequence[float] | str = "cv",
        *,
        class_weight: ClassWeight = "sqrt",
        calibrate: bool = True,
        n_folds: int = 5,
        columns: Sequence[ColumnGroup] | None = None,
    ) -> None:
        self.alpha = alpha
        self.class_weight = class_weight
        self.calibrate = calibrate
        self.n_folds = n_folds
        self.columns = columns

    @property
    def capabilities(self) -> Capabilities:
        """What the head can do."""
        return Capabilities(
            is_joint=True,
            is_linear=True,
            learns_from_sums=hasattr(self, "merge"),
            takes_groups=True,
            takes_memo=True,
            takes_entry_weights=True,
        )

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        memo: Memo | None = None,
    ) -> Self:
        """Fit all groups.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
        sample_weight : array-like of shape (n_samples,) or as ``y``, default=None
        groups : array-like of shape (n_samples,), default=None
            Rows of one group, such as the pixels of one image, share a fold. If all
            labelled rows of a column are in one group, its folds are of rows.
        memo : object with ``get`` and ``put``, default=None
            Caches the sums between fits, where a parameter is chosen on held-out folds.
            One memo per ``X``.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError
        """
        self._check_parameters()
        X, Y, weight = self.check_table(X, y, sample_weight)
        T, W = self._targets_and_weights(Y, weight)
        fold = self._folds(len(X), groups)
        self._sums = None
        self.prior_corrections_: np.ndarray | float = 0.0  # else no logits
        if hasattr(self, "partial_fit") and self._sums_nbytes() <= _MOST_BYTES:
            self._sums = {}  # kept for later calls of partial_fit
            self._add_table(X, Y, weight)
            self._solve_sums(self._own_sums())
            return self
        alphas = self._alphas()
        chooses = self._compares(alphas) or self.calibrate
        blocks = []
        for cols in _equal_columns(W):
            own = self._dealt(fold, W[:, cols[0]] > 0) if chooses else 0 * fold
            about = [T[:, cols], W[:, cols[0]], own, cols]
            blocks.append(from_memo(memo, about, partial(Block, X, T, W, own, cols)))
        self.alpha_ = self._choose_alphas(blocks, alphas)
        chosen = np.repeat(self.alpha_, [g.size for g in self.groups_])
        self._prepare_sharing(X, T, W, blocks, chosen)
        coef, intercept = self._solve([(x.whole, x.cols) for x in blocks], chosen)
        if self.calibrate and any(len(x.folds) > 1 for x in blocks):
            held_out = self._held_out_scores(X, blocks, chosen)
            coef, intercept = self._calibrated(coef, intercept, held_out, T, W, blocks)
            self.prior_corrections_ = prior_corrections(
                self.groups_, Y, weight, self.class_weight
            )
        self.coef_ = coef.astype(np.float32)
        self.intercept_ = intercept.astype(np.float32)
        return self

    def _held_out_scores(
        self, X: np.ndarray, blocks: list[Block], alphas: np.ndarray
    ) -> np.ndarray:
        """Return the out-of-fold scores of every row."""
        scores = np.zeros((len(X), len(alphas)), np.float32)
        for k in np.unique(np.concatenate([x.folds for x in blocks])):
            c, b = self._solve([(x.without(k), x.cols) for x in blocks], alphas)
            rows = np.logical_or.reduce([x.fold == k for x in blocks])
            found = X[rows] @ c.astype(np.float32) + b
            for x in blocks:
                own = x.fold[rows] == k
                scores[np.ix_(x.fold == k, x.cols)] = found[np.ix_(own, x.cols)]
        return scores

    def _check_parameters(self) -> None:
        check_parameters(self, _CONSTRAINTS)

    def _compares(self, alphas: list[float]) -> bool:
        """Return whether any parameter is chosen on held-out folds."""
        return len(alphas) > 1

    def _prepare_sharing(
        self,
        X: np.ndarray,
        T: np.ndarray,
        W: np.ndarray,
        blocks: list[Block],
        alphas: np.ndarray,
    ) -> None:
        """Choose the sharing strength: none here, see `SharingRidge`."""

    def _solve(
        self, parts: Sequence[Part], alphas: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (coef, intercept) of all scores, each with its own penalty."""
        coef = np.empty((len(parts[0][0].centre), len(alphas)))
        intercept = np.empty(len(alphas))
        for moments, cols in parts:
            own = alphas[cols]
            distinct = np.unique(own)
            fits = solve_ridge(moments, distinct.tolist())
            for alpha, (c, b) in zip(distinct, fits, strict=True):
                chosen = own == alpha
                coef[:, cols[chosen]] = c[:, chosen]
                intercept[cols[chosen]] = b[chosen]
        return coef, intercept

    def _targets_and_weights(
        self, Y: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the target and the weight of every score, (n, n_scores) each."""
        targets, weights = [], []
        for group, columns, _ in labelled_columns(self.groups_):
            entries = class_weights(
                group, Y[:, columns], weight[:, columns], self.class_weight
            )
            if not entries.any(axis=0).all():
                raise ValueError(
                    "a column has no labelled row of positive weight: columns "
                    f"{columns.start} to {columns.stop - 1}"
                )
            repeats = group.size if group.kind == "nominal" else 1
            weights.append(np.repeat(entries, repeats, axis=1))
            targets.append(one_hot(group, Y[:, columns]))
        return np.concatenate(targets, axis=1), np.concatenate(weights, axis=1)

    def _choose_alphas(self, blocks: list[Block], alphas: list[float]) -> list[float]:
        if len(alphas) == 1:
            return alphas * len(self.groups_)
        n_scores = sum(g.size for g in self.groups_)
        errors = np.zeros((len(alphas), n_scores))
        for block in blocks:
            errors[:, block.cols] = block.held_out_errors(alphas)
        return [
            alphas[int(errors[:, scores].sum(axis=1).argmin())]
            for _, _, scores in labelled_columns(self.groups_)
        ]

    def _calibrated(
        self,
        coef: np.ndarray,
        intercept: np.ndarray,
        held_out: np.ndarray,
        T: np.ndarray,
        W: np.ndarray,
        blocks: list[Block],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compose each linear model with a calibration of its out-of-fold scores."""
        fold_of = np.empty(T.shape[1], object)
        for block in blocks:
            for col in block.cols:
                fold_of[col] = block.fold
        for group, _, scores in labelled_columns(self.groups_):
            if group.kind == "real" or (group.kind == "nominal" and group.size == 1):
                continue
            step = group.size if group.kind == "nominal" else 1
            for start in range(scores.start, scores.stop, step):
                part, weight = slice(start, start + step), W[:, start]
                own = held_out[:, part]
                if step > 1:
                    codes = T[:, part].argmax(axis=1)
                    slope, offset = calibrate_classes(
                        own, codes, weight, fold_of[start]
                    )
                else:
                    slope, offset = calibrate_label(own, T[:, start], weight)
                coef[:, part] = coef[:, part] @ slope
                intercept[part] = intercept[part] @ slope + offset
        return coef, intercept

    def _alphas(self) -> list[float]:
        return penalties(self.alpha)

    def _folds(self, n_rows: int, groups: Any) -> np.ndarray:
        """Return the fold of each row; groups are dealt out in order of appearance."""
        if groups is None:
            return np.arange(n_rows) % min(self.n_folds, n_rows)
        numbers = group_numbers(groups, n_rows)
        first = np.unique(numbers, return_index=True)[1]
        order = np.empty(len(first), int)
        order[np.argsort(first)] = np.arange(len(first))
        return order[numbers] % min(self.n_folds, len(first))

    def _dealt(self, fold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Deal out single rows where all are of one fold."""
        n_rows = int(np.count_nonzero(rows))
        if n_rows < 2 or len(np.unique(fold[rows])) > 1:
            return fold
        own = fold.copy()
        own[rows] = np.arange(n_rows) % min(self.n_folds, n_rows)
        return own


_MOST_BYTES = 2**30  # upper bound of the sums that a fit keeps
_CONSTRAINTS: dict[str, list] = {
    "alpha": [_POSITIVE, SequenceOf(_POSITIVE), StrOptions({"cv"})],
    "class_weight": CLASS_WEIGHT,
    "calibrate": ["boolean"],
    "columns": COLUMNS,
    "n_folds": [Interval(Integral, 2, None, closed="left")],
}


def penalties(alpha: float | Sequence[float] | str) -> list[float]:
    """Return the penalties to choose from, 1e-5 … 10 for ``"cv"``."""
    if isinstance(alpha, str):
        return [10.0**p for p in range(-5, 2)]
    return [float(a) for a in np.atleast_1d(alpha)]


def _equal_columns(W: np.ndarray) -> list[np.ndarray]:
    """Return the columns of a table, grouped by equality."""
    found: dict[bytes, list[int]] = {}
    for j in range(W.shape[1]):
        found.setdefault(W[:, j].tobytes(), []).append(j)
    return [np.array(cols) for cols in found.values()]
