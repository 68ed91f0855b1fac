"""Inference of tasks from the dtype and number of axes of targets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtsk.data.files import SUFFIXES
from mtsk.data.label_maps import MOST_COLOURS, CategoricalMap
from mtsk.exceptions import TargetError
from mtsk.tasks.base import Task
from mtsk.tasks.boxes import Detection
from mtsk.tasks.dense import DenseRegression
from mtsk.tasks.image import Classification, MultiLabel, Regression
from mtsk.tasks.pixel import BinaryMask, SemanticSegmentation

__all__ = ["infer_task", "warn_of_classes"]

_MANY_CLASSES = 200  # the largest public sets of label maps have 150 to 171

_TASK_OF: dict[tuple[int, str], type[Task]] = {
    (2, "integer"): SemanticSegmentation,
    (2, "str"): SemanticSegmentation,
    (2, "bool"): BinaryMask,
    (2, "float"): DenseRegression,
    (0, "integer"): Classification,
    (0, "str"): Classification,
    (0, "bool"): Classification,
    (0, "float"): Regression,
    (1, "bool"): MultiLabel,
    (1, "float"): Regression,
}
_KINDS = {"i": "integer", "u": "integer", "U": "str", "b": "bool", "f": "float"}


def infer_task(name: str, entries: Sequence[Any]) -> Task:
    """Return the task inferred from a column's entries.

    Parameters
    ----------
    name : str
        The column's name, for messages.
    entries : sequence
        One per image; None where missing.

    Returns
    -------
    Task
        Not yet fitted.

    Raises
    ------
    TargetError
        Where no entry is labelled, entries disagree, or no task takes such entries.

    Warns
    -----
    UserWarning
        Where floats are whole numbers that were probably classes, tags or a mask.
    """
    kinds: dict[tuple[int, str], int] = {}
    for index, entry in enumerate(entries):
        if entry is not None:
            kinds.setdefault(_kind(entry), index)
    if not kinds:
        raise TargetError("labelled on no image", name)
    if kinds.keys() == {(0, "float"), (0, "integer")}:  # numbers, as in numpy
        kinds = {(0, "float"): kinds[0, "float"]}
    if len(kinds) > 1:
        seen = ", ".join(f"image {i}: {n}-D {kind}" for (n, kind), i in kinds.items())
        raise TargetError(
            f"targets of task {name!r} are of several kinds ({seen}); "
            "say which task it is with tasks="
        )
    kind, index = next(iter(kinds.items()))
    if kind == (0, "str") and str(entries[index]).lower().endswith(SUFFIXES):
        raise TargetError(
            f"targets of task {name!r} are names of image files ({entries[index]!r}); "
            "give the label maps themselves, such as mtsk.ImageFolder(paths)"
        )
    if kind[0] == 3 and np.shape(entries[index])[2] == 1:
        raise TargetError(
            f"targets of task {name!r} have three axes (image {index}: "
            f"{np.shape(entries[index])}), and a map is (H, W): drop the last one, "
            "mask[..., 0]"
        )
    if kind == (3, "integer"):
        raise TargetError(
            f"targets of task {name!r} have three axes (image {index}: "
            f"{np.shape(entries[index])}); a label map is (H, W), one class a pixel: "
            f"a picture of more than {MOST_COLOURS} colours is none (was it saved as "
            "JPEG, or resampled?); turn colours into classes, or say the task with "
            "tasks="
        )
    if kind == (1, "set"):
        return MultiLabel()
    if kind == (1, "mapping") and all("boxes" in e for e in entries if e is not None):
        return Detection()
    if kind not in _TASK_OF:
        alone = "; one label map alone is Y[None]" * (kind == (1, "integer"))
        raise TargetError(
            f"cannot tell the task of {name!r} from a {kind[0]}-D {kind[1]} target "
            f"(image {index}); say it with tasks={{{name!r}: ...}}{alone}"
        )
    task = _TASK_OF[kind]()
    if kind[1] == "float":
        _warn_of_whole_numbers(name, task, entries)
    return task


def warn_of_classes(
    name: str, task: Task, entries: Sequence[Any], *, said: bool
) -> None:
    """Warn of label maps whose values are probably not classes.

    Parameters
    ----------
    name : str
        The task's name, for messages.
    task : Task
        Fitted.
    entries : sequence
        That it was fitted to.
    said : bool
        Whether the user specified the task, so that values are classes.
    """
    if not isinstance(task, SemanticSegmentation | Classification):
        return
    classes = task.classes_
    if len(classes) == 1 and task.classes is None:
        warnings.warn(
            f"task {name!r} has one class only, {classes[0].item()!r}: nothing "
            "to tell it from, and it will be predicted everywhere. Where it is not, "
            "give another label (-1 means unlabelled)",
            UserWarning,
            stacklevel=2,
        )
    if said or not isinstance(task, SemanticSegmentation):
        return
    if len(classes) <= _MANY_CLASSES:
        _warn_of_resampled(name, task, entries)
    else:
        warnings.warn(
            f"task {name!r} has {len(classes)} classes, each value of its maps one. If "
            "they are grey values of a mask with soft edges, give mask > 127; if they "
            "are measurements, give floats; if they are classes, say "
            f"tasks={{{name!r}: SemanticSegmentation()}}",
            UserWarning,
            stacklevel=2,
        )


def _warn_of_resampled(
    name: str, task: SemanticSegmentation, entries: Sequence[Any]
) -> None:
    """Warn where nearly all pixels hold few of many values, as in blurred masks."""
    n_classes = len(task.classes_)
    if n_classes < _FEW_CLASSES or task.classes_.dtype.kind not in "iu":
        return
    counts = np.zeros(n_classes)
    for entry in entries:
        codes = task.encode(entry, np.shape(entry)[:2])
        known = codes[~np.isnan(codes)].astype(np.intp)
        counts += np.bincount(known, minlength=n_classes)
    largest = np.sort(counts)[::-1].cumsum() / counts.sum()
    n_main = 1 + int(np.searchsorted(largest, _NEARLY_ALL))
    if n_classes >= 4 * n_main:
        main = task.classes_[np.argsort(-counts)[:n_main]]
        warnings.warn(
            f"task {name!r} has {n_classes} classes, and {_NEARLY_ALL:.0%} of the "
            f"pixels hold {n_main} of them, {sorted(main.tolist())}. If the others "
            "come from saving as JPEG or from resampling, make the maps anew (PNG; "
            "nearest neighbour), or give mask > 127; if they are classes, say "
            f"tasks={{{name!r}: SemanticSegmentation()}}",
            UserWarning,
            stacklevel=3,
        )


_FEW_CLASSES = 8  # fewer are not suspected
_NEARLY_ALL = 0.97  # ADE20K's 150 classes need some sixty for so many of its pixels


def _warn_of_whole_numbers(name: str, task: Task, entries: Sequence[Any]) -> None:
    """Warn of floats that were probably classes, tags or masks before a conversion."""
    known = [np.asarray(entry) for entry in entries if entry is not None]
    values = _whole_values(known)
    n_axes = known[0].ndim
    if n_axes == 0:  # counts as floats are common; with gaps, classes are, too
        likely = len(known) < len(entries) and 0 < len(values) < len(entries) / 2
        origin = "classes in a column with gaps, which pandas makes floats"
        remedy = "integers (astype('Int64')) or say Classification()"
    elif n_axes == 1:
        likely = values == {0, 1}
        origin = "tags"
        remedy = "bool vectors or say MultiLabel(), which takes NaN as unlabelled"
    elif values <= {0, 1}:
        likely = len(values) > 1
        origin = "a mask"
        remedy = "bool maps"
    else:
        likely = 1 < len(values) <= _MANY_CLASSES
        origin = "classes"
        remedy = "integers or say SemanticSegmentation()"
    if likely:
        shown = ", ".join(f"{value:g}" for value in sorted(values)[:5])
        more = ", ..." * (len(values) > 5)
        warnings.warn(
            f"task {name!r} has floats that all are whole numbers ({shown}{more}), and "
            f"is learnt as {type(task).__name__}. If they were {origin}, give "
            f"{remedy}; if not, say tasks={{{name!r}: {type(task).__name__}()}}",
            UserWarning,
            stacklevel=3,
        )


def _whole_values(arrays: Sequence[np.ndarray]) -> set[float]:
    """Return the distinct values, NaN aside; none if one is not a whole number."""
    found: set[float] = set()
    for array in arrays:
        values = array[np.isfinite(array)]
        if (values % 1 != 0).any():
            return set()
        found.update(np.unique(values).tolist())
        if len(found) > _MANY_CLASSES:
            return set()
    return found


def _kind(entry: Any) -> tuple[int, str]:
    if isinstance(entry, set | frozenset):
        return 1, "set"
    if isinstance(entry, Mapping):
        return 1, "mapping"
    if isinstance(entry, CategoricalMap):
        return entry.ndim, _KINDS[entry.dtype.kind]
    try:
        array = np.asarray(entry)
    except ValueError:
        return 0, "ragged"
    if array.dtype.kind == "O" and all(isinstance(v, str) for v in array.flat):
        return array.ndim, "str"
    return array.ndim, _KINDS.get(array.dtype.kind, str(array.dtype))
