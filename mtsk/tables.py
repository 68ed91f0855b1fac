"""From pictures to tables: which pixels become rows, and what stands in them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from mtsk.exceptions import TargetError
from mtsk.feature_maps import FeatureMaps
from mtsk.tasks.base import Task
from mtsk.tasks.columns import column_slices

__all__ = ["Table", "TableBuilder", "choose_pixels", "encode_entry"]

_BLOCK = 2**24  # numbers; so many that malloc maps them on their own


class Table(NamedTuple):
    """Rows to learn from.

    Attributes
    ----------
    X : ndarray of float32, shape (n_rows, n_features)
    Y : ndarray of float32, shape (n_rows, n_columns)
        Coded targets, NaN missing.
    images : ndarray of int, shape (n_rows,)
        The image of each row.
    digest : str
        Hash of which pixels of which images the rows are.
    weak : dict of str to ndarray of bool, shape (n_rows,)
        Rows that were chosen for a task although it is not labelled there.
    """

    X: np.ndarray
    Y: np.ndarray
    images: np.ndarray
    digest: str
    weak: dict[str, np.ndarray]

    @classmethod
    def empty(cls) -> Table:
        """Return a table without rows."""
        return cls(np.empty((0, 0)), np.empty((0, 0)), np.empty(0, int), "", {})


def encode_entry(
    name: str,
    task: Task,
    entry: Any,
    index: int,
    shape: tuple[int, int],
    *,
    unseen: bool = False,
) -> np.ndarray:
    """Return an entry's columns; errors name the task and the image.

    Parameters
    ----------
    name : str
        The task's name.
    task : Task
        Fitted.
    entry : object
        The target, or None.
    index : int
        The image's index.
    shape : (int, int)
        The image's height and width.
    unseen : bool, default=False
        Whether labels that ``fit`` did not see are coded, not refused.

    Returns
    -------
    ndarray of float32, shape (H, W, n_columns) or (n_columns,)

    Raises
    ------
    TargetError
    """
    width = task.n_columns_
    if entry is None:
        return np.full(
            (*shape, width) if task.granularity == "pixel" else width,
            np.nan,
            np.float32,
        )
    try:
        return task.encode(entry, shape, unseen=unseen)
    except (TargetError, ValueError, TypeError) as error:
        raise TargetError(f"task {name!r}, image {index}: {error}") from error


def choose_pixels(
    labelled: np.ndarray, n_pixels: int, seed: int, digest: str
) -> np.ndarray:
    """Return, for each task, which pixels of an image become rows.

    Every pixel gets a random rank from the seed and the image's own hash; a task
    takes its ``n_pixels`` lowest labelled ones. So tasks labelled at the same pixels
    take the same ones, a task's choice does not depend on the other tasks, and an
    image's choice not on the other images.

    Parameters
    ----------
    labelled : ndarray of bool, shape (n_tasks, n)
    n_pixels : int
    seed : int
    digest : str
        Hexadecimal hash of the image.

    Returns
    -------
    ndarray of bool, shape (n_tasks, n)
    """
    random = np.random.default_rng([seed, int(digest or "0", 16)])
    rank = random.random((labelled.shape[1],), dtype=np.float32)
    chosen = np.zeros_like(labelled)
    for task, mask in enumerate(labelled):
        if task and np.array_equal(mask, labelled[task - 1]):
            chosen[task] = chosen[task - 1]
            continue
        places = np.flatnonzero(mask)
        if len(places) > n_pixels:
            order = np.argpartition(rank[places], n_pixels)
            places = places[order[:n_pixels]]
        chosen[task, places] = True
    return chosen


class TableBuilder:
    """Collects the rows of images, one image at a time.

    Parameters
    ----------
    tasks : mapping of str to Task
        Fitted, all pixel tasks or all image tasks.
    n_pixels : int
        Most pixels an image gives a task, for each of its groups of columns.
    seed : int
        Of the choice of pixels.
    """

    def __init__(self, tasks: Mapping[str, Task], n_pixels: int, seed: int) -> None:
        self.tasks = tasks
        self.n_pixels = n_pixels
        self.seed = seed
        self._X = _GrowingTable()
        self._Y: list[np.ndarray] = []
        self._images: list[np.ndarray] = []
        self._weak: list[np.ndarray] = []
        self._labelled_at: dict[str, int] = dict.fromkeys(tasks, 0)
        self._digest = hashlib.blake2b(digest_size=16)
        self.blank: list[tuple[str, int]] = []

    def add(
        self,
        index: int,
        maps: FeatureMaps,
        entries: Mapping[str, Any],
        weak: Collection[str] = (),
    ) -> None:
        """Add an image's rows.

        Parameters
        ----------
        index : int
            The image's index.
        maps : FeatureMaps
        entries : mapping of str to object
            The image's target of each task, None where missing.
        weak : collection of str
            Tasks of pixels without a target here that want rows all the same, any.

        Raises
        ------
        TargetError
        """
        if not self.tasks:
            return
        columns = []
        for name, task in self.tasks.items():
            encoded = encode_entry(name, task, entries[name], index, maps.shape)
            if not np.isnan(encoded.flat[0]) or not np.isnan(encoded).all():
                self._labelled_at[name] += 1
            elif entries[name] is not None:
                self.blank.append((name, index))
            columns.append(encoded.reshape(-1, task.n_columns_))
        if next(iter(self.tasks.values())).granularity == "pixel":
            self._add_pixels(index, maps, columns, [n in weak for n in self.tasks])
        elif not all(np.isnan(c).all() for c in columns):
            self._digest.update(maps.digest.encode())
            self._append(index, maps.vector()[None], np.concatenate(columns, axis=1))

    def _add_pixels(
        self,
        index: int,
        maps: FeatureMaps,
        columns: list[np.ndarray],
        weak: list[bool],
    ) -> None:
        labelled = np.stack(
            [
                _any_known(c) | any_pixel
                for c, any_pixel in zip(columns, weak, strict=True)
            ]
        )
        parts, owner = self._parts(columns, labelled)
        each = choose_pixels(parts, self.n_pixels, self.seed, maps.digest)
        chosen = np.stack([each[owner == t].any(axis=0) for t in range(len(columns))])
        rows = np.flatnonzero(chosen.any(axis=0))
        if not len(rows):
            return
        self._digest.update(maps.digest.encode() + rows.tobytes())
        points = np.stack(np.unravel_index(rows, maps.shape), axis=1)
        table = np.concatenate(
            [
                np.where(own[rows, None], column[rows], np.nan)
                for column, own in zip(columns, chosen, strict=True)
            ],
            axis=1,
        ).astype(np.float32)
        self._weak.append(chosen[:, rows] & np.array(weak)[:, None])
        self._append(index, maps.at(points), table)

    def _parts(
        self, columns: list[np.ndarray], labelled: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where each group of columns is known, and whose it is.

        A task of several groups takes pixels for each: what only objects know, such as
        how large they are, may be known at few.
        """
        parts: list[np.ndarray] = []
        owner: list[int] = []
        for t, task in enumerate(self.tasks.values()):
            slices = column_slices(task.groups_)
            several = [_any_known(columns[t][:, part]) for part in slices]
            parts += several if len(slices) > 1 else [labelled[t]]
            owner += [t] * len(slices)
        return np.stack(parts), np.array(owner)

    def _append(self, index: int, X: np.ndarray, Y: np.ndarray) -> None:
        self._X.append(X)
        self._Y.append(Y)
        self._images.append(np.full(len(X), index))

    def finish(self, *, partly: bool = False) -> Table:
        """Return the table, and let go of its pieces.

        Parameters
        ----------
        partly : bool, default=False
            Whether more will come, so that a task may have no row yet.

        Returns
        -------
        Table

        Raises
        ------
        TargetError
            Where a task has no labelled row.
        """
        for name, count in self._labelled_at.items():
            if not count and not partly:
                raise TargetError(
                    f"task {name!r} is labelled on no image: every entry is missing or "
                    "holds nothing but void, -1 or NaN"
                )
        if not self._Y:
            return Table.empty()
        Y, images = np.concatenate(self._Y), np.concatenate(self._images)
        weak = {}
        if self._weak:
            found = np.concatenate(self._weak, axis=1)
            weak = {n: w for n, w in zip(self.tasks, found, strict=True) if w.any()}
        return Table(self._X.rows(), Y, images, self._digest.hexdigest(), weak)


class _GrowingTable:
    """Rows of float32 that are appended in place.

    The memory is enlarged by realloc, step by step, which on Linux moves no page of
    an array as large as this: so the table is never held twice, as it would be in a
    list of pieces that are joined at the end.
    """

    def __init__(self) -> None:
        self._block = np.empty(_BLOCK, np.float32)
        self._used = 0
        self._width = 0

    def append(self, rows: np.ndarray) -> None:
        """Add rows of shape (n, width)."""
        self._width = rows.shape[1]
        end = self._used + rows.size
        if end > len(self._block):
            self._enlarge(end + _BLOCK)
        self._block[self._used : end] = rows.ravel()
        self._used = end

    def rows(self) -> np.ndarray:
        """Return the table, (n, width), and give up what lies beyond it."""
        self._enlarge(self._used)
        return self._block.reshape(-1, self._width)

    def _enlarge(self, size: int) -> None:
        try:
            self._block.resize(size, refcheck=False)
        except MemoryError as error:
            raise MemoryError(
                f"not enough memory for a table of {size // max(self._width, 1)} rows "
                f"of {self._width} features; lower `n_pixels`, or take fewer `scales` "
                "of DeepFeatures"
            ) from error


def _any_known(columns: np.ndarray) -> np.ndarray:
    """Return which rows have an entry that is not NaN."""
    if columns.shape[1] == 1:  # numpy's reduction over a short axis is slow
        return ~np.isnan(columns[:, 0])
    return ~np.isnan(columns).all(axis=1)
