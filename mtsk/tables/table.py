"""From images to tables: rows of features, columns of targets, weights."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mtsk.features import FeatureMaps
from mtsk.tables.sampling import PixelSample, pixel_ranks, sample_pixels
from mtsk.tasks.columns import column_slices
from mtsk.tasks.task_set import Granularity, Layout, TaskSet

__all__ = ["Table", "TableBuilder", "TablePart", "weights_of_entries"]


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
    weights : ndarray of float32, shape (n_tasks, n_rows)
        How many pixels each row stands for in a task, relative to the image's others.
    """

    X: np.ndarray
    Y: np.ndarray
    images: np.ndarray
    digest: str
    weak: dict[str, np.ndarray]
    weights: np.ndarray

    def of_rows(self, rows: np.ndarray, about: str) -> Table:
        """Return a table of some rows.

        Parameters
        ----------
        rows : ndarray of bool, shape (n_rows,)
        about : str
            What tells them from other rows of this table, for the digest.

        Returns
        -------
        Table
        """
        return self._replace(
            X=self.X[rows],
            Y=self.Y[rows],
            images=self.images[rows],
            digest=f"{self.digest} {about}",
            weak={name: weak[rows] for name, weak in self.weak.items()},
            weights=self.weights[:, rows],
        )

    @classmethod
    def empty(cls) -> Table:
        """Return a table without rows."""
        none = np.empty((0, 0), np.float32)
        return cls(none, none, np.empty(0, int), "", {}, none)


class TablePart(NamedTuple):
    """The rows of some images, to be joined with those of others.

    Attributes
    ----------
    X, Y, images
        As of `Table`.
    weak : ndarray of bool, shape (n_tasks, n_rows)
        As of `Table`, for every task.
    weights : ndarray of float32, shape (n_tasks, n_rows)
        As of `Table`.
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
    weights: np.ndarray
    marks: np.ndarray
    labelled_at: np.ndarray
    blank: np.ndarray


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
    by_class : bool, default=True
        Whether rare classes of an image are sure to have rows, see `sample_pixels`;
        the rows then have weights.
    """

    def __init__(
        self,
        tasks: TaskSet,
        granularity: Granularity,
        max_pixels: int,
        seed: int,
        *,
        by_class: bool = True,
    ) -> None:
        self.tasks = tasks
        self.granularity = granularity
        self.layout = tasks.layout(granularity)
        self.max_pixels = max_pixels
        self.seed = seed
        self.by_class = by_class
        self._X: list[np.ndarray] = []
        self._Y: list[np.ndarray] = []
        self._images: list[np.ndarray] = []
        self._weak: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
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
        n_pixels = len(columns[0])
        ranks = pixel_ranks(n_pixels, self.seed, maps.digest)
        chosen = np.zeros((len(columns), n_pixels), bool)
        weights = np.ones((len(columns), n_pixels), np.float32)
        for t, column in enumerate(columns):
            for places, weight in self._samples(t, column, weak[t], ranks):
                chosen[t, places] = True
                weights[t, places] = weight
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
        self._weights.append(weights[:, rows])
        self._append(index, maps, maps.at(points), table, rows.tobytes())

    def _samples(
        self, t: int, columns: np.ndarray, weak: bool, ranks: np.ndarray
    ) -> Iterator[PixelSample]:
        """Yield the pixels that each group of columns of a task takes.

        A task of several groups takes pixels for each: what only objects know, such as
        how large they are, may be known at few.
        """
        groups = self.tasks[self.layout.names[t]].groups_
        if len(groups) > 1:
            for part in column_slices(groups):
                known = _any_known(columns[:, part])
                yield sample_pixels(known, ranks, self.max_pixels)
            return
        has_classes = groups[0].kind != "real" and columns.shape[1] == 1
        codes = columns[:, 0] if self.by_class and has_classes and not weak else None
        known = _any_known(columns) | weak
        yield sample_pixels(known, ranks, self.max_pixels, codes)

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
            np.concatenate(self._weights, axis=1)
            if self._weights
            else np.ones(none.shape, np.float32),
            np.frombuffer(b"".join(self._marks), np.uint8),
            np.array(list(self._labelled_at.values()), int),
            np.array(self._blank, int).reshape(-1, 2),
        )


def weights_of_entries(
    weights: np.ndarray, layout: Layout, by_image: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the weight of every entry of a table of targets.

    Parameters
    ----------
    weights : ndarray of shape (n_tasks, n_rows)
        As of `Table`.
    layout : Layout
        Of the table's columns.
    by_image : ndarray of shape (n_rows,), optional
        Weight of each row's image.

    Returns
    -------
    ndarray or None
        Of shape (n_rows, n_columns); (n_rows,) where all tasks weigh rows alike; None
        where all weights are 1.
    """
    if (weights == 1).all():
        return by_image
    tasks = np.empty(layout.n_columns, np.intp)
    for t, name in enumerate(layout.names):
        tasks[layout.columns[name]] = t
    entries = weights.T[:, tasks].astype(np.float64)
    return entries if by_image is None else entries * by_image[:, None]


def _any_known(columns: np.ndarray) -> np.ndarray:
    """Return which rows have an entry that is not NaN."""
    if columns.shape[1] == 1:  # numpy's reduction over a short axis is slow
        return ~np.isnan(columns[:, 0])
    return ~np.isnan(columns).all(axis=1)
