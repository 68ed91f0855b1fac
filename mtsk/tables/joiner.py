"""Parts of a table, from some images each, joined into one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mtsk._resources import available_memory
from mtsk.exceptions import TargetError
from mtsk.tables.table import Table, TablePart

__all__ = ["TableJoiner", "require_labels"]

_BLOCK = 2**24  # numbers; so many that malloc maps them on their own


class TableJoiner:
    """Joins parts as they come, in order; holds their rows once.

    Parameters
    ----------
    tasks : sequence of str
        Names, in the order of the columns.
    n_images : int
        Of all parts.
    """

    def __init__(self, tasks: Sequence[str], n_images: int) -> None:
        self.tasks = list(tasks)
        self._X = _GrowingTable(n_images)
        self._rest: list[TablePart] = []

    def add(self, part: TablePart, n_images: int) -> None:
        """Add a part.

        Parameters
        ----------
        part : TablePart
        n_images : int
            That it was made of.

        Raises
        ------
        MemoryError
            Where the whole table will not fit, to judge by what came so far.
        """
        self._X.append(part.X, n_images)
        self._rest.append(part._replace(X=part.X[:0]))

    @property
    def blank(self) -> list[tuple[str, int]]:
        """Task and image of targets that hold nothing but void."""
        found = [pair for part in self._rest for pair in part.blank.tolist()]
        return [(self.tasks[t], image) for t, image in found]

    def table(self, *, partly: bool = False) -> Table:
        """Return the table.

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
        if not self.tasks:
            return Table.empty()
        if not partly:
            labelled = np.sum([part.labelled_at for part in self._rest], axis=0)
            require_labels(self.tasks, labelled)
        parts = [part for part in self._rest if len(part.Y)]
        if not parts:
            return Table.empty()
        weak = np.concatenate([part.weak for part in parts], axis=1)
        weights = np.concatenate([part.weights for part in parts], axis=1)
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            digest.update(part.marks.tobytes())
        return Table(
            self._X.rows(),
            np.concatenate([part.Y for part in parts]),
            np.concatenate([part.images for part in parts]),
            digest.hexdigest(),
            {n: w for n, w in zip(self.tasks, weak, strict=True) if w.any()},
            weights,
        )


def require_labels(tasks: Sequence[str], counts: np.ndarray) -> None:
    """Refuse a task that no image is labelled for.

    Parameters
    ----------
    tasks : sequence of str
    counts : ndarray of int, shape (n_tasks,)

    Raises
    ------
    TargetError
    """
    for name, count in zip(tasks, counts, strict=True):
        if not count:
            raise TargetError(
                "labelled on no image: every entry is missing or holds nothing but "
                "void, -1 or NaN",
                name,
            )


class _GrowingTable:
    """Rows of float32 that are appended in place.

    The memory is enlarged by realloc, step by step, which on Linux moves no page of
    an array as large as this: so the table is never held twice, as it would be in a
    list of pieces that are joined at the end.
    """

    def __init__(self, n_images: int) -> None:
        self.n_images = n_images
        self._block = np.empty(0, np.float32)
        self._used = self._seen = self._width = 0

    def append(self, rows: np.ndarray, n_images: int) -> None:
        """Add rows of shape (n, width), which so many images gave."""
        self._seen += n_images
        if not len(rows):
            return
        self._width = rows.shape[1]
        end = self._used + rows.size
        if end > len(self._block):
            self._check_room(end)
            self._enlarge(end + _BLOCK)
        self._block[self._used : end] = rows.ravel()
        self._used = end

    def rows(self) -> np.ndarray:
        """Return the table, (n, width), and give up what lies beyond it."""
        self._enlarge(self._used)
        return self._block.reshape(-1, self._width)

    def _check_room(self, end: int) -> None:
        """Refuse a table that will not fit, before hours have gone into it."""
        free = available_memory()
        to_come = (end * self.n_images / self._seen - self._used) * _FLOAT
        if free is not None and to_come > free:
            raise MemoryError(
                f"{self._seen} of {self.n_images} images made a table of "
                f"{end * _FLOAT / 2**30:.1f} GiB; the rest would need "
                f"{to_come / 2**30:.1f} GiB more, and {free / 2**30:.1f} GiB are free. "
                f"{_REMEDY}"
            )

    def _enlarge(self, size: int) -> None:
        try:
            self._block.resize(size, refcheck=False)
        except MemoryError as error:
            raise MemoryError(
                f"not enough memory for a table of {size // max(self._width, 1)} rows "
                f"of {self._width} features. {_REMEDY}"
            ) from error


_FLOAT = 4  # bytes
_REMEDY = (
    "Lower `max_pixels_per_image`, take fewer `scales` of DeepFeatures, or learn from "
    "sums, with head=JointRidge(alpha=1e-3, calibrate=False), which needs no table"
)
