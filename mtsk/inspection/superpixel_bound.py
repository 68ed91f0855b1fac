"""Upper bound: the score of the best labelling of superpixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtsk.data import as_targets
from mtsk.exceptions import TargetError
from mtsk.metrics import confusion, mean_iou
from mtsk.segmenter import MultiTaskSegmenter, predictor_of
from mtsk.segmenter.parameters import given_structure
from mtsk.structure import Structure
from mtsk.structure.messages import has_structure
from mtsk.structure.superpixels import best_labelling

__all__ = ["superpixel_upper_bound"]


def superpixel_upper_bound(
    model: MultiTaskSegmenter, X: Any, Y: Any
) -> dict[str, float]:
    """Return the mean IoU of the best labelling of a model's superpixels.

    Where it is low, superpixels cross the objects' borders: increase ``n_segments`` or
    use another method. It does not bound the model itself, whose structure changes the
    scores of pixels, not of regions.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Fitted; the superpixels of its ``structure`` are used, or the default ones.
    X : images
    Y : targets, as for ``fit``

    Returns
    -------
    dict of str to float
        Bound of each task of classes or masks in ``Y``.

    Raises
    ------
    TargetError
        Where ``Y`` has no such task, or no label.

    Examples
    --------
    >>> from mtsk import MultiTaskSegmenter
    >>> from mtsk.crf import SuperpixelCRF
    >>> from mtsk.structure import Structure
    >>> from mtsk.inspection import superpixel_upper_bound
    >>> from mtsk.testing import toy_images
    >>> X, Y = toy_images(4)
    >>> structure = Structure(SuperpixelCRF(), n_segments=4)
    >>> model = MultiTaskSegmenter(structure=structure, random_state=0).fit(X, Y)
    >>> coarse = superpixel_upper_bound(model, X, Y)["target"]
    >>> model = model.set_params(structure__n_segments=200)
    >>> coarse < superpixel_upper_bound(model, X, Y)["target"] <= 1
    True
    """
    predictor = predictor_of(model, "superpixel_upper_bound")
    images = predictor.features.images(X)
    targets, _ = as_targets(Y, len(images), images.stems)
    superpixels = (given_structure(model) or Structure()).segmentation()
    tasks = {
        n: t
        for n, t in predictor.tasks.items()
        if n in targets.task_names and has_structure(t)
    }
    if not any(len(targets.labelled(n)) for n in tasks):
        raise TargetError(
            "Y has no label of a task of classes or masks; Y has "
            f"{targets.task_names}, the model {list(predictor.tasks)}"
        )
    n_labels = {n: max(2, t.group_.size) for n, t in tasks.items()}
    counts = {n: np.zeros((k, k), int) for n, k in n_labels.items()}
    for index, views in images:
        wanted = [n for n in tasks if targets[n][index] is not None]
        if not wanted:
            continue
        segments = superpixels(views[0])
        for name in wanted:
            columns = predictor.tasks.encode(
                name, targets[name][index], index, segments.shape, unseen=True
            )
            codes = columns[..., 0]
            # Classes unseen by fit count as unlabelled: they cannot be predicted.
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
