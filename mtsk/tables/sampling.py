"""Which labelled pixels of an image become rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["PixelSample", "pixel_ranks", "sample_pixels"]

_QUOTA_SHARE = 2  # a class's quota is its equal share of the rows, divided by this


class PixelSample(NamedTuple):
    """Some labelled pixels of an image.

    Attributes
    ----------
    places : ndarray of int, shape (m,)
        Flat indices of the pixels.
    weights : ndarray of float32, shape (m,)
        Of mean 1: how many labelled pixels each stands for, relative to the others.
    """

    places: np.ndarray
    weights: np.ndarray


def pixel_ranks(n: int, seed: int, digest: str) -> np.ndarray:
    """Return a random rank of every pixel, from the seed and the image's own hash.

    So tasks that are labelled at the same pixels take the same ones, a task's choice
    does not depend on the other tasks, and an image's choice not on the other images.

    Parameters
    ----------
    n : int
        Pixels.
    seed : int
    digest : str
        Hexadecimal hash of the image.

    Returns
    -------
    ndarray of float32, shape (n,)
        In [0, 1).
    """
    random = np.random.default_rng([seed, int(digest or "0", 16)])
    return random.random((n,), dtype=np.float32)


def sample_pixels(
    labelled: np.ndarray,
    ranks: np.ndarray,
    max_pixels: int,
    codes: np.ndarray | None = None,
) -> PixelSample:
    """Return the labelled pixels of lowest rank, at most so many.

    With ``codes``, every class in the image is seen: one that would get fewer pixels
    than its quota takes them before the others do, and weights undo that, so that
    weighted means over the sample estimate those over all labelled pixels without bias
    (stratified sampling; Cochran, Sampling Techniques, 3rd ed., ch. 5). The quota is
    half of an equal share of ``max_pixels``, and at least one pixel.

    Parameters
    ----------
    labelled : ndarray of bool, shape (n,)
    ranks : ndarray of shape (n,)
        See `pixel_ranks`.
    max_pixels : int
    codes : ndarray of shape (n,), optional
        Class of each pixel, a whole number >= 0 where it is labelled.

    Returns
    -------
    PixelSample
    """
    places = np.flatnonzero(labelled)
    if len(places) <= max_pixels:
        return PixelSample(places, np.ones(len(places), np.float32))
    own = ranks[places]
    chosen = np.zeros(len(places), bool)
    chosen[np.argpartition(own, max_pixels)[:max_pixels]] = True
    if codes is None:
        return PixelSample(places[chosen], np.ones(max_pixels, np.float32))
    code = codes[places].astype(np.intp)
    total = np.bincount(code)
    n_classes = int(np.count_nonzero(total))
    share = max(1, max_pixels // (_QUOTA_SHARE * n_classes))
    quota = np.minimum(total, share)
    short = np.bincount(code[chosen], minlength=len(total)) < quota
    if not short.any():
        return PixelSample(places[chosen], np.ones(max_pixels, np.float32))
    reserved = np.zeros(len(places), bool)
    for k in np.flatnonzero(quota):
        among = np.flatnonzero(code == k)
        lowest = np.argpartition(own[among], quota[k] - 1)[: quota[k]]
        reserved[among[lowest]] = True
    order = np.argpartition(own - reserved, max_pixels)  # ranks are below 1
    chosen = np.zeros(len(places), bool)
    chosen[order[:max_pixels]] = True
    taken = np.bincount(code[chosen], minlength=len(total))
    weight = total / np.maximum(taken, 1)
    weight *= max_pixels / (weight @ taken)
    return PixelSample(places[chosen], weight[code[chosen]].astype(np.float32))
