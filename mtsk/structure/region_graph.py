"""Images as graphs: regions, their scores, and features of edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.special import expit

from mtsk.crf import RegionGraph
from mtsk.features import FeatureMaps
from mtsk.structure.superpixels import (
    Superpixels,
    neighbours,
    region_means,
    to_lab,
)

__all__ = ["EDGE_FEATURES", "Picture", "region_graph", "region_labels"]

EDGE_FEATURES = ("length", "colour contrast", "feature contrast", "rise", "boundary")
"""What is known of an edge: see `region_graph`."""

_TARGET_STRIDE = (
    8.0  # pixels: of the tap whose means are compared, the stride nearest to this
)


@dataclass
class Picture:
    """An image, its features, and its regions, computed on demand.

    Parameters
    ----------
    image : ndarray of float, shape (H, W, 3)
        In [0, 1].
    maps : FeatureMaps
    superpixels : Superpixels
    """

    image: np.ndarray
    maps: FeatureMaps
    superpixels: Superpixels = field(default_factory=Superpixels)

    @cached_property
    def segments(self) -> np.ndarray:
        """Map of regions, (H, W)."""
        return self.superpixels(self.image)

    @cached_property
    def lab(self) -> np.ndarray:
        """The image in CIE L*a*b*, float32 of shape (H, W, 3)."""
        return to_lab(self.image)

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
        """The edge features independent of tasks, (m, 4); see `region_graph`."""
        segments, sizes = self.segments, self.sizes
        i, j = self.edges.T
        height, width = segments.shape
        y = region_means(segments, np.repeat(np.arange(height, dtype=float), width))
        x = region_means(segments, np.tile(np.arange(width, dtype=float), height))
        rise = np.abs(y[i] - y[j])
        apart = _distance(_middle_means(self.maps, segments), i, j)
        columns = [
            self._neighbours[1] / np.sqrt(np.minimum(sizes[i], sizes[j])),
            _distance(region_means(segments, self.lab), i, j) / 10,
            apart / max(float(apart.mean()) if len(apart) else 0.0, 1e-12),
            rise / np.maximum(np.hypot(rise, x[i] - x[j]), 1e-12),
        ]
        return np.stack(columns, axis=1)


def region_graph(
    picture: Picture,
    scores: np.ndarray,
    boundary: np.ndarray | None = None,
    context: np.ndarray | None = None,
) -> RegionGraph:
    """Return the graph of a picture's regions.

    Features of an edge between two regions:

    - length: pixel sides shared, over the square root of the smaller area;
    - colour contrast: distance of the mean colours in L*a*b*, over 10;
    - feature contrast: distance of the means of the tap of middle stride, over the
      mean of such distances in the image;
    - rise: steepness of the line between both centres, 0 (level) to 1;
    - boundary: the mean probability of a boundary along the border; 0 without a
      boundary task.

    Parameters
    ----------
    picture : Picture
    scores : ndarray of float, shape (H, W, K)
        Logits; regions get their means.
    boundary : ndarray of float, shape (H, W), optional
        Logits of a boundary.
    context : ndarray of float, shape (K,), optional
        Logits of every label from the picture as a whole.

    Returns
    -------
    RegionGraph
        Sizes are pixels.
    """
    border = _border_mean(picture.segments, picture.edges, boundary)
    return RegionGraph(
        region_means(picture.segments, scores),
        picture.edges,
        np.column_stack([picture.contrasts, border]),
        picture.sizes,
        context,
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


def _distance(values: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return np.sqrt(((values[i] - values[j]) ** 2).sum(axis=1))


def _middle_means(maps: FeatureMaps, segments: np.ndarray) -> np.ndarray:
    """Return each region's mean of the cells under it, of the tap of middle stride."""
    near = int(np.argmin([abs(np.log(s[0] / _TARGET_STRIDE)) for s in maps.strides]))
    tap, strides = maps.tap(near).cpu().numpy(), maps.strides[near]
    y, x = (
        np.minimum((np.arange(n) / stride).astype(np.intp), cells - 1)
        for n, stride, cells in zip(segments.shape, strides, tap.shape[:2], strict=True)
    )
    cells = y[:, None] * tap.shape[1] + x
    counts = sparse.csr_array(
        (np.ones(cells.size, np.float32), (segments.ravel(), cells.ravel())),
        shape=(int(segments.max()) + 1, tap.shape[0] * tap.shape[1]),
    )
    flat = tap.reshape(-1, tap.shape[2]).astype(np.float32)
    return (counts @ flat) / counts.sum(axis=1)[:, None]


def _border_mean(
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
