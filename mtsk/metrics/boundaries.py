"""Agreement of boundaries, within a distance."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import find_boundaries

__all__ = ["boundary_curve", "boundary_f1", "boundary_matches"]


def boundary_matches(
    truth: np.ndarray, guess: np.ndarray, tolerance: float
) -> tuple[int, int, int, int]:
    """Match two maps of boundary pixels within a distance.

    Parameters
    ----------
    truth, guess : ndarray of bool, shape (H, W)
    tolerance : float
        Distance in pixels.

    Returns
    -------
    (int, int, int, int)
        Guessed pixels near a true one, guessed pixels, true pixels near a guessed
        one, true pixels.
    """
    truth, guess = np.asarray(truth, bool), np.asarray(guess, bool)
    near_truth = _within(truth, tolerance)
    near_guess = _within(guess, tolerance)
    return (
        int((guess & near_truth).sum()),
        int(guess.sum()),
        int((truth & near_guess).sum()),
        int(truth.sum()),
    )


def boundary_f1(
    truth: np.ndarray, guess: np.ndarray, tolerance: float = 0.0075
) -> float:
    """Return the F1 of the boundaries of two label maps.

    Precision and recall are the shares of boundary pixels (of either side) within a
    tolerance of the other's (Csurka et al., "What is a good evaluation measure for
    semantic segmentation?", BMVC 2013), over all classes at once.

    Parameters
    ----------
    truth, guess : ndarray of int, shape (H, W)
        Label maps; negative truth is unlabelled, and ignored together with its rim.
    tolerance : float, default=0.0075
        As a fraction of the image's diagonal.

    Returns
    -------
    float
        NaN where neither has a boundary.

    Raises
    ------
    ValueError
        On maps of different shapes, or an invalid tolerance.
    """
    truth, guess = np.asarray(truth), np.asarray(guess)
    if truth.shape != guess.shape or truth.ndim != 2:
        raise ValueError(
            f"label maps must be of one shape (H, W), got {truth.shape}, {guess.shape}"
        )
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")
    radius = tolerance * float(np.hypot(*truth.shape))
    return f1_of(*boundary_matches(*label_boundaries(truth, guess), radius))


def label_boundaries(
    truth: np.ndarray, guess: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    void = truth < 0
    ignored = void | find_boundaries(void, mode="thick")
    edges = (find_boundaries(m, mode="thick") & ~ignored for m in (truth, guess))
    return next(edges), next(edges)


def _within(mask: np.ndarray, radius: float) -> np.ndarray:
    if not mask.any():
        return np.zeros_like(mask)
    return distance_transform_edt(~mask) <= radius


def f1_of(near_truth: int, guessed: int, near_guess: int, true: int) -> float:
    if guessed + true == 0:
        return float("nan")
    precision = near_truth / guessed if guessed else 0.0
    recall = near_guess / true if true else 0.0
    return 2 * precision * recall / max(precision + recall, 1e-300)


def boundary_curve(
    truth: np.ndarray,
    strength: np.ndarray,
    thresholds: np.ndarray,
    tolerance: float,
    ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Match thin boundaries of every threshold with true ones.

    Parameters
    ----------
    truth : ndarray of bool, shape (H, W)
    strength : ndarray of float, shape (H, W)
        Thin already, see `mtsk.tasks.postprocess.thin_ridges`.
    thresholds : ndarray of shape (n,)
        A boundary is where the strength exceeds them.
    tolerance : float
        Distance in pixels. Pixels are matched to any within it, not one to one as in
        the Berkeley benchmark.
    ignored : ndarray of bool, shape (H, W), optional
        Pixels to ignore.

    Returns
    -------
    ndarray of int, shape (n, 4)
        As `boundary_matches` gives them.
    """
    if ignored is not None:
        truth, strength = truth & ~ignored, np.where(ignored, 0, strength)
    near_truth = _within(truth, tolerance)
    out = np.zeros((len(thresholds), 4), int)
    for row, threshold in zip(out, thresholds, strict=True):
        guess = strength > threshold
        row[:] = (
            (guess & near_truth).sum(),
            guess.sum(),
            (truth & _within(guess, tolerance)).sum(),
            truth.sum(),
        )
    return out
