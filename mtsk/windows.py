"""Windows of images too large to be looked at whole, with the features of the whole.

Cells of a tap must lie where they lie in the whole image. A convolution with stride 2
and "same" padding puts its cells by whether its input's side is odd; halving n again
and again reads off the binary digits of n − 1. So a window whose scaled side is that of
the whole image modulo the coarsest stride, and which starts at a multiple of it, has
its cells on those of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy import sparse

from mtsk._resources import explain_memory, release_freed_memory
from mtsk.backbones import Backbone, Tap
from mtsk.exceptions import ImageError
from mtsk.feature_maps import FeatureMaps
from mtsk.features import DeepFeatures
from mtsk.images import as_views

__all__ = ["Rectangle", "WindowReader", "tiles_of"]


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
class _Axis:
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
        resize, source = _resize_rows(whole, scaled, first, last, smooth=scale < 1)
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


@dataclass
class _Layer:
    """A tap at one scale, in a window.

    Attributes
    ----------
    values : ndarray of shape (h, w, C)
    first : (int, int)
        Of the tap's cells in the whole image, which come first here.
    stride, start : (float, float)
        As of `FeatureMaps`.
    tap_stride : int
    axes : (_Axis, _Axis)
    """

    values: np.ndarray
    first: tuple[int, int]
    stride: tuple[float, float]
    start: tuple[float, float]
    tap_stride: int
    axes: tuple[_Axis, _Axis]

    @classmethod
    def of(
        cls, tap: Tap, axes: tuple[_Axis, _Axis], window: Rectangle, dtype: str
    ) -> Self:
        """Return an empty layer."""
        edges = (window.top, window.bottom), (window.left, window.right)
        cells = [a.cells(tap.stride, e) for a, e in zip(axes, edges, strict=True)]
        (top, bottom), (left, right) = cells
        stride = axes[0].stride(tap.stride), axes[1].stride(tap.stride)
        start = top * stride[0] - window.top, left * stride[1] - window.left
        shape = bottom - top, right - left, tap.channels
        return cls(np.empty(shape, dtype), (top, left), stride, start, tap.stride, axes)

    def put(
        self,
        stored: np.ndarray,
        tap: Tap,
        axes: tuple[_Axis, _Axis],
        block: Rectangle,
    ) -> None:
        """Take in what the network gave for a strip, but for what surrounds it."""
        into, out_of = [], []
        edges = (block.top, block.bottom), (block.left, block.right)
        for axis, edge, first in zip(axes, edges, self.first, strict=True):
            low, high = axis.cells(tap.stride, edge)
            passed = axis.first // tap.stride
            into.append(slice(low - first, high - first))
            out_of.append(slice(low - passed, high - passed))
        self.values[tuple(into)] = stored[tuple(out_of)]

    def sums(self, tile: Rectangle) -> tuple[np.ndarray, np.ndarray]:
        """Return sums over the cells that a tile owns, and how many these are."""
        edges = (tile.top, tile.bottom), (tile.left, tile.right)
        own = []
        for axis, edge, first in zip(self.axes, edges, self.first, strict=True):
            low, high = axis.own_cells(self.tap_stride, edge)
            own.append(slice(low - first, max(low, high) - first))
        cells = self.values[tuple(own)]
        count = float(cells.shape[0] * cells.shape[1])
        total = cells.sum(axis=0, dtype=np.float64).sum(axis=0)
        return total, np.full(cells.shape[2], count)


class WindowReader:
    """Features of windows of one image, as they are in the whole.

    Parameters
    ----------
    features : DeepFeatures
        Fitted.
    image : array-like of shape (H, W) or (H, W, C)
        Anything with ``shape`` that gives an array when cut by two slices: a memory
        map, a zarr or dask array. Only what a window needs is read.
    halo : int
        Pixels of the network's input, beyond a window, that are passed through too.
    """

    def __init__(self, features: DeepFeatures, image: Any, halo: int) -> None:
        self.features, self.image, self.halo = features, image, halo
        self.shape: tuple[int, int] = (int(image.shape[0]), int(image.shape[1]))
        self.backbone: Backbone = features.network()
        coarsest = max(tap.stride for tap in self.backbone.taps)
        self._unit = int(np.lcm(coarsest, self.backbone.multiple))

    @property
    def unit(self) -> int:
        """Windows start and end at multiples of this, so that cells begin with them."""
        scales = [s for s in self.features.scales if s < 1]
        return int(np.ceil(self._unit / min([1.0, *scales])))

    @property
    def exact(self) -> bool:
        """Whether the image's sides, scaled, are whole numbers."""
        return all(self._is_exact(side) for side in self.shape)

    def maps(
        self, window: Rectangle, own: Rectangle
    ) -> tuple[FeatureMaps, np.ndarray, np.ndarray]:
        """Return a window's features, and sums over the cells that a tile owns.

        Parameters
        ----------
        window, own : Rectangle
            What scores are wanted of; the tile in it.

        Returns
        -------
        maps : FeatureMaps
            Of the window.
        sums, counts : ndarray of float64, shape (n_channels,)
            Over the cells of the tile. Summed over all tiles they give the means
            that tasks of whole images see.
        """
        layers = [
            _Layer.of(tap, axes, window, self.features.storage)
            for _ in range(self.features.n_views)
            for axes in (self._axes(scale, window) for scale in self.features.scales)
            for tap in self.backbone.taps
        ]
        for block in self._blocks(window):
            self._fill(layers, block)
        sums, counts = zip(*(layer.sums(own) for layer in layers), strict=True)
        starts = [layer.start for layer in layers]
        maps = FeatureMaps(
            [layer.values for layer in layers],
            [layer.stride for layer in layers],
            window.shape,
            self.features.position,
            starts=starts if any(s != (0, 0) for s in starts) else None,
            place=(window.top, window.left, *self.shape),
        )
        return maps, np.concatenate(sums), np.concatenate(counts)

    def _blocks(self, window: Rectangle) -> list[Rectangle]:
        """Cut a window into strips of rows that the network can take at once."""
        n = 1
        while True:
            height = -(-window.shape[0] // (n * self.unit)) * self.unit
            strips = [
                window._replace(top=top, bottom=min(top + height, window.bottom))
                for top in range(window.top, window.bottom, height)
            ]
            most = max(self._passed(scale, strips[0]) for scale in self.features.scales)
            if most <= _MOST_PIXELS or height <= self.unit:
                return strips
            n += 1

    def _passed(self, scale: float, window: Rectangle) -> int:
        """Return how many pixels the network gets for a window at one scale."""
        down, across = self._axes(scale, window)
        return (down.last - down.first) * (across.last - across.first)

    def _fill(self, layers: Sequence[_Layer], block: Rectangle) -> None:
        """Pass a strip of the window through the network at every scale."""
        axes = [self._axes(scale, block) for scale in self.features.scales]
        waiting = iter(layers)
        for views, (down, across) in self._inputs(axes):
            try:
                with torch.inference_mode():
                    outputs = self.features.forward(self.backbone, views)
            except (RuntimeError, MemoryError) as error:
                raise explain_memory(error, (1, 1, *views.shape[2:], 3)) from error
            for tap, out in zip(self.backbone.taps, outputs, strict=True):
                stored = self.features.store(out)[0]
                next(waiting).put(stored, tap, (down, across), block)
            del outputs, out, stored
            release_freed_memory()

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels as they are.

        Raises
        ------
        ImageError
            Whatever went wrong.
        """
        try:
            return np.asarray(self.image[rows, columns])
        except Exception as error:  # sources raise what they like
            raise ImageError(f"it cannot be read ({error})") from error

    def exact_shape(self) -> tuple[int, int]:
        """Return the largest height and width for which the image would be `exact`."""
        height, width = (
            next(n for n in range(side, 0, -1) if self._is_exact(n))
            for side in self.shape
        )
        return height, width

    def _is_exact(self, side: int) -> bool:
        scales = self.features.scales
        return all(max(1, round(side * s)) == side * s for s in scales) or side == 1

    def _axes(self, scale: float, window: Rectangle) -> tuple[_Axis, _Axis]:
        edges = (window.top, window.bottom), (window.left, window.right)
        down, across = (
            _Axis.plan(n, float(scale), edge, self.halo, self._unit)
            for n, edge in zip(self.shape, edges, strict=True)
        )
        return down, across

    def _inputs(self, axes: Sequence[tuple[_Axis, _Axis]]) -> Any:
        """Yield the network's inputs (1, 3, h, w), each with its axes."""
        needed = [
            slice(min(a.source.start for a in own), max(a.source.stop for a in own))
            for own in zip(*axes, strict=True)
        ]
        item = self.read(needed[0], needed[1])
        views = as_views(item, "its image", self.features.channels)
        for view in views:
            for down, across in axes:
                part = view[
                    down.source.start - needed[0].start : down.source.stop
                    - needed[0].start,
                    across.source.start - needed[1].start : across.source.stop
                    - needed[1].start,
                ]
                yield _resized(part, down.resize, across.resize), (down, across)


def _resized(
    image: np.ndarray, down: sparse.csr_array | None, across: sparse.csr_array | None
) -> torch.Tensor:
    """Return (1, 3, h, w) of an image (H, W, 3), each axis resized by a matrix."""
    if down is not None:
        flat = down @ image.reshape(len(image), -1)
        image = flat.reshape(down.shape[0], *image.shape[1:])
    if across is not None:
        turned = np.ascontiguousarray(image.transpose(1, 0, 2))
        flat = across @ turned.reshape(len(turned), -1)
        image = flat.reshape(across.shape[0], *turned.shape[1:]).transpose(1, 0, 2)
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]  # channels last, uncopied


def _resize_rows(
    n: int, scaled: int, first: int, last: int, *, smooth: bool
) -> tuple[sparse.csr_array, slice]:
    """Return what resizes n pixels to ``scaled``, of the rows first … last − 1 alone.

    Linear interpolation on half-pixel centres; when made smaller, ``smooth``, with a
    triangle as wide as a pixel of the result (torch's ``antialias=True``).
    """
    ratio = n / scaled
    centres = (np.arange(first, last) + 0.5) * ratio
    reach = max(ratio, 1.0) if smooth else 1.0
    low = np.floor(centres - 0.5 - reach).astype(np.intp)
    taps = low[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weights = (1 - np.abs(taps + 0.5 - centres[:, None]) / reach).clip(min=0)
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


_MOST_PIXELS = 6_000_000  # that the network gets at once: about 0.6 GB in its layers
