"""Folders and tables of labels become targets."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtsk import tasks as task_types
from mtsk.exceptions import TargetError
from mtsk.images import ImageFolder, read_image
from mtsk.targets import Targets
from mtsk.tasks import Task

__all__ = ["image_paths", "named_tasks", "read_labels"]


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


def named_tasks(given: Sequence[str], names: Sequence[str]) -> dict[str, Task]:
    """Return the tasks said as NAME=TYPE.

    Raises
    ------
    TargetError
        Where a type is none, or a name is that of no label.
    """
    found: dict[str, Task] = {}
    types = {
        name: value
        for name, value in vars(task_types).items()
        if isinstance(value, type) and issubclass(value, Task)
    }
    for item in given:
        name, _, kind = item.partition("=")
        if kind not in types:
            raise TargetError(
                f"--task {item}: must be NAME=TYPE, and TYPE one of {sorted(types)}"
            )
        if name not in names:
            raise TargetError(f"--task {item}: the labels are {list(names)}")
        found[name] = types[kind]()
    return found


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
    stems = [path.stem for path in images]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise TargetError(f"several images have one name: {sorted(twice)[:5]}")
    columns: dict[str, list[Any]] = {}
    for item in given:
        name, separator, place = item.partition("=")
        path = Path(place if separator else item)
        if path.suffix.lower() == ".csv":
            columns |= _table(path, stems)
        else:
            columns[name if separator else path.name] = _folder(path, stems)
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
    of = {p.stem: p for p in ImageFolder(path).paths}
    return [_map(of[stem]) if stem in of else None for stem in stems]


def _map(path: Path) -> np.ndarray:
    """Read a label map; three equal channels are one."""
    array = read_image(path)
    if array.ndim == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    if array.ndim == 3:
        raise TargetError(
            f"label map {str(path)!r} is in colours, {array.shape}; write it with one "
            "number a pixel"
        )
    return array if array.dtype.kind in "fb" else array.astype(np.int64)


def _table(path: Path, stems: Sequence[str]) -> dict[str, list[Any]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TargetError(f"{str(path)!r} cannot be read: {error}") from error
    if not rows or "image" not in rows[0]:
        raise TargetError(f"{str(path)!r} must have rows, and a column 'image'")
    of = {Path(row["image"] or "").stem: row for row in rows}
    names = [name for name in rows[0] if name not in ("image", None)]
    return {
        name: _values([(of[s].get(name) or "") if s in of else "" for s in stems])
        for name in names
    }


def _values(cells: Sequence[str]) -> list[Any]:
    """Return the values of a column: sets of tags, ints, floats, or text.

    All of one kind: tags where any cell has a semicolon, numbers where all are.
    """
    given = [cell.strip() for cell in cells]
    if any(";" in cell for cell in given):
        return [
            {tag.strip() for tag in cell.split(";") if tag.strip()} if cell else None
            for cell in given
        ]
    for kind in (int, float):
        try:
            return [kind(cell) if cell else None for cell in given]
        except ValueError:
            continue
    return [cell or None for cell in given]
