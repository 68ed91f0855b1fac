"""What a fit gives: from the features of an image to the scores of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

import joblib
import numpy as np

from mtsk._progress import progress_bar
from mtsk._resources import call_and_release
from mtsk.data import Images
from mtsk.features import DeepFeatures, FeatureMaps
from mtsk.heads.capabilities import Capabilities, capabilities_of
from mtsk.links import RegionPooling, TagLink
from mtsk.segmenter.head_choice import HeadChoice
from mtsk.structure import FittedStructure
from mtsk.tables.shards import in_this_process, shard_ends
from mtsk.tasks.task_set import GRANULARITIES, Granularity, TaskSet

__all__ = ["Entries", "Predictor"]

T = TypeVar("T")
Entries = Mapping[str, Sequence[Any]]  # of some tasks, one entry an image


@dataclass(frozen=True)
class Predictor:
    """Fitted features, tasks, heads, links and structure.

    All that predicts, scores or inspects a model takes this: tiles, workers, label
    suggestion, attribution. It is frozen: a fit makes a new one. Only ``partial_fit``
    updates its heads, in place.

    Attributes
    ----------
    features : DeepFeatures
        Fitted.
    tasks : TaskSet
    heads : dict of {"pixel", "image"} to estimator or None
        Fitted. A decoder serves both.
    prediction_stride : int
        Pixels between those at which heads that are not linear are evaluated.
    seed : int
        By which pixels are chosen.
    tag_links : list of TagLink
        Which tasks of tags teach which tasks of pixels.
    region_pooling : RegionPooling or None
        The regions over which features of tasks of whole images are averaged.
    structure : FittedStructure
        Empty where none was learnt.
    head_choices : dict of {"pixel", "image"} to HeadChoice
        How each task's head was chosen; empty where it was named.
    """

    features: DeepFeatures
    tasks: TaskSet
    heads: dict[Granularity, Any]
    prediction_stride: int = 4
    seed: int = 0
    tag_links: list[TagLink] = field(default_factory=list)
    region_pooling: RegionPooling | None = None
    structure: FittedStructure = field(default_factory=FittedStructure)
    head_choices: dict[Granularity, HeadChoice] = field(default_factory=dict)

    def head_of(self, name: str) -> Any:
        """Return the head that a task's scores come from."""
        return self.heads["pixel" if self.tasks.is_of_pixels(name) else "image"]

    def prior_corrections(self, name: str) -> np.ndarray | float:
        """Return what is added to a task's scores before they become probabilities."""
        head = self.head_of(name)
        found: Any = getattr(head, "prior_corrections", 0.0)
        if np.ndim(found) == 0:
            return float(found)
        kind: Granularity = "pixel" if self.tasks.is_of_pixels(name) else "image"
        own = self.tasks.layout(kind).scores[name]
        before = 0  # a decoder has the scores of pixels first, then those of images
        if kind == "image" and head is self.heads["pixel"]:
            of_pixels = self.tasks.layout("pixel").scores
            before = max(part.stop for part in of_pixels.values())
        return found[before + own.start : before + own.stop]

    def capabilities(self, granularity: Granularity) -> Capabilities:
        """Return what the head of pixels, or of whole images, can do."""
        return capabilities_of(self.heads[granularity]) or Capabilities()

    def scores(
        self,
        views: np.ndarray,
        maps: FeatureMaps,
        names: Sequence[str],
        points: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the scores of some tasks for one image.

        Parameters
        ----------
        views : ndarray of float32, shape (n_views, H, W, 3)
            The image, in [0, 1].
        maps : FeatureMaps
            Its features.
        names : sequence of str
            The tasks wanted.
        points : ndarray of int, shape (n, 2), optional
            The only pixels wanted, (row, column).

        Returns
        -------
        dict of str to ndarray of shape (H, W, size), (n, size) at points, or (size,)
        """
        needed = self.structure.scores_needed(names, self.tasks)
        if not needed:
            return self.head_scores(maps, names, points)
        found = self.structure.scores(
            views[0],
            maps,
            self.tasks,
            self.head_scores(maps, list(dict.fromkeys([*names, *needed]))),
            names,
        )
        if points is not None:
            for name in self.tasks.names("pixel"):
                if name in found:
                    found[name] = found[name][tuple(points.T)]
        return {name: found[name] for name in self.tasks if name in names}

    def head_scores(
        self,
        maps: FeatureMaps,
        names: Sequence[str],
        points: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the scores that the heads give, before structure.

        Parameters
        ----------
        maps, names, points
            As of `scores`.

        Returns
        -------
        dict of str to ndarray of shape (H, W, size), (n, size) at points, or (size,)
        """
        wanted = {
            kind: [n for n in self.tasks.names(kind) if n in names]
            for kind in GRANULARITIES
        }
        if self.is_convolutional:
            out = self._decoder_scores(maps, points)
        else:
            out = self._pixel_scores(maps, wanted["pixel"], points)
            if wanted["image"]:
                out |= self.image_scores(self._image_row(maps), wanted["image"])
        return {name: out[name] for name in self.tasks if name in names}

    @property
    def is_convolutional(self) -> bool:
        """Whether one decoder makes the scores of all tasks."""
        return any(self.capabilities(kind).is_convolutional for kind in GRANULARITIES)

    def image_scores(
        self, row: np.ndarray, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return the scores of tasks of whole images.

        Parameters
        ----------
        row : ndarray of shape (n_features,)
            What the head of whole images sees of an image.
        names : sequence of str

        Returns
        -------
        dict of str to ndarray of shape (size,)
        """
        scores = self.heads["image"].decision_function(row[None])[0]
        parts = self.tasks.layout("image").scores
        return {name: scores[parts[name]] for name in names}

    def _image_row(self, maps: FeatureMaps) -> np.ndarray:
        if self.region_pooling is None:
            return maps.global_mean()
        by = self.region_pooling.name
        return self.region_pooling.pooled(maps, self._pixel_scores(maps, [by])[by])

    def _pixel_scores(
        self,
        maps: FeatureMaps,
        names: Sequence[str],
        points: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the scores of tasks of pixels."""
        if not names:
            return {}
        head, parts = self.heads["pixel"], self.tasks.layout("pixel").scores
        if self.capabilities("pixel").is_linear and (
            points is None or len(points) * _MAP_PER_POINT > np.prod(maps.shape)
        ):
            own = {name: parts[name] for name in names}
            found = _linear_scores(maps, head, own)
            if points is None:
                return found
            places = tuple(np.asarray(points).T)
            return {name: scores[places] for name, scores in found.items()}
        if points is None:
            scores = _strided_scores(maps, head, self.prediction_stride)
        else:
            scores = head.decision_function(maps.at(points))
        return {name: scores[..., parts[name]] for name in names}

    def _decoder_scores(
        self, maps: FeatureMaps, points: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Return the scores of all tasks, which a decoder makes at once."""
        decoder = self.heads["pixel"] or self.heads["image"]
        found = zip(GRANULARITIES, decoder.scores(maps, points), strict=True)
        return {
            name: scores[..., part]
            for kind, scores in found
            for name, part in self.tasks.layout(kind).scores.items()
        }

    def map_shards(
        self,
        work: Callable[[Predictor, Images, Entries], T],
        images: Images,
        entries: Entries,
        n_jobs: int | None,
        desc: str,
    ) -> Iterator[T]:
        """Yield what is made of shards of images, here or on joblib's workers.

        Parameters
        ----------
        work : callable
            Takes a Predictor, some images, and their entries.
        images : Images
        entries : mapping of str to sequence
            Of each task, one entry an image; empty where only images are needed.
        n_jobs : int or None
            As joblib has it. A cache in memory stays with this process, which then
            does all.
        desc : str
            What the progress bar is called.

        Yields
        ------
        object
            In the order of the images.
        """
        n = len(images)
        if n < _MIN_SHARED or in_this_process(self.features, n_jobs):
            yield work(self, images, entries)
            return
        ends = shard_ends(n, n_jobs, _SHARD)
        quiet = replace(self, features=self.features.quiet())
        parts = joblib.Parallel(n_jobs=n_jobs, return_as="generator")(
            joblib.delayed(call_and_release)(
                work,
                quiet,
                images.part(start, end),
                {name: list(column[start:end]) for name, column in entries.items()},
            )
            for start, end in pairwise([0, *ends])
        )
        with progress_bar(
            total=n, desc=desc, disable=not self.features.verbose, unit="image"
        ) as bar:
            for part, (start, end) in zip(parts, pairwise([0, *ends]), strict=True):
                bar.update(end - start)
                yield part


_MIN_SHARED, _SHARD = 4, 16  # images worth sharing among workers; images of a shard
_PIXELS_AT_ONCE = 16384  # hypercolumns held at a time for heads that are not linear
_MAP_PER_POINT = 32  # pixels of a map that cost as much as a point alone


def _linear_scores(
    maps: FeatureMaps, head: Any, parts: Mapping[str, slice]
) -> dict[str, np.ndarray]:
    """Make score maps of the wanted columns only, at the strides of the taps."""
    cols = np.concatenate([np.r_[part] for part in parts.values()])
    scores = maps.scores(head.coef_[:, cols], head.intercept_[cols])
    ends = np.cumsum([part.stop - part.start for part in parts.values()])[:-1]
    return dict(zip(parts, np.split(scores, ends, axis=-1), strict=True))


def _strided_scores(maps: FeatureMaps, head: Any, stride: int) -> np.ndarray:
    """Evaluate any head on a grid of pixels; interpolate between them."""
    height, width = maps.shape
    rows = np.arange((stride - 1) / 2, height + (stride - 1) / 2, stride)
    cols = np.arange((stride - 1) / 2, width + (stride - 1) / 2, stride)
    points = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
    chunks = [
        head.decision_function(maps.at(points[i : i + _PIXELS_AT_ONCE]))
        for i in range(0, len(points), _PIXELS_AT_ONCE)
    ]
    coarse = np.concatenate(chunks).reshape(len(rows), len(cols), -1)
    grid = FeatureMaps([coarse], [(stride, stride)], maps.shape)
    return grid.scores(np.eye(coarse.shape[2], dtype=np.float32))
