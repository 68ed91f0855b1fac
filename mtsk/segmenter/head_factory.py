"""From the parameter ``head`` to heads for given columns, unfitted and fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone

from mtsk._validation import parameter_error
from mtsk.decoders import SharedDecoder
from mtsk.exceptions import UnknownTaskError
from mtsk.features import DeepFeatures
from mtsk.heads import (
    JointLogistic,
    JointRidge,
    PerTaskHead,
    SharedLayerNetwork,
    SplitHead,
)
from mtsk.heads.capabilities import Capabilities, capabilities_of
from mtsk.tables import Table
from mtsk.tables.table import weights_of_entries
from mtsk.tasks.task_set import GRANULARITIES, Granularity, Layout, TaskSet

__all__ = [
    "CANDIDATES",
    "HEADS",
    "HEADS_OF_ONE_TASK",
    "MIN_IMAGES",
    "HeadFactory",
    "HeadFitter",
    "named_head",
]

HEADS: dict[str, Callable[[], BaseEstimator]] = {
    "logistic": JointLogistic,
    "ridge": JointRidge,
    "network": SharedLayerNetwork,
    "fcn": SharedDecoder,
    "unet": partial(SharedDecoder, "unet"),
}
"""The heads that have names."""

HEADS_OF_ONE_TASK = ("logistic", "ridge")
"""Those that a mapping of tasks may name."""

CANDIDATES = ("logistic", "network")
"""Those that are compared where no head is named; the first where none can be."""

MIN_IMAGES = 8
"""Number of labelled images of a task from which heads are compared."""


def named_head(head: Any) -> Any:
    """Return what a name, or None, stands for; anything else as it is."""
    if head is None or (isinstance(head, str) and head in HEADS):
        return HEADS[head or "logistic"]()
    return head


@dataclass(frozen=True)
class HeadFactory:
    """Makes unfitted heads.

    Attributes
    ----------
    head : estimator or mapping of str to (estimator or str)
        For all tasks, or by task; tasks that a mapping does not name get the default.
        Where heads are chosen, what serves until then.
    seed : int, optional
        For heads whose ``random_state`` is None.
    n_jobs : int, optional
        Of scikit-learn estimators that are fitted to one task each.
    verbose : int
        Above 0, that of heads too.
    is_automatic : bool
        Whether each task's head is chosen among `CANDIDATES`.
    chosen : mapping of {"pixel", "image"} to mapping of str to str
        The names of heads that were chosen, by task.
    """

    head: Any
    seed: int | None = None
    n_jobs: int | None = None
    verbose: int = 0
    is_automatic: bool = False
    chosen: Mapping[Granularity, Mapping[str, str]] = field(default_factory=dict)

    def rows_per_image(self, n_images: int) -> int:
        """Return how many labelled pixels of an image a task learns from by default.

        Parameters
        ----------
        n_images : int
            That the task of pixels with most labels is labelled on.
        """
        found: list[Capabilities | None] = [self.capabilities]
        if self.is_automatic and n_images >= MIN_IMAGES:
            found += [capabilities_of(named_head(name)) for name in CANDIDATES]
        return max(able.rows_per_image for able in found if able is not None)

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities common to all heads that are made, before any is chosen."""
        if isinstance(self.head, Mapping):
            heads = [named_head(head) for head in self.head.values()]
            return PerTaskHead(heads, []).capabilities
        return capabilities_of(self.head) or PerTaskHead(self.head, []).capabilities

    def make(self, tasks: TaskSet, granularity: Granularity) -> Any:
        """Return an unfitted head for the tasks of pixels, or of whole images.

        Parameters
        ----------
        tasks : TaskSet
        granularity : {"pixel", "image"}

        Returns
        -------
        estimator or None
            None where there is no such task.

        Raises
        ------
        UnknownTaskError, InvalidParameterError
        """
        layout = tasks.layout(granularity)
        if not layout.names:
            return None
        groups = list(layout.groups)
        if granularity in self.chosen:
            return self._chosen_heads(tasks, layout, self.chosen[granularity])
        if isinstance(self.head, Mapping):
            return PerTaskHead(
                self._heads_of_groups(tasks, layout.owners), groups, n_jobs=self.n_jobs
            )
        if not self.capabilities.is_joint:
            return PerTaskHead(self.head, groups, n_jobs=self.n_jobs)
        head = self._configured(self.head, tasks, layout.owners)
        return head.set_params(columns=groups)

    def _chosen_heads(
        self, tasks: TaskSet, layout: Layout, by_task: Mapping[str, str]
    ) -> Any:
        """Return one head for all tasks, or one for those of each chosen name."""
        groups = list(layout.groups)
        names = list(dict.fromkeys(by_task[owner] for owner in layout.owners))
        members = [
            [g for g, owner in enumerate(layout.owners) if by_task[owner] == name]
            for name in names
        ]
        heads = [
            self._configured(
                named_head(name), tasks, tuple(layout.owners[g] for g in own)
            )
            for name, own in zip(names, members, strict=True)
        ]
        if len(heads) == 1:
            return heads[0].set_params(columns=groups)
        return SplitHead(heads, members, groups)

    def make_decoder(self, tasks: TaskSet) -> SharedDecoder:
        """Return an unfitted decoder for all tasks, those of pixels first."""
        owners = [n for kind in GRANULARITIES for n in tasks.layout(kind).owners]
        return self._configured(self.head, tasks, tuple(owners))

    def _heads_of_groups(self, tasks: TaskSet, owners: tuple[str, ...]) -> list[Any]:
        for name in self.head:
            if name not in tasks:
                raise UnknownTaskError(
                    f"`head` names {name!r}; the tasks are {list(tasks)}"
                )
        return [named_head(self.head.get(name)) for name in owners]

    def _configured(self, head: Any, tasks: TaskSet, owners: tuple[str, ...]) -> Any:
        """Return a clone of a joint head, told what the segmenter knows."""
        head = clone(head)
        parameters = head.get_params(deep=False)
        able = capabilities_of(head)
        if able is not None and able.weighs_tasks:
            weights = _weights_by_place(head, tasks, owners)
            head.set_params(task_weights=weights)
        if "random_state" in parameters and head.random_state is None:
            head.set_params(random_state=self.seed)
        if self.verbose and "verbose" in parameters:
            head.set_params(verbose=self.verbose)
        return head


@dataclass(frozen=True)
class HeadFitter:
    """Fits heads to tables.

    Attributes
    ----------
    heads : HeadFactory
    tasks : TaskSet
    features : DeepFeatures
        Fitted; a cache in memory keeps what heads derive from a table.
    weight : ndarray of shape (n_images,)
    """

    heads: HeadFactory
    tasks: TaskSet
    features: DeepFeatures
    weight: np.ndarray

    def choosing(self, chosen: Mapping[Granularity, Mapping[str, str]]) -> HeadFitter:
        """Return what fits the heads of given names, by task."""
        heads = replace(self.heads, chosen={**self.heads.chosen, **chosen})
        return replace(self, heads=heads)

    def __call__(
        self,
        granularity: Granularity,
        table: Table,
        parameters: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return a fitted head, or None where there is no such task.

        Parameters
        ----------
        granularity : {"pixel", "image"}
        table : Table
        parameters : mapping, optional
            Of the head, in place of its own.
        """
        head = self.heads.make(self.tasks, granularity)
        if head is None:
            return None
        if parameters:
            head.set_params(**parameters)
        able = capabilities_of(head) or Capabilities()
        extra: dict[str, Any] = {}
        if able.takes_groups:
            extra["groups"] = table.images
        if able.takes_memo:
            extra["memo"] = self.features.memo(table.digest)
        by_image = self.weight[table.images] if (self.weight != 1).any() else None
        weights = weights_of_entries(
            table.weights, self.tasks.layout(granularity), by_image
        )
        if weights is not None:
            extra["sample_weight"] = weights
        return head.fit(table.X, table.Y, **extra)


def _weights_by_place(head: Any, tasks: TaskSet, owners: tuple[str, ...]) -> Any:
    """Turn weights by task into weights by place, for the tasks of one head."""
    given: Any = head.task_weights
    if set(owners) != set(tasks) and np.ndim(given) == 1:
        raise parameter_error(
            "task_weights",
            head,
            "a mapping of names where tasks of pixels and of whole images have a "
            "network each",
            given,
        )
    if not isinstance(given, Mapping) or not any(isinstance(k, str) for k in given):
        return given
    for name in given:
        if name not in tasks:
            raise UnknownTaskError(
                f"`task_weights` names {name!r}; the tasks are {list(tasks)}"
            )
    return {i: given[name] for i, name in enumerate(owners) if name in given}
