"""The table that a model learns from, for inspection of its tasks."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.base import clone

from mtsk._validation import parameter_error
from mtsk.exceptions import TargetError
from mtsk.segmenter import MultiTaskSegmenter, check_is_segmenter
from mtsk.segmenter.fitting import read_tables
from mtsk.tasks.columns import ColumnGroup

__all__ = ["TaskTable", "task_table"]


class TaskTable(NamedTuple):
    """Features and coded targets of the rows that a model learns from.

    Attributes
    ----------
    X : ndarray of float32, shape (n_rows, n_features)
    y : ndarray of float32, shape (n_rows, n_columns)
        NaN missing.
    groups : ndarray of int, shape (n_rows,)
        The image of each row.
    columns : list of ColumnGroup
        Column groups, one or several per task.
    task_names : list of str
        One per group; those of a task with several end in ``[0]``, ``[1]``, …
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    columns: list[ColumnGroup]
    task_names: list[str]


def task_table(
    model: MultiTaskSegmenter,
    X: Any,
    Y: Any,
    granularity: Literal["pixel", "image"] = "pixel",
) -> TaskTable:
    """Return the table that ``model.fit(X, Y)`` would learn from.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Its ``tasks``, ``features``, ``max_pixels_per_image`` and ``random_state`` are
        used; it is neither fitted nor changed.
    X : images
    Y : targets, as for ``fit``
    granularity : {"pixel", "image"}, default="pixel"
        Granularity of the tasks.

    Returns
    -------
    TaskTable

    Raises
    ------
    InvalidParameterError, ImageError, UnknownTaskError
    TypeError
        Where the model is of another kind.
    ValueError
        Where rows of images depend on a fit (``region_pooling``).
    TargetError
        Also where there is no such task.

    Examples
    --------
    >>> from mtsk import DeepFeatures, MultiTaskSegmenter
    >>> from mtsk.inspection import TaskRelatedness, task_table
    >>> from mtsk.testing import toy_images
    >>> X, Y = toy_images()
    >>> features = DeepFeatures(scales=[1])
    >>> model = MultiTaskSegmenter(features=features, max_pixels_per_image=30)
    >>> table = task_table(model, X, {"labels": Y, "disc": list(Y == 7)})
    >>> table.task_names, table.y.shape
    (['labels', 'disc'], (180, 2))
    >>> relatedness = TaskRelatedness(
    ...     columns=table.columns, task_names=table.task_names, n_bootstrap=20
    ... ).fit(table.X, table.y, table.groups)
    >>> bool(relatedness.relatedness_[0, 1] > 0.9)
    True
    """
    check_is_segmenter(model, "task_table")
    if granularity not in ("pixel", "image"):
        allowed = "'pixel' or 'image'"
        raise parameter_error("granularity", "task_table", allowed, granularity)
    settings, images, targets = clone(model).prepare_fit(X, Y)
    if granularity == "image" and settings.region_pooling is not None:
        raise ValueError("rows of images are pooled by a fit (`region_pooling`)")
    layout = settings.tasks.layout(granularity)
    if not layout.names:
        raise TargetError(
            f"Y has no {granularity} task, its tasks are {targets.task_names}"
        )
    table = read_tables(settings, images, targets)[granularity]
    seen = Counter(layout.owners)
    places = {name: iter(range(n)) for name, n in seen.items()}
    labels = [
        f"{name}[{next(places[name])}]" if seen[name] > 1 else name
        for name in layout.owners
    ]
    return TaskTable(table.X, table.Y, table.images, list(layout.groups), labels)
