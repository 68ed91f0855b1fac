"""Class labels to codes and back, for maps and for scalars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtsk.data.label_maps import CategoricalMap
from mtsk.exceptions import TargetError
from mtsk.tasks.arrays import as_array

__all__ = [
    "as_label_array",
    "as_list",
    "codes_of",
    "learn_classes",
    "missing_labels",
    "unseen_labels",
]

MANY = 1000
"""More classes than this must be named, since they are more likely ids."""

UNLABELLED = -1
"""The integer that always means: nobody said."""


def as_label_array(target: Any) -> np.ndarray:
    """Return labels as an integer, bool or str array; raise on other types.

    Floats that are whole numbers become integers, NaN becomes −1: pandas makes floats
    of a column of integers that has gaps.
    """
    array = as_array(target)
    if array.dtype.kind == "O" and all(isinstance(v, str) for v in array.flat):
        array = array.astype(str)
    if array.dtype.kind == "f":
        filled = np.where(np.isnan(array), UNLABELLED, array.astype(float))
        if (np.abs(filled) < 2**53).all() and (filled % 1 == 0).all():
            array = filled.astype(np.int64)
    if array.dtype.kind not in "iubU":
        raise TargetError(
            "class labels must be int, bool, str, or floats that are whole numbers or "
            f"NaN, got dtype {array.dtype}"
        )
    return array


def missing_labels(labels: np.ndarray, void: Sequence[Any]) -> np.ndarray:
    """Return where labels are unlabelled: −1 (for numbers) or one of ``void``."""
    missing = np.zeros(labels.shape, bool)
    values = [*void, UNLABELLED] if labels.dtype.kind == "i" else list(void)
    for value in values:
        missing |= labels == value
    return missing


def learn_classes(
    targets: Sequence[Any], void: Sequence[Any], given: Sequence[Any] | None
) -> np.ndarray:
    """Return the sorted labels that occur, or check those given.

    Raises
    ------
    TargetError
        Where no label occurs, or one occurs that ``given`` lacks; the message
        names the entry.
    """
    if given is not None:
        _check_given(given)
    found: list[np.ndarray] = []
    for i, target in enumerate(targets):
        try:
            labels = _distinct(target)
            _check_void(void, labels)
        except TargetError as error:
            raise error.at(image=i) from None
        labels = labels[~missing_labels(labels, void)]
        if given is not None and len(unknown := np.setdiff1d(labels, given)):
            raise TargetError(
                f"labels {unknown.tolist()[:10]} are not among `classes`={list(given)}",
                image=i,
            )
        found.append(labels)
    if not found:
        raise TargetError("no entry is given: there is nothing to learn classes from")
    kinds = {a.dtype.kind == "U" for a in found}
    if len(kinds) > 1:
        raise TargetError("labels mix numbers and strings")
    classes = np.unique(np.concatenate(found) if given is None else np.asarray(given))
    if len(classes) > MANY and given is None:
        raise TargetError(
            f"there are {len(classes)} different labels; are they ids of instances? "
            "mtsk.tasks.Boundary takes maps of regions; if they are classes, name them "
            "with `classes`"
        )
    if len(classes) == 0:
        raise TargetError("no entry has a labelled value: everything is void or -1")
    return classes


def _check_void(void: Sequence[Any], labels: np.ndarray) -> None:
    """Refuse words among numbers, and numbers among words, which never occur."""
    for value in void:
        if isinstance(value, str) != (labels.dtype.kind == "U"):
            raise TargetError(
                f"`void` has {value!r}, and labels are of dtype {labels.dtype}: none "
                "is ever this"
            )


def _check_given(given: Any) -> None:
    if isinstance(given, str) or np.ndim(given) != 1:
        raise TargetError(f"`classes` must be a sequence of labels, got {given!r}")
    if len(np.unique(np.asarray(given))) < len(given):
        raise TargetError(f"`classes`={list(given)} names a label twice")


def codes_of(
    target: Any, classes: np.ndarray, void: Sequence[Any], *, unseen: bool
) -> np.ndarray:
    """Return float32 codes 0 … K − 1 of labels, NaN where unlabelled.

    Raises
    ------
    TargetError
        On a label not in ``classes``, unless ``unseen``: then its code is K. On strings
        where classes are numbers, and vice versa.
    """
    if isinstance(target, CategoricalMap):
        table = codes_of(target.labels, classes, void, unseen=unseen)
        return table[target.codes]
    labels = as_label_array(target)
    if labels.dtype.kind == "b" and not np.isin(classes, (0, 1)).all():
        raise TargetError(
            f"labels are true and false, the classes {classes.tolist()[:20]}"
        )
    place = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    missing = missing_labels(labels, void)
    strange = (classes[place] != labels) & ~missing
    if strange.any():
        if not unseen or (labels.dtype.kind == "U") != (classes.dtype.kind == "U"):
            raise TargetError(
                f"labels {np.unique(labels[strange]).tolist()[:10]} are not among the "
                f"classes {classes.tolist()[:20]} seen in fit; `classes` of the task "
                "names all there will be"
            )
        place = np.where(strange, len(classes), place)
    codes = place.astype(np.float32)
    codes[missing] = np.nan
    return codes


def unseen_labels(target: Any, classes: np.ndarray, void: Sequence[Any]) -> set[Any]:
    """Return the labels of a target that are not among the classes."""
    labels = _distinct(target)
    labels = labels[~missing_labels(labels, void)]
    return set(np.setdiff1d(labels, classes).tolist())


def as_list(value: Any) -> list[Any]:
    """Return a scalar or a sequence as a list."""
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _distinct(target: Any) -> np.ndarray:
    """Return sorted distinct labels; by counting where they are small integers."""
    if isinstance(target, CategoricalMap):
        return np.unique(target.labels[np.unique(target.codes)])
    labels = as_label_array(target)
    if labels.dtype.kind in "ui" and labels.size and labels.max() < 65536:
        low = int(labels.min())
        if low >= -65536:
            counts = np.bincount(labels.ravel().astype(np.int64) - low)
            return (np.flatnonzero(counts) + low).astype(labels.dtype)
    return np.unique(labels)
