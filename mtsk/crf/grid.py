"""PixelCRF: couples pixels of similar appearance, for thin or small structures."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import lru_cache
from numbers import Integral, Real
from typing import ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from mtsk._validation import Interval, StrOptions, check_parameters, parameter_error
from mtsk.crf.search import iou_gain, mean_node_iou
from mtsk.metrics import confusion

__all__ = ["PixelCRF"]


class PixelCRF(BaseEstimator):
    """A conditional random field over the pixels of an image.

    Each pixel is coupled with eight others at each of ``distances``, by likeness::

        E(y) = − Σ_i scores[i, y_i] + strength · Σ_(i,j) likeness_ij [y_i ≠ y_j]
        likeness_ij = exp(−‖guide_i − guide_j‖² / (2 contrast²))

    for a guide such as the image in L*a*b*. A fully connected field (Krähenbühl &
    Koltun, NIPS 2011) restricted to a sparse neighbourhood, as convolutional CRFs are
    (Teichmann & Cipolla, BMVC 2019), and solved by the same parallel mean field, on a
    coarser grid. Unlike regions, pixels preserve thin structures.

    Parameters
    ----------
    strength : float >= 0 or "cv", default="cv"
        ``"cv"`` takes, of 0, ½ and 1½, the strongest that is within a standard error
        of the best on the images of ``fit``, whose scores should be out-of-fold.
    contrast : float, default=4.0
        Difference in the guide, in its own units, at which pixels count as unlike.
    distances : sequence of int, default=(4, 8, 16)
        Distances, in pixels.
    stride : int, default=2
        Pixels per cell of the grid on which messages are computed.
    n_sweeps : int, default=3
        Rounds of messages.

    Attributes
    ----------
    strength_ : float
        With 0, messages are exactly 0.
    search_ : dict of float to float
        Mean intersection over union of the pixels, for each strength tried.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.crf import PixelCRF
    >>> guide = np.repeat([[0.0] * 8 + [50.0] * 8], 16, axis=0)[..., None]
    >>> truth = (guide[..., 0] > 0).astype(float)
    >>> noise = np.random.default_rng(0).normal(0, 2, (16, 16))
    >>> scores = np.stack([np.zeros((16, 16)), 2 * truth - 1 + noise], axis=-1)
    >>> crf = PixelCRF(stride=1, distances=(1, 2)).fit([(scores, guide)], [truth])
    >>> found = scores + crf.messages(scores, guide)
    >>> (scores.argmax(-1) == truth).mean() < (found.argmax(-1) == truth).mean()
    np.True_
    """

    pixels_at_once: ClassVar[int] = 2**18  # whose messages are held together

    def __init__(
        self,
        strength: float | str = "cv",
        *,
        contrast: float = 4.0,
        distances: Iterable[int] = (4, 8, 16),
        stride: int = 2,
        n_sweeps: int = 3,
    ) -> None:
        self.strength = strength
        self.contrast = contrast
        self.distances = distances
        self.stride = stride
        self.n_sweeps = n_sweeps

    def fit(
        self, X: Iterable[tuple[np.ndarray, np.ndarray]], y: Iterable[np.ndarray]
    ) -> Self:
        """Choose the strength.

        Parameters
        ----------
        X : iterable of (scores, guide)
            Arrays (H, W, K) and (H, W, C) for each image; read once.
        y : iterable of ndarray of float, shape (H, W)
            Labels 0 … K − 1; NaN is unlabelled.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError
        """
        self.check_parameters()
        fixed = not isinstance(self.strength, str)
        self.search_: dict[float, float] = {}
        if fixed:
            self.strength_ = float(self.strength)
            return self
        counts: dict[float, list[np.ndarray]] = {s: [] for s in _STRENGTHS}
        for (scores, guide), truth in zip(X, y, strict=True):
            k = scores.shape[2]
            known = np.where(truth < k, truth, np.nan)  # classes without a score
            for strength in _STRENGTHS:
                moved = scores + self._messages(scores, guide, strength)
                counts[strength].append(confusion(known, moved.argmax(axis=2), k))
        if not counts[0.0]:
            raise ValueError("X must hold at least one image")
        stacks = {s: np.stack(c).astype(float) for s, c in counts.items()}
        self.search_ = {s: mean_node_iou(c.sum(axis=0)) for s, c in stacks.items()}
        best = max(self.search_, key=self.search_.get)  # type: ignore[arg-type]
        # Few images cannot distinguish strengths: take the strongest that is not
        # clearly worse than the best.
        for strength in sorted(_STRENGTHS):
            gain, error = iou_gain([stacks[strength]], [stacks[best]])
            if gain >= -error:
                self.strength_ = strength
        return self

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` where a parameter is not allowed."""
        check_parameters(self, _CONSTRAINTS)
        distances = list(self.distances)
        if (
            not all(isinstance(r, Integral) and r > 0 for r in distances)
            or not distances
        ):
            raise parameter_error(
                "distances", self, "distances, each an int > 0", distances
            )

    def messages(self, scores: np.ndarray, guide: np.ndarray) -> np.ndarray:
        """Return the messages to each pixel, to be added to its scores.

        Parameters
        ----------
        scores : ndarray of float, shape (H, W, K)
            Logits.
        guide : ndarray of float, shape (H, W, C)

        Returns
        -------
        ndarray of float32, shape (H, W, K)
            Exactly 0 where ``strength_`` is 0.

        Raises
        ------
        ValueError
        """
        check_is_fitted(self)
        return self._messages(scores, guide, self.strength_)

    @torch.inference_mode()
    def _messages(
        self, scores: np.ndarray, guide: np.ndarray, strength: float
    ) -> np.ndarray:
        if scores.ndim != 3 or guide.ndim != 3 or scores.shape[:2] != guide.shape[:2]:
            raise ValueError(
                "scores and guide must be maps of one size, (H, W, K) and (H, W, C), "
                f"got {scores.shape} and {guide.shape}"
            )
        if strength == 0:
            return np.zeros(scores.shape, np.float32)
        height, width, _ = scores.shape
        logits, values = (_pooled(m, self.stride) for m in (scores, guide))
        steps = sorted({max(1, round(r / self.stride)) for r in self.distances})
        # Messages come from no further than this, so bands give the same result.
        halo = steps[-1] * self.n_sweeps
        rows = max(1, self.pixels_at_once // logits.shape[1])
        bands = []
        for top in range(0, len(logits), rows):
            low, high = max(0, top - halo), min(len(logits), top + rows + halo)
            sent = self._band_messages(
                logits[low:high], values[low:high], steps, strength
            )
            bands.append(sent[top - low : top - low + rows])
        sent = torch.cat(bands).repeat_interleave(self.stride, 0)[:height]
        return sent.repeat_interleave(self.stride, 1)[:, :width].numpy()

    def _band_messages(
        self,
        logits: torch.Tensor,
        guide: torch.Tensor,
        steps: list[int],
        strength: float,
    ) -> torch.Tensor:
        """Return messages on the grid of a band, (h, w, K)."""
        height, width, n_labels = logits.shape
        starts, others, inside = _pattern(height, width, tuple(steps))
        values = guide.reshape(-1, guide.shape[2])
        apart = values[others].sub_(values[:, None]).square_().sum(dim=2)
        weights = apart.mul_(-0.5 / self.contrast**2).exp_().mul_(strength).mul_(inside)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            mixing = torch.sparse_csr_tensor(
                starts,
                others.view(-1),
                weights.view(-1),
                size=(height * width,) * 2,
                check_invariants=False,
            )
        own = logits.reshape(-1, n_labels)
        sent = torch.zeros_like(own)
        for _ in range(self.n_sweeps):
            sent = mixing @ torch.softmax(own + sent, dim=1)
        return sent.view(logits.shape)


_STRENGTHS = (0.0, 0.5, 1.5)
_CONSTRAINTS: dict[str, list] = {
    "strength": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
    "contrast": [Interval(Real, 0, None, closed="neither")],
    "distances": ["array-like"],
    "stride": [Interval(Integral, 1, None, closed="left")],
    "n_sweeps": [Interval(Integral, 1, None, closed="left")],
}


def _pooled(values: np.ndarray, stride: int) -> torch.Tensor:
    """Return means over cells of stride × stride pixels, fewer at the rim."""
    planes = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    planes = planes.permute(2, 0, 1)[None]
    pooled = nn.functional.avg_pool2d(
        planes, stride, ceil_mode=True, count_include_pad=False
    )
    return pooled[0].permute(1, 2, 0).contiguous()


@lru_cache(maxsize=8)
def _pattern(
    height: int, width: int, steps: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the rows' starts, the columns (n, m) and which of them are inside."""
    offsets = [
        (r * y, r * x)
        for r in steps
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
        if (y, x) != (0, 0)
    ]
    down, across = torch.tensor(offsets).T
    y = torch.arange(height)[:, None, None] + down
    x = torch.arange(width)[None, :, None] + across
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    others = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    n, m = height * width, len(offsets)
    starts = torch.arange(0, n * m + 1, m, dtype=torch.int32)
    return starts, others.reshape(n, m).int(), inside.reshape(n, m).float()
