"""From pictures to graphs: regions, their scores, and what lies between neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit

from mtsk._resources import one_blas_thread
from mtsk.crf import RegionGraph, SuperpixelCRF
from mtsk.feature_maps import FeatureMaps
from mtsk.superpixels import (
    Segmentation,
    neighbours,
    over_segment,
    region_lab,
    region_means,
)
from mtsk.tasks import BinaryMask, Boundary, SemanticSegmentation, Task

__all__ = [
    "EDGE_FEATURES",
    "Picture",
    "has_structure",
    "label_scores",
    "learn_structure",
    "region_graph",
    "region_labels",
    "with_messages",
]

EDGE_FEATURES = ("length", "colour contrast", "feature contrast", "rise", "boundary")
"""What is known of an edge: see `region_graph`."""

_MIDDLE = 8.0  # pixels: of the tap whose means are compared, the stride nearest to this


@dataclass
class Picture:
    """An image, its features, and its regions once they are asked for.

    Parameters
    ----------
    image : ndarray of float, shape (H, W, 3)
        In [0, 1].
    maps : FeatureMaps
    method, n_segments
        As for `over_segment`.
    """

    image: np.ndarray
    maps: FeatureMaps
    method: str | Segmentation = "slic"
    n_segments: int | None = None

    @cached_property
    def segments(self) -> np.ndarray:
        """Map of regions, (H, W)."""
        try:
            return over_segment(self.image, self.method, self.n_segments)
        except ValueError as error:
            raise ValueError(f"`superpixels`: {error}") from error

    @cached_property
    def edges(self) -> np.ndarray:
        """Neighbours, (m, 2)."""
        return self._neighbours[0]

    @cached_property
    def _neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        return neighbours(self.segments)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Pixels of each region, (R,)."""
        return np.bincount(self.segments.ravel()).astype(float)

    @cached_property
    def contrasts(self) -> np.ndarray:
        """The features of edges that no task shapes, (m, 4); see `region_graph`."""
        segments, sizes = self.segments, self.sizes
        i, j = self.edges.T
        height, width = segments.shape
        y = region_means(segments, np.repeat(np.arange(height, dtype=float), width))
        x = region_means(segments, np.tile(np.arange(width, dtype=float), height))
        rise = np.abs(y[i] - y[j])
        apart = _distance(_middle_means(self.maps, segments), i, j)
        columns = [
            self._neighbours[1] / np.sqrt(np.minimum(sizes[i], sizes[j])),
            _distance(region_lab(self.image, segments), i, j) / 10,
            apart / max(float(apart.mean()) if len(apart) else 0.0, 1e-12),
            rise / np.maximum(np.hypot(rise, x[i] - x[j]), 1e-12),
        ]
        return np.stack(columns, axis=1)


def region_graph(
    picture: Picture, scores: np.ndarray, boundary: np.ndarray | None = None
) -> RegionGraph:
    """Return the graph of a picture's regions.

    Features of an edge between two regions:

    - length: pixel sides shared, over the square root of the smaller area;
    - colour contrast: distance of the mean colours in L*a*b*, over 10;
    - feature contrast: distance of the means of the tap of middle stride, over the
      mean of such distances in the image;
    - rise: how steeply the line between both centres stands, 0 (level) to 1;
    - boundary: the mean probability of a boundary along the border; 0 where no task
      tells.

    Parameters
    ----------
    picture : Picture
    scores : ndarray of float, shape (H, W, K)
        Logits; regions get their means.
    boundary : ndarray of float, shape (H, W), optional
        Logits of a boundary.

    Returns
    -------
    RegionGraph
        Sizes are pixels.
    """
    rim = _rim_mean(picture.segments, picture.edges, boundary)
    return RegionGraph(
        region_means(picture.segments, scores),
        picture.edges,
        np.column_stack([picture.contrasts, rim]),
        picture.sizes,
    )


def region_labels(
    segments: np.ndarray, codes: np.ndarray, n_labels: int, purity: float = 0.5
) -> np.ndarray:
    """Return the label of each region: that of most of its labelled pixels.

    Parameters
    ----------
    segments : ndarray of int, shape (H, W)
    codes : ndarray of float, shape (H, W)
        0 … K − 1; NaN is unlabelled.
    n_labels : int
    purity : float, default=0.5
        Share of a region's pixels that must have that label.

    Returns
    -------
    ndarray of int, shape (R,)
        −1 where no label has such a share.
    """
    known = codes >= 0  # False for NaN
    n = int(segments.max(initial=-1)) + 1
    pairs = segments[known] * n_labels + codes[known].astype(np.intp)
    votes = np.bincount(pairs, minlength=n * n_labels).reshape(n, n_labels)
    sizes = np.bincount(segments.ravel(), minlength=n)
    clear = votes.max(axis=1) >= purity * sizes
    return np.where(clear, votes.argmax(axis=1), -1)


def has_structure(task: Task) -> bool:
    """Tell whether a task's regions speak to one another: classes and masks do."""
    return isinstance(task, SemanticSegmentation | BinaryMask) and not isinstance(
        task, Boundary
    )


def label_scores(task: Task, scores: np.ndarray) -> np.ndarray:
    """Return one score a label: a mask's no and yes are labels 0 and 1."""
    if task.group_.kind == "nominal":
        return scores
    return np.concatenate([np.zeros_like(scores), scores], axis=-1)


def learn_structure(
    crf: SuperpixelCRF,
    task: Task,
    pictures: Sequence[Picture],
    scores: Sequence[np.ndarray],
    codes: Sequence[np.ndarray],
    boundaries: Sequence[np.ndarray | None],
) -> SuperpixelCRF:
    """Fit a CRF to the regions of some pictures.

    Parameters
    ----------
    crf : SuperpixelCRF
        Fitted in place.
    task : Task
    pictures : sequence of Picture
    scores : sequence of ndarray, shape (H, W, size)
        Of heads that did not learn from the picture.
    codes : sequence of ndarray, shape (H, W)
        What is true; NaN is unlabelled.
    boundaries : sequence of ndarray, shape (H, W), or None
        Logits of a boundary.

    Returns
    -------
    SuperpixelCRF
    """
    graphs, labels = [], []
    for picture, score, code, boundary in zip(
        pictures, scores, codes, boundaries, strict=True
    ):
        graph = region_graph(picture, label_scores(task, score), boundary)
        graphs.append(graph)
        labels.append(region_labels(picture.segments, code, graph.scores.shape[1]))
    return crf.fit(graphs, labels)


def with_messages(
    picture: Picture,
    tasks: Mapping[str, Task],
    scores: Mapping[str, np.ndarray],
    crfs: Mapping[str, SuperpixelCRF],
    boundary: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return scores with what neighbouring regions say added to every pixel.

    Parameters
    ----------
    picture : Picture
    tasks, scores : mapping of str to Task, and to ndarray (H, W, size)
    crfs : mapping of str to SuperpixelCRF
        Tasks without one keep their scores.
    boundary : ndarray of float, shape (H, W), optional
        Logits of a boundary.

    Returns
    -------
    dict of str to ndarray of shape (H, W, size)
    """
    out = dict(scores)
    for name, crf in crfs.items():
        if name not in scores or crf.strength_ == 0:
            continue
        own = label_scores(tasks[name], scores[name])
        with one_blas_thread():
            messages = crf.messages(region_graph(picture, own, boundary))
        messages = messages.astype(np.float32)
        if tasks[name].group_.kind == "binary":
            messages = messages[:, 1:] - messages[:, :1]
        out[name] = scores[name] + messages[picture.segments]
    return out


def _distance(values: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return np.sqrt(((values[i] - values[j]) ** 2).sum(axis=1))


def _middle_means(maps: FeatureMaps, segments: np.ndarray) -> np.ndarray:
    """Return each region's mean of one tap, that of the stride nearest to middle."""
    gap = [abs(np.log(s[0] / _MIDDLE)) for s in maps.strides]
    near = int(np.argmin(gap))
    one = FeatureMaps([maps.taps[near]], [maps.strides[near]], maps.shape)
    return one.pool(segments)


def _rim_mean(
    segments: np.ndarray, edges: np.ndarray, boundary: np.ndarray | None
) -> np.ndarray:
    """Return the mean probability of a boundary along each edge."""
    if boundary is None or not len(edges):
        return np.zeros(len(edges))
    p = expit(boundary)
    sides = [
        (segments[:, :-1], segments[:, 1:], (p[:, :-1] + p[:, 1:]) / 2),
        (segments[:-1], segments[1:], (p[:-1] + p[1:]) / 2),
    ]
    n = int(segments.max()) + 1
    codes, values = [], []
    for a, b, mean in sides:
        cut = a != b
        codes.append(np.minimum(a, b)[cut] * n + np.maximum(a, b)[cut])
        values.append(mean[cut])
    place = np.searchsorted(edges[:, 0] * n + edges[:, 1], np.concatenate(codes))
    total = np.bincount(place, np.concatenate(values), minlength=len(edges))
    return total / np.bincount(place, minlength=len(edges))
