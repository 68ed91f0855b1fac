"""Taps as input of a decoder: tensors no finer than its stride."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mtsk.features.feature_maps import FeatureMaps

__all__ = ["Pyramid", "stack_pyramids"]


@dataclass
class Pyramid:
    """The taps of one image, or of a batch of images of one size.

    Attributes
    ----------
    taps : list of Tensor of shape (n, C, h, w)
    strides : list of (float, float)
        Pixels per cell, down and across.
    shape : (int, int)
        Shape of the images, in pixels.
    """

    taps: list[Tensor]
    strides: list[tuple[float, float]]
    shape: tuple[int, int]

    @classmethod
    def of(
        cls,
        outputs: Iterable[tuple[float, float, Tensor]],
        shape: tuple[int, int],
        finest: int,
    ) -> Pyramid:
        """Take outputs (strides, (n, h, w, C)); average taps finer than ``finest``."""
        taps, strides = [], []
        for down, across, out in outputs:
            tap = out.permute(0, 3, 1, 2)
            step = max(1, round(finest / down)), max(1, round(finest / across))
            if step != (1, 1):
                tap = functional.avg_pool2d(tap, step, ceil_mode=True)
            taps.append(tap)
            strides.append((down * step[0], across * step[1]))
        return cls(taps, strides, shape)

    @classmethod
    def of_maps(cls, maps: FeatureMaps, finest: int) -> Pyramid:
        """Take an image's FeatureMaps, keeping their precision."""
        found = []
        for tap, (down, across) in zip(maps.taps, maps.strides, strict=True):
            found.append((down, across, torch.as_tensor(tap)[None].float()))
        out = cls.of(found, maps.shape, finest)
        dtype = torch.as_tensor(maps.taps[0][:0]).dtype
        out.taps = [tap.to(dtype) for tap in out.taps]
        return out

    def mirrored(self) -> Pyramid:
        """Return the taps with left and right swapped."""
        taps = [
            _mirrored(tap, across, self.shape[1])
            for tap, (_, across) in zip(self.taps, self.strides, strict=True)
        ]
        return Pyramid(taps, self.strides, self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the taps hold."""
        return sum(tap.nbytes for tap in self.taps)


def stack_pyramids(parts: Sequence[Pyramid], device: torch.device) -> Pyramid:
    """Return one batch of images of one size, single precision."""
    taps = [
        torch.cat(own).to(device=device, dtype=torch.float32)
        for own in zip(*(part.taps for part in parts), strict=True)
    ]
    return Pyramid(taps, parts[0].strides, parts[0].shape)


def _mirrored(tap: Tensor, stride: float, width: int) -> Tensor:
    """Return values at the mirrored centres: a last cell may be partly outside."""
    n = tap.shape[3]
    place = (width / stride - 1 - torch.arange(n, dtype=torch.float64)).clamp(0, n - 1)
    low = place.floor().long()
    share = (place - low).float()
    if not share.any():
        return tap[..., low]
    high = (low + 1).clamp(max=n - 1)
    blend = torch.lerp(tap[..., low].float(), tap[..., high].float(), share)
    return blend.to(tap.dtype)
