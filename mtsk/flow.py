"""How a segmenter is drawn: images, features, tables, heads, tasks, structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtsk._validation import parallel_block, serial_block
from mtsk.learning import Learning

__all__ = ["flow_of"]


def flow_of(model: Learning) -> Any:
    """Return what scikit-learn draws a segmenter from, fitted or not.

    Parameters
    ----------
    model : Learning

    Returns
    -------
    object
        For ``_sk_visual_block_``.
    """
    parts = model.default_parts()
    features = parts.get("features", model.features)
    if hasattr(model, "tasks_"):
        flow = [_what_was_seen(model, features), _what_was_learnt(model)]
    else:
        head = parts.get("head", model.head)
        heads = dict(head) if isinstance(head, Mapping) else {"head": head}
        flow = [features, parallel_block(heads)]
    structure = parts.get("structure", model.structure)
    return serial_block(flow if structure is None else [*flow, structure])


def _what_was_seen(model: Learning, features: Any) -> Any:
    n_taps = len(model.features_.layer_sizes)
    n_features = model.features_.n_features_out_
    seen = f"{model.n_images_:,} images → {n_taps} taps → {n_features:,} features"
    return parallel_block({seen: features})


def _what_was_learnt(model: Learning) -> Any:
    """Return the tables, with their sizes, the head of each, and its tasks."""
    tables = {}
    for kind, head in {"pixel": model.pixel_head_, "image": model.image_head_}.items():
        tasks = {}
        for name, task in model.tasks_.items():
            if task.granularity == kind:
                n = task.n_scores_
                tasks[f"{name}: {n} score{'s' * (n > 1)}"] = task
        if not tasks:
            continue
        size = f": {model.n_rows_:,} rows" if kind == "pixel" and model.n_rows_ else ""
        tables[f"{kind} table{size}"] = serial_block([head, parallel_block(tasks)])
    return parallel_block(tables)
