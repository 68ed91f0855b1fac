"""Messages between the parts of a picture, added to the scores of its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mtsk._resources import one_blas_thread
from mtsk.crf import Coupling, PixelCRF, RegionGraph, SuperpixelCRF, coupled_messages
from mtsk.features import FeatureMaps
from mtsk.links import ContextLink
from mtsk.structure.region_graph import Picture, region_graph
from mtsk.structure.superpixels import Superpixels
from mtsk.tasks import BinaryMask, Boundary, SemanticSegmentation, Task
from mtsk.tasks.task_set import TaskSet

__all__ = [
    "FittedStructure",
    "ScoredPicture",
    "TaskStructure",
    "add_messages",
    "boundary_logits",
    "context_logits",
    "has_structure",
    "label_scores",
]


@dataclass(frozen=True)
class TaskStructure:
    """The fitted structure of one task.

    Attributes
    ----------
    regions : SuperpixelCRF or None
    pixels : PixelCRF or None
    """

    regions: SuperpixelCRF | None
    pixels: PixelCRF | None

    @property
    def is_active(self) -> bool:
        """Whether it ever changes a score."""
        return any(
            p is not None and p.strength_ > 0 for p in (self.regions, self.pixels)
        )


class ScoredPicture(NamedTuple):
    """A picture, with the scores of heads and its labels.

    Attributes
    ----------
    picture : Picture
    scores : dict of str to ndarray of shape (H, W, size)
        Scores of the heads.
    codes : dict of str to ndarray of shape (H, W)
        True codes of the tasks labelled there; NaN is unlabelled. Empty where unknown.
    boundary : ndarray of shape (H, W) or None
        Logits of a boundary.
    contexts : dict of str to ndarray of shape (K,)
        Logits of a task's labels from the picture as a whole.
    """

    picture: Picture
    scores: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    boundary: np.ndarray | None
    contexts: Mapping[str, np.ndarray]

    def graph(self, name: str, task: Task) -> RegionGraph:
        """Return the graph of a task's regions."""
        own = label_scores(task, self.scores[name])
        return region_graph(self.picture, own, self.boundary, self.contexts.get(name))


@dataclass(frozen=True)
class FittedStructure:
    """The structure of all tasks that have some.

    Attributes
    ----------
    tasks : dict of str to TaskStructure
    couplings : list of Coupling
        Pairs of tasks whose labels at one region are coupled.
    contexts : list of ContextLink
        Which tasks of whole images inform which tasks of pixels.
    superpixels : Superpixels
        How regions are made.
    """

    tasks: dict[str, TaskStructure] = field(default_factory=dict)
    couplings: list[Coupling] = field(default_factory=list)
    contexts: list[ContextLink] = field(default_factory=list)
    superpixels: Superpixels = field(default_factory=Superpixels)

    def active_structures(self, names: Sequence[str]) -> dict[str, TaskStructure]:
        """Return the structures that change the scores of some tasks.

        Tasks that are coupled with one another are evaluated jointly, so that the
        messages to one do not depend on which are requested.
        """
        coupled: set[str] = set()
        reached = set(names)
        while reached - coupled:
            coupled |= reached
            reached = {
                n for c in self.couplings if {c.a, c.b} & coupled for n in (c.a, c.b)
            }
        coupled &= {n for c in self.couplings for n in (c.a, c.b)}
        return {
            n: s
            for n, s in self.tasks.items()
            if n in coupled or (n in names and s.is_active)
        }

    def scores_needed(self, names: Sequence[str], tasks: TaskSet) -> list[str]:
        """Return the tasks whose scores are needed for the messages to some tasks.

        Parameters
        ----------
        names : sequence of str
        tasks : TaskSet

        Returns
        -------
        list of str
        """
        structures = self.active_structures(names)
        if not structures:
            return []
        edges = [n for n, t in tasks.items() if isinstance(t, Boundary)][:1]
        sources = [c.source for c in self.contexts if c.pixels in structures]
        return list(dict.fromkeys([*structures, *edges, *sources]))

    def scores(
        self,
        image: np.ndarray,
        maps: FeatureMaps,
        tasks: TaskSet,
        scores: Mapping[str, np.ndarray],
        names: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Return an image's scores with the messages to some tasks added.

        Parameters
        ----------
        image : ndarray of float32, shape (H, W, 3)
            In [0, 1].
        maps : FeatureMaps
            Its features.
        tasks : TaskSet
        scores : mapping of str to ndarray
            Scores of the heads: those of ``names`` and `scores_needed`.
        names : sequence of str
            The tasks wanted.

        Returns
        -------
        dict of str to ndarray
        """
        scored = ScoredPicture(
            Picture(image, maps, self.superpixels),
            scores,
            {},
            boundary_logits(tasks, scores),
            context_logits(self.contexts, tasks, scores),
        )
        return add_messages(
            scored, tasks, self.active_structures(names), self.couplings
        )


def has_structure(task: Task) -> bool:
    """Return whether a task can have structure: classes and masks can."""
    return isinstance(task, SemanticSegmentation | BinaryMask) and not isinstance(
        task, Boundary
    )


def label_scores(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return one score a label: a mask's no and yes are labels 0 and 1."""
    if task.group_.kind == "nominal":
        return scores
    return np.concatenate([np.zeros_like(scores), scores], axis=-1)


def boundary_logits(
    tasks: TaskSet, scores: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """Return the logits of the first boundary task among some scores."""
    for name, task in tasks.items():
        if isinstance(task, Boundary) and name in scores:
            return scores[name][..., 0]
    return None


def context_logits(
    links: Sequence[ContextLink], tasks: TaskSet, scores: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the logits of regions' classes from an image's own labels."""
    out: dict[str, np.ndarray] = {}
    for link in links:
        if link.source in scores:
            logits = link.context(tasks[link.source], scores[link.source])
            out[link.pixels] = out.get(link.pixels, 0) + logits
    return out


def add_messages(
    scored: ScoredPicture,
    tasks: Mapping[str, Task],
    structures: Mapping[str, TaskStructure],
    couplings: Sequence[Coupling],
) -> dict[str, np.ndarray]:
    """Return scores with the messages added to every pixel.

    Parameters
    ----------
    scored : ScoredPicture
    tasks : mapping of str to Task
    structures : mapping of str to TaskStructure
        Tasks without one keep their scores.
    couplings : sequence of Coupling
        Those whose tasks both have scores and regions are used.

    Returns
    -------
    dict of str to ndarray of shape (H, W, size)
    """
    scores, picture = scored.scores, scored.picture
    out = dict(scores)
    crfs = {
        n: s.regions
        for n, s in structures.items()
        if n in scores and s.regions is not None and s.regions.strength_
    }
    if crfs:
        with one_blas_thread():
            graphs = {n: scored.graph(n, tasks[n]) for n in crfs}
            messages = coupled_messages(graphs, crfs, couplings)
        for name, each in messages.items():
            change = _score_change(tasks[name], each.astype(np.float32))
            out[name] = scores[name] + change[picture.segments]
    for name, one in structures.items():
        if name in scores and one.pixels is not None and one.pixels.strength_:
            own = label_scores(tasks[name], out[name])
            change = one.pixels.messages(own, picture.lab)
            out[name] = out[name] + _score_change(tasks[name], change)
    return out


def _score_change(task: Task, messages: np.ndarray) -> np.ndarray:
    """Return messages to labels as a change of the task's scores."""
    if task.group_.kind == "nominal":
        return messages
    return messages[..., 1:] - messages[..., :1]
