"""Attribution of a linear head's scores to layers and pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from mtsk.features import DeepFeatures, FeatureMaps
from mtsk.segmenter import MultiTaskSegmenter, predictor_of
from mtsk.tasks import Task
from mtsk.tasks.task_set import Granularity, TaskSet

__all__ = ["LayerAttribution", "layer_attribution"]


@dataclass(frozen=True)
class LayerAttribution:
    """Contribution of each layer to a label's score at every pixel of an image.

    Attributes
    ----------
    layers : dict of str to ndarray of float32, shape (H, W)
        By layer, such as ``"scale1_blocks.3"``; ``"position"`` where it was used.
    intercept : float
        The part independent of the image. ``sum(layers) + intercept`` is the score; for
        image tasks, its mean over the image is.
    """

    layers: Mapping[str, np.ndarray]
    intercept: float

    @property
    def total(self) -> np.ndarray:
        """The sum over layers and the intercept, (H, W)."""
        return np.sum(list(self.layers.values()), axis=0) + self.intercept

    def shares(self) -> dict[str, float]:
        """Return each layer's share of the variance over the image; they sum to 1.

        The covariance of the layer's map and the total's over the total's variance.
        Negative for a layer that counteracts the others.

        Returns
        -------
        dict of str to float
            The greatest first. All 0 where nothing varies.
        """
        total = self.total - self.total.mean()
        spread = float((total**2).mean())
        found = {
            name: float((layer * total).mean() / spread) if spread > 0 else 0.0
            for name, layer in self.layers.items()
        }
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def layer_attribution(
    model: MultiTaskSegmenter, image: Any, task: str | None = None, label: Any = None
) -> LayerAttribution:
    """Return the exact attribution of a label's score to layers, for linear heads.

    The score of a linear head is a sum over the channels of all layers; it is split
    into what each layer contributes. For one of several classes, it is relative to the
    mean of all classes, as a constant added to all has no effect.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Fitted, with a linear head. Structure (CRFs) is applied later and not included.
    image : ndarray of shape (H, W) or (H, W, C), or path
    task : str, default=None
        None takes the only one.
    label : object, default=None
        A class of the task. None takes the score of a task that has only one, such as a
        mask.

    Returns
    -------
    LayerAttribution

    Raises
    ------
    TypeError
        Where the head is not linear, or a task of whole images is pooled by regions.
    ValueError
        Where several tasks or labels could be meant.
    UnknownTaskError, ImageError, NotFittedError

    Examples
    --------
    >>> from mtsk import MultiTaskSegmenter
    >>> from mtsk.inspection import layer_attribution
    >>> from mtsk.testing import toy_images
    >>> X, masks = toy_images()
    >>> model = MultiTaskSegmenter(random_state=0).fit(X, masks)
    >>> found = layer_attribution(model, X[0], label=7)
    >>> scores = model.decision_function(X[:1])[0]
    >>> bool(abs(found.total - (scores[..., 1] - scores.mean(axis=-1))).max() < 1e-2)
    True
    """
    predictor = predictor_of(model, "layer_attribution")
    name = _only(predictor.tasks, task)
    fitted, head = predictor.tasks[name], predictor.head_of(name)
    of_pixels = predictor.tasks.is_of_pixels(name)
    granularity: Granularity = "pixel" if of_pixels else "image"
    if not predictor.capabilities(granularity).is_linear:
        raise TypeError(
            f"layer_attribution needs a linear head, and that of {name!r} is a "
            f"{type(head).__name__}"
        )
    if not of_pixels and predictor.region_pooling is not None:
        raise TypeError(
            "layer_attribution cannot tell regions apart (`region_pooling`), for "
            f"{name!r}"
        )
    part = predictor.tasks.layout(granularity).scores[name]
    place = _place_of(name, fitted, label)
    coef, intercept = head.coef_[:, part], head.intercept_[part]
    if fitted.groups_[0].kind == "nominal":
        coef = coef - coef.mean(axis=1, keepdims=True)
        intercept = intercept - intercept.mean()
    features = predictor.features
    images = features.images([image])
    ((_, maps),) = features.iter_maps(images, to_host=True)
    layers = _layers(features, maps, coef[:, [place]], of_pixels)
    return LayerAttribution(layers, float(intercept[place]))


def _only(tasks: TaskSet, task: str | None) -> str:
    names = tasks.choose(task)
    if len(names) > 1:
        raise ValueError(f"name one of the tasks, {names}")
    return names[0]


def _place_of(name: str, task: Task, label: Any) -> int:
    """Return the index of a label's score."""
    if task.n_scores_ == 1:
        yes = task.groups_[0].kind == "binary" and label is True
        if label is None or yes:
            return 0
        raise ValueError(
            f"`label` of task {name!r} must be None: it has one score, got {label!r}"
        )
    classes = np.asarray(getattr(task, "classes_", range(task.n_scores_))).tolist()
    is_one = np.ndim(label) == 0 and label in classes
    if len(classes) != task.n_scores_ or not is_one:
        allowed = f"one of {classes[:50]}"
        raise ValueError(f"`label` of task {name!r} must be {allowed}, got {label!r}")
    return classes.index(label)


def _layers(
    features: DeepFeatures, maps: FeatureMaps, coef: np.ndarray, of_pixels: bool
) -> dict[str, np.ndarray]:
    """Return the contribution of each layer to the scores, as maps."""
    names = [name.rpartition("_")[0] for name in features.get_feature_names_out()]
    found: dict[str, np.ndarray] = {}
    start = 0
    for layer, tap, stride in zip(_runs(names), maps.taps, maps.strides, strict=False):
        stop = start + tap.shape[2]
        alone = FeatureMaps([tap], [stride], maps.shape)
        found[layer] = alone.scores(coef[start:stop])[..., 0]
        if not of_pixels:  # the head saw the mean of cells, not of pixels
            cells = (
                np.asarray(tap).mean(axis=(0, 1), dtype=np.float32)
                @ coef[start:stop, 0]
            )
            found[layer] = found[layer] + (cells - found[layer].mean())
        start = stop
    if maps.position and of_pixels:
        whole = maps.scores(coef)[..., 0]
        found["position"] = whole - np.sum(list(found.values()), axis=0)
    return found


def _runs(names: list[str]) -> list[str]:
    return [name for name, _ in groupby(names)]
