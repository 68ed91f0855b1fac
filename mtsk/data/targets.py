"""Targets: one row per image, one column per task, any entry may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from mtsk.data.files import ImageFolder, folder_or_given
from mtsk.data.label_maps import read_label_maps
from mtsk.data.pairing import pair_by_name
from mtsk.exceptions import TargetError, UnknownTaskError

__all__ = ["DEFAULT_TASK", "Targets", "as_targets"]

DEFAULT_TASK = "target"
"""The name of the only task where targets came without a name."""


class Targets:
    """Targets of each image, for each task.

    scikit-learn indexes it as it indexes an array of shape (n,), so that
    ``GridSearchCV``, ``cross_val_score``, ``train_test_split`` and
    ``learning_curve`` take it as ``y``.

    Parameters
    ----------
    columns : mapping of str to sequence, or pandas DataFrame, optional
        Task name to one entry per image. ``None`` is a missing entry; masked entries of
        a masked array are unlabelled. An `ImageFolder`, or the path of a folder, is
        read by `read_label_maps`.
    **tasks : sequence
        The same, as keywords.

    Raises
    ------
    TargetError
        Where there is no task, two have one name, or they differ in length.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import Targets
    >>> masks = [np.zeros((4, 4), int), None, np.ones((4, 5), int)]
    >>> Y = Targets(semantic=masks, weather=["sun", "rain", None])
    >>> Y
    Targets(3 images; semantic: 2 labelled, weather: 2 labelled)
    >>> Y[[0, 2]].shape
    (2,)
    >>> Y["weather"]
    ['sun', 'rain', None]
    """

    def __init__(self, columns: Any = None, /, **tasks: Any) -> None:
        given = _columns_of(columns) if hasattr(columns, "columns") else columns or {}
        merged = {**given, **tasks}
        if not merged:
            raise TargetError("Targets needs at least one task")
        self._columns: dict[str, list[Any]] = {}
        self._stems: dict[str, list[str]] = {}
        for name, given_entries in merged.items():
            if not isinstance(name, str) or not name:
                raise TargetError(f"task names must be str, not empty, got {name!r}")
            entries = folder_or_given(given_entries)
            if isinstance(entries, ImageFolder):
                self._stems[name] = entries.stems
                entries = read_label_maps(entries.paths, entries.colours)
            self._columns[name] = _entries(name, entries)
        lengths = {name: len(column) for name, column in self._columns.items()}
        if len(set(lengths.values())) > 1:
            raise TargetError(f"tasks differ in number of images: {lengths}")

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks, in the order given."""
        return list(self._columns)

    @property
    def shape(self) -> tuple[int]:
        """``(n_images,)``."""
        return (len(self),)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __iter__(self) -> Iterator[Targets]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        """Return one task's entries (by name) or fewer rows as ``Targets``."""
        if isinstance(key, str):
            if key not in self._columns:
                raise UnknownTaskError(
                    f"no task {key!r}; the tasks are {self.task_names}"
                )
            return list(self._columns[key])
        if isinstance(key, tuple):  # scikit-learn writes array[key, ...]
            if len(key) != 2 or key[1] is not Ellipsis:
                raise IndexError(f"Targets has one axis, cannot be indexed by {key!r}")
            key = key[0]
        rows = np.atleast_1d(np.arange(len(self))[key])
        return self._with_stems(
            Targets(
                {name: [col[i] for i in rows] for name, col in self._columns.items()}
            ),
            rows,
        )

    @classmethod
    def for_images(cls, images: ImageFolder, columns: Any = None, **tasks: Any) -> Self:
        """Return targets in the order of a folder's images, to be cut into folds.

        Parameters
        ----------
        images : ImageFolder
        columns, **tasks
            As of `Targets`. Entries that are an `ImageFolder` are paired with images
            by name, and may be fewer; others are in the order of the images.

        Returns
        -------
        Targets
        """
        if not isinstance(images, ImageFolder):
            raise TypeError(f"images must be an ImageFolder, got {images!r:.80}")
        given = {**(columns or {}), **tasks}
        return cls({n: _aligned(n, e, images.stems) for n, e in given.items()})

    def _with_stems(self, other: Targets, rows: Any = None) -> Targets:
        """Let targets that were made of these know the names of their files."""
        for name in set(self._stems) & set(other._columns):
            stems = self._stems[name]
            other._stems[name] = stems if rows is None else [stems[i] for i in rows]
        return other

    def paired(self, stems: Sequence[str]) -> Targets:
        """Return targets in the order of images; entries of folders go by name.

        Parameters
        ----------
        stems : sequence of str
            Names of the images' files, without suffixes.

        Returns
        -------
        Targets

        Raises
        ------
        TargetError
            Where the names of label files do not belong to the images'.
        """
        columns = dict(self._columns)
        for name, own in self._stems.items():
            pairs = pair_by_name(stems, own, name)
            column = self._columns[name]
            columns[name] = [None if i is None else column[i] for i in pairs]
        return Targets(columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Targets) or self.task_names != other.task_names:
            return NotImplemented if not isinstance(other, Targets) else False
        return all(
            len(a) == len(b) and all(map(_same, a, b))
            for a, b in zip(
                self._columns.values(), other._columns.values(), strict=True
            )
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{name}: {sum(e is not None for e in column)} labelled"
            for name, column in self._columns.items()
        )
        return f"Targets({len(self)} images; {parts})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(
            "Targets is no array; to stratify by a task of classes, give Y.strata(name)"
        )

    def strata(self, name: str) -> np.ndarray:
        """Return a stratum of each image, for ``stratify=`` and `StratifiedKFold`.

        Parameters
        ----------
        name : str
            A task with one class, or one yes or no, an image.

        Returns
        -------
        ndarray of int, shape (n_images,)
            0 where the label is missing, else 1 and more, one for each label.

        Raises
        ------
        TargetError
            Where the task's targets are no labels.

        Examples
        --------
        >>> from mtsk import Targets
        >>> Targets(kind=["b", None, "a", "b"]).strata("kind")
        array([2, 0, 1, 2])
        """
        entries = self[name]
        known = [e for e in entries if e is not None]
        if any(
            not isinstance(e, str | int | np.integer | bool | np.bool) for e in known
        ):
            raise TargetError("strata need one label an image", name)
        labels = sorted(set(known), key=lambda label: (str(type(label)), label))
        place = {label: i for i, label in enumerate(labels, start=1)}
        return np.array([0 if e is None else place[e] for e in entries])

    def labelled(self, name: str) -> np.ndarray:
        """Return the indices of the images whose entry for a task is given.

        Parameters
        ----------
        name : str
            The task.

        Returns
        -------
        ndarray of int
        """
        return np.flatnonzero([entry is not None for entry in self[name]])

    def any_labelled(self) -> np.ndarray:
        """Return the indices of the images that have an entry of any task.

        Returns
        -------
        ndarray of int
        """
        return np.flatnonzero(
            np.any([[e is not None for e in c] for c in self._columns.values()], axis=0)
        )

    def only(self, keep: np.ndarray) -> Targets:
        """Return as many rows, in which the entries of some images are missing.

        Parameters
        ----------
        keep : ndarray of bool, shape (n_images,)
            The images whose entries are kept.

        Returns
        -------
        Targets
        """
        return Targets(
            {
                name: [e if own else None for e, own in zip(column, keep, strict=True)]
                for name, column in self._columns.items()
            }
        )

    def subset(self, names: Sequence[str]) -> Targets:
        """Return the same rows for some of the tasks.

        Parameters
        ----------
        names : sequence of str
            The tasks wanted, in order.

        Returns
        -------
        Targets
        """
        return self._with_stems(Targets({name: self[name] for name in names}))


def as_targets(
    Y: Any, n_images: int, stems: Sequence[str] | None = None
) -> tuple[Targets, bool]:
    """Return the targets of ``fit`` as ``Targets``, and whether they are one bare task.

    Parameters
    ----------
    Y : Targets, mapping, pandas DataFrame, or one target per image
        A single bare task is called ``"target"``.
    n_images : int
        Number of images.
    stems : sequence of str, default=None
        Names of the images' files, where they are an `ImageFolder`: targets that are a
        folder, too, are then paired by name.

    Returns
    -------
    targets : Targets
    bare : bool
        True where predictions should come back without a task name.

    Raises
    ------
    TargetError
        Where the lengths differ or ``Y`` is none of these.
    """
    if Y is None:
        raise TargetError("Y is None: learning needs targets")
    bare = False
    if isinstance(Y, Targets):
        targets = Y if stems is None else Y.paired(stems)
    else:
        if not isinstance(Y, Mapping) and not hasattr(Y, "columns"):
            Y, bare = {DEFAULT_TASK: Y}, True
        if stems is not None and isinstance(Y, Mapping):
            Y = {name: _aligned(name, entries, stems) for name, entries in Y.items()}
        targets = Targets(Y)
    if len(targets) != n_images:
        raise TargetError(
            f"X has {n_images} images but Y has targets for {len(targets)}"
        )
    return targets, bare


def _aligned(name: str, entries: Any, stems: Sequence[str]) -> Any:
    """Return the entries of a folder in the order of the images; others as they are."""
    entries = folder_or_given(entries)
    if not isinstance(entries, ImageFolder):
        return entries
    pairs = pair_by_name(stems, entries.stems, name)
    used = [i for i in pairs if i is not None]
    chosen = [entries.paths[i] for i in used]
    maps = read_label_maps(chosen, entries.colours)
    of = dict(zip(used, maps, strict=True))
    return [None if i is None else of[i] for i in pairs]


def _columns_of(frame: Any) -> dict[str, Any]:
    """Return the columns of a table of pandas, by name."""
    names = list(frame.columns)
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise TargetError(f"several columns are called {twice[0]!r}; tasks need names")
    return {name: frame[name] for name in names}


def _entries(name: str, entries: Any) -> list[Any]:
    if hasattr(entries, "iloc"):  # a pandas column indexes by label, not place
        entries = entries.tolist()
    if isinstance(entries, str | bytes | Mapping) or not hasattr(entries, "__len__"):
        raise TargetError(
            f"task {name!r} must be a sequence with one entry per image, "
            f"got {type(entries).__name__}"
        )
    try:
        return [_entry(entries[i]) for i in range(len(entries))]
    except TargetError as error:
        raise error.at(name) from None


def _entry(entry: Any) -> Any:
    """Replace missing scalars (NaN, pandas' NA, masked) by None."""
    if isinstance(entry, np.ma.MaskedArray):
        return _filled(entry)
    if type(entry).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(entry, float | np.floating) and np.isnan(entry):
        return None
    return entry


def _filled(entry: np.ma.MaskedArray) -> Any:
    """Return a masked array as one that is unlabelled where it was masked."""
    mask = np.ma.getmaskarray(entry)
    if not mask.any():
        return entry.data
    if entry.ndim == 0:
        return None
    if entry.dtype.kind in "iu":
        return np.where(mask, -1, entry.data.astype(np.int64))
    if entry.dtype.kind == "f":
        return np.where(mask, np.nan, entry.data)
    raise TargetError(
        f"a masked array of dtype {entry.dtype} has no value that means unlabelled; "
        "give integers (-1 is unlabelled) or floats (NaN is)"
    )


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
