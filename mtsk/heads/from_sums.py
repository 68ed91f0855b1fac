"""Heads fitted from sums over rows: incrementally, in any order, distributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.metaestimators import available_if

from mtsk.heads.base import JointLinear
from mtsk.heads.class_weights import ClassWeight, class_power
from mtsk.heads.statistics import Moments
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = ["FromSums", "Key", "Part", "one_hot"]

Key = tuple[int, int]  # first score and class of the sums
Part = tuple[Moments, np.ndarray]  # and the indices of its scores


def _sums_only(head: FromSums) -> bool:
    """Return whether a head needs only sums, so that it can learn incrementally."""
    values = {name: getattr(head, name) for name in head._NUMBERS}
    if head.calibrate or not all(isinstance(v, Real) for v in values.values()):
        names = " and ".join(f"`{name}`" for name in values)
        got = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise AttributeError(
            f"partial_fit of {type(head).__name__} needs a number as {names}, and "
            f"calibrate=False, got {got}, calibrate={head.calibrate!r}"
        )
    return True


class FromSums(JointLinear):
    """Incremental fitting of closed-form heads.

    Sums are kept separately for each class, so that class weights can be computed from
    the frequencies over all rows once these are known.
    """

    _NUMBERS: ClassVar[tuple[str, ...]]  # not selectable from sums alone
    alpha: Any
    calibrate: bool
    class_weight: ClassWeight

    def _check_parameters(self) -> None:
        raise NotImplementedError

    def _solve(
        self, parts: Sequence[Part], alphas: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    # None after a fit that did not keep sums; by class where classes are weighted.
    _sums: dict[Key, Moments] | None
    _sums_by_class: bool

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if state.get("_sums"):  # pairs: keys in JSON can only be strings
            state = {**state, "_sums": list(state["_sums"].items())}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if isinstance(state.get("_sums"), list):
            self._sums = dict(state["_sums"])

    def _own_sums(self) -> dict[Key, Moments]:
        """Return the sums; raise ``ValueError`` if they lack rows seen before."""
        sums = getattr(self, "_sums", {})
        name = type(self).__name__
        if sums is None:
            raise ValueError(
                f"{name} cannot go on from its `fit`, which kept no sums of its rows "
                "(they are large, or it chose by all rows at once): give the first "
                "rows, too, to partial_fit"
            )
        by_class = getattr(self, "_sums_by_class", self.class_weight is not None)
        if sums and by_class != (self.class_weight is not None):
            raise ValueError(
                f"`class_weight` of {name} was {'not ' * by_class}None when the first "
                f"rows came, is {self.class_weight!r}: begin anew with all rows"
            )
        return sums

    @available_if(_sums_only)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows to those seen so far; the result equals one ``fit`` of them all.

        Rows of an earlier ``fit`` are included where it kept their sums, up to 1 GB;
        otherwise a ValueError is raised. Available only where ``alpha`` is a number and
        ``calibrate`` is False: both need all rows at once. With class weights, sums are
        kept for each class: n_classes · n_features² numbers. Labels absent from the
        first call raise an error unless ``columns`` has them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_columns)
        sample_weight : array-like of shape (n_samples,) or as ``y``, default=None

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError
        """
        self._add_rows(X, y, sample_weight)
        self._solve_sums(self._own_sums())
        return self

    @available_if(_sums_only)
    def add_rows(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows as ``partial_fit`` does, without solving; see ``solve``.

        Parameters
        ----------
        X, y, sample_weight
            As for ``partial_fit``.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError
        """
        self._add_rows(X, y, sample_weight)
        return self

    def _add_rows(self, X: Any, y: Any, sample_weight: Any) -> None:
        self._check_parameters()
        sums = self._own_sums()
        X, Y, weight = self.check_table(X, y, sample_weight, reset=not sums)
        self._sums = sums
        self._add_table(X, Y, weight)

    def _add_table(self, X: np.ndarray, Y: np.ndarray, weight: np.ndarray) -> None:
        """Add the rows of a table that was checked."""
        sums = self._own_sums()
        for key, rows, targets in self._class_rows(Y, weight):
            if rows.any():
                more = Moments.of(X, targets, rows)
                sums[key] = sums[key] + more if key in sums else more
        self._sums_by_class = self.class_weight is not None

    def _sums_nbytes(self) -> int:
        """Return an upper bound on the bytes of this table's sums."""
        n = 0
        for group in self.groups_:
            if self.class_weight is None or group.kind == "real":
                n += group.n_columns
            else:
                n += group.size if group.kind == "nominal" else 2 * group.n_columns
        return 8 * n * int(self.n_features_in_) ** 2

    @available_if(_sums_only)
    def merge(self, other: Self) -> Self:
        """Add the rows that another head has seen, in any order; then ``solve``.

        Parameters
        ----------
        other : JointRidge
            With the same ``columns`` and classes, fitted by ``add_rows`` or
            ``partial_fit``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
        """
        if not other._own_sums():
            return self
        if not self._own_sums():
            for name, value in vars(other).items():
                if name not in self.get_params(deep=False):
                    setattr(self, name, value)
            self._sums = dict(other._own_sums())
            return self
        if other.groups_ != self.groups_ or other.n_features_in_ != self.n_features_in_:
            raise ValueError(
                f"heads of {self.groups_} over {self.n_features_in_} features and of "
                f"{other.groups_} over {other.n_features_in_} cannot be merged"
            )
        sums = self._own_sums()
        for key, more in other._own_sums().items():
            sums[key] = sums[key] + more if key in sums else more
        return self

    def sums(self) -> dict[str, np.ndarray]:
        """Return the sums of the rows added so far, as arrays by name.

        Returns
        -------
        dict of str to ndarray
            The fields of the `Moments` of each score and class, and the table's shape.
        """
        if not self._own_sums():
            return {}
        n_columns = sum(group.n_columns for group in self.groups_)
        out = {"shape": np.array([self.n_features_in_, n_columns])}
        for (score, code), moments in self._own_sums().items():
            for field in fields(Moments):
                value = np.asarray(getattr(moments, field.name))
                out[f"{score}.{code}.{field.name}"] = value
        return out

    def load_sums(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Load the output of `sums`, as if its rows had been added here.

        Parameters
        ----------
        arrays : mapping of str to ndarray

        Returns
        -------
        self
        """
        if not arrays:
            return self
        n_features, n_columns = (int(n) for n in arrays["shape"])
        row = np.zeros((1, n_features), np.float32)
        self.check_table(row, np.zeros((1, n_columns)), None)
        found: dict[Key, dict[str, Any]] = {}
        for name, array in arrays.items():
            if name != "shape":
                score, code, field = name.split(".")
                value = array if array.ndim else float(array)
                found.setdefault((int(score), int(code)), {})[field] = value
        self._sums = {key: Moments(**values) for key, values in found.items()}
        self._sums_by_class = self.class_weight is not None
        return self

    @available_if(_sums_only)
    def solve(self) -> Self:
        """Compute the coefficients from the sums of all rows added so far."""
        self._solve_sums(self._own_sums())
        return self

    def _class_rows(
        self, Y: np.ndarray, weight: np.ndarray
    ) -> Iterator[tuple[Key, np.ndarray, np.ndarray]]:
        """Yield (first score, class), its rows' weights, and their targets."""
        for group, columns, scores in labelled_columns(self.groups_):
            targets = one_hot(group, Y[:, columns])
            for j, column in enumerate(Y[:, columns].T):
                mass = weight[:, columns.start + j]
                own = targets if group.kind == "nominal" else targets[:, [j]]
                n_classes = group.size if group.kind == "nominal" else 2
                if group.kind == "real" or self.class_weight is None:
                    yield (scores.start + j, 0), mass * ~np.isnan(column), own
                    continue
                for code in range(n_classes):
                    yield (scores.start + j, code), mass * (column == code), own

    def _solve_sums(self, sums: dict[Key, Moments]) -> None:
        """Solve from the sums, weighting classes by their observed frequencies."""
        alpha = float(self.alpha)
        n_features = self.n_features_in_
        self.alpha_ = [alpha] * len(self.groups_)
        n_scores = sum(g.size for g in self.groups_)
        coef, intercept = np.zeros((n_features, n_scores)), np.zeros(n_scores)
        parts: list[Part] = []
        for group, _, scores in labelled_columns(self.groups_):
            power = 0.0 if group.kind == "real" else class_power(self.class_weight)
            for start in range(scores.start, scores.start + group.n_columns):
                classes = [m for key, m in sorted(sums.items()) if key[0] == start]
                if not classes:  # no label yet: scores are 0
                    continue
                total = sum(m.weight for m in classes)
                weighted = [m.times((m.weight / total) ** -power) for m in classes]
                width = group.size if group.kind == "nominal" else 1
                parts.append((Moments.merge(weighted), np.arange(start, start + width)))
        if parts:
            seen = np.concatenate([cols for _, cols in parts])
            place = {c: i for i, c in enumerate(seen)}
            own = [(m, np.array([place[c] for c in cols])) for m, cols in parts]
            coef[:, seen], intercept[seen] = self._solve(own, np.full(len(seen), alpha))
        self.coef_, self.intercept_ = (a.astype(np.float32) for a in (coef, intercept))


def one_hot(group: ColumnGroup, Y: np.ndarray) -> np.ndarray:
    """Return the numbers that a group's columns are regressed on, (n, size)."""
    if group.kind != "nominal":
        return np.nan_to_num(Y)
    return (np.arange(group.size) == Y).astype(np.float32)
