"""Metrics of objects: instances by overlap, boxes and masks by precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

__all__ = [
    "AveragePrecision",
    "Matches",
    "box_iou",
    "instance_iou",
    "match_instances",
]


class Matches(NamedTuple):
    """Objects that agree at some overlap.

    Attributes
    ----------
    tp, fp, fn : int
        True positives, false positives, false negatives.
    overlap : float
        Sum of the IoU of the true positives.
    """

    tp: int
    fp: int
    fn: int
    overlap: float

    def plus(self, other: Matches) -> Matches:
        """Return the sum of both, number by number."""
        return Matches(
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.overlap + other.overlap,
        )

    @property
    def threat_score(self) -> float:
        """TP / (TP + FP + FN), NaN where there is nothing at all.

        The critical success index; the Data Science Bowl (Caicedo et al., Nature
        Methods 2019), StarDist and Cellpose call it average precision.
        """
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else float("nan")

    @property
    def panoptic_quality(self) -> float:
        """Sum of IoU / (TP + FP / 2 + FN / 2) (Kirillov et al., CVPR 2019)."""
        total = self.tp + (self.fp + self.fn) / 2
        return self.overlap / total if total else float("nan")


def instance_iou(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Return the IoU of every true object with every guessed one.

    Parameters
    ----------
    truth, guess : ndarray of int, shape (H, W)
        0 is background. Negative truth is unlabelled and ignored; guessed objects that
        lie there by more than half are left out.

    Returns
    -------
    ndarray of float, shape (n_true, n_guessed)
        In ascending order of ids.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.metrics import instance_iou
    >>> truth = np.array([[1, 1, 0, 2]])
    >>> instance_iou(truth, np.array([[3, 3, 3, 0]])).round(2)
    array([[0.67],
           [0.  ]])
    """
    truth, guess = np.asarray(truth), np.asarray(guess)
    if truth.shape != guess.shape or truth.ndim != 2:
        raise ValueError(
            f"maps of ids must be (H, W) and alike, got {truth.shape} and {guess.shape}"
        )
    void = truth < 0
    guess = np.where(guess > 0, guess, 0)
    if void.any():
        ids, dense = np.unique(guess, return_inverse=True)
        dense = dense.reshape(guess.shape)
        share = np.bincount(dense[void], minlength=len(ids)) / np.bincount(
            dense.ravel()
        )
        guess = np.where(void | (share > 0.5)[dense], 0, guess)
        truth = np.where(void, 0, truth)
    true_ids, t = np.unique(truth, return_inverse=True)
    guess_ids, g = np.unique(guess, return_inverse=True)
    both = t.ravel().astype(np.intp) * len(guess_ids) + g.ravel()
    shared = np.bincount(both, minlength=len(true_ids) * len(guess_ids))
    shared = shared.reshape(len(true_ids), len(guess_ids)).astype(float)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0) - shared
    return (shared / union)[true_ids != 0][:, guess_ids != 0]


def match_instances(iou: np.ndarray, least: float = 0.5) -> Matches:
    """Match true and guessed objects, each with one at most.

    Parameters
    ----------
    iou : ndarray of shape (n_true, n_guessed)
    least : float, default=0.5
        Objects match where their IoU exceeds it. Above 0.5 the matching is unique;
        below, the number of matches is maximised, then the sum of IoU.

    Returns
    -------
    Matches

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.metrics import match_instances
    >>> match_instances(np.array([[0.8, 0.0], [0.1, 0.4]]))
    Matches(tp=1, fp=1, fn=1, overlap=0.8)
    """
    iou = np.asarray(iou, float)
    if iou.ndim != 2 or np.isnan(iou).any():
        raise ValueError(
            f"iou must be (n_true, n_guessed), without NaN, got shape {iou.shape}"
        )
    n_true, n_guessed = iou.shape
    good = np.where(iou > least, iou, 0.0)
    if least >= 0.5:
        pairs = np.nonzero(good)
    else:
        pairs = linear_sum_assignment(good + (good > 0) * min(iou.shape), maximize=True)
        pairs = tuple(side[good[pairs] > 0] for side in pairs)
    hits = len(pairs[0])
    overlap = float(good[pairs].sum())
    return Matches(hits, n_guessed - hits, n_true - hits, overlap)


def box_iou(a: np.ndarray, b: np.ndarray, *, within: bool = False) -> np.ndarray:
    """Return the IoU of every box with every other.

    Parameters
    ----------
    a, b : ndarray of shape (n, 4) and (m, 4)
        Left, top, right, bottom.
    within : bool, default=False
        Divide by the area of ``a`` alone: how much of it lies within ``b``.

    Returns
    -------
    ndarray of shape (n, m)
    """
    a, b = (np.asarray(x, float).reshape(-1, 4) for x in (a, b))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(axis=1) for x in (a, b))
    total = area_a[:, None] if within else area_a[:, None] + area_b - shared
    return shared / np.maximum(total, 1e-300)


class AveragePrecision:
    """COCO's average precision of scored objects, over images.

    For every class and every overlap: guesses of all images, best first, are hits where
    they match a true object of their image not matched before; precision, made
    non-increasing with recall, is averaged over 101 recalls from 0 to 1 (Lin et al.,
    ECCV 2014; as pycocotools computes it, areas and crowds aside).

    Parameters
    ----------
    n_classes : int
    overlaps : sequence of float
        Least IoU of a match.
    """

    def __init__(self, n_classes: int, overlaps: Sequence[float]) -> None:
        self.overlaps = list(overlaps)
        if n_classes < 1 or not all(0 <= o <= 1 for o in self.overlaps or [np.nan]):
            raise ValueError(
                "AveragePrecision needs n_classes >= 1 and overlaps in [0, 1], got "
                f"{n_classes} and {self.overlaps}"
            )
        self.n_true = np.zeros(n_classes, int)
        self._scores: list[list[np.ndarray]] = [[] for _ in range(n_classes)]
        self._hits: list[list[np.ndarray]] = [[] for _ in range(n_classes)]
        self._counts: list[list[np.ndarray]] = [[] for _ in range(n_classes)]

    def update(
        self,
        iou: np.ndarray,
        scores: np.ndarray,
        codes: np.ndarray,
        true_codes: np.ndarray,
        ignored: np.ndarray | None = None,
    ) -> None:
        """Add an image.

        Parameters
        ----------
        iou : ndarray of shape (n_guessed, n_true)
        scores : ndarray of shape (n_guessed,)
        codes, true_codes : ndarray of int, shape (n_guessed,) and (n_true,)
            Classes, below ``n_classes``.
        ignored : ndarray of float, shape (n_guessed,), optional
            The share of each guess that lies in a region to ignore; guesses that do by
            more than the overlap threshold are ignored, unless they match.
        """
        iou, scores = np.asarray(iou, float), np.asarray(scores, float)
        codes, true_codes = np.asarray(codes), np.asarray(true_codes)
        n_classes = len(self.n_true)
        for name, own in (("codes", codes), ("true_codes", true_codes)):
            if own.size and not ((own >= 0) & (own < n_classes)).all():
                raise ValueError(f"`{name}` must lie in 0 … {n_classes - 1}")
        if np.isnan(scores).any():
            raise ValueError("scores must not be NaN")
        order = np.argsort(-scores, kind="stable")
        share = np.zeros(len(scores)) if ignored is None else ignored
        least = np.array(self.overlaps)[:, None]
        for c in range(len(self.n_true)):
            mine = order[codes[order] == c]
            theirs = np.flatnonzero(true_codes == c)
            self.n_true[c] += len(theirs)
            hits = _greedy(iou[np.ix_(mine, theirs)], self.overlaps)
            self._scores[c].append(scores[mine])
            self._hits[c].append(hits)
            self._counts[c].append(hits | (share[mine] < least))

    def merge(self, other: AveragePrecision) -> None:
        """Add another accumulator, of the same classes and overlaps."""
        self.n_true += other.n_true
        for mine, theirs in (
            (self._scores, other._scores),
            (self._hits, other._hits),
            (self._counts, other._counts),
        ):
            for own, more in zip(mine, theirs, strict=True):
                own += more

    def compute(self) -> np.ndarray:
        """Return average precision, (n_overlaps, n_classes); NaN without objects."""
        out = np.full((len(self.overlaps), len(self.n_true)), np.nan)
        for c in np.flatnonzero(self.n_true):
            scores = np.concatenate(self._scores[c])
            order = np.argsort(-scores, kind="stable")
            hits, counts = (
                np.concatenate(part[c], axis=1)[:, order]
                for part in (self._hits, self._counts)
            )
            out[:, c] = [
                _area(row[counted], int(self.n_true[c]))
                for row, counted in zip(hits, counts, strict=True)
            ]
        return out


_RECALLS = np.linspace(0, 1, 101)


def _greedy(iou: np.ndarray, overlaps: Sequence[float]) -> np.ndarray:
    """Return which guesses (best first) are hits, (n_overlaps, n_guessed)."""
    hits = np.zeros((len(overlaps), len(iou)), bool)
    if not iou.shape[1]:
        return hits
    for row, least in zip(hits, overlaps, strict=True):
        free = np.ones(iou.shape[1], bool)
        for i, own in enumerate(iou):
            left = np.where(free, own, -1)
            best = left.shape[0] - 1 - int(left[::-1].argmax())
            if left[best] >= min(least, 1 - 1e-10):
                row[i], free[best] = True, False
    return hits


def _area(hits: np.ndarray, n_true: int) -> float:
    if not len(hits):
        return 0.0
    found = np.cumsum(hits)
    recall = found / n_true
    precision = found / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS, side="left")
    reached = place < len(hits)
    return float(falling[place[reached]].sum() / len(_RECALLS))
