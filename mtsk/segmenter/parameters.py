"""The parameters of the segmenter: checked, and reached by name down to their parts.

scikit-learn reaches into parts that are estimators (``head__alpha``). Here a part may
also be None or a name, which stands for an estimator made when it is needed, and tasks
lie in a mapping; GridSearchCV should reach those as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from sklearn.base import BaseEstimator

from mtsk._validation import Interval, StrOptions, check_parameters, parameter_error
from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.data.targets import DEFAULT_TASK
from mtsk.features import DeepFeatures
from mtsk.heads.capabilities import capabilities_of
from mtsk.links import Links
from mtsk.segmenter.head_factory import HEADS, HEADS_OF_ONE_TASK, named_head
from mtsk.structure import Structure
from mtsk.tasks import Task

if TYPE_CHECKING:
    from mtsk.segmenter.segmenter import MultiTaskSegmenter

__all__ = [
    "check_segmenter_parameters",
    "default_parts",
    "given_links",
    "given_structure",
    "given_tasks",
    "nested_parameters",
    "set_nested",
]


def default_parts(model: MultiTaskSegmenter) -> dict[str, Any]:
    """Return the parts that a None or a name stands for.

    Parameters
    ----------
    model : MultiTaskSegmenter

    Returns
    -------
    dict of str to estimator
        By parameter.
    """
    parts: dict[str, Any] = {}
    if model.features is None:
        parts["features"] = DeepFeatures()
    elif isinstance(model.features, str):
        parts["features"] = DeepFeatures(model.features)
    if model.head is None or (isinstance(model.head, str) and model.head in HEADS):
        parts["head"] = named_head(model.head)
    if model.links is None:
        parts["links"] = Links()
    if model.structure == "crf":
        parts["structure"] = Structure(SuperpixelCRF(), PixelCRF())
    return parts


def given_links(model: MultiTaskSegmenter) -> Links:
    """Return the links that are asked for."""
    return Links() if model.links is None else model.links


def given_structure(model: MultiTaskSegmenter) -> Structure | None:
    """Return the structure that is asked for; a CRF alone is one of two kinds."""
    given = default_parts(model).get("structure", model.structure)
    if isinstance(given, SuperpixelCRF):
        return Structure(given)
    return Structure(pixels=given) if isinstance(given, PixelCRF) else given


def given_tasks(model: MultiTaskSegmenter) -> dict[str, Task]:
    """Return the tasks that the parameter names."""
    if isinstance(model.tasks, Task):
        return {DEFAULT_TASK: model.tasks}
    return dict(model.tasks) if isinstance(model.tasks, Mapping) else {}


def nested_parameters(model: MultiTaskSegmenter) -> dict[str, Any]:
    """Return the parameters of default parts, and of tasks in a mapping.

    Parameters
    ----------
    model : MultiTaskSegmenter

    Returns
    -------
    dict
        Such as ``head__alpha`` and ``tasks__sky__void``.
    """
    parts = dict(default_parts(model))
    if isinstance(model.tasks, Mapping):
        parts |= {f"tasks__{name}": task for name, task in model.tasks.items()}
    return {
        f"{name}__{key}": value
        for name, part in parts.items()
        for key, value in part.get_params().items()
    }


def set_nested(model: MultiTaskSegmenter, params: dict[str, Any]) -> dict[str, Any]:
    """Set parameters of tasks in a mapping, and put default parts in place.

    Parameters
    ----------
    model : MultiTaskSegmenter
    params : dict
        With a double underscore in each name.

    Returns
    -------
    dict
        What scikit-learn can set now.

    Raises
    ------
    ValueError
        On a name that is none.
    """
    left = dict(params)
    if not isinstance(model.tasks, Task):
        named = given_tasks(model)
        for key in [k for k in left if k.startswith("tasks__")]:
            _, task, name = (*key.split("__", 2), "")[:3]
            if task not in named or not name:
                raise ValueError(
                    f"Invalid parameter {key!r}; `tasks` names {list(named)}"
                )
            named[task].set_params(**{name: left.pop(key)})
    if model.structure is None and any(k.startswith("structure__") for k in left):
        raise ValueError(
            f"{next(k for k in left if k.startswith('structure__'))!r} cannot be set: "
            'there is no `structure`; set structure="crf" first'
        )
    for name, part in default_parts(model).items():
        if any(key.startswith(f"{name}__") for key in left):
            setattr(model, name, part)
    return left


def check_segmenter_parameters(model: MultiTaskSegmenter) -> None:
    """Raise ``InvalidParameterError`` where a parameter is not allowed.

    Parameters
    ----------
    model : MultiTaskSegmenter
    """
    check_parameters(model, _CONSTRAINTS)
    for name, task in given_tasks(model).items():
        if not isinstance(task, Task):
            allowed = "a Task, a mapping of task names to Tasks, or None"
            raise parameter_error(f"tasks[{name!r}]", model, allowed, task)
    seeded = isinstance(model.random_state, Integral)
    if model.checkpoint is not None and not seeded:
        allowed = "an int where `checkpoint` is given: the same pixels each time"
        raise parameter_error("random_state", model, allowed, model.random_state)
    if model.checkpoint == "":
        raise parameter_error("checkpoint", model, "a path, or None", "")
    if model.n_jobs == 0:
        raise parameter_error("n_jobs", model, "an int other than 0, or None", 0)
    for part in (model.structure, model.links):
        if isinstance(part, BaseEstimator):
            part.check_parameters()
    _check_head(model)


def _check_head(model: MultiTaskSegmenter) -> None:
    head = named_head(model.head)
    if isinstance(head, str):
        allowed = f"one of {list(HEADS)}, an estimator or a mapping"
        raise parameter_error("head", model, allowed, head)
    if isinstance(head, Mapping):
        for name, own in head.items():
            if own not in HEADS_OF_ONE_TASK if isinstance(own, str) else _no_head(own):
                allowed = f"estimators, or of {list(HEADS_OF_ONE_TASK)}, by task"
                raise parameter_error(f"head[{name!r}]", model, allowed, own)
            if _is_convolutional(own):
                allowed = "a SharedDecoder for all tasks, not for one of a mapping"
                raise parameter_error("head", model, allowed, head)
    if not _is_convolutional(head):
        return
    links = given_links(model)
    for name, value, why in (
        ("region_pooling", links.region_pooling, "whose layers all tasks share"),
        ("structure", model.structure, "which sees places side by side itself"),
        ("checkpoint", model.checkpoint, "which reads no tables"),
    ):
        if value is not None:
            allowed = f"None with a SharedDecoder, {why}"
            raise parameter_error(name, model, allowed, value)


def _is_convolutional(head: Any) -> bool:
    able = capabilities_of(head)
    return able is not None and able.is_convolutional


def _no_head(value: Any) -> bool:
    return isinstance(value, type) or not hasattr(value, "fit")


_CONSTRAINTS: dict[str, list] = {
    "tasks": [Task, Mapping, None],
    "features": [DeepFeatures, str, None],
    "head": [str, BaseEstimator, Mapping, None],
    "max_pixels_per_image": [Interval(Integral, 1, None, closed="left"), None],
    "prediction_stride": [Interval(Integral, 1, None, closed="left")],
    "links": [Links, None],
    "structure": [Structure, SuperpixelCRF, PixelCRF, StrOptions({"crf"}), None],
    "n_jobs": [Integral, None],
    "checkpoint": [str, os.PathLike, None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
