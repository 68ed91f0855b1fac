"""What to label next: which images, for which task, and where in them."""

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

_CELLS = 64  # places an image is looked at
_STEP = 4  # pixels between those that are asked how sure they are
_COMPONENTS = 64
_PROBES, _LIKENESSES = 4000, 50_000_000  # at most; numbers held at a time


class Suggestion(NamedTuple):
    """A label that is worth its work.

    Attributes
    ----------
    image : int
        Index in ``X``.
    task : str
    gain : float
        What it adds to what the labels speak for, in [0, 1]: see `suggest_labels`.
    box : (int, int, int, int) or None
        x0, y0, x1, y1 of the part of the image that adds most: where to begin, or all
        to label, with strokes. None for a task of whole images.
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
    """Return which labels would teach a fitted model most.

    Labels speak for what looks like them. A set S of labelled images is worth
    f(S) = Σ_c u(c) · max_{d ∈ S} s(c, d): over all parts c of all images, how unsure
    the model is there, u (entropy over the greatest possible), times the likeness s of
    the nearest labelled part (cosine of their standardised features' leading principal
    components, 0 where negative). Suggested is what adds most to f, one after another,
    every image for every task. So images that are unlike the labelled ones come first,
    and then those that are unlike one another, where there is doubt.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Fitted.
    X : images, as for ``fit``
        Those to choose from, and those that have labels.
    n : int, default=10
        How many labels. Fewer come back where there are no more.
    Y : targets, as for ``fit``, default=None
        What is labelled already, one entry per image of ``X``, None where not. Those
        are not suggested again, however little of them is labelled, and speak for what
        is like them. None knows of none.
    tasks : sequence of str, default=None
        From which to choose. None is all.

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
    (Nemhauser, Wolsey & Fisher, Mathematical Programming 1978); weighted by doubt it
    is the filtered active learning of Wei, Iyer & Bilmes (ICML 2015) without its
    filter. Numbers have no entropy: their tasks are chosen for by likeness alone, with
    the mean u of the other tasks throughout.

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
    images = Images(X, predictor.features.channels, predictor.features.on_error)
    known = _labelled(Y, len(images), predictor.tasks)
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


def _labelled(Y: Any, n_images: int, tasks: TaskSet) -> dict[str, np.ndarray]:
    """Return, by task, the images that are labelled; nothing where it is not told."""
    if Y is None:
        return {}
    targets, bare = as_targets(Y, n_images)
    if bare and tasks.is_named:
        raise TargetError("Y must name its tasks, as it did for fit")
    names = tasks.choose(targets.task_names)
    return {name: targets.labelled(name) for name in names}


class _Parts:
    """Parts of images for tasks of one kind: what they are like, and how doubtful.

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
        return maps.region_means(_grid_of(maps.shape)[0])

    def learn(self, described: Sequence[np.ndarray]) -> None:
        """Learn what varies, from some images."""
        sample = np.concatenate(described)
        n = min(_COMPONENTS, len(sample) - 1, sample.shape[1])
        n = n if np.ptp(sample, axis=0).any() else 0  # else there is nothing to find
        self.project = make_pipeline(
            StandardScaler(), PCA(n, random_state=0) if n else "passthrough"
        )
        self.project.fit(sample)

    def add(self, index: int, views: np.ndarray, maps: FeatureMaps) -> None:
        """Look at an image."""
        self.images.append(index)
        self.places.append(normalize(self.project.transform(self.describe(maps))))
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
    """Pass over all images once; over a few before, to know what varies."""
    every = []
    for kind in GRANULARITIES:
        own = [name for name in names if name in predictor.tasks.names(kind)]
        every += [_Parts(predictor, kind, own)] if own else []
    few = images.some(spread_evenly(len(images)))
    few.on_error = "skip"  # what cannot be read is left to those who read all
    samples = [
        [p.describe(maps) for p in every]
        for _, maps in predictor.features.iter_maps(few)
    ]
    for parts, described in zip(every, zip(*samples, strict=True), strict=False):
        parts.learn(described)
    for index, views, maps in predictor.features.iter_views_and_maps(
        images, desc="look"
    ):
        for parts in every if samples else ():
            parts.add(index, views, maps)
    return [parts for parts in every if parts.images]


class _Round:
    """The choice of images for one task, one after another."""

    def __init__(
        self, name: str, parts: _Parts, labelled: Collection[int], typical: float
    ) -> None:
        self.name, self.parts = name, parts
        places = np.concatenate(parts.places)
        n_probes = min(len(places), _PROBES, max(1, _LIKENESSES // len(parts.images)))
        probes = np.linspace(0, len(places) - 1, n_probes).round().astype(int)
        self.probes = places[probes]
        doubt = np.concatenate(parts.doubts[name])[probes]
        self.doubt = np.nan_to_num(doubt, nan=typical) / n_probes
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
        """Return what the best of the open images adds."""
        return float(self.gains[self.open].max())

    def take(self) -> Suggestion:
        """Choose the best of the open images."""
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
    """Return the mean doubt of tasks of labels, for those of numbers."""
    doubts = [np.concatenate(d) for parts in every for d in parts.doubts.values()]
    known = [float(doubt.mean()) for doubt in doubts if not np.isnan(doubt).any()]
    return float(np.mean(known)) if known else 0.5


def _grid_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each pixel, (H, W), and the cells' boxes, (n_cells, 4)."""
    height, width = shape
    down = int(np.clip(round(np.sqrt(_CELLS * height / width)), 1, -(-height // _STEP)))
    across = int(np.clip(round(_CELLS / down), 1, -(-width // _STEP)))
    row, column = np.arange(height) * down // height, np.arange(width) * across // width
    top, left = (np.searchsorted(of, np.arange(of[-1] + 2)) for of in (row, column))
    boxes = [
        (left[j], top[i], left[j + 1], top[i + 1])
        for i in range(down)
        for j in range(across)
    ]
    return row[:, None] * across + column, np.array(boxes)
