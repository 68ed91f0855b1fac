"""The oracle: what the best labelling of some superpixels could score."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mtsk.exceptions import TargetError
from mtsk.images import Images
from mtsk.metrics import confusion, mean_iou
from mtsk.segmenter import MultiTaskSegmenter
from mtsk.structure import has_structure
from mtsk.superpixels import best_labelling, over_segment
from mtsk.tables import encode_entry
from mtsk.targets import as_targets

__all__ = ["superpixel_oracle"]


def superpixel_oracle(model: MultiTaskSegmenter, X: Any, Y: Any) -> dict[str, float]:
    """Return the mean IoU of the best labels that a model's superpixels could get.

    Where it is low, superpixels cross the objects' borders: set more ``n_segments``, or
    another method. It is no ceiling of the model itself, whose structure moves the
    scores of pixels, not of regions.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Fitted; its ``superpixels`` and ``n_segments`` are used, whatever ``structure``.
    X : images
    Y : targets, as for ``fit``

    Returns
    -------
    dict of str to float
        Of each task of classes or masks in ``Y``.

    Raises
    ------
    TargetError
        Where ``Y`` has no such task, or no label.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import MultiTaskSegmenter, superpixel_oracle
    >>> from mtsk.testing import toy_images
    >>> X, Y = toy_images(4)
    >>> model = MultiTaskSegmenter(random_state=0, n_segments=4).fit(X, Y)
    >>> coarse = superpixel_oracle(model, X, Y)["target"]
    >>> model.set_params(n_segments=200)
    MultiTaskSegmenter(n_segments=200, random_state=0)
    >>> coarse < superpixel_oracle(model, X, Y)["target"] <= 1
    True
    """
    check_is_fitted(model)
    images = Images(X, model.features_.channels, model.features_.on_error)
    targets, _ = as_targets(Y, len(images))
    tasks = {
        n: t
        for n, t in model.tasks_.items()
        if n in targets.task_names and has_structure(t)
    }
    if not any(len(targets.labelled(n)) for n in tasks):
        raise TargetError(
            "Y has no label of a task of classes or masks; Y has "
            f"{targets.task_names}, the model {list(model.tasks_)}"
        )
    n_labels = {n: max(2, t.group_.size) for n, t in tasks.items()}
    counts = {n: np.zeros((k, k), int) for n, k in n_labels.items()}
    for index, views in images:
        wanted = [n for n in tasks if targets[n][index] is not None]
        if not wanted:
            continue
        segments = over_segment(views[0], model.superpixels, model.n_segments)
        for name in wanted:
            codes = encode_entry(
                name,
                tasks[name],
                targets[name][index],
                index,
                segments.shape,
                unseen=True,
            )[..., 0]
            # Classes that fit never saw count as unlabelled: nothing could name them.
            truth = np.where(codes < n_labels[name], codes, np.nan)
            best = best_labelling(segments, np.where(truth >= 0, truth, -1).astype(int))
            counts[name] += confusion(truth, np.maximum(best, 0), n_labels[name])
    images.warn_of_skipped()
    for name, seen in counts.items():
        if not seen.any():
            raise TargetError(
                f"task {name!r} has no label in Y that the model knows; its classes "
                f"are {getattr(tasks[name], 'classes_', np.arange(2)).tolist()[:10]}"
            )
    return {name: mean_iou(c) for name, c in counts.items()}
