"""Instance segmentation: a separate id for every object."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import expit

from mtsk._validation import Interval, check_parameters
from mtsk.exceptions import TargetError
from mtsk.tasks.arrays import as_array
from mtsk.tasks.base import PixelTask, as_flat_map
from mtsk.tasks.columns import ColumnGroup
from mtsk.tasks.labels import UNLABELLED, as_list

__all__ = ["InstanceSegmentation", "Instances"]


class Instances(NamedTuple):
    """Objects of one image.

    Attributes
    ----------
    ids : ndarray of int32, shape (H, W)
        0 is background, 1 … n one object each.
    scores : ndarray of float, shape (n,)
        Mean probability of each object's pixels to be of any object.
    """

    ids: np.ndarray
    scores: np.ndarray


class InstanceSegmentation(PixelTask):
    """One id for every object, also for touching ones.

    A target is an integer map of ids, (H, W): 0 is background, every other number an
    object, −1 and ``void`` unlabelled. Or it is a list of bool masks (H, W), or an
    array (n, H, W) of them, one an object; where masks overlap, the later lies on top.
    ``predict`` gives int32 maps of ids 1 … n, from left to right and top to bottom by
    the objects' first pixels; `instances` also gives scores.

    Targets per pixel are whether it belongs to any object (one binary column), the
    offset of the object's centre in units of its radius, and the logarithm of that
    radius (three real ones). The centre is the object's pixel that is nearest its
    centroid, the radius √(area / π). Pixels then vote for centres (Ballard's
    generalised Hough transform, Pattern Recognition 1981; votes of every pixel as in
    Kendall, Gal & Cipolla, CVPR 2018): cells with most votes are kept, suppress others
    within ``separation`` radii, and every pixel joins the centre nearest its vote.
    Unlike predicted boundaries between touching objects, votes have no leaks.

    Parameters
    ----------
    threshold : float in [0, 1], default=0.5
        A pixel is of an object where the probability exceeds it.
    separation : float > 0, default=1.0
        Least distance of two centres, in radii.
    min_size : int, default=1
        Objects of fewer pixels are left out.
    min_votes : float in [0, 1), default=0.15
        Least votes for a centre, as a share of the object's area.
    void : int or sequence of int, default=()
        Ids that mean "unlabelled".

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import InstanceSegmentation
    >>> ids = np.zeros((6, 8), int)
    >>> ids[1:5, 1:4], ids[1:5, 4:7] = 5, 9
    >>> task = InstanceSegmentation().fit([ids])
    >>> task.encode(ids, ids.shape).shape
    (6, 8, 4)
    """

    metrics = ("threat_score_50", "threat_score_70", "pq", "mask_ap")

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        separation: float = 1.0,
        min_size: int = 1,
        min_votes: float = 0.15,
        void: Any = (),
    ) -> None:
        self.threshold = threshold
        self.separation = separation
        self.min_size = min_size
        self.min_votes = min_votes
        self.void = void

    def _check(self) -> None:
        check_parameters(self, _CONSTRAINTS)

    def _learn(self, targets: Sequence[Any]) -> list[ColumnGroup]:
        found = False
        for i, target in enumerate(targets):
            try:
                found |= bool((self.canonical(target) > 0).any())
            except TargetError as error:
                raise error.at(image=i) from None
        if not found:
            raise TargetError("no entry has an object: there is nothing to learn")
        return [ColumnGroup("binary", 1), ColumnGroup("real", 3)]

    def canonical(
        self, target: Any, shape: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Return a target as a map of ids, −1 where unlabelled.

        Parameters
        ----------
        target : array-like of int, shape (H, W), or sequence of bool masks (H, W)
        shape : (int, int), optional
            The image's height and width.

        Returns
        -------
        ndarray of int64, shape (H, W)

        Raises
        ------
        TargetError
        """
        if _is_stack(target):
            return _flattened(target, shape)
        ids = as_flat_map(target, shape)
        if ids.dtype.kind not in "iu":
            raise TargetError(
                "instances must be an integer map of ids or a list of bool masks, got "
                f"a map of {ids.dtype}"
            )
        if ids.dtype.kind == "u" and ids.size and ids.max() > np.iinfo(np.int64).max:
            raise TargetError(f"ids must be below 2**63, got {ids.max()}")
        out = ids.astype(np.int64)
        out[np.isin(out, [*as_list(self.void), UNLABELLED])] = UNLABELLED
        if out.min(initial=0) < UNLABELLED:
            raise TargetError(f"ids must be >= 0 (-1: unlabelled), got {out.min()}")
        return out

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        ids = self.canonical(target, shape)
        known, dense = np.unique(ids, return_inverse=True)
        dense = dense.reshape(ids.shape)
        columns = np.full((*ids.shape, 4), np.nan, np.float32)
        columns[..., 0] = np.where(ids < 0, np.nan, ids > 0)
        objects = np.flatnonzero(known > 0)
        if len(objects):
            centre, radius = _centres(dense, len(known))
            places = np.nonzero(ids > 0)
            own = dense[places]
            offset = centre[own] - np.stack(places, axis=1)
            columns[places[0], places[1], 1:3] = offset / radius[own, None]
            columns[places[0], places[1], 3] = np.log(radius[own])
        return columns

    def transform_columns(self, columns: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        zoom = np.sqrt(abs(np.linalg.det(matrix)))
        out = columns.copy()
        out[..., 1:3] = columns[..., 1:3] @ (matrix.T / zoom)
        out[..., 3] += np.log(zoom)
        return out.astype(columns.dtype)

    def decode(self, scores: np.ndarray) -> np.ndarray:
        return self.instances(scores).ids

    def instances(self, scores: np.ndarray) -> Instances:
        """Return the objects predicted by score maps.

        Parameters
        ----------
        scores : ndarray of shape (H, W, 4)

        Returns
        -------
        Instances
        """
        probability = expit(scores[..., 0].astype(np.float64))
        inside = probability > self.threshold
        places = np.stack(np.nonzero(inside), axis=1)
        ids = np.zeros(inside.shape, np.int32)
        if len(places):
            own = scores[inside].astype(np.float64)
            radius = np.exp(own[:, 3].clip(*_LOG_RADIUS))
            votes = places + own[:, 1:3].clip(-_FAR, _FAR) * radius[:, None]
            ids[inside] = self._grouped(votes, radius, inside.shape)
        return _in_order(ids, probability, self.min_size)

    def _grouped(
        self, votes: np.ndarray, radius: np.ndarray, shape: tuple[int, int]
    ) -> np.ndarray:
        """Return an id for every vote, by its nearest centre; 0 is none."""
        cells = np.rint(votes).astype(np.intp).clip(0, np.array(shape) - 1)
        flat = np.ravel_multi_index(tuple(cells.T), shape)
        count = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
        total = np.bincount(flat, radius, minlength=count.size).reshape(shape)
        near = ndimage.gaussian_filter(count.astype(float), _BLUR)
        occupied = np.argwhere(count)
        r = (total / np.maximum(count, 1))[tuple(occupied.T)]
        strength = (count + near)[tuple(occupied.T)] / r**2
        # A cell with nearly all votes of an object is no side peak of another.
        sure = count[tuple(occupied.T)] > _SURE * np.pi * r**2
        kept = _suppressed(occupied, r, strength, self.separation, sure)
        centres, r = occupied[kept], r[kept]
        winner = _nearest(votes, centres, r)
        support = np.bincount(winner, minlength=len(centres))
        enough = support >= self.min_votes * np.pi * r**2
        if not enough.any():
            return np.zeros(len(votes), np.intp)
        if not enough.all():
            renamed = np.flatnonzero(enough)
            winner = renamed[_nearest(votes, centres[enough], r[enough])]
        return winner + 1


_FAR = 100.0  # radii; no centre is further away
_LOG_RADIUS = (-1.0, 8.0)
_SURE = 0.9  # of the object's area
_BLUR = 1.0  # pixels; smoothing by which neighbouring votes count
_CONSTRAINTS: dict[str, list] = {
    "threshold": [Interval(Real, 0, 1, closed="both")],
    "separation": [Interval(Real, 0, None, closed="neither")],
    "min_size": [Interval(Integral, 1, None, closed="left")],
    "min_votes": [Interval(Real, 0, 1, closed="left")],
}


def _is_stack(target: Any) -> bool:
    """Return whether a target is masks, one per object, not a map of ids."""
    if isinstance(target, np.ndarray):
        return target.ndim == 3
    if not isinstance(target, list | tuple):
        return False
    return len(target) == 0 or any(as_array(mask).ndim == 2 for mask in target)


def _flattened(masks: Sequence[Any], shape: tuple[int, int] | None) -> np.ndarray:
    """Return the map of ids of a stack of masks."""
    arrays = [as_array(mask) for mask in masks]
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        raise TargetError(f"masks of one image differ in shape: {sorted(shapes)[:5]}")
    for array in arrays:
        if array.dtype != bool:
            raise TargetError(f"masks of objects must be bool, got {array.dtype}")
    if not arrays:
        return np.zeros(shape if shape is not None else (0, 0), np.int64)
    if shape is not None and arrays[0].shape != tuple(shape):
        raise TargetError(
            f"masks of shape {arrays[0].shape} do not fit an image of {tuple(shape)}"
        )
    ids = np.zeros(arrays[0].shape, np.int64)
    for i, array in enumerate(arrays, start=1):
        ids[array] = i
    return ids


def _centres(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each label's pixel nearest its centroid, and its radius."""
    every = np.arange(n)
    area = np.bincount(labels.ravel(), minlength=n)
    rows, cols = np.indices(labels.shape)
    middle = [np.bincount(labels.ravel(), a.ravel(), n) / area for a in (rows, cols)]
    away = (rows - middle[0][labels]) ** 2 + (cols - middle[1][labels]) ** 2
    centre = np.array(ndimage.minimum_position(away, labels, every))
    return centre, np.sqrt(area / np.pi)


def _suppressed(
    places: np.ndarray,
    radius: np.ndarray,
    strength: np.ndarray,
    separation: float,
    sure: np.ndarray,
) -> np.ndarray:
    """Return the indices of places kept by non-maximum suppression.

    Those that are sure are always kept.
    """
    tree = cKDTree(places)
    alive = np.ones(len(places), bool)
    kept = []
    for i in np.argsort(-strength, kind="stable"):
        if not alive[i] and not sure[i]:
            continue
        kept.append(i)
        alive[tree.query_ball_point(places[i], separation * radius[i])] = False
    return np.array(kept)


def _nearest(votes: np.ndarray, centres: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the index of the centre nearest each vote, in the centre's radii."""
    k = min(4, len(centres))
    away, which = cKDTree(centres).query(votes, k=k)
    away, which = away.reshape(len(votes), k), which.reshape(len(votes), k)
    best = (away / radius[which]).argmin(axis=1)
    return which[np.arange(len(votes)), best]


def _in_order(ids: np.ndarray, probability: np.ndarray, min_size: int) -> Instances:
    """Number objects by their first pixels; drop those that are too small."""
    known, first, dense, area = np.unique(
        ids, return_index=True, return_inverse=True, return_counts=True
    )
    keep = (known > 0) & (area >= min_size)
    order = np.flatnonzero(keep)[np.argsort(first[keep])]
    name = np.zeros(len(known), np.int32)
    name[order] = np.arange(1, len(order) + 1)
    dense = dense.reshape(ids.shape)
    total = np.bincount(dense.ravel(), probability.ravel(), minlength=len(known))
    return Instances(name[dense], (total / area)[order])
