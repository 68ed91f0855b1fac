"""Structure: how the parts of a picture, and its tasks, speak to one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone

from mtsk._resources import one_blas_thread
from mtsk._validation import check_parameters
from mtsk.crf import (
    Coupling,
    PixelCRF,
    RegionGraph,
    SuperpixelCRF,
    coupled_messages,
    fit_coupling,
)
from mtsk.pictures import Picture, region_graph, region_labels
from mtsk.tasks import BinaryMask, Boundary, SemanticSegmentation, Task

__all__ = [
    "Seen",
    "Structure",
    "TaskStructure",
    "has_structure",
    "learn_structures",
    "with_messages",
]


class Structure(BaseEstimator):
    """What ``MultiTaskSegmenter(structure=...)`` learns beside the heads.

    Parameters
    ----------
    regions : SuperpixelCRF, default=None
        Neighbouring superpixels, and the picture as a whole. None is none of it.
    pixels : PixelCRF, default=None
        Pixels that look alike, after the regions. None is none of it.
    couple : bool, default=True
        Whether labels of two tasks at one region speak to one another, where held-out
        pictures are the better for it. Only tasks whose regions have a strength.

    Examples
    --------
    >>> from mtsk import MultiTaskSegmenter, Structure, SuperpixelCRF
    >>> structure = Structure(SuperpixelCRF(inference="icm"))
    >>> MultiTaskSegmenter(structure=structure).structure.pixels is None
    True
    """

    def __init__(
        self,
        regions: SuperpixelCRF | None = None,
        pixels: PixelCRF | None = None,
        *,
        couple: bool = True,
    ) -> None:
        self.regions = regions
        self.pixels = pixels
        self.couple = couple

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` where a parameter is not allowed."""
        check_parameters(self, _CONSTRAINTS)
        for part in (self.regions, self.pixels):
            if part is not None:
                part.check_parameters()


_CONSTRAINTS: dict[str, list] = {
    "regions": [SuperpixelCRF, None],
    "pixels": [PixelCRF, None],
    "couple": ["boolean"],
}


@dataclass
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
    def active(self) -> bool:
        """Whether it ever changes a score."""
        return any(
            p is not None and p.strength_ > 0 for p in (self.regions, self.pixels)
        )


class Seen(NamedTuple):
    """A picture that structure is learnt from.

    Attributes
    ----------
    picture : Picture
    scores : dict of str to ndarray of shape (H, W, size)
        Of heads that did not learn from the picture.
    codes : dict of str to ndarray of shape (H, W)
        What is true, of the tasks labelled there; NaN is unlabelled.
    boundary : ndarray of shape (H, W) or None
        Logits of a boundary.
    contexts : dict of str to ndarray of shape (K,)
        What the picture as a whole says of a task's labels.
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


def has_structure(task: Task) -> bool:
    """Tell whether a task's regions speak to one another: classes and masks do."""
    return isinstance(task, SemanticSegmentation | BinaryMask) and not isinstance(
        task, Boundary
    )


def label_scores(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return one score a label: a mask's no and yes are labels 0 and 1."""
    if task.group_.kind == "nominal":
        return scores
    return np.concatenate([np.zeros_like(scores), scores], axis=-1)


def learn_structures(
    structure: Structure, tasks: Mapping[str, Task], seen: Sequence[Seen], seed: int
) -> tuple[dict[str, TaskStructure], list[Coupling]]:
    """Learn the structure of some tasks from pictures.

    Parameters
    ----------
    structure : Structure
    tasks : mapping of str to Task
        Those that have structure.
    seen : sequence of Seen
        Each task is in the codes of some.
    seed : int

    Returns
    -------
    structures : dict of str to TaskStructure
    couplings : list of Coupling
        Those of strength > 0.
    """
    regions: dict[str, SuperpixelCRF] = {}
    graphs: dict[str, dict[int, RegionGraph]] = {}
    labels: dict[str, dict[int, np.ndarray]] = {}
    for name, task in tasks.items() if structure.regions is not None else ():
        own = {i: s for i, s in enumerate(seen) if name in s.codes}
        graphs[name] = {i: s.graph(name, task) for i, s in own.items()}
        labels[name] = {
            i: region_labels(s.picture.segments, s.codes[name], g.scores.shape[1])
            for (i, s), g in zip(own.items(), graphs[name].values(), strict=True)
        }
        crf = clone(structure.regions).set_params(random_state=seed)
        regions[name] = crf.fit(
            list(graphs[name].values()), list(labels[name].values())
        )
    couplings = []
    strong = [n for n, crf in regions.items() if crf.strength_]
    for a, b in _pairs(strong) if structure.couple else ():
        both = [i for i in graphs[a] if i in graphs[b]]
        if len(both) > 1:
            coupling = fit_coupling(
                a,
                b,
                regions,
                {n: [graphs[n][i] for i in both] for n in (a, b)},
                {n: [labels[n][i] for i in both] for n in (a, b)},
            )
            couplings += [coupling] if coupling.strength else []
    found = {n: TaskStructure(regions.get(n), None) for n in tasks}
    for name in tasks if structure.pixels is not None else ():
        some = [s for s in seen if name in s.codes]
        crf = clone(structure.pixels)
        truths = [s.codes[name] for s in some]
        pixels = crf.fit(_moved(name, tasks, some, found, couplings), truths)
        found[name] = TaskStructure(regions.get(name), pixels)
    return found, couplings


def with_messages(
    picture: Picture,
    tasks: Mapping[str, Task],
    scores: Mapping[str, np.ndarray],
    structures: Mapping[str, TaskStructure],
    couplings: Sequence[Coupling] = (),
    boundary: np.ndarray | None = None,
    contexts: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Return scores with what the rest of the picture says added to every pixel.

    Parameters
    ----------
    picture : Picture
    tasks, scores : mapping of str to Task, and to ndarray (H, W, size)
        Both tasks of a coupling, or it does not count.
    structures : mapping of str to TaskStructure
        Tasks without one keep their scores.
    couplings : sequence of Coupling
    boundary : ndarray of float, shape (H, W), optional
        Logits of a boundary.
    contexts : mapping of str to ndarray of shape (K,), optional
        What the picture as a whole says of a task's labels.

    Returns
    -------
    dict of str to ndarray of shape (H, W, size)
    """
    out = dict(scores)
    here = Seen(picture, scores, {}, boundary, contexts or {})
    crfs = {
        n: s.regions
        for n, s in structures.items()
        if n in scores and s.regions is not None and s.regions.strength_
    }
    if crfs:
        with one_blas_thread():
            graphs = {n: here.graph(n, tasks[n]) for n in crfs}
            told = coupled_messages(graphs, crfs, couplings)
        for name, each in told.items():
            shift = _as_scores(tasks[name], each.astype(np.float32))
            out[name] = scores[name] + shift[picture.segments]
    for name, one in structures.items():
        if name in scores and one.pixels is not None and one.pixels.strength_:
            own = label_scores(tasks[name], out[name])
            shift = one.pixels.messages(own, picture.lab)
            out[name] = out[name] + _as_scores(tasks[name], shift)
    return out


def _moved(
    name: str,
    tasks: Mapping[str, Task],
    seen: Sequence[Seen],
    found: Mapping[str, TaskStructure],
    couplings: Sequence[Coupling],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a task's scores as the regions leave them, and the picture, in L*a*b*."""
    for one in seen:
        moved = with_messages(
            one.picture,
            tasks,
            one.scores,
            {n: TaskStructure(s.regions, None) for n, s in found.items()},
            couplings,
            one.boundary,
            one.contexts,
        )
        yield label_scores(tasks[name], moved[name]), one.picture.lab


def _as_scores(task: Task, told: np.ndarray) -> np.ndarray:
    """Return what is told of labels as a change of the task's scores."""
    return told if task.group_.kind == "nominal" else told[..., 1:] - told[..., :1]


def _pairs(names: Sequence[str]) -> list[tuple[Any, Any]]:
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
