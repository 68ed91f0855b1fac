"""Folders and tables of labels become targets."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from inspect import isabstract
from math import isinf
from pathlib import Path
from typing import Any

from PIL import Image

from mtsk import tasks as task_types
from mtsk.cli.cells import column_values, from_spreadsheet_text
from mtsk.data.files import ImageFolder
from mtsk.data.label_maps import MOST_COLOURS, CategoricalMap, read_label_maps
from mtsk.data.pairing import pair_by_name
from mtsk.data.targets import Targets
from mtsk.data.tiff import ImagePath
from mtsk.exceptions import ImageError, TargetError
from mtsk.tasks import MultiLabel, Task, infer_task
from mtsk.tasks.labels import as_list

__all__ = [
    "check_stems",
    "image_paths",
    "named_tasks",
    "read_colours",
    "read_labels",
    "set_limit",
    "tags_as_sets",
]

_NOT_IN_FOLDERS = ("Detection", "DensityCount", "ImageToImage", "SurfaceNormals")


def image_paths(given: Sequence[str], axes: str | None = None) -> list[ImagePath]:
    """Return image files, of folders those that are in them, in order of name.

    Parameters
    ----------
    given : sequence of str
        Files and folders.
    axes : str, optional
        Of TIFF files, as of `ImageFolder`.

    Returns
    -------
    list of Path or TiffImage

    Raises
    ------
    ImageError
        Where a folder is not there, or holds no image.
    """
    found: list[ImagePath] = []
    for item in map(Path, given):
        found += ImageFolder([item] if item.is_file() else item, axes=axes).paths
    return found


def set_limit(megapixels: float | None) -> None:
    """Set how many pixels an image may have.

    Parameters
    ----------
    megapixels : float or None
        None is Pillow's own limit.
    """
    if megapixels is not None:
        none = isinf(megapixels)
        Image.MAX_IMAGE_PIXELS = None if none else max(1, int(megapixels * 1e6))


def check_stems(paths: Sequence[ImagePath]) -> None:
    """Refuse files whose names differ in suffix or folder alone.

    Raises
    ------
    ImageError
    """
    seen: dict[str, ImagePath] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other != path:
            raise ImageError(f"{str(other)!r} and {str(path)!r} have one name")


def named_tasks(
    given: Sequence[str], targets: Targets, void: Sequence[str] = ()
) -> dict[str, Task]:
    """Return the tasks that options name or configure.

    Parameters
    ----------
    given : sequence of str
        ``NAME=TYPE``, ``NAME=TYPE:CLASS,CLASS`` or ``NAME=TYPE:OPTION=VALUE``, with as
        many options as the type has, each after a colon.
    targets : Targets
    void : sequence of str
        Values that mean unlabelled, for all tasks of pixels.

    Returns
    -------
    dict of str to Task
        Of the others all is inferred.

    Raises
    ------
    TargetError
        Where a type is none, a name is that of no label, a type has no such option, or
        no task can take ``void``.
    """
    found: dict[str, Task] = {}
    for item in given:
        name, _, said = item.partition("=")
        kind, *options = said.split(":")
        if kind not in _TYPES:
            raise TargetError(
                f"--task {item}: must be NAME=TYPE, and TYPE one of {sorted(_TYPES)}"
            )
        if name not in targets.task_names:
            raise TargetError(f"--task {item}: the labels are {targets.task_names}")
        found[name] = _configured(item, _TYPES[kind](), options)
    values = _labels(void)
    takers = []
    for name in targets.task_names if void else ():
        task = found.get(name) or infer_task(name, targets[name])
        first = next((e for e in targets[name] if e is not None), None)
        suits = isinstance(first, CategoricalMap) == isinstance(values[0], str)
        if task.is_of_pixels and suits and "void" in task.get_params():
            takers.append(name)
            found[name] = task if as_list(task.void) else task.set_params(void=values)
    if void and not takers:
        raise TargetError(
            f"--void {' '.join(void)}: none of the labels {targets.task_names} are "
            "maps of such values"
        )
    return found


_TYPES: dict[str, type[Task]] = {
    name: value
    for name, value in vars(task_types).items()
    if isinstance(value, type)
    and issubclass(value, Task)
    and not isabstract(value)
    and name not in _NOT_IN_FOLDERS
}


def _configured(item: str, task: Task, options: Sequence[str]) -> Task:
    """Return a task with the options of one ``--task``."""
    known = task.get_params(deep=False)
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:  # classes alone
            name, value = "classes", option
        if name not in known:
            having = f"only {sorted(known)}" if known else "none"
            raise TargetError(
                f"--task {item}: a {type(task).__name__} has no option {name!r}, "
                f"{having}"
            )
        task.set_params(**{name: _option(name, value)})
    return task


def _option(name: str, text: str) -> Any:
    """Return an option's value: numbers, true and false, words, or several."""
    if name in ("classes", "void"):
        return _labels(text.split(","))
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _labels(words: Sequence[str]) -> list[Any]:
    """Return labels as tables and maps of them have them: numbers, if all are."""
    for number in (int, float):
        try:
            return [number(word) for word in words]
        except ValueError:
            continue
    return list(words)


def tags_as_sets(targets: Targets, tasks: Mapping[str, Task]) -> Targets:
    """Return targets in which a word for a task of tags is a set of one."""

    def tags(name: str) -> list[Any]:
        entries = targets[name]
        if not isinstance(tasks.get(name), MultiLabel):
            return entries
        return [{e} if isinstance(e, str | int) else e for e in entries]

    return Targets({name: tags(name) for name in targets.task_names})


def read_colours(path: Path) -> dict[str, Any]:
    """Return what colours mean, from a .csv with the columns ``colour`` and ``class``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to int or str

    Raises
    ------
    TargetError
    """
    rows = _rows(path)
    if not rows or not {"colour", "class"} <= set(rows[0]):
        raise TargetError(
            f"{str(path)!r} must have the columns 'colour' (#rrggbb) and 'class'; it "
            f"has {list(rows[0]) if rows else 'no row'}"
        )
    place = f"{str(path)!r}, column 'class'"
    classes = column_values([row["class"] or "" for row in rows], place)
    if any(not isinstance(value, int | str) for value in classes):
        raise TargetError(f"{place}: classes are whole numbers or words")
    return {str(r["colour"]): c for r, c in zip(rows, classes, strict=True)}


def read_labels(
    given: Sequence[str],
    images: Sequence[ImagePath],
    colours: Mapping[str, Any] | None = None,
    axes: str | None = None,
) -> tuple[Targets, list[ImagePath]]:
    """Return targets for images, from folders of maps and tables.

    Parameters
    ----------
    given : sequence of str
        Each is a path, or NAME=PATH. A folder holds label maps with their images'
        names, whatever their suffix, and is one task, called NAME or as the folder. A
        ``.csv`` has a column ``image`` (file names) and a column for every task; empty
        cells are missing labels.
    images : sequence of Path
    colours : mapping of str to label, optional
        What the colours of label maps mean, as of `read_label_maps`.
    axes : str, optional
        Of the images, as of `ImageFolder`: stacks of label maps have them, too, but for
        the channels.

    Returns
    -------
    targets : Targets
    used : list of Path or TiffImage
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
            found = {
                name if separator else path.name: _folder(path, stems, colours, axes)
            }
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


def _folder(
    path: Path,
    stems: Sequence[str],
    colours: Mapping[str, Any] | None,
    axes: str | None,
) -> list[Any]:
    if not path.is_dir():
        raise TargetError(f"labels {str(path)!r} are neither a folder nor a .csv file")
    of_maps = None if axes is None else "".join(a for a in axes if a not in "CcSs")
    paths = ImageFolder(path, axes=of_maps).paths
    pairs = pair_by_name(stems, [p.stem for p in paths], path.name)
    used = [i for i in pairs if i is not None]
    maps = read_label_maps([paths[i] for i in used], colours)
    for i, found in zip(used, maps, strict=True):
        if found.ndim != 2:
            raise TargetError(
                f"label map {str(paths[i])!r} has shape {found.shape} and more than "
                f"{MOST_COLOURS} colours, or not of 8 bits: it is no label map (are "
                "the folders swapped?), or was saved as JPEG or resampled; save label "
                "maps as PNG, resampled by the nearest neighbour"
            )
    of = dict(zip(used, maps, strict=True))
    return [None if i is None else of[i] for i in pairs]


def _table(path: Path, stems: Sequence[str]) -> dict[str, list[Any]]:
    rows = _rows(path)
    if not rows or "image" not in rows[0]:
        raise TargetError(
            f"{str(path)!r} must have rows, commas between cells, and a column "
            f"'image'; it has {list(rows[0]) if rows else 'no row'}"
        )
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


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table, by the names of its columns."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            names = [name.strip() for name in table.fieldnames or []]
            table.fieldnames = names
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TargetError(f"{str(path)!r} cannot be read: {error}") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if rows and twice:
        raise TargetError(f"{str(path)!r} has two columns {twice}")
    return rows


def _stem(name: str, stems: Sequence[str]) -> str:
    """Return what a file's name is without its suffix, if it has one."""
    return name if name in stems else Path(name).stem
