"""From pictures to tables: which pixels become rows, and what stands in them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from mtsk.features import FeatureMaps
from mtsk.tasks.columns import column_slices
from mtsk.tasks.task_set import Granularity, TaskSet

__all__ = ["Table", "TableBuilder", "TablePart", "choose_pixels"]


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


class TablePart(NamedTuple):
    """The rows of some images, to be joined with those of others.

    Attributes
    ----------
    X, Y, images
        As of `Table`.
    weak : ndarray of bool, shape (n_tasks, n_rows)
        As of `Table`, for every task.
    marks : ndarray of uint8
        Hashes of which pixels of which images the rows are.
    labelled_at : ndarray of int, shape (n_tasks,)
        On how many images each task is labelled.
    blank : ndarray of int, shape (n, 2)
        Task and image of targets that hold nothing but void.
    """

    X: np.ndarray
    Y: np.ndarray
    images: np.ndarray
    weak: np.ndarray
    marks: np.ndarray
    labelled_at: np.ndarray
    blank: np.ndarray


def choose_pixels(
    labelled: np.ndarray, max_pixels: int, seed: int, digest: str
) -> np.ndarray:
    """Return, for each task, which pixels of an image become rows.

    Every pixel gets a random rank from the seed and the image's own hash; a task
    takes its ``max_pixels`` lowest labelled ones. So tasks labelled at the same pixels
    take the same ones, a task's choice does not depend on the other tasks, and an
    image's choice not on the other images.

    Parameters
    ----------
    labelled : ndarray of bool, shape (n_tasks, n)
    max_pixels : int
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
        if len(places) > max_pixels:
            order = np.argpartition(rank[places], max_pixels)
            places = places[order[:max_pixels]]
        chosen[task, places] = True
    return chosen


class TableBuilder:
    """Collects the rows of some images, one image at a time.

    Parameters
    ----------
    tasks : TaskSet
    granularity : {"pixel", "image"}
        Which tasks the table is of.
    max_pixels : int
        Most pixels an image gives a task, for each of its groups of columns.
    seed : int
        Of the choice of pixels.
    """

    def __init__(
        self, tasks: TaskSet, granularity: Granularity, max_pixels: int, seed: int
    ) -> None:
        self.tasks = tasks
        self.granularity = granularity
        self.layout = tasks.layout(granularity)
        self.max_pixels = max_pixels
        self.seed = seed
        self._X: list[np.ndarray] = []
        self._Y: list[np.ndarray] = []
        self._images: list[np.ndarray] = []
        self._weak: list[np.ndarray] = []
        self._marks: list[bytes] = []
        self._labelled_at = dict.fromkeys(self.layout.names, 0)
        self._blank: list[tuple[int, int]] = []

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
        if not self.layout.names:
            return
        columns = []
        for t, name in enumerate(self.layout.names):
            encoded = self.tasks.encode(name, entries[name], index, maps.shape)
            if not np.isnan(encoded.flat[0]) or not np.isnan(encoded).all():
                self._labelled_at[name] += 1
            elif entries[name] is not None:
                self._blank.append((t, index))
            columns.append(encoded.reshape(-1, encoded.shape[-1]))
        if self.granularity == "pixel":
            wanted = [name in weak for name in self.layout.names]
            self._add_pixels(index, maps, columns, wanted)
        elif not all(np.isnan(c).all() for c in columns):
            row = np.concatenate(columns, axis=1)
            self._append(index, maps, maps.global_mean()[None], row)

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
        each = choose_pixels(parts, self.max_pixels, self.seed, maps.digest)
        chosen = np.stack([each[owner == t].any(axis=0) for t in range(len(columns))])
        rows = np.flatnonzero(chosen.any(axis=0))
        if not len(rows):
            return
        points = np.stack(np.unravel_index(rows, maps.shape), axis=1)
        table = np.concatenate(
            [
                np.where(own[rows, None], column[rows], np.nan)
                for column, own in zip(columns, chosen, strict=True)
            ],
            axis=1,
        ).astype(np.float32)
        self._weak.append(chosen[:, rows] & np.array(weak)[:, None])
        self._append(index, maps, maps.at(points), table, rows.tobytes())

    def _parts(
        self, columns: list[np.ndarray], labelled: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where each group of columns is known, and whose it is.

        A task of several groups takes pixels for each: what only objects know, such as
        how large they are, may be known at few.
        """
        parts: list[np.ndarray] = []
        owner: list[int] = []
        for t, name in enumerate(self.layout.names):
            slices = column_slices(self.tasks[name].groups_)
            several = [_any_known(columns[t][:, part]) for part in slices]
            parts += several if len(slices) > 1 else [labelled[t]]
            owner += [t] * len(slices)
        return np.stack(parts), np.array(owner)

    def _append(
        self,
        index: int,
        maps: FeatureMaps,
        X: np.ndarray,
        Y: np.ndarray,
        rows: bytes = b"",
    ) -> None:
        self._X.append(X)
        self._Y.append(Y)
        self._images.append(np.full(len(X), index))
        mark = hashlib.blake2b(maps.digest.encode() + rows, digest_size=16)
        self._marks.append(mark.digest())

    def part(self) -> TablePart:
        """Return the rows of the images so far."""
        n_columns = self.layout.n_columns
        n = sum(len(X) for X in self._X)
        none = np.zeros((len(self.layout.names), n), bool)
        return TablePart(
            np.concatenate(self._X) if n else np.empty((0, 0), np.float32),
            np.concatenate(self._Y) if n else np.empty((0, n_columns), np.float32),
            np.concatenate(self._images) if n else np.empty(0, int),
            np.concatenate(self._weak, axis=1) if self._weak else none,
            np.frombuffer(b"".join(self._marks), np.uint8),
            np.array(list(self._labelled_at.values()), int),
            np.array(self._blank, int).reshape(-1, 2),
        )


def _any_known(columns: np.ndarray) -> np.ndarray:
    """Return which rows have an entry that is not NaN."""
    if columns.shape[1] == 1:  # numpy's reduction over a short axis is slow
        return ~np.isnan(columns[:, 0])
    return ~np.isnan(columns).all(axis=1)
