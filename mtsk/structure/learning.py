"""Learning of structure from images held out from the heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from sklearn.base import clone

from mtsk.crf import Coupling, RegionGraph, SuperpixelCRF, fit_coupling
from mtsk.links import ContextLink
from mtsk.structure.messages import (
    FittedStructure,
    ScoredPicture,
    TaskStructure,
    add_messages,
    label_scores,
)
from mtsk.structure.region_graph import region_labels
from mtsk.structure.structure import Structure
from mtsk.tasks import Task

__all__ = ["learn_structure"]


def learn_structure(
    structure: Structure,
    tasks: Mapping[str, Task],
    pictures: Sequence[ScoredPicture],
    contexts: list[ContextLink],
) -> FittedStructure:
    """Learn the structure of some tasks from pictures.

    Parameters
    ----------
    structure : Structure
    tasks : mapping of str to Task
        Tasks that have structure.
    pictures : sequence of ScoredPicture
        With out-of-fold scores of the heads. Each task is in the codes of some.
    contexts : list of ContextLink
        Links that give the pictures' contexts.

    Returns
    -------
    FittedStructure
        Its couplings are those of strength > 0.
    """
    regions: dict[str, SuperpixelCRF] = {}
    graphs: dict[str, dict[int, RegionGraph]] = {}
    labels: dict[str, dict[int, np.ndarray]] = {}
    for name, task in tasks.items() if structure.regions is not None else ():
        own = {i: p for i, p in enumerate(pictures) if name in p.codes}
        graphs[name] = {i: p.graph(name, task) for i, p in own.items()}
        labels[name] = {
            i: region_labels(p.picture.segments, p.codes[name], g.scores.shape[1])
            for (i, p), g in zip(own.items(), graphs[name].values(), strict=True)
        }
        regions[name] = clone(structure.regions).fit(
            list(graphs[name].values()), list(labels[name].values())
        )
    couplings = []
    strong = [n for n, crf in regions.items() if crf.strength_]
    for a, b in combinations(strong, 2) if structure.couple else ():
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
    alone = {n: TaskStructure(regions.get(n), None) for n in tasks}
    found = dict(alone)
    for name in tasks if structure.pixels is not None else ():
        some = [p for p in pictures if name in p.codes]
        crf = clone(structure.pixels)
        truths = [p.codes[name] for p in some]
        pixels = crf.fit(_after_regions(name, tasks, some, alone, couplings), truths)
        found[name] = TaskStructure(regions.get(name), pixels)
    return FittedStructure(found, couplings, contexts, structure.segmentation())


def _after_regions(
    name: str,
    tasks: Mapping[str, Task],
    pictures: Sequence[ScoredPicture],
    structures: Mapping[str, TaskStructure],
    couplings: Sequence[Coupling],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a task's scores after region messages, and the image in L*a*b*."""
    for one in pictures:
        scores = add_messages(one, tasks, structures, couplings)
        yield label_scores(tasks[name], scores[name]), one.picture.lab
