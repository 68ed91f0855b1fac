"""Suggestions of what to label next: images, tasks and parts of images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from mtsk._validation import parameter_error
from mtsk.data import Images, as_targets
from mtsk.exceptions import TargetError
from mtsk.features import FeatureMaps
from mtsk.features.pca import spread_evenly
from mtsk.segmenter import MultiTaskSegmenter, Predictor, predictor_of
from mtsk.tasks.task_set import GRANULARITIES, Granularity, TaskSet

__all__ = ["Suggestion", "suggest_labels"]

_CELLS = 64  # parts of an image
_STEP = 4  # pixel step at which entropy is computed
_COMPONENTS = 64
_PROBES, _LIKENESSES = 4000, 50_000_000  # at most; numbers held at a time


class Suggestion(NamedTuple):
    """A suggested label.

    Attributes
    ----------
    image : int
        Index in ``X``.
    task : str
    gain : float
        Increase of f, in [0, 1]: see `suggest_labels`.
    box : (int, int, int, int) or None
        x0, y0, x1, y1 of the part of the image that adds most: where to start
        labelling, or all to label, with strokes. None for a task of whole images.
    """

    image: int
    task: str
    gain: float
    box: tuple[int, int, int, int] | None


def suggest_labels(
    model: MultiTaskSegmenter,
    X: Any,
    n: int = 10,
    Y: Any = None,
    *,
    tasks: Sequence[str] | None = None,
) -> list[Suggestion]:
    """Return the labels that would be most informative for a fitted model.

    Labels cover similar parts of images. The value of a set S of labelled images is
    f(S) = Σ_c u(c) · max_{d ∈ S} s(c, d): over all parts c of all images, the model's
    uncertainty u (entropy over its maximum) times the similarity s of the nearest
    labelled part (cosine of their standardised features' leading principal components,
    0 where negative). Suggestions maximise the increase of f greedily, over every image
    for every task. Images unlike the labelled ones thus come first, then those unlike
    one another, where the model is uncertain.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Fitted.
    X : images, as for ``fit``
        Candidate images, and those that have labels.
    n : int, default=10
        Number of labels; fewer are returned where there are no more.
    Y : targets, as for ``fit``, default=None
        Existing labels, one entry per image of ``X``, None where missing. These images
        are not suggested again, even if partly labelled, and cover similar parts. None:
        no labels.
    tasks : sequence of str, default=None
        Tasks to choose from. None: all.

    Returns
    -------
    list of Suggestion
        The best first.

    Raises
    ------
    UnknownTaskError, ImageError, TargetError, NotFittedError

    Notes
    -----
    f is monotone and submodular, so that the greedy choice reaches 1 − 1/e of the best
    (Nemhauser, Wolsey & Fisher, Mathematical Programming 1978); weighted by uncertainty
    it is the filtered active learning of Wei, Iyer & Bilmes (ICML 2015) without its
    filter. Numbers have no entropy: for their tasks only similarity matters, with the
    mean u of the other tasks throughout.

    Examples
    --------
    >>> from mtsk import MultiTaskSegmenter, suggest_labels
    >>> from mtsk.testing import toy_images
    >>> X, masks = toy_images(6)
    >>> masks = [masks[0], masks[1], None, None, None, None]
    >>> model = MultiTaskSegmenter(random_state=0).fit(X, masks)
    >>> best = suggest_labels(model, X, 2, masks)
    >>> [s.task for s in best], min(s.image for s in best) > 1
    (['target', 'target'], True)
    """
    predictor = predictor_of(model, "suggest_labels")
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise parameter_error("n", "suggest_labels", "an int > 0", n)
    names = predictor.tasks.choose(tasks)
    images = predictor.features.images(X)
    known = _labelled(Y, images, predictor.tasks)
    seen = describe_parts(predictor, images, names)
    typical = _typical_doubt(seen)
    rounds = [
        _Round(name, parts, known.get(name, ()), typical)
        for parts in seen
        for name in parts.doubts
    ]
    images.warn_of_skipped()
    found: list[Suggestion] = []
    while len(found) < n and any(r.open.any() for r in rounds):
        best = max((r for r in rounds if r.open.any()), key=_Round.greatest_gain)
        found.append(best.take())
    return found


def _labelled(Y: Any, images: Images, tasks: TaskSet) -> dict[str, np.ndarray]:
    """Return the labelled images by task; empty where ``Y`` is None."""
    if Y is None:
        return {}
    targets, bare = as_targets(Y, len(images), images.stems)
    if bare and tasks.is_named:
        raise TargetError("Y must name its tasks, as it did for fit")
    names = tasks.choose(targets.task_names)
    return {name: targets.labelled(name) for name in names}


class _Parts:
    """Parts of images for tasks of one kind: features and uncertainty.

    For tasks of pixels a part is a cell of a grid, for tasks of images it is the image.
    """

    def __init__(
        self, predictor: Predictor, kind: Granularity, names: list[str]
    ) -> None:
        self.predictor, self.kind = predictor, kind
        self.doubts: dict[str, list] = {name: [] for name in names}
        self.places: list[np.ndarray] = []  # of each image, (n_parts, n_components)
        self.boxes: list[np.ndarray] = []  # of each image, (n_parts, 4)
        self.images: list[int] = []

    def describe(self, maps: FeatureMaps) -> np.ndarray:
        """Return the features of an image's parts, (n_parts, n_features)."""
        if self.kind == "image":
            return maps.global_mean()[None]
        return maps.block_means(*_ends_of(maps.shape))

    def learn(self, described: Sequence[np.ndarray]) -> None:
        """Fit the principal components on some images."""
        sample = np.concatenate(described)
        n = min(_COMPONENTS, len(sample) - 1, sample.shape[1])
        n = n if np.ptp(sample, axis=0).any() else 0  # else there is no variance
        self.project = make_pipeline(
            StandardScaler(), PCA(n, random_state=0) if n else "passthrough"
        )
        self.project.fit(sample)

    def add(
        self,
        index: int,
        views: np.ndarray,
        maps: FeatureMaps,
        described: np.ndarray | None,
    ) -> None:
        """Add the parts of an image, which may have been described before."""
        self.images.append(index)
        if described is None:
            described = self.describe(maps)
        self.places.append(normalize(self.project.transform(described)))
        cells, boxes = _grid_of(maps.shape)
        self.boxes.append(boxes)
        points = np.indices(maps.shape)[:, ::_STEP, ::_STEP].reshape(2, -1).T
        names = list(self.doubts)
        found = self.predictor.scores(views, maps, names, points)
        for name, scores in found.items():
            doubt = self.predictor.tasks[name].normalized_entropy(scores)
            if self.kind == "pixel":
                of = cells[tuple(points.T)]
                doubt = np.bincount(of, doubt, len(boxes)) / np.bincount(
                    of, minlength=len(boxes)
                )
            self.doubts[name].append(np.atleast_1d(doubt))


def describe_parts(
    predictor: Predictor, images: Images, names: Sequence[str]
) -> list[_Parts]:
    """Describe all images in one pass, after fitting components on a few."""
    every = []
    for kind in GRANULARITIES:
        own = [name for name in names if name in predictor.tasks.names(kind)]
        every += [_Parts(predictor, kind, own)] if own else []
    chosen = list(spread_evenly(len(images)))
    few = images.some(chosen)
    few.on_error = "skip"  # unreadable images are handled in the full pass
    samples = {
        chosen[i]: [parts.describe(maps.in_single_precision()) for parts in every]
        for i, maps in predictor.features.iter_maps(few)
    }
    for parts, described in zip(
        every, zip(*samples.values(), strict=True), strict=False
    ):
        parts.learn(described)
    none = [None] * len(every)
    for index, views, maps in predictor.features.iter_views_and_maps(
        images, desc="look"
    ):
        maps = maps.in_single_precision()  # once, for all that is made of them
        for parts, described in zip(
            every if samples else [], samples.get(index, none), strict=False
        ):
            parts.add(index, views, maps, described)
    return [parts for parts in every if parts.images]


class _Round:
    """Greedy choice of images for one task."""

    def __init__(
        self, name: str, parts: _Parts, labelled: Collection[int], typical: float
    ) -> None:
        self.name, self.parts = name, parts
        places = np.concatenate(parts.places)
        n_probes = min(len(places), _PROBES, max(1, _LIKENESSES // len(parts.images)))
        probes = np.linspace(0, len(places) - 1, n_probes).round().astype(int)
        self.probes = places[probes]
        doubt = np.concatenate(parts.doubts[name])[probes]
        doubt = np.nan_to_num(doubt, nan=typical)
        if not doubt.any():  # a model that is sure of all, such as of one class
            doubt = np.ones_like(doubt)
        self.doubt = doubt / n_probes
        self.likeness = np.stack([self._like(own).max(axis=0) for own in parts.places])
        known = np.isin(parts.images, list(labelled))
        self.open = ~known
        self.covered = self.likeness[known].max(axis=0, initial=0)
        self.gains = self._gains()

    def _like(self, places: np.ndarray) -> np.ndarray:
        return (places @ self.probes.T).clip(0)

    def _gains(self) -> np.ndarray:
        return (self.likeness - self.covered).clip(0) @ self.doubt

    def greatest_gain(self) -> float:
        """Return the gain of the best remaining image."""
        return float(self.gains[self.open].max())

    def take(self) -> Suggestion:
        """Choose the best remaining image."""
        best = int(np.argmax(np.where(self.open, self.gains, -1)))
        box = None
        if self.parts.kind == "pixel":
            adds = (self._like(self.parts.places[best]) - self.covered).clip(0)
            box = tuple(self.parts.boxes[best][np.argmax(adds @ self.doubt)].tolist())
        found = Suggestion(
            self.parts.images[best], self.name, float(self.gains[best]), box
        )
        self.open[best] = False
        self.covered = np.maximum(self.covered, self.likeness[best])
        self.gains = self._gains()
        return found


def _typical_doubt(every: Sequence[_Parts]) -> float:
    """Return the mean uncertainty of label tasks, for numeric tasks."""
    doubts = [np.concatenate(d) for parts in every for d in parts.doubts.values()]
    known = [float(doubt.mean()) for doubt in doubts if not np.isnan(doubt).any()]
    return float(np.mean(known)) if known else 0.5


def _ends_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return where cells begin, and the last ends: along rows, along columns."""
    height, width = shape
    down = int(np.clip(round(np.sqrt(_CELLS * height / width)), 1, -(-height // _STEP)))
    across = int(np.clip(round(_CELLS / down), 1, -(-width // _STEP)))
    row, column = np.arange(height) * down // height, np.arange(width) * across // width
    top, left = (np.searchsorted(of, np.arange(of[-1] + 2)) for of in (row, column))
    return top, left


def _grid_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each pixel, (H, W), and the cells' boxes, (n_cells, 4)."""
    top, left = _ends_of(shape)
    down, across = len(top) - 1, len(left) - 1
    row, column = (np.repeat(np.arange(len(e) - 1), np.diff(e)) for e in (top, left))
    boxes = [
        (left[j], top[i], left[j + 1], top[i + 1])
        for i in range(down)
        for j in range(across)
    ]
    return row[:, None] * across + column, np.array(boxes)
