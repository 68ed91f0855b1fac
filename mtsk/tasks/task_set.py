"""The fitted tasks of a model as one object: layout of tables, encoding, names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from sklearn.base import clone

from mtsk.data.targets import DEFAULT_TASK, Targets
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.tasks.base import Task
from mtsk.tasks.columns import ColumnGroup, slices_of
from mtsk.tasks.infer import infer_task, warn_of_classes

__all__ = ["GRANULARITIES", "Granularity", "Layout", "TaskSet"]

Granularity = Literal["pixel", "image"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)


@dataclass(frozen=True)
class Layout:
    """Where the columns and the scores of several tasks lie in one table.

    Attributes
    ----------
    names : tuple of str
        The tasks, in the order of their columns.
    groups : tuple of ColumnGroup
        Of all tasks, side by side.
    owners : tuple of str
        The task of each group.
    columns, scores : dict of str to slice
        Of each task, in the table of targets and in that of scores.
    """

    names: tuple[str, ...]
    groups: tuple[ColumnGroup, ...]
    owners: tuple[str, ...]
    columns: dict[str, slice]
    scores: dict[str, slice]

    @classmethod
    def of(cls, tasks: Mapping[str, Task]) -> Layout:
        """Return the layout of fitted tasks that share a table."""
        fitted = tasks.values()
        return cls(
            tuple(tasks),
            tuple(group for task in fitted for group in task.groups_),
            tuple(name for name, task in tasks.items() for _ in task.groups_),
            dict(zip(tasks, slices_of(t.n_columns_ for t in fitted), strict=True)),
            dict(zip(tasks, slices_of(t.n_scores_ for t in fitted), strict=True)),
        )

    @property
    def n_columns(self) -> int:
        """Number of columns of all tasks."""
        return sum(group.n_columns for group in self.groups)


class TaskSet(Mapping[str, Task]):
    """Fitted tasks by name.

    Tasks of pixels share one table of targets and one of scores, tasks of whole images
    another of each; where a task's columns lie there is known here alone.

    Parameters
    ----------
    tasks : mapping of str to Task
        Fitted.
    is_named : bool, default=True
        Whether targets come with the tasks' names. Else there is one task, called
        ``"target"``, and predictions come without a name, too.
    """

    def __init__(self, tasks: Mapping[str, Task], *, is_named: bool = True) -> None:
        self._tasks = dict(tasks)
        self.is_named = is_named

    @classmethod
    def fit(
        cls, given: Mapping[str, Task], targets: Targets, *, is_named: bool = True
    ) -> TaskSet:
        """Fit a task to every column of targets.

        Parameters
        ----------
        given : mapping of str to Task
            Unfitted. Columns that it does not name tell their task by dtype and shape.
        targets : Targets
        is_named : bool, default=True

        Returns
        -------
        TaskSet

        Raises
        ------
        UnknownTaskError
            Where ``given`` names what is no column.
        TargetError
            Where a column has no label, or an entry is none of its task.
        """
        for name in given:
            if name not in targets.task_names:
                raise UnknownTaskError(
                    f"`tasks` names {name!r}, but the targets have {targets.task_names}"
                )
        tasks = {}
        for name in targets.task_names:
            entries, labelled = targets[name], targets.labelled(name)
            if not len(labelled):
                raise TargetError("labelled on no image", name)
            task = clone(given[name]) if name in given else infer_task(name, entries)
            known = [entries[i] for i in labelled]
            try:
                tasks[name] = task.fit(known)
            except TargetError as error:
                entry = None if error.image is None else int(labelled[error.image])
                raise TargetError(error.reason, name, entry) from None
            warn_of_classes(name, tasks[name], known, said=name in given)
        return cls(tasks, is_named=is_named)

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"TaskSet({self._tasks})"

    def names(self, granularity: Granularity) -> list[str]:
        """Return the names of the tasks of pixels, or of whole images, in order."""
        of_pixels = granularity == "pixel"
        return [n for n, t in self._tasks.items() if t.is_of_pixels == of_pixels]

    def is_of_pixels(self, name: str) -> bool:
        """Tell whether a task has a target at every pixel."""
        return self._tasks[name].is_of_pixels

    def choose(self, names: str | Iterable[str] | None) -> list[str]:
        """Return the names of some tasks, or of all.

        Parameters
        ----------
        names : str, iterable of str, or None
            None is all.

        Returns
        -------
        list of str

        Raises
        ------
        UnknownTaskError
        """
        if names is None:
            return list(self)
        chosen = [names] if isinstance(names, str) else list(names)
        for name in chosen:
            if name not in self:
                raise UnknownTaskError(f"no task {name!r}; the tasks are {list(self)}")
        return chosen

    def subset(self, granularity: Granularity) -> dict[str, Task]:
        """Return the tasks of pixels, or of whole images, by name."""
        return {name: self._tasks[name] for name in self.names(granularity)}

    def layout(self, granularity: Granularity) -> Layout:
        """Return where the tasks of pixels, or of whole images, lie in their tables."""
        return self._layouts[granularity]

    @cached_property
    def _layouts(self) -> dict[str, Layout]:
        return {kind: Layout.of(self.subset(kind)) for kind in GRANULARITIES}

    def __getstate__(self) -> dict[str, Any]:
        return {"_tasks": self._tasks, "is_named": self.is_named}

    def encode(
        self,
        name: str,
        entry: Any,
        index: int,
        shape: tuple[int, int] = (0, 0),
        *,
        unseen: bool = False,
    ) -> np.ndarray:
        """Return the columns of one entry of a task's targets.

        Parameters
        ----------
        name : str
            The task.
        entry : object
            The target; None where it is missing.
        index : int
            The image's index, for messages.
        shape : (int, int), default=(0, 0)
            The image's height and width, which tasks of whole images do not ask for.
        unseen : bool, default=False
            Whether labels that ``fit`` did not see are coded, as `Task.encode` does,
            or refused.

        Returns
        -------
        ndarray of float32, shape (H, W, n_columns) or (n_columns,)
            NaN where unlabelled.

        Raises
        ------
        TargetError
            It names the task and the image.
        """
        task = self._tasks[name]
        if entry is None:
            front = shape if self.is_of_pixels(name) else ()
            return np.full((*front, task.n_columns_), np.nan, np.float32)
        try:
            return task.encode(entry, shape, unseen=unseen)
        except TargetError as error:
            raise error.at(name, index) from error
        except (ValueError, TypeError) as error:
            raise TargetError(str(error), name, index) from error

    def encode_images(
        self, name: str, entries: Sequence[Any], indices: Collection[int]
    ) -> np.ndarray:
        """Return the columns of some entries of a task of whole images.

        Parameters
        ----------
        name : str
        entries : sequence
            The targets of all images.
        indices : collection of int
            The images wanted.

        Returns
        -------
        ndarray of float32, shape (n_indices, n_columns)
        """
        return np.stack([self.encode(name, entries[i], i) for i in indices])

    def unwrap(self, predictions: Mapping[str, Any], wanted: Any = None) -> Any:
        """Return predictions by task, or that of the only task without its name.

        Parameters
        ----------
        predictions : mapping of str to object
        wanted : object, default=None
            What the caller named of tasks: where that is not None, names come back.
        """
        bare = not self.is_named and wanted is None
        return predictions[DEFAULT_TASK] if bare else predictions
