"""Calibration of out-of-fold scores to logits, by models of few parameters."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from mtsk.heads.logistic import JointLogistic
from mtsk.tasks.columns import ColumnGroup, Kind

__all__ = ["calibrate_classes", "calibrate_label", "relative_loss"]

_ALPHA = 1e-4
_COMPARED = 20_000  # rows on which the two models are compared
_LOG_SCALE = (-3.0, 7.0)
_LEAST_SLOPE = float(np.exp(_LOG_SCALE[0]))


def calibrate_label(
    scores: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return slope (1, 1) and intercept (1,) of a logistic model of one label.

    The slope is kept above 0: with few images, out-of-fold scores can be anticorrelated
    with the labels, which should shrink the logits, not invert them.

    Parameters
    ----------
    scores : ndarray of shape (n, 1)
        Out-of-fold scores.
    target : ndarray of shape (n,)
        0 or 1.
    weight : ndarray of shape (n,)
        0 where unlabelled.
    """
    slope, intercept = _logistic("binary", 1, scores, target, weight)
    if slope[0, 0] < _LEAST_SLOPE:
        share = np.average(target, weights=weight).clip(1e-6, 1 - 1e-6)
        middle = np.average(scores[:, 0], weights=weight)
        slope = np.full((1, 1), _LEAST_SLOPE)
        intercept = np.array([np.log(share / (1 - share)) - _LEAST_SLOPE * middle])
    return slope, intercept


def calibrate_classes(
    scores: np.ndarray, codes: np.ndarray, weight: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix (K, K) and intercepts (K,) that turn scores into logits.

    A multinomial logistic model of all scores, which separates classes that mask one
    another (Hastie, Tibshirani & Friedman, Elements of Statistical Learning, 4.2), or
    one common scale (Guo et al., ICML 2017), whichever has the lower held-out loss:
    where a class is on few images, the folds without them misjudge it, and the larger
    model learns to disregard it.

    Parameters
    ----------
    scores : ndarray of shape (n, K)
        Out-of-fold scores.
    codes : ndarray of int, shape (n,)
    weight : ndarray of shape (n,)
        0 where unlabelled.
    folds : ndarray of int, shape (n,)
    """
    n_classes = scores.shape[1]
    known = np.flatnonzero(weight > 0)
    rows = known[:: max(1, len(known) // _COMPARED)]
    s, y, w, f = scores[rows], codes[rows], weight[rows], folds[rows]
    losses = np.zeros(2)
    for k in np.unique(f):
        fitted, held = f != k, f == k
        if not fitted.any():
            continue
        large = _logistic("nominal", n_classes, s[fitted], y[fitted], w[fitted])
        scale = _scale(s[fitted], y[fitted], w[fitted])
        for i, logits in enumerate((s[held] @ large[0] + large[1], s[held] * scale)):
            losses[i] += _cross_entropy(logits, y[held], w[held])
    if losses[0] < losses[1]:
        large = _logistic("nominal", n_classes, scores, codes, weight)
        # A class's own score must not lower its logit (see calibrate_label).
        own = np.diag(large[0]) - large[0].mean(axis=1)
        if own.min() >= -0.01 * np.abs(large[0]).max():
            return large
    scale = _scale(s, y, w)
    return scale * np.eye(n_classes), np.zeros(n_classes)


def relative_loss(
    kind: Kind, scores: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> float:
    """Return the loss of held-out scores, in units of the prior's.

    For classes and labels it is the cross-entropy of calibrated scores, which, unlike
    the squared error, does not reward shrinking the scores of rare classes.

    Parameters
    ----------
    kind : {"nominal", "binary", "real"}
    scores : ndarray of shape (n, K)
        Out-of-fold scores; K is 1 except for classes.
    target : ndarray of shape (n,)
        Class index, 0 or 1, or a number.
    weight : ndarray of shape (n,)
        0 where unlabelled.

    Returns
    -------
    float
        0 is perfect, 1 no better than the prior; also 0 where the prior has no loss.
    """
    known = weight > 0
    scores, target, weight = scores[known], target[known], weight[known]
    if kind == "real":
        null = float(weight @ (target - np.average(target, weights=weight)) ** 2)
        loss = float(weight @ (scores[:, 0] - target) ** 2)
        return loss / null if null > 0 else 0.0
    codes = target.astype(np.intp)
    mass = np.bincount(codes, weight)
    null = -float(mass[mass > 0] @ np.log(mass[mass > 0] / mass.sum()))
    if null <= 0:
        return 0.0
    if kind == "nominal":
        logits = scores * _scale(scores, codes, weight)
    else:
        slope, intercept = calibrate_label(scores, target, weight)
        logits = np.pad(scores @ slope + intercept, ((0, 0), (1, 0)))
    return _cross_entropy(logits, codes, weight) / null


def _logistic(
    kind: Kind, size: int, scores: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    columns = [ColumnGroup(kind, size)]
    small = JointLogistic(_ALPHA, class_weight=None, columns=columns)
    known = np.where(weight > 0, target, np.nan)[:, None]
    small.fit(scores, known, sample_weight=weight)
    return small.coef_, small.intercept_


def _scale(scores: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> float:
    found = minimize_scalar(
        lambda log: _cross_entropy(scores * np.exp(log), codes, weight),
        bounds=_LOG_SCALE,
        method="bounded",
    )
    return float(np.exp(found.x))


def _cross_entropy(logits: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> float:
    own = logits[np.arange(len(codes)), codes]
    return float((weight * (logsumexp(logits, axis=1) - own)).sum())
