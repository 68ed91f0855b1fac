"""Base classes of the joint heads: target tables in, score tables out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

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

from mtsk._validation import SequenceOf, is_missing
from mtsk.heads.capabilities import Capabilities
from mtsk.heads.class_weights import check_entry_weights
from mtsk.tasks.columns import ColumnGroup, column_slices, score_slices

__all__ = [
    "COLUMNS",
    "JointHead",
    "JointLinear",
    "JointTable",
    "Memo",
    "check_codes",
    "from_memo",
]

COLUMNS = [SequenceOf(ColumnGroup), None]
_FLOATS = [np.float32, np.float64]


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
        X = validate_data(self, X, reset=reset, dtype=_FLOATS, order="C")
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
        X = validate_data(self, X, reset=False, dtype=_FLOATS, order="C")
        # In torch: idle BLAS threads of numpy spin and slow later torch operations.
        scores = torch.from_numpy(X) @ torch.from_numpy(self.coef_.astype(X.dtype))
        return scores.numpy() + self.intercept_.astype(X.dtype)

    def to_torch(self) -> torch.nn.Module:
        """Return a network that maps rows to scores as `decision_function` does.

        Returns
        -------
        torch.nn.Linear
        """
        check_is_fitted(self)
        layer = torch.nn.Linear(*self.coef_.shape)
        layer.weight.data = torch.from_numpy(self.coef_.T.astype(np.float32))
        layer.bias.data = torch.from_numpy(self.intercept_.astype(np.float32))
        return layer.requires_grad_(False)


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
