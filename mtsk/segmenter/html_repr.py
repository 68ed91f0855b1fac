"""How a segmenter is drawn: images, features, tables, heads, tasks, structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtsk._validation import parallel_block, serial_block
from mtsk.segmenter.parameters import default_parts
from mtsk.tasks.task_set import GRANULARITIES

if TYPE_CHECKING:
    from mtsk.segmenter.segmenter import MultiTaskSegmenter

__all__ = ["visual_block"]


def visual_block(model: MultiTaskSegmenter) -> Any:
    """Return what scikit-learn draws a segmenter from, fitted or not.

    Parameters
    ----------
    model : MultiTaskSegmenter

    Returns
    -------
    object
        For ``_sk_visual_block_``.
    """
    parts = default_parts(model)
    features = parts.get("features", model.features)
    if hasattr(model, "predictor_"):
        flow = [_features_block(model, features), _tables_block(model)]
    else:
        head = parts.get("head", model.head)
        heads = dict(head) if isinstance(head, Mapping) else {"head": head}
        flow = [features, parallel_block(heads)]
    structure = parts.get("structure", model.structure)
    return serial_block(flow if structure is None else [*flow, structure])


def _features_block(model: MultiTaskSegmenter, features: Any) -> Any:
    n_taps = len(model.features_.forward_pass.layer_sizes)
    n_features = model.features_.n_features_out_
    size = f"{model.n_images_:,} images → {n_taps} taps → {n_features:,} features"
    return parallel_block({size: features})


def _tables_block(model: MultiTaskSegmenter) -> Any:
    """Return the tables, with their sizes, the head of each, and its tasks."""
    predictor, tables = model.predictor_, {}
    for kind in GRANULARITIES:
        tasks = {}
        for name, task in predictor.tasks.subset(kind).items():
            n = task.n_scores_
            tasks[f"{name}: {n} score{'s' * (n > 1)}"] = task
        if not tasks:
            continue
        size = f": {model.n_rows_:,} rows" if kind == "pixel" and model.n_rows_ else ""
        head, choice = predictor.heads[kind], predictor.head_choices.get(kind)
        if choice is not None:
            head = parallel_block({f"chosen: {choice}": head})
        blocks = [head, parallel_block(tasks)]
        tables[f"{kind} table{size}"] = serial_block(blocks)
    return parallel_block(tables)
