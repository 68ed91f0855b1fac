"""From pictures to graphs: regions, their scores, and what lies between neighbours."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from mtsk.crf import RegionGraph
from mtsk.feature_maps import FeatureMaps
from mtsk.superpixels import (
    Segmentation,
    neighbours,
    over_segment,
    region_lab,
    region_means,
)

__all__ = ["EDGE_FEATURES", "region_graph", "region_labels"]

EDGE_FEATURES = ("length", "colour contrast", "feature contrast", "rise", "boundary")
"""What is known of an edge: see `region_graph`."""

_MIDDLE = 8.0  # pixels: of the tap whose means are compared, the stride nearest to this


def region_graph(
    image: np.ndarray,
    maps: FeatureMaps,
    scores: np.ndarray,
    *,
    method: str | Segmentation = "slic",
    n_segments: int = 1000,
    boundary: np.ndarray | None = None,
) -> tuple[np.ndarray, RegionGraph]:
    """Return an image's regions and their graph.

    Features of an edge between two regions:

    - length: pixel sides shared, over the square root of the smaller area;
    - colour contrast: distance of the mean colours in L*a*b*, over 10;
    - feature contrast: distance of the means of the finest tap of middle stride, over
      the mean of such distances in the image;
    - rise: how steeply the line between both centres stands, 0 (level) to 1;
    - boundary: the mean probability of a boundary over both regions' rims; 0 where no
      task tells.

    Parameters
    ----------
    image : ndarray of float, shape (H, W, 3)
        In [0, 1].
    maps : FeatureMaps
        Of the image.
    scores : ndarray of float, shape (H, W, K)
        Logits; regions get their means.
    method, n_segments
        As for `over_segment`.
    boundary : ndarray of float, shape (H, W), optional
        Logits of a boundary.

    Returns
    -------
    segments : ndarray of intp, shape (H, W)
    graph : RegionGraph
        Sizes are pixels.
    """
    segments = over_segment(image, method, n_segments)
    edges, lengths = neighbours(segments)
    sizes = np.bincount(segments.ravel()).astype(float)
    i, j = edges.T
    colours = region_lab(image, segments)
    height, width = segments.shape
    y = region_means(segments, np.repeat(np.arange(height, dtype=float), width))
    x = region_means(segments, np.tile(np.arange(width, dtype=float), height))
    rise = np.abs(y[i] - y[j])
    apart = _distance(_middle_means(maps, segments), i, j)
    features = [
        lengths / np.sqrt(np.minimum(sizes[i], sizes[j])),
        _distance(colours, i, j) / 10,
        apart / max(float(apart.mean()) if len(apart) else 0.0, 1e-12),
        rise / np.maximum(np.hypot(rise, x[i] - x[j]), 1e-12),
        _rim_mean(segments, edges, boundary),
    ]
    means = region_means(segments, scores)
    return segments, RegionGraph(means, edges, np.stack(features, axis=1), sizes)


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
