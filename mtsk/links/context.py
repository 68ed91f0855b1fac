"""Context: logits of regions' classes given an image's tags and scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from mtsk.data import Targets
from mtsk.links.pseudo_labels import TagLink
from mtsk.tasks import Classification, SemanticSegmentation, Task
from mtsk.tasks.task_set import TaskSet

__all__ = ["ContextLink", "find_context"]

_MAX_LOG_RATIO = 4.0  # of a log-ratio
_SMOOTHING = 1e-2  # added to probabilities
_MIN_IMAGES = 5  # minimum images with both labels to learn from a scene
_PRIOR_COUNT = 2.0  # pseudo-count of the overall rate, in images


@dataclass(frozen=True)
class ContextLink:
    """How an image task informs the classes of a pixel task.

    Attributes
    ----------
    pixels, source : str
        Names of the tasks.
    presence : ndarray of shape (S, K)
        Probability that a class is in an image of each label of the source.
    base : ndarray of shape (K,)
        Probability that it is in any image. NaN for classes that the source does not
        inform.
    """

    pixels: str
    source: str
    presence: np.ndarray
    base: np.ndarray

    def context(self, task: Task, scores: np.ndarray) -> np.ndarray:
        """Return logits of the classes, given an image's scores.

        Parameters
        ----------
        task : Task
            The source.
        scores : ndarray of shape (S,)

        Returns
        -------
        ndarray of shape (K,)
            Log-ratio of a class's probability here and in any image.
        """
        nominal = task.group_.kind == "nominal"
        p = softmax(scores) if nominal else expit(scores)
        ratio = np.log((p @ self.presence + _SMOOTHING) / (self.base + _SMOOTHING))
        return np.nan_to_num(ratio, nan=0.0).clip(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def find_context(
    tasks: TaskSet, targets: Targets, links: Sequence[TagLink]
) -> list[ContextLink]:
    """Learn which image tasks inform which pixel tasks.

    Tags do where they name classes; the scene, a `Classification`, where at least five
    images have both a mask and a class: then the classes present are counted.

    Parameters
    ----------
    tasks : TaskSet
    targets : Targets
    links : sequence of TagLink

    Returns
    -------
    list of ContextLink
    """
    out = []
    for link in links:
        tags = tasks.encode_images(
            link.tags, targets[link.tags], targets.labelled(link.tags)
        )
        known = link.label_of_class >= 0
        presence = np.zeros((tags.shape[1], len(known)))
        presence[link.label_of_class[known], np.flatnonzero(known)] = 1
        rate = np.append(np.nanmean(tags, axis=0), np.nan)
        out.append(
            ContextLink(link.pixels, link.tags, presence, rate[link.label_of_class])
        )
    scenes = [n for n, t in tasks.items() if isinstance(t, Classification)]
    dense = [n for n, t in tasks.items() if isinstance(t, SemanticSegmentation)]
    for source in scenes:
        for pixels in dense:
            found = _scene_link(pixels, source, tasks, targets)
            out += [found] if found is not None else []
    return out


def _scene_link(
    pixels: str, source: str, tasks: TaskSet, targets: Targets
) -> ContextLink | None:
    both = np.intersect1d(targets.labelled(pixels), targets.labelled(source))
    if len(both) < _MIN_IMAGES:
        return None
    n_classes = tasks[pixels].group_.size
    present = np.zeros((len(both), n_classes))
    scene = np.full(len(both), -1)
    for row, i in enumerate(both):
        mask = targets[pixels][i]
        codes = tasks.encode(pixels, mask, i, np.shape(mask))
        present[row, np.unique(codes[codes >= 0]).astype(int)] = 1
        code = tasks.encode(source, targets[source][i], i)[0]
        scene[row] = -1 if np.isnan(code) else int(code)
    base = present.mean(axis=0)
    one_hot = scene == np.arange(tasks[source].group_.size)[:, None]
    counts = one_hot.astype(float) @ present + _PRIOR_COUNT * base
    presence = counts / (one_hot.sum(axis=1) + _PRIOR_COUNT)[:, None]
    return ContextLink(pixels, source, presence, base)
