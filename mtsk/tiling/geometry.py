"""Where windows of an image lie, and what a network must get for them.

Cells of a tap must lie where they lie in the whole image. A convolution with stride 2
and "same" padding puts its cells by whether its input's side is odd; halving n again
and again reads off the binary digits of n − 1. So a window whose scaled side is that of
the whole image modulo the coarsest stride, and which starts at a multiple of it, has
its cells on those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from scipy import sparse

__all__ = ["Axis", "Cells", "Part", "Rectangle", "resize_rows", "tiles_of"]


class Rectangle(NamedTuple):
    """Pixels from (top, left) up to, without, (bottom, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """What picks these pixels from an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, margin: int, unit: int, bounds: tuple[int, int]) -> Rectangle:
        """Return it with a margin, edges on multiples of a unit, inside an image."""
        top, left = (max(0, (s - margin) // unit * unit) for s in self[:2])
        ends = zip(self[2:], bounds, strict=True)
        bottom, right = (min(n, -(-(s + margin) // unit) * unit) for s, n in ends)
        return Rectangle(top, left, bottom, right)

    def within(self, other: Rectangle) -> Rectangle:
        """Return the same pixels counted from the corner of another rectangle."""
        top, left = other[:2]
        return Rectangle(
            self.top - top, self.left - left, self.bottom - top, self.right - left
        )


def tiles_of(shape: tuple[int, int], side: int) -> list[Rectangle]:
    """Return the tiles of an image, row by row; the last ones may be smaller."""
    return [
        Rectangle(top, left, min(top + side, shape[0]), min(left + side, shape[1]))
        for top in range(0, shape[0], side)
        for left in range(0, shape[1], side)
    ]


@dataclass
class Axis:
    """What one scale needs along one axis.

    Attributes
    ----------
    whole, scaled : int
        Side of the whole image, and of the image as the network would get it.
    first, last : int
        What of the latter is passed through.
    resize : csr_array or None
        Makes these from source pixels; None where they are the same.
    source : slice
        The source pixels.
    """

    whole: int
    scaled: int
    first: int
    last: int
    resize: sparse.csr_array | None
    source: slice

    @classmethod
    def plan(
        cls, whole: int, scale: float, edges: tuple[int, int], halo: int, unit: int
    ) -> Self:
        scaled = max(1, round(whole * scale))
        ratio = scaled / whole
        low = int(np.floor(edges[0] * ratio)) // unit * unit - halo
        high = int(np.ceil(edges[1] * ratio)) + unit + halo
        first = max(0, low // unit * unit)
        last = first + -(-(high - first - scaled % unit) // unit) * unit + scaled % unit
        last = min(last, scaled)
        if scaled == whole:
            return cls(whole, scaled, first, last, None, slice(first, last))
        resize, source = resize_rows(whole, scaled, first, last)
        return cls(whole, scaled, first, last, resize, source)

    def stride(self, tap_stride: int) -> float:
        """Return pixels of the image per cell."""
        return tap_stride / (self.scaled / self.whole)

    def cells(self, tap_stride: int, edges: tuple[int, int]) -> tuple[int, int]:
        """Return the first cell that touches a window, and the first after it."""
        stride = self.stride(tap_stride)
        n = -(-self.scaled // tap_stride)
        return int(edges[0] // stride), min(n, int(np.ceil(edges[1] / stride)))

    def own_cells(self, tap_stride: int, edges: tuple[int, int]) -> tuple[int, int]:
        """Return the cells whose centres lie in a tile; the last tile has the rest."""
        stride = self.stride(tap_stride)
        first, last = (int(np.ceil((e - (stride - 1) / 2) / stride)) for e in edges)
        n = -(-self.scaled // tap_stride)
        return max(0, first), n if edges[1] == self.whole else min(n, last)

    def parts(self, size: int, halo: int, unit: int) -> Iterator[Part]:
        """Cut what is passed through into blocks, each with what surrounds it.

        Parameters
        ----------
        size, halo : int
            Of a block, and around it, in pixels of the network's input.
        unit : int
            Sides are padded up to multiples of this. The last block goes on to there.
        """
        halo = -(-halo // unit) * unit  # a block's own padding ends where the whole's
        for low in range(self.first, self.last, size):
            first, last = max(self.first, low - halo), low + size
            end = min(last, self.first + -(-(self.last - self.first) // unit) * unit)
            last = min(last + halo, self.last)
            resize, source = None, slice(first, last)
            if self.resize is not None:
                resize, source = resize_rows(self.whole, self.scaled, first, last)
            axis = replace(self, first=first, last=last, resize=resize, source=source)
            yield Part(axis, low, end)


@dataclass
class Part:
    """A block of one axis: what the network gets for it, and what is right of that."""

    axis: Axis
    first: int
    last: int

    def cells(self, stride: int) -> Cells:
        return Cells(
            self.axis.first // stride, self.first // stride, self.last // stride
        )


class Cells(NamedTuple):
    """Cells of one axis: the first the network gave, and those of them to be kept."""

    origin: int
    first: int
    last: int

    def slices(self, start: int) -> tuple[slice, slice]:
        """Return where they go in an array that starts at a cell, and where from."""
        return (
            slice(self.first - start, self.last - start),
            slice(self.first - self.origin, self.last - self.origin),
        )


def resize_rows(
    n: int, scaled: int, first: int, last: int
) -> tuple[sparse.csr_array, slice]:
    """Return what resizes n pixels to ``scaled``, of the rows first … last − 1 alone.

    Linear interpolation on half-pixel centres; when made smaller, with a triangle as
    wide as a pixel of the result (torch's ``antialias=True``).
    """
    ratio, smooth = n / scaled, scaled < n
    centres = (np.arange(first, last) + 0.5) * ratio
    radius = max(ratio, 1.0) if smooth else 1.0
    low = np.floor(centres - 0.5 - radius).astype(np.intp)
    taps = low[:, None] + np.arange(int(np.ceil(2 * radius)) + 2)
    weights = (1 - np.abs(taps + 0.5 - centres[:, None]) / radius).clip(min=0)
    if smooth:
        weights[(taps < 0) | (taps >= n)] = 0
        weights /= weights.sum(axis=1, keepdims=True)
    taps = taps.clip(0, n - 1)
    begin, end = int(taps[weights > 0].min()), int(taps[weights > 0].max()) + 1
    rows = np.broadcast_to(np.arange(last - first)[:, None], taps.shape)
    used = weights > 0
    matrix = sparse.csr_array(
        (weights[used].astype(np.float32), (rows[used], taps[used] - begin)),
        shape=(last - first, end - begin),
    )
    return matrix, slice(begin, end)
