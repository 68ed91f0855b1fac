"""Structure is learnt from out-of-fold scores of the heads."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from mtsk.data import Targets
from mtsk.links import ContextLink, find_context
from mtsk.segmenter.head_factory import HeadFitter
from mtsk.segmenter.predictor import Predictor
from mtsk.structure import FittedStructure, Picture, Structure, learn_structure
from mtsk.structure.messages import (
    ScoredPicture,
    boundary_logits,
    context_logits,
    has_structure,
)
from mtsk.tables import Table
from mtsk.tasks.task_set import Granularity, TaskSet

__all__ = ["fit_structure", "images_for_structure"]

_MAX_PICTURES, _MIN_PICTURES = 60, 3  # that structure is learnt from


def images_for_structure(
    structure: Structure | None, tasks: TaskSet, targets: Targets
) -> list[int]:
    """Return images with a task that has structure, evenly spread."""
    if structure is None:
        return []
    names = [n for n, t in tasks.items() if has_structure(t)]
    some = sorted({int(i) for n in names for i in targets.labelled(n)})
    step = max(1, -(-len(some) // _MAX_PICTURES))
    return some[::step]


def fit_structure(
    structure: Structure,
    predictor: Predictor,
    fit_head: HeadFitter,
    tables: Mapping[Granularity, Table],
    targets: Targets,
    pictures: Mapping[int, Picture],
) -> FittedStructure:
    """Learn structure from scores of heads that did not see the image.

    Parameters
    ----------
    structure : Structure
    predictor : Predictor
        With fitted heads.
    fit_head : HeadFitter
    tables : mapping of {"pixel", "image"} to Table
        That the heads were fitted to.
    targets : Targets
    pictures : mapping of int to Picture
        Of some images, by index.

    Returns
    -------
    FittedStructure
        Empty where too few pictures have a label.
    """
    tasks = predictor.tasks
    wanted = {n: t for n, t in tasks.items() if has_structure(t)}
    codes = {i: _codes(i, wanted, tasks, targets, p) for i, p in pictures.items()}
    for name in list(wanted):
        if sum(name in own for own in codes.values()) < _MIN_PICTURES:
            warnings.warn(
                f"task {name!r} is labelled on fewer than {_MIN_PICTURES} images: "
                "its structure cannot be learnt and is left out",
                UserWarning,
                stacklevel=5,
            )
            del wanted[name]
    if not wanted:
        return FittedStructure()
    contexts: list[ContextLink] = []
    if structure.regions is not None:
        links = find_context(tasks, targets, predictor.tag_links)
        contexts = [link for link in links if link.pixels in wanted]
    sources = {link.source for link in contexts}
    scores = _held_out_scores(predictor, fit_head, tables, targets, pictures, sources)
    scored = [
        ScoredPicture(
            pictures[i],
            own,
            codes[i],
            boundary_logits(tasks, own),
            context_logits(contexts, tasks, own),
        )
        for i, own in scores.items()
    ]
    return learn_structure(structure, wanted, scored, contexts)


def _codes(
    i: int,
    names: Collection[str],
    tasks: TaskSet,
    targets: Targets,
    picture: Picture,
) -> dict[str, np.ndarray]:
    """Return an image's codes (H, W) in the tasks that it has a label of."""
    out = {}
    for name in names:
        code = tasks.encode(name, targets[name][i], i, picture.maps.shape)
        if (code >= 0).any():  # False for NaN
            out[name] = code[..., 0]
    return out


def _held_out_scores(
    predictor: Predictor,
    fit_head: HeadFitter,
    tables: Mapping[Granularity, Table],
    targets: Targets,
    pictures: Mapping[int, Picture],
    sources: Collection[str],
) -> dict[int, dict[str, np.ndarray]]:
    """Return scores of pictures by heads fitted to the others.

    One split where the other labelled images are twice as many; else three folds.
    """
    tasks = predictor.tasks
    names = tasks.names("pixel")
    labelled = {int(i) for n in names for i in targets.labelled(n)}
    n_folds = 1 if len(labelled) > 2 * len(pictures) else 3
    out: dict[int, dict[str, np.ndarray]] = {}
    for fold in range(n_folds):
        held = list(pictures)[fold::n_folds]
        heads = {
            kind: fit_head(kind, _without(held, tasks, kind, table))
            for kind, table in tables.items()
            if kind == "pixel" or sources
        }
        held_out = replace(predictor, heads=predictor.heads | heads)
        for i in held:
            out[i] = held_out.head_scores(pictures[i].maps, [*names, *sources])
    return dict(sorted(out.items()))


def _without(
    held: Collection[int], tasks: TaskSet, kind: Granularity, table: Table
) -> Table:
    """Return a table in which some images have no label."""
    Y = table.Y.copy()
    rows = np.isin(table.images, list(held))
    for columns in tasks.layout(kind).columns.values():
        known = ~np.isnan(Y[:, columns]).all(axis=1)
        if (known & ~rows).any():  # else the task would have no label left
            Y[rows, columns] = np.nan
    return table._replace(Y=Y)
