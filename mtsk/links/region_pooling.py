"""Region pooling: features of tasks of whole images, averaged over regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtsk._validation import parameter_error
from mtsk.exceptions import UnknownTaskError
from mtsk.features import FeatureMaps
from mtsk.features.feature_maps import POSITION_NAMES
from mtsk.tasks import Task
from mtsk.tasks.task_set import TaskSet

__all__ = ["RegionPooling"]


@dataclass(frozen=True)
class RegionPooling:
    """Mean features of the parts of an image that have a label.

    Attributes
    ----------
    name : str
        Name of the task of the labels.
    task : Task
        Fitted; of classes or a mask.
    codes : tuple of int
        Codes of the labels, in order.
    """

    name: str
    task: Task
    codes: tuple[int, ...]

    @classmethod
    def of(cls, given: Any, tasks: TaskSet, owner: object) -> RegionPooling:
        """Return the pooling given by ``region_pooling``.

        Parameters
        ----------
        given : str, or (str, sequence of labels)
        tasks : TaskSet
        owner : object
            For messages.

        Raises
        ------
        UnknownTaskError
        InvalidParameterError
            Where the task has no labels of pixels, or not these, or no task is of whole
            images.
        """
        form = "the name of a task, or (name, list of labels)"
        name, labels = given, None
        if isinstance(given, tuple):
            if len(given) != 2:
                raise parameter_error("region_pooling", owner, form, given)
            name, labels = given
        listed = labels is None or isinstance(labels, list | tuple | np.ndarray)
        if not isinstance(name, str) or not listed:
            raise parameter_error("region_pooling", owner, form, given)
        if name not in tasks:
            raise UnknownTaskError(
                f"`region_pooling` names {name!r}; the tasks are {list(tasks)}"
            )
        if all(map(tasks.is_of_pixels, tasks)):
            allowed = "None where no task is of whole images: nothing would be pooled"
            raise parameter_error("region_pooling", owner, allowed, given)
        task = tasks[name]
        kinds = [group.kind for group in task.groups_]
        labelled = kinds in (["nominal"], ["binary"]) and hasattr(task, "codes")
        if not tasks.is_of_pixels(name) or not labelled:
            allowed = "a task of pixels that has classes, or is a mask"
            raise parameter_error("region_pooling", owner, allowed, given)
        if kinds == ["binary"]:
            every: list[Any] = [True]
            places = [1]
        else:
            every = np.asarray(task.classes_).tolist()
            places = list(range(len(every)))
        if labels is None:
            return cls(name, task, tuple(places))
        wanted = np.asarray(labels).ravel().tolist()
        if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= {*every}:
            allowed = f"{form}, each of {every} once at most"
            raise parameter_error("region_pooling", owner, allowed, given)
        return cls(name, task, tuple(places[every.index(label)] for label in wanted))

    def pooled(self, maps: FeatureMaps, scores: np.ndarray) -> np.ndarray:
        """Return the mean hypercolumn of each label's pixels, one after another.

        Parameters
        ----------
        maps : FeatureMaps
        scores : ndarray of shape (H, W, n_scores)
            Scores of the task.

        Returns
        -------
        ndarray of float32, shape (n_labels · n_channels,)
            Without the columns of position. A label without pixels gets the mean over
            the image.
        """
        found = self.task.codes(scores).astype(np.intp)
        regions = np.full(found.shape, -1)
        for place, code in enumerate(self.codes):
            regions[found == code] = place
        whole = maps.global_mean()
        rows = np.tile(whole, (len(self.codes), 1))
        means = maps.region_means(regions)
        if maps.position:
            means = means[:, : -len(POSITION_NAMES)]
        known = np.flatnonzero(~np.isnan(means).all(axis=1))
        rows[known] = means[known]
        return rows.ravel()
