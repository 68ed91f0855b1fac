"""Fewer numbers a cell: principal components of every tap's channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from mtsk.heads.statistics import Moments

__all__ = ["SAMPLE", "TapProjection", "leading_components", "spread_evenly"]

SAMPLE = 32  # images that the components are found from
_CELLS = 2048  # of a tap of an image
_ROUNDING = 1e-12  # of the mean square; variance below is none


class TapProjection:
    """Turns the channels of taps into their first principal components.

    The components are those of Pearson (*Philosophical Magazine* 2, 1901) without the
    shift by the mean, which heads with intercepts do not see.

    Parameters
    ----------
    matrices : sequence of ndarray of float32, shape (C, r)
        Orthonormal columns, for every scale and tap.
    """

    def __init__(self, matrices: Sequence[np.ndarray]) -> None:
        self.matrices = list(matrices)

    @classmethod
    def learn(
        cls,
        images: Iterable[Sequence[np.ndarray]],
        n_taps: int,
        n_components: float,
    ) -> TapProjection:
        """Find components.

        Parameters
        ----------
        images : iterable of sequence of ndarray, shape (h, w, C)
            Taps of every scale; of several views, those of one after those of another.
        n_taps : int
            Of all scales; views share components.
        n_components : float or int
            Below 1, the share of a tap's variance to be kept; else the most components
            of a tap.

        Returns
        -------
        TapProjection

        Raises
        ------
        ValueError
            Where there is no image.
        """
        sums: dict[int, Moments] = {}
        for seed, taps in enumerate(images):
            random = np.random.default_rng(seed)
            for i, tap in enumerate(taps):
                flat = tap.reshape(-1, tap.shape[2])
                if len(flat) > _CELLS:
                    flat = flat[random.choice(len(flat), _CELLS, replace=False)]
                n, place = len(flat), i % n_taps
                more = Moments.of(flat.astype(np.float32), np.empty((n, 0)), np.ones(n))
                sums[place] = sums[place] + more if place in sums else more
        if not sums:
            raise ValueError("`n_components` needs images to find components in")
        return cls(
            [leading_components(sums[place], n_components) for place in range(n_taps)]
        )

    def __call__(self, out: torch.Tensor, index: int) -> torch.Tensor:
        """Return (n, h, w, r) of a tap's output (n, h, w, C).

        Each image for itself: one product of all would add up otherwise than one of
        each, by rounding, and what an image gives depends on that image alone.
        """
        matrix = torch.from_numpy(self.matrices[index]).to(out.device)
        return torch.stack([image @ matrix for image in out.float()])

    @property
    def sizes(self) -> list[int]:
        """Components of every scale and tap."""
        return [matrix.shape[1] for matrix in self.matrices]


def leading_components(moments: Moments, wanted: float) -> np.ndarray:
    """Return the leading eigenvectors of a covariance.

    Parameters
    ----------
    moments : Moments
        Of C columns.
    wanted : float or int
        As ``n_components`` of `TapProjection.learn`.

    Returns
    -------
    ndarray of float32, shape (C, r)
        The largest entry of each is positive.
    """
    values, vectors = np.linalg.eigh(moments.covariance())
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    power = np.trace(moments.covariance()) + moments.x_mean @ moments.x_mean
    values[values <= _ROUNDING * power] = 0
    if wanted < 1:
        held = np.cumsum(values)
        n = 1 + int(np.searchsorted(held, wanted * held[-1]))
    else:
        n = int(wanted)
    # eigh leaves signs open
    vectors = vectors[:, : min(n, len(values))]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return np.ascontiguousarray(vectors * signs, dtype=np.float32)


def spread_evenly(n: int, most: int = SAMPLE) -> list[int]:
    """Return indices of at most so many of n, from first to last."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)).tolist()
