"""Metrics of tasks over images, here or on workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from mtsk.data import Images
from mtsk.exceptions import TargetError
from mtsk.features import FeatureMaps
from mtsk.metrics import task_metric
from mtsk.segmenter.predictor import Entries, Predictor
from mtsk.tables import pixel_ranks, sample_pixels

__all__ = ["TaskScores", "score_images"]


class TaskScores(NamedTuple):
    """The metrics of some tasks, over some images.

    Attributes
    ----------
    metrics : dict of str to metric
        Accumulators, with ``update``, ``merge`` and ``compute``.
    unseen : dict of str to str
        Tasks with labels that ``fit`` did not see, and a message about the first.
    skipped : dict of int to str
        Images left out, and why.
    """

    metrics: dict[str, Any]
    unseen: dict[str, str]
    skipped: dict[int, str]


def score_images(
    predictor: Predictor,
    images: Images,
    entries: Entries,
    metrics: Mapping[str, str | None],
    max_pixels: int | None,
    n_jobs: int | None,
) -> TaskScores:
    """Return the metrics of some tasks.

    Parameters
    ----------
    predictor : Predictor
    images : Images
    entries : mapping of str to sequence
        Of each task, one target an image, or None.
    metrics : mapping of str to str or None
        Which metric of each task. None is its own.
    max_pixels : int or None
        Labelled pixels of each image by which tasks of pixels are scored. None is all.
    n_jobs : int or None
        As joblib has it.

    Returns
    -------
    TaskScores

    Raises
    ------
    ValueError
        Where a task has no such metric, or it needs whole maps and ``max_pixels`` is
        given.
    TargetError
    """
    new = partial(_new_metrics, predictor, metrics)
    for name, metric in new().items():
        if max_pixels is not None and getattr(metric, "needs_maps", False):
            raise ValueError(
                f"the metric of task {name!r} needs whole maps; leave "
                "`max_pixels_per_image` None"
            )
    total = TaskScores(new(), {}, {})
    work = partial(_score_shard, metrics=metrics, max_pixels=max_pixels)
    for part in predictor.map_shards(work, images, entries, n_jobs, "score"):
        for name, metric in part.metrics.items():
            total.metrics[name].merge(metric)
        total.unseen.update({**part.unseen, **total.unseen})
        total.skipped.update(part.skipped)
    return total


def _new_metrics(
    predictor: Predictor, metrics: Mapping[str, str | None]
) -> dict[str, Any]:
    return {n: task_metric(predictor.tasks[n], m) for n, m in metrics.items()}


def _score_shard(
    predictor: Predictor,
    images: Images,
    entries: Entries,
    metrics: Mapping[str, str | None],
    max_pixels: int | None,
) -> TaskScores:
    found = _new_metrics(predictor, metrics)
    unseen: dict[str, str] = {}
    stream = predictor.features.iter_views_and_maps(images, desc="score")
    for index, views, maps in stream:
        given = {n: column[index - images.first] for n, column in entries.items()}
        columns = {}
        for name, entry in given.items():
            if entry is None:
                continue
            about = name, entry, index, maps.shape
            try:
                columns[name] = predictor.tasks.encode(*about)
            except TargetError as error:  # of labels, it may be, new since fit
                columns[name] = predictor.tasks.encode(*about, unseen=True)
                unseen.setdefault(name, str(error))
                if hasattr(found[name], "note_unseen"):
                    found[name].note_unseen(predictor.tasks[name].unseen_labels(entry))
        pairs = _columns_and_scores(predictor, views, maps, columns, max_pixels)
        for name, truth, scores in pairs:
            metric = found[name]
            from_targets = getattr(metric, "from_targets", False)
            try:
                metric.update(given[name] if from_targets else truth, scores)
            except ValueError as error:
                raise TargetError(str(error), name, index) from error
    return TaskScores(found, unseen, dict(images.skipped))


def _columns_and_scores(
    predictor: Predictor,
    views: np.ndarray,
    maps: FeatureMaps,
    columns: Mapping[str, np.ndarray],
    max_pixels: int | None,
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (task, columns, scores) of an image, whole or at some labelled pixels."""
    if max_pixels is None:
        scores = predictor.scores(views, maps, list(columns))
        for name, own in scores.items():
            yield name, columns[name], own
        return
    for name, truth in columns.items():
        points = None
        if predictor.tasks.is_of_pixels(name):
            truth = truth.reshape(-1, truth.shape[-1])
            labelled = ~np.isnan(truth).all(axis=1)
            ranks = pixel_ranks(len(truth), predictor.seed, maps.digest)
            rows = sample_pixels(labelled, ranks, max_pixels).places
            points = np.stack(np.unravel_index(rows, maps.shape), axis=1)
            truth = truth[rows]
        if truth.size:
            yield name, truth, predictor.scores(views, maps, [name], points)[name]
