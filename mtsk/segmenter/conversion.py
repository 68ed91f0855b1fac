"""From scores to what ``predict`` and its like return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtsk.data import Images
from mtsk.segmenter.predictor import Entries, Predictor
from mtsk.tasks import Task
from mtsk.tasks.columns import ColumnGroup

__all__ = [
    "as_array",
    "convert_shard",
    "decoded",
    "has_probabilities",
    "probabilities",
    "unchanged",
]


def convert_shard(
    predictor: Predictor,
    images: Images,
    entries: Entries,
    names: Sequence[str],
    convert: Callable[[Predictor, str, np.ndarray], Any],
) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Return the converted scores of some images, and which were skipped."""
    found = {}
    stream = predictor.features.iter_views_and_maps(images, desc="predict")
    for index, views, maps in stream:
        scores = predictor.scores(views, maps, names)
        found[index] = {n: convert(predictor, n, s) for n, s in scores.items()}
    return found, dict(images.skipped)


def decoded(predictor: Predictor, name: str, scores: np.ndarray) -> Any:
    """Return scores in the form that targets have."""
    return predictor.tasks[name].decode(scores)


def unchanged(predictor: Predictor, name: str, scores: np.ndarray) -> np.ndarray:
    """Return the scores."""
    return scores


def probabilities(predictor: Predictor, name: str, scores: np.ndarray) -> np.ndarray:
    """Return probabilities at the classes' frequencies; those of a mask in (H, W)."""
    task = predictor.tasks[name]
    found = task.probabilities(scores + predictor.prior_corrections(name))
    is_mask = scores.ndim == 3 and task.groups_ == (ColumnGroup("binary", 1),)
    return found[..., 0] if is_mask else found


def has_probabilities(task: Task) -> bool:
    """Tell whether all of a task's scores are logits."""
    return all(group.kind != "real" for group in task.groups_)


def as_array(column: list[Any], stacked: bool) -> Any:
    """Return scalars as an array, maps as an array where the images were one."""
    if any(entry is None for entry in column) or isinstance(column[0], set | dict):
        return column
    if stacked or np.ndim(column[0]) < 2:
        return np.array(column)
    return column
