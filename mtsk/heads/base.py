"""Base classes of the joint heads: target tables in, score tables out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from mtsk._validation import (
    Interval,
    SequenceOf,
    StrOptions,
    check_sample_weight,
    is_missing,
)
from mtsk.heads.capabilities import Capabilities
from mtsk.tasks.columns import ColumnGroup, column_slices, score_slices

__all__ = [
    "COLUMNS",
    "CLASS_WEIGHT",
    "ClassWeight",
    "JointHead",
    "JointLinear",
    "JointTable",
    "Memo",
    "check_codes",
    "check_entry_weights",
    "class_power",
    "class_weights",
    "labelled_columns",
    "log_priors",
    "prior_corrections",
    "from_memo",
]

ClassWeight = Literal["sqrt", "balanced"] | float | None
COLUMNS = [SequenceOf(ColumnGroup), None]
CLASS_WEIGHT: list = [
    StrOptions({"sqrt", "balanced"}),
    Interval(Real, 0, 1, closed="both"),
    None,
]
"""What `class_weight` of a head may be."""


class Memo(Protocol):
    """Cache in which a head keeps what it derived from one ``X`` for later fits."""

    def get(self, key: str) -> Any:
        """Return an entry, or None."""

    def put(self, key: str, entry: Any) -> None:
        """Store an entry, whose attribute ``nbytes`` is its size."""


_Entry = TypeVar("_Entry")


def from_memo(
    memo: Memo | None, about: Sequence[np.ndarray], make: Callable[[], _Entry]
) -> _Entry:
    """Return the result of ``make``, from the memo where it is stored there.

    Parameters
    ----------
    memo : Memo or None
        The cache of one ``X``.
    about : sequence of ndarray
        Everything else that the entry depends on.
    make : callable

    Returns
    -------
    object
    """
    if memo is None:
        return make()
    digest = hashlib.blake2b(digest_size=16)
    for array in about:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    key = digest.hexdigest()
    entry = memo.get(key)
    if entry is None:
        entry = make()
        memo.put(key, entry)
    return entry


class JointTable(BaseEstimator):
    """Base of estimators fitted to a coded table of targets, NaN where missing.

    Attributes
    ----------
    groups_ : list of ColumnGroup
    classes_ : list of ndarray or None
        Labels of each group that was read from an integer or str ``y``.
    """

    columns: Sequence[ColumnGroup] | None
    groups_: list[ColumnGroup]
    classes_: list[Any]
    _flat: bool

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def check_table(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return X, the coded table of y (float32, NaN missing), and entry weights."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None"
            )
        X = validate_data(self, X, reset=reset, dtype=[np.float32, np.float64])
        Y = self._code(y, reset)
        check_consistent_length(X, Y)
        weight = check_entry_weights(sample_weight, X, Y.shape[1])
        with np.errstate(over="ignore"):
            small = X.astype(np.float32, copy=False)
        if X.dtype == np.float64 and not np.isfinite(small).all():
            raise ValueError(
                f"X holds numbers up to {np.abs(X).max():.3g}, too large for float32"
            )
        return small, Y, weight

    def _code(self, y: Any, reset: bool) -> np.ndarray:
        y = y if hasattr(y, "dtype") else np.asarray(y)
        if self.columns is not None:
            Y = check_array(y, dtype=np.float32, ensure_all_finite="allow-nan")
            self._flat = False
            self.groups_ = list(self.columns)
            self.classes_ = [None] * len(self.groups_)
            width = sum(g.n_columns for g in self.groups_)
            if Y.shape[1] != width:
                raise ValueError(f"y has {Y.shape[1]} columns, `columns` name {width}")
            check_codes(self.groups_, Y)
            return Y
        flat = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
        if y.ndim == 2 and flat:
            y = column_or_1d(y, warn=True)
        y = check_array(
            y,
            dtype=None,
            ensure_2d=False,
            ensure_all_finite="allow-nan" if y.dtype.kind in "fO" else True,
        )
        y = np.asarray(y)[:, None] if flat else np.asarray(y)
        missing = np.zeros(y.shape, bool)
        if y.dtype.kind == "O":
            y, missing = _words_or_numbers(y)
        if reset:
            self._flat = flat
        if y.dtype.kind == "f":
            return self._code_reals(y, reset)
        return self._codes(y, missing, reset)

    def _code_reals(self, y: np.ndarray, reset: bool) -> np.ndarray:
        if reset:
            self.groups_ = [ColumnGroup("real", 1) for _ in range(y.shape[1])]
            self.classes_ = [None] * y.shape[1]
        with np.errstate(over="ignore"):
            small = y.astype(np.float32)
        if np.isinf(small).any():
            raise ValueError(
                f"y holds numbers up to {np.nanmax(np.abs(y)):.3g}, too large for "
                "float32"
            )
        return small

    def _codes(self, y: np.ndarray, missing: np.ndarray, reset: bool) -> np.ndarray:
        if missing.all(axis=0).any():
            column = int(missing.all(axis=0).argmax())
            raise ValueError(f"column {column} of y has no label")
        known = ~missing
        if reset:
            self.classes_ = [
                np.unique(column[own]) for column, own in zip(y.T, known.T, strict=True)
            ]
            self.groups_ = [ColumnGroup("nominal", len(c)) for c in self.classes_]
        codes = np.empty(y.shape, np.float32)
        for j, classes in enumerate(self.classes_):
            place = np.searchsorted(classes, y[:, j]).clip(max=len(classes) - 1)
            if ((classes[place] != y[:, j]) & known[:, j]).any():
                raise ValueError("y has labels that the first call did not have")
            codes[:, j] = np.where(known[:, j], place, np.nan)
        return codes


class JointHead(JointTable):
    """Base of the heads that give all column groups' scores at once."""

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the head."""
        return Capabilities(is_joint=True)

    def chosen_parameters(self) -> dict[str, Any]:
        """Return the parameters that give another fit the same sharing strength.

        Returns
        -------
        dict
            Empty where ``fit`` chooses no such parameter.
        """
        return {}

    @property
    def prior_corrections(self) -> np.ndarray | float:
        """What is added to scores before they become probabilities, (n_scores,)."""
        return getattr(self, "prior_corrections_", 0.0)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of every group, side by side, (n_samples, n_scores)."""
        raise NotImplementedError

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities of classes and labels (and the numbers of real columns).

        Those at the frequencies of the rows, whatever the class weights: the most
        probable class need not be that of ``predict``, which rare classes win earlier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_scores)
        """
        scores = self.decision_function(X) + self.prior_corrections
        squash = {"nominal": softmax, "binary": lambda s, axis: expit(s)}
        for group, part in zip(self.groups_, score_slices(self.groups_), strict=True):
            if group.kind in squash:
                scores[:, part] = squash[group.kind](scores[:, part], axis=1)
        return scores

    def predict(self, X: Any) -> np.ndarray:
        """Return a table like the ``y`` of ``fit``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_columns)
        """
        scores = self.decision_function(X)
        parts = []
        for group, part, classes in zip(
            self.groups_, score_slices(self.groups_), self.classes_, strict=True
        ):
            score = scores[:, part]
            if group.kind == "nominal":
                code = score.argmax(axis=1)[:, None]
                parts.append(code.astype(float) if classes is None else classes[code])
            else:
                parts.append((score > 0) * 1.0 if group.kind == "binary" else score)
        table = np.concatenate(parts, axis=1)
        return table[:, 0] if self._flat else table


class JointLinear(JointHead):
    """Base of the heads that hold one weight matrix for all column groups.

    Attributes
    ----------
    coef_ : ndarray of float32, shape (n_features, n_scores)
    intercept_ : ndarray of float32, shape (n_scores,)
    """

    coef_: np.ndarray
    intercept_: np.ndarray

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the head."""
        return Capabilities(is_joint=True, is_linear=True)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of every group, side by side.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_scores)
            Logits of classes and labels; numbers of real columns.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float32, np.float64])
        # In torch: idle BLAS threads of numpy spin and slow later torch operations.
        scores = torch.from_numpy(X) @ torch.from_numpy(self.coef_.astype(X.dtype))
        return scores.numpy() + self.intercept_.astype(X.dtype)


def _words_or_numbers(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an object array as str or float, and a mask of missing entries."""
    flat = map(is_missing, y.ravel().tolist())
    missing = np.array(list(flat), bool).reshape(y.shape)
    words = {isinstance(value, str) for value in y[~missing].tolist()}
    if len(words) > 1:
        raise ValueError(
            "y mixes words and numbers: turn words into codes, and say with `columns` "
            "what each column is"
        )
    if True in words:
        return np.where(missing, "", y).astype(str), missing
    return y.astype(float), missing


def check_codes(groups: Sequence[ColumnGroup], Y: np.ndarray) -> None:
    """Raise ``ValueError`` where a table holds codes that its groups do not have."""
    for group, part in zip(groups, column_slices(list(groups)), strict=True):
        if group.kind == "real":
            continue
        n_codes = group.size if group.kind == "nominal" else 2
        known = Y[:, part][~np.isnan(Y[:, part])]
        strange = known[~np.isin(known, np.arange(n_codes))]
        if len(strange):
            raise ValueError(
                f"y has the value {strange[0]:g} in a {group.kind} column, where "
                f"values may be 0 to {n_codes - 1}, or NaN"
            )


def check_entry_weights(sample_weight: Any, X: np.ndarray, n_columns: int) -> Any:
    """Return the weight of every entry of y, checked.

    Parameters
    ----------
    sample_weight : array-like of shape (n,) or (n, n_columns), or None
        Of rows, or of entries; None is 1.
    X : ndarray of shape (n, d)
    n_columns : int

    Returns
    -------
    ndarray of float64, shape (n, n_columns)
        Not to be written to.

    Raises
    ------
    ValueError
    """
    if sample_weight is None or np.asarray(sample_weight).ndim != 2:
        weight = check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        return np.broadcast_to(weight[:, None], (len(X), n_columns))
    weight = check_array(
        sample_weight,
        dtype=np.float64,
        ensure_non_negative=True,
        input_name="sample_weight",
    )
    if weight.shape != (len(X), n_columns):
        raise ValueError(
            f"sample_weight must have the shape of y, {(len(X), n_columns)}, or "
            f"{(len(X),)}, got {weight.shape}"
        )
    return weight


def class_power(class_weight: ClassWeight) -> float:
    """Return p, where classes of frequency f weigh ∝ f ** −p."""
    if isinstance(class_weight, str):
        return {"sqrt": 0.5, "balanced": 1.0}[class_weight]
    return 0.0 if class_weight is None else float(class_weight)


def class_weights(
    group: ColumnGroup, Y: np.ndarray, weight: np.ndarray, power: ClassWeight
) -> np.ndarray:
    """Return the weight of each entry, of mean 1 over the labelled ones, 0 elsewhere.

    An entry of a class with frequency f weighs ∝ f^−p, with p from `class_power`, times
    its own weight.

    Parameters
    ----------
    group : ColumnGroup
    Y : ndarray of shape (n, group.n_columns)
        Coded, NaN where missing.
    weight : ndarray of shape (n, group.n_columns)
    power : {"sqrt", "balanced"}, float in [0, 1] or None

    Returns
    -------
    ndarray of float64, shape (n, group.n_columns)
    """
    valid = ~np.isnan(Y)
    out = np.where(valid, weight, 0.0)
    if group.kind != "real":
        size = group.size if group.kind == "nominal" else 2
        for j in range(Y.shape[1]):
            code = np.where(valid[:, j], Y[:, j], 0).astype(np.intp)
            mass = np.bincount(code, out[:, j], minlength=size)
            share = np.where(mass > 0, mass / max(mass.sum(), 1e-300), 1.0)
            out[:, j] *= share[code] ** -class_power(power)
    total = out.sum(axis=0)
    return out * np.where(
        total > 0, valid.sum(axis=0) / np.where(total > 0, total, 1), 0
    )


def prior_corrections(
    groups: Sequence[ColumnGroup],
    Y: np.ndarray,
    weight: np.ndarray,
    class_weight: ClassWeight,
) -> np.ndarray:
    """Return what turns scores learnt with class weights into calibrated ones.

    A classifier learnt with weights w_k gives posteriors ∝ w_k p(k | x); with
    w_k ∝ f_k ** −p, adding p · log f_k to the scores undoes that (Elkan, *The
    foundations of cost-sensitive learning*, IJCAI 2001, theorem 2).

    Parameters
    ----------
    groups : sequence of ColumnGroup
    Y : ndarray of shape (n, n_columns)
        Coded, NaN where missing.
    weight : ndarray of shape (n, n_columns)
        Of entries.
    class_weight : {"sqrt", "balanced"}, float in [0, 1] or None

    Returns
    -------
    ndarray of float32, shape (n_scores,)
        0 for numbers, and for classes that do not occur.
    """
    power = class_power(class_weight)
    parts = []
    for group, columns, _ in labelled_columns(list(groups)):
        shares = np.stack(
            [
                _class_shares(group, column, mass)
                for column, mass in zip(
                    Y[:, columns].T, weight[:, columns].T, strict=True
                )
            ]
        )
        parts.append(power * log_priors(group, shares))
    return np.concatenate(parts).astype(np.float32)


def log_priors(group: ColumnGroup, shares: np.ndarray) -> np.ndarray:
    """Return the log frequency (odds, of labels) that belongs to each score of a group.

    Parameters
    ----------
    group : ColumnGroup
    shares : ndarray of shape (n_columns, n_classes)
        Frequencies; of numbers not looked at.

    Returns
    -------
    ndarray of shape (group.size,)
        0 for numbers, and for classes that do not occur.
    """
    if group.kind == "real":
        return np.zeros(group.size)
    logs = np.log(np.where(shares > 0, shares, 1.0))
    if group.kind == "nominal":
        return logs[0]
    return np.where((shares > 0).all(axis=1), logs[:, 1] - logs[:, 0], 0.0)


def _class_shares(group: ColumnGroup, y: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Return the frequency of each class in a column; 1 where it has none."""
    size = {"nominal": group.size, "binary": 2, "real": 1}[group.kind]
    if group.kind == "real":
        return np.ones(1)
    known = ~np.isnan(y)
    counts = np.bincount(y[known].astype(np.intp), mass[known], minlength=size)
    return counts / max(counts.sum(), 1e-300)


def labelled_columns(
    groups: list[ColumnGroup],
) -> list[tuple[ColumnGroup, slice, slice]]:
    """Return each group with its slice of columns and its slice of scores."""
    return list(zip(groups, column_slices(groups), score_slices(groups), strict=True))
