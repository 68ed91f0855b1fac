"""From one image's features to the scores of its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtsk.decoders import SharedDecoder
from mtsk.feature_maps import FeatureMaps
from mtsk.heads import JointLinear
from mtsk.region_pooling import RegionPooling
from mtsk.tasks import Task
from mtsk.tasks.columns import joined_score_slices

__all__ = ["task_scores"]

_PIXELS_AT_ONCE = 16384  # hypercolumns held at a time for heads that are not linear


def task_scores(
    maps: FeatureMaps,
    tasks: Mapping[str, Task],
    heads: Mapping[str, Any],
    names: Sequence[str],
    stride: int,
    points: np.ndarray | None = None,
    pooling: RegionPooling | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores of some tasks for one image.

    Parameters
    ----------
    maps : FeatureMaps
    tasks : mapping of str to Task
        All tasks that the heads were fitted to, in order.
    heads : mapping of {"pixel", "image"} to estimator
        Fitted. A `SharedDecoder` serves both.
    names : sequence of str
        The tasks wanted.
    stride : int
        Pixels between those at which heads that are not linear are evaluated.
    points : ndarray of int, shape (n, 2), optional
        The only pixels wanted.
    pooling : RegionPooling, optional
        Where tasks of whole images look.

    Returns
    -------
    dict of str to ndarray of shape (H, W, size), (n, size) at points, or (size,)
    """
    for head in heads.values():
        if isinstance(head, SharedDecoder):
            return _decoder_scores(maps, tasks, head, names, points)
    out: dict[str, np.ndarray] = {}
    for granularity, head in heads.items():
        every = [n for n, t in tasks.items() if t.granularity == granularity]
        wanted = [name for name in every if name in names]
        if not wanted:
            continue
        parts = joined_score_slices([tasks[name].groups_ for name in every])
        of_name = dict(zip(every, parts, strict=True))
        if granularity == "image":
            row = maps.vector()
            if pooling is not None:
                own = task_scores(maps, tasks, heads, [pooling.name], stride)
                row = pooling.vector(maps, own[pooling.name])
            scores = head.decision_function(row[None])[0]
            out |= {name: scores[of_name[name]] for name in wanted}
        elif points is not None:
            scores = head.decision_function(maps.at(points))
            out |= {name: scores[:, of_name[name]] for name in wanted}
        elif isinstance(head, JointLinear):
            out |= _linear_scores(maps, head, {n: of_name[n] for n in wanted})
        else:
            scores = _strided_scores(maps, head, stride)
            out |= {name: scores[..., of_name[name]] for name in wanted}
    return {name: out[name] for name in tasks if name in out}


def _decoder_scores(
    maps: FeatureMaps,
    tasks: Mapping[str, Task],
    decoder: SharedDecoder,
    names: Sequence[str],
    points: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Make the scores of all tasks at once, and hand out those that are wanted."""
    planes, labels = decoder.scores(maps, points)
    out: dict[str, np.ndarray] = {}
    for granularity, scores in (("pixel", planes), ("image", labels)):
        every = [n for n, t in tasks.items() if t.granularity == granularity]
        parts = joined_score_slices([tasks[name].groups_ for name in every])
        for name, part in zip(every, parts, strict=True):
            out[name] = scores[..., part]
    return {name: out[name] for name in tasks if name in names}


def _linear_scores(
    maps: FeatureMaps, head: JointLinear, parts: Mapping[str, slice]
) -> dict[str, np.ndarray]:
    """Make score maps of the wanted columns only."""
    cols = np.concatenate([np.r_[part] for part in parts.values()])
    scores = maps.scores(head.coef_[:, cols], head.intercept_[cols])
    ends = np.cumsum([part.stop - part.start for part in parts.values()])[:-1]
    return dict(zip(parts, np.split(scores, ends, axis=-1), strict=True))


def _strided_scores(maps: FeatureMaps, head: Any, stride: int) -> np.ndarray:
    """Evaluate any head on a grid of pixels; interpolate between them."""
    height, width = maps.shape
    rows = np.arange((stride - 1) / 2, height + (stride - 1) / 2, stride)
    cols = np.arange((stride - 1) / 2, width + (stride - 1) / 2, stride)
    points = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
    chunks = [
        head.decision_function(maps.at(points[i : i + _PIXELS_AT_ONCE]))
        for i in range(0, len(points), _PIXELS_AT_ONCE)
    ]
    coarse = np.concatenate(chunks).reshape(len(rows), len(cols), -1)
    grid = FeatureMaps([coarse], [(stride, stride)], maps.shape)
    return grid.scores(np.eye(coarse.shape[2], dtype=np.float32))
