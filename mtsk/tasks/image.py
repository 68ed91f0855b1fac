"""Tasks with one target per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtsk._validation import parameter_error
from mtsk.exceptions import TargetError
from mtsk.tasks.arrays import as_array
from mtsk.tasks.base import ImageTask
from mtsk.tasks.columns import ColumnGroup
from mtsk.tasks.labels import (
    UNLABELLED,
    as_list,
    codes_of,
    learn_classes,
    unseen_labels,
)
from mtsk.tasks.precision import as_float32, check_resolution

__all__ = ["Classification", "Count", "MultiLabel", "Ordinal", "Regression"]


class Classification(ImageTask):
    """One class per image. A target is an int, str or bool; −1 is unlabelled.

    Floats that are whole numbers count as ints, and NaN as −1.

    Parameters
    ----------
    void : label or sequence of labels, default=()
        Labels that mean "unlabelled".
    classes : sequence of labels, default=None
        All classes. None takes those that occur.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.

    Examples
    --------
    >>> from mtsk.tasks import Classification
    >>> task = Classification().fit(["cat", "dog"])
    >>> task.encode("dog", (10, 10))
    array([1.], dtype=float32)
    """

    metrics = ("balanced_accuracy", "accuracy")

    def __init__(self, void: Any = (), classes: Sequence[Any] | None = None) -> None:
        self.void = void
        self.classes = classes

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        for i, target in enumerate(targets):
            _check_scalar(target, i)
        self.classes_ = learn_classes(targets, as_list(self.void), self.classes)
        return ColumnGroup("nominal", len(self.classes_))

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        _check_scalar(target)
        return codes_of([target], self.classes_, as_list(self.void), unseen=unseen)

    def unseen_labels(self, target: Any) -> set[Any]:
        return unseen_labels([target], self.classes_, as_list(self.void))

    def decode(self, scores: np.ndarray) -> Any:
        return self.classes_[scores.argmax(axis=-1)]


class MultiLabel(ImageTask):
    """Any number of labels per image, such as tags.

    A target is a vector of L bool (or of 1, 0 and −1, unlabelled; or of float with
    NaN), or a set of label names. ``predict`` gives bool vectors, or sets.

    Parameters
    ----------
    labels : sequence of str, default=None
        Names of the L labels. Needed only to name vectors; for sets, None takes
        those that occur.
    of : "auto", str or None, default="auto"
        The `SemanticSegmentation` whose classes the labels are. Tags then supervise
        pixels: in an image with tags and no mask, only its tags' classes can occur.
        ``"auto"`` finds the task whose classes all are named labels of this one; None:
        no link. Classes without a label may occur anywhere.

    Attributes
    ----------
    classes_ : ndarray of shape (L,)
        The names, or 0 … L − 1.
    named_ : bool
        Whether the labels have names.

    Examples
    --------
    >>> from mtsk.tasks import MultiLabel
    >>> task = MultiLabel().fit([{"cow", "grass"}, {"sky"}])
    >>> task.encode({"sky"}, (10, 10))
    array([0., 0., 1.], dtype=float32)
    """

    metrics = ("average_precision", "accuracy")

    def __init__(
        self, labels: Sequence[str] | None = None, of: str | None = "auto"
    ) -> None:
        self.labels = labels
        self.of = of

    def _check(self) -> None:
        if self.of is not None and not isinstance(self.of, str):
            raise parameter_error("of", self, "'auto', a task's name or None", self.of)
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise parameter_error("labels", self, "different names", self.labels)

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        self.sets_ = all(isinstance(t, set | frozenset) for t in targets)
        self.named_ = self.sets_ or self.labels is not None
        if self.sets_:
            found = set().union(*targets)
            if len({isinstance(label, str) for label in found}) > 1:
                raise TargetError("labels mix numbers and strings")
            self.classes_ = np.array(
                sorted(found) if self.labels is None else self.labels
            )
        else:
            widths = {as_array(t).shape for t in targets}
            if len(widths) != 1 or len(next(iter(widths))) != 1:
                raise TargetError(
                    "label vectors must be 1-D and of one length, got shapes "
                    f"{sorted(map(str, widths))[:5]}; names of labels go into a set"
                )
            n_labels = next(iter(widths))[0]
            if self.labels is not None and len(self.labels) != n_labels:
                raise TargetError(
                    f"`labels` of MultiLabel has {len(self.labels)} names, "
                    f"targets have {n_labels}"
                )
            names = np.arange(n_labels) if self.labels is None else self.labels
            self.classes_ = np.array(names)
        if len(self.classes_) == 0:
            raise TargetError("there is no label in any entry")
        return ColumnGroup("binary", len(self.classes_))

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        if isinstance(target, set | frozenset):
            unknown = set(target) - set(self.classes_.tolist())
            if unknown and not unseen:
                raise TargetError(
                    f"unknown labels {sorted(unknown)}; they are "
                    f"{self.classes_.tolist()}"
                )
            return np.isin(self.classes_, list(target)).astype(np.float32)
        vector = as_array(target)
        if vector.shape != self.classes_.shape or vector.dtype.kind not in "biuf":
            raise TargetError(
                f"a label vector must have {len(self.classes_)} bool, got dtype "
                f"{vector.dtype}, shape {vector.shape}; names of labels go into a set"
            )
        missing = np.isnan(vector) | (vector == UNLABELLED)
        if not np.isin(vector[~missing], (0, 1)).all():
            raise TargetError("a label vector may hold 0, 1 and -1 (or NaN) only")
        return np.where(missing, np.nan, vector).astype(np.float32)

    def decode(self, scores: np.ndarray) -> Any:
        yes = scores > 0
        return set(self.classes_[yes].tolist()) if self.sets_ else yes


class Regression(ImageTask):
    """One number per image, or a vector of L; NaN is unlabelled.

    Attributes
    ----------
    n_values_ : int
        L.
    """

    metrics = ("r2", "rmse", "mae")

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        shapes = {as_array(t).shape for t in targets}
        if len(shapes) != 1 or len(next(iter(shapes))) > 1 or shapes == {(0,)}:
            raise TargetError(
                "numbers must be scalars or vectors of one length, got shapes "
                f"{sorted(map(str, shapes))[:5]}"
            )
        self.scalar_ = shapes == {()}
        self.n_values_ = 1 if self.scalar_ else next(iter(shapes))[0]
        check_resolution([np.reshape(t, (1, self.n_values_)) for t in targets])
        return ColumnGroup("real", self.n_values_)

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        values = np.atleast_1d(as_array(target))
        if values.dtype.kind not in "iuf" or values.shape != (self.n_values_,):
            raise TargetError(
                f"expected {self.n_values_} number(s), got {target!r}"[:200]
            )
        return as_float32(values)

    def decode(self, scores: np.ndarray) -> Any:
        return float(scores[0]) if self.scalar_ else scores


class Count(ImageTask):
    """A number of things in an image, at least 0; NaN is unlabelled.

    Its square root is learnt, whose spread hardly depends on the number (Bartlett, JRSS
    Supplement 1936). ``predict`` gives ints where all targets are whole numbers.

    Attributes
    ----------
    whole_ : bool
        Whether all targets are whole numbers.

    Examples
    --------
    >>> from mtsk.tasks import Count
    >>> task = Count().fit([3, 7])
    >>> task.decode(task.encode(7, (10, 10)))
    7
    """

    metrics = ("r2", "mae", "rmse")

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        numbers = []
        for i, target in enumerate(targets):
            try:
                numbers.append(_as_count(target))
            except TargetError as error:
                raise error.at(image=i) from None
        known = np.array(numbers)[~np.isnan(numbers)]
        self.whole_ = bool((known == np.rint(known)).all())
        return ColumnGroup("real", 1)

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        return np.sqrt(as_float32(np.array([_as_count(target)])))

    def values(self, scores: np.ndarray) -> np.ndarray:
        return np.maximum(scores, 0) ** 2

    def decode(self, scores: np.ndarray) -> Any:
        number = float(self.values(scores)[0])
        return round(number) if self.whole_ else number


class Ordinal(ImageTask):
    """One of several classes that have an order, such as grades.

    For each class but the last, whether the truth is above it: K − 1 binary columns
    (Frank & Hall, ECML 2001). The prediction is the number of these that are more
    likely than not, so that errors stay near the truth.

    Parameters
    ----------
    classes : sequence of labels, default=None
        All the classes, lowest first. None takes those that occur, sorted, for numbers
        only: the order of words is seldom alphabetical.
    void : label or sequence of labels, default=()
        Labels that mean "unlabelled"; −1 always does.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Lowest first.

    Examples
    --------
    >>> from mtsk.tasks import Ordinal
    >>> task = Ordinal(classes=["low", "middle", "high"]).fit(["low", "high"])
    >>> task.encode("middle", (10, 10))
    array([1., 0.], dtype=float32)
    """

    metrics = ("kappa", "accuracy", "rank_mae")

    def __init__(self, classes: Sequence[Any] | None = None, void: Any = ()) -> None:
        self.classes = classes
        self.void = void

    def _check(self) -> None:
        given = self.classes
        if given is not None and (
            not isinstance(given, Sequence | np.ndarray)
            or len(set(given)) != len(given)
        ):
            raise parameter_error("classes", self, "different labels", given)

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        for i, target in enumerate(targets):
            _check_scalar(target, i)
        found = learn_classes(targets, as_list(self.void), self.classes)
        if self.classes is None and found.dtype.kind == "U":
            raise TargetError(
                f"words have no order of their own, got {found.tolist()[:20]}: say it, "
                f"lowest first, with Ordinal({found.tolist()[:3]}) and the like"
            )
        self.classes_ = found if self.classes is None else np.asarray(self.classes)
        if len(self.classes_) < 2:
            raise TargetError(
                f"an order needs two classes at least, got {self.classes_.tolist()}"
            )
        return ColumnGroup("binary", len(self.classes_) - 1)

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        _check_scalar(target)
        order = np.argsort(self.classes_)
        # A label outside the order cannot be encoded, not even as a missed class.
        code = codes_of(
            [target], self.classes_[order], as_list(self.void), unseen=False
        )
        n = len(self.classes_)
        if np.isnan(code[0]):
            return np.full(n - 1, np.nan, np.float32)
        return (order[int(code[0])] > np.arange(n - 1)).astype(np.float32)

    def codes(self, scores: np.ndarray) -> np.ndarray:
        """Return the indices in ``classes_`` of the predicted classes.

        Parameters
        ----------
        scores : ndarray of shape (..., n_classes - 1)

        Returns
        -------
        ndarray of int, shape (...)
        """
        return (scores > 0).sum(axis=-1)

    def decode(self, scores: np.ndarray) -> Any:
        return self.classes_[self.codes(scores)]


def _as_count(target: Any) -> float:
    if as_array(target).ndim != 0 or as_array(target).dtype.kind not in "iuf":
        raise TargetError(f"a count must be a number, got {target!r}"[:200])
    number = float(target)
    if number < 0 or np.isinf(number):
        raise TargetError(f"a count must be finite and >= 0, got {number:g}")
    return number


def _check_scalar(target: Any, entry: int | None = None) -> None:
    if as_array(target).ndim != 0:
        raise TargetError(
            f"a class label must be a scalar, got shape {np.shape(target)}",
            image=entry,
        )
