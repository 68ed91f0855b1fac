"""Accumulators for numbers: depth, normals, counts, ranks, images."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import cohen_kappa_score

__all__ = [
    "AngularMeter",
    "CountMeter",
    "DepthMeter",
    "PictureMeter",
    "RankMeter",
    "ResidualMeter",
]

Task = Any  # of mtsk.tasks, fitted


def undefined(metric: str, why: str) -> float:
    """Return NaN, with scikit-learn's warning."""
    warnings.warn(
        f"{metric} is not defined for {why}: NaN", UndefinedMetricWarning, stacklevel=4
    )
    return float("nan")


class ResidualMeter:
    """Metrics of numbers, from sums of truths and residuals."""

    def __init__(self, task: Task, kind: str) -> None:
        self.kind, self.task = kind, task
        self.n = np.zeros(task.group_.size)
        self.t, self.tt, self.absolute, self.squared = (self.n.copy() for _ in range(4))

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        truth = columns.reshape(-1, columns.shape[-1]).astype(float)
        known = ~np.isnan(truth)
        truth = self.task.values(truth)
        guess = self.task.values(scores.reshape(truth.shape))
        residual = np.where(known, truth - guess, 0)
        truth = np.where(known, truth, 0)
        self.n += known.sum(axis=0)
        self.t += truth.sum(axis=0)
        self.tt += (truth**2).sum(axis=0)
        self.absolute += np.abs(residual).sum(axis=0)
        self.squared += (residual**2).sum(axis=0)

    def merge(self, other: ResidualMeter) -> None:
        for name in ("n", "t", "tt", "absolute", "squared"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def compute(self) -> float:
        used = self.n > 0
        if not used.any():
            return float("nan")
        if self.kind == "r2":
            used = self.n > 1
            if not used.any():
                return undefined("r2", "fewer than two numbers")
        n, squared = self.n[used], self.squared[used]
        if self.kind == "rmse":
            return float(np.sqrt(squared / n).mean())
        if self.kind == "mae":
            return float((self.absolute[used] / n).mean())
        spread = self.tt[used] - self.t[used] ** 2 / n
        spread[spread <= 1e-12 * self.tt[used]] = 0  # constant up to rounding
        flat = np.where(squared == 0, 1.0, 0.0)
        explained = 1 - np.divide(squared, spread, out=1 - flat, where=spread > 0)
        return float(explained.mean())


class DepthMeter:
    """Errors of depths, over all pixels (Eigen, Puhrsch & Fergus, NeurIPS 2014).

    ``"abs_rel"``: mean of |d − d*| / d*. ``"delta1"``: share of max(d/d*, d*/d) < 1.25.
    ``"silog"``: standard deviation of log d − log d*, invariant to a common factor of
    an image's depths; averaged over images.
    """

    def __init__(self, task: Task, kind: str) -> None:
        self.task, self.kind = task, kind
        self.total, self.n = 0.0, 0

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        known = ~np.isnan(columns)
        truth = self.task.values(columns[known].astype(float))
        guess = self.task.values(scores[known].astype(float))
        if not len(truth):
            return
        if (truth <= 0).any():
            raise ValueError(f"the metric {self.kind!r} needs numbers above 0")
        guess = np.maximum(guess, _LEAST_DEPTH * truth.min())
        if self.kind == "silog":
            self.total += float(np.std(np.log(guess) - np.log(truth)))
            self.n += 1
            return
        if self.kind == "abs_rel":
            each = np.abs(guess - truth) / truth
        else:
            each = np.maximum(guess / truth, truth / guess) < 1.25
        self.total += float(each.sum())
        self.n += len(each)

    def merge(self, other: DepthMeter) -> None:
        self.total += other.total
        self.n += other.n

    def compute(self) -> float:
        return self.total / self.n if self.n else float("nan")


class AngularMeter:
    """Mean angle between true and predicted directions, in degrees.

    With ``within``, the share of pixels where the angle is at most so many degrees
    (Fouhey, Gupta & Hebert, ICCV 2013, have 11.25, 22.5 and 30).
    """

    def __init__(self, task: Task, within: float | None) -> None:
        self.task, self.within = task, within
        self.total, self.n = 0.0, 0

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        known = ~np.isnan(columns).any(axis=-1)
        truth = columns[known].astype(float)
        truth /= np.linalg.norm(truth, axis=-1, keepdims=True)
        cosine = (truth * self.task.decode(scores[known].astype(float))).sum(axis=-1)
        angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
        self.total += float(
            (angle if self.within is None else angle <= self.within).sum()
        )
        self.n += len(angle)

    def merge(self, other: AngularMeter) -> None:
        self.total += other.total
        self.n += other.n

    def compute(self) -> float:
        return self.total / self.n if self.n else float("nan")


class CountMeter:
    """Errors of an image's number of objects, from maps of density."""

    from_targets = True
    needs_maps = True

    def __init__(self, task: Task, kind: str) -> None:
        self.task, self.kind = task, kind
        self.pairs: list[tuple[float, float]] = []

    def update(self, target: Any, scores: np.ndarray) -> None:
        n_true = len(self.task.canonical(target, scores.shape[:2]))
        self.pairs.append((n_true, float(self.task.decode(scores).sum())))

    def merge(self, other: CountMeter) -> None:
        self.pairs += other.pairs

    def compute(self) -> float:
        if not self.pairs:
            return float("nan")
        truth, guess = np.array(self.pairs).T
        if self.kind == "mae":
            return float(np.abs(truth - guess).mean())
        if self.kind == "rmse":
            return float(np.sqrt(((truth - guess) ** 2).mean()))
        if len(truth) < 2:
            return undefined("count_r2", "fewer than two images")
        spread = ((truth - truth.mean()) ** 2).sum()
        return float(1 - ((truth - guess) ** 2).sum() / spread) if spread else 0.0


class RankMeter:
    """Metrics of ordered classes.

    ``"rank_mae"``: mean distance in ranks. ``"kappa"``: Cohen's, weighted by squared
    distances (Psychological Bulletin 1968), scikit-learn's ``cohen_kappa_score``.
    """

    def __init__(self, task: Task, kind: str) -> None:
        self.task, self.kind = task, kind
        self.truth: list[int] = []
        self.guess: list[int] = []

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        if np.isnan(columns).any():
            return
        self.truth.append(int(columns.sum()))
        self.guess.append(int(self.task.codes(scores)))

    def merge(self, other: RankMeter) -> None:
        self.truth += other.truth
        self.guess += other.guess

    def compute(self) -> float:
        truth, guess = np.array(self.truth), np.array(self.guess)
        if not len(truth):
            return float("nan")
        if self.kind == "rank_mae":
            return float(np.abs(truth - guess).mean())
        if self.kind == "accuracy":
            return float((truth == guess).mean())
        if len(truth) < 2:
            return undefined("kappa", "fewer than two images")
        if (truth == truth[0]).all() and (guess == truth[0]).all():
            return 1.0  # scikit-learn has 0 / 0
        labels = np.arange(len(self.task.classes_))
        return float(
            cohen_kappa_score(truth, guess, weights="quadratic", labels=labels)
        )


class PictureMeter:
    """Similarity of images, by scikit-image: the mean over images.

    ``"psnr"`` in decibels, over the pixels that are labelled; ``"ssim"`` (Wang et al.,
    IEEE TIP 2004) of images that are labelled throughout.
    """

    needs_maps = True

    def __init__(self, task: Task, kind: str) -> None:
        self.kind = kind
        self.found: list[float] = []

    def update(self, columns: np.ndarray, scores: np.ndarray) -> None:
        known = ~np.isnan(columns)
        guess = scores.clip(0, 1).astype(float)
        truth = columns.astype(float)
        if self.kind == "psnr" and known.any():
            truth, guess = truth[known], guess[known]
            if (truth == guess).all():
                self.found.append(np.inf)
                return
            self.found.append(peak_signal_noise_ratio(truth, guess, data_range=1))
        elif self.kind == "ssim" and known.all():
            ssim = structural_similarity(
                truth,
                guess,
                data_range=1,
                channel_axis=2,
                win_size=_window(truth.shape),
            )
            self.found.append(float(ssim))

    def merge(self, other: PictureMeter) -> None:
        self.found += other.found

    def compute(self) -> float:
        return float(np.mean(self.found)) if self.found else float("nan")


_LEAST_DEPTH = 1e-3  # of the least true depth: lower bound of predictions


def _window(shape: tuple[int, ...]) -> int:
    """Return scikit-image's 7, or what fits a small image; odd."""
    least = min(7, *shape[:2])
    return least - (least + 1) % 2
