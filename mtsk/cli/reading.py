"""Folders and tables of labels become targets."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from inspect import isabstract
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtsk import tasks as task_types
from mtsk.cli.cells import column_values, from_spreadsheet_text
from mtsk.data.files import ImageFolder, read_image
from mtsk.data.pairing import pair_by_name
from mtsk.data.targets import Targets
from mtsk.exceptions import ImageError, TargetError
from mtsk.tasks import MultiLabel, Task

__all__ = ["check_stems", "image_paths", "named_tasks", "read_labels", "tags_as_sets"]

_NOT_IN_FOLDERS = ("Detection", "DensityCount", "ImageToImage", "SurfaceNormals")


def image_paths(given: Sequence[str]) -> list[Path]:
    """Return image files, of folders those that are in them, in order of name.

    Raises
    ------
    ImageError
        Where a folder is not there, or holds no image.
    """
    found: list[Path] = []
    for item in map(Path, given):
        found += [item] if item.is_file() else ImageFolder(item).paths
    return found


def check_stems(paths: Sequence[Path]) -> None:
    """Refuse files whose names differ in suffix or folder alone.

    Raises
    ------
    ImageError
    """
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other != path:
            raise ImageError(f"{str(other)!r} and {str(path)!r} have one name")


def named_tasks(given: Sequence[str], names: Sequence[str]) -> dict[str, Task]:
    """Return the tasks said as NAME=TYPE, or as NAME=TYPE:CLASS,CLASS and so on.

    Raises
    ------
    TargetError
        Where a type is none, or a name is that of no label.
    """
    found: dict[str, Task] = {}
    types = {
        name: value
        for name, value in vars(task_types).items()
        if isinstance(value, type) and issubclass(value, Task) and not isabstract(value)
    }
    for kind in _NOT_IN_FOLDERS:
        del types[kind]
    for item in given:
        name, _, said = item.partition("=")
        kind, _, classes = said.partition(":")
        if kind not in types:
            raise TargetError(
                f"--task {item}: must be NAME=TYPE, and TYPE one of {sorted(types)}"
            )
        if classes and "classes" not in types[kind]().get_params():
            raise TargetError(f"--task {item}: a {kind} has no classes to name")
        if name not in names:
            raise TargetError(f"--task {item}: the labels are {list(names)}")
        found[name] = types[kind]()
        if classes:
            found[name].set_params(classes=_labels(classes.split(",")))
    return found


def _labels(words: Sequence[str]) -> list[Any]:
    """Return labels as a table of them has them: numbers, if all are."""
    try:
        return [int(word) for word in words]
    except ValueError:
        return list(words)


def tags_as_sets(targets: Targets, tasks: Mapping[str, Task]) -> Targets:
    """Return targets in which a word for a task of tags is a set of one."""

    def tags(name: str) -> list[Any]:
        entries = targets[name]
        if not isinstance(tasks.get(name), MultiLabel):
            return entries
        return [{e} if isinstance(e, str | int) else e for e in entries]

    return Targets({name: tags(name) for name in targets.task_names})


def read_labels(
    given: Sequence[str], images: Sequence[Path]
) -> tuple[Targets, list[Path]]:
    """Return targets for images, from folders of maps and tables.

    Parameters
    ----------
    given : sequence of str
        Each is a path, or NAME=PATH. A folder holds label maps with their images'
        names, whatever their suffix, and is one task, called NAME or as the folder. A
        ``.csv`` has a column ``image`` (file names) and a column for every task; empty
        cells are missing labels.
    images : sequence of Path

    Returns
    -------
    targets : Targets
    used : list of Path
        The images for which there is any label.

    Raises
    ------
    TargetError
        Where labels are of no image, or cannot be read.
    """
    check_stems(images)
    stems = [path.stem for path in images]
    columns: dict[str, list[Any]] = {}
    for item in given:
        name, separator, place = item.partition("=")
        if separator and Path(item).exists():  # a name that has this sign in it
            name, separator, place = item, "", ""
        if separator and not name:
            raise TargetError(f"labels {item!r} have no name before '='")
        path = Path(place if separator else item)
        if path.suffix.lower() == ".csv":
            found = _table(path, stems)
        else:
            found = {name if separator else path.name: _folder(path, stems)}
        for task in found:
            if task in columns:
                raise TargetError(f"two labels are called {task!r}; say NAME=FOLDER")
        columns |= found
    labelled = [
        i for i in range(len(images)) if any(c[i] is not None for c in columns.values())
    ]
    if not labelled:
        raise TargetError(
            f"no label has the name of an image (images: {stems[:3]} and so on)"
        )
    chosen = {name: [column[i] for i in labelled] for name, column in columns.items()}
    return Targets(chosen), [images[i] for i in labelled]


def _folder(path: Path, stems: Sequence[str]) -> list[Any]:
    if not path.is_dir():
        raise TargetError(f"labels {str(path)!r} are neither a folder nor a .csv file")
    paths = ImageFolder(path).paths
    pairs = pair_by_name(stems, [p.stem for p in paths], path.name)
    return [None if i is None else _map(paths[i]) for i in pairs]


def _map(path: Path) -> np.ndarray:
    """Read a label map; of a palette its numbers, and three equal channels are one."""
    array = _palette_numbers(path)
    if array is None:
        array = read_image(path)
    if array.ndim == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    if array.ndim == 3:
        raise TargetError(
            f"label map {str(path)!r} is in colours, {array.shape}; write it with one "
            "number a pixel"
        )
    return array if array.dtype.kind in "fb" else array.astype(np.int64)


def _palette_numbers(path: Path) -> np.ndarray | None:
    """Return the numbers of an image with a palette; None of any other."""
    try:
        with Image.open(path) as file:
            return np.asarray(file) if file.mode == "P" else None
    except OSError:  # left to the reader of all images
        return None


def _table(path: Path, stems: Sequence[str]) -> dict[str, list[Any]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            names = [name.strip() for name in table.fieldnames or []]
            table.fieldnames = names
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TargetError(f"{str(path)!r} cannot be read: {error}") from error
    if not rows or "image" not in rows[0]:
        raise TargetError(
            f"{str(path)!r} must have rows, commas between cells, and a column "
            f"'image'; it has {list(rows[0]) if rows else 'no row'}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TargetError(f"{str(path)!r} has two columns {twice}")
    names = [name for name in rows[0] if name != "image"]
    if None in names or not all(names) or any(None in row for row in rows):
        raise TargetError(f"{str(path)!r} has a cell in a column without a name")
    of: dict[str, dict] = {}
    for number, row in enumerate(rows, start=2):
        stem = _stem(from_spreadsheet_text(row["image"] or ""), stems)
        if stem in of:
            raise TargetError(f"{str(path)!r}, line {number}: {stem!r} a second time")
        of[stem] = row
    strange = sorted(set(of) - set(stems))
    if strange:
        warnings.warn(
            f"{str(path)!r}: {len(strange)} rows name no image here: {strange[:5]}",
            UserWarning,
            stacklevel=2,
        )
    cells = {n: [(of[s].get(n) or "") if s in of else "" for s in stems] for n in names}
    return {
        n: column_values(column, f"{str(path)!r}, column {n!r}")
        for n, column in cells.items()
    }


def _stem(name: str, stems: Sequence[str]) -> str:
    """Return what a file's name is without its suffix, if it has one."""
    return name if name in stems else Path(name).stem
