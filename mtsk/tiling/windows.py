"""Windows of images too large to be looked at whole, with the features of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy import sparse

from mtsk._resources import explain_memory, release_freed_memory
from mtsk._validation import check_image
from mtsk.backbones import Backbone, Tap
from mtsk.exceptions import ImageError
from mtsk.features.deep_features import DeepFeatures
from mtsk.features.feature_maps import FeatureMaps
from mtsk.tiling.geometry import Axis, Cells, Part, Rectangle

__all__ = ["WindowReader"]


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
    axes : (Axis, Axis)
    number : int
        Counted over the taps of all scales.
    """

    values: np.ndarray
    first: tuple[int, int]
    stride: tuple[float, float]
    start: tuple[float, float]
    tap_stride: int
    axes: tuple[Axis, Axis]
    number: int

    @classmethod
    def of(
        cls,
        tap: Tap,
        axes: tuple[Axis, Axis],
        window: Rectangle,
        dtype: str,
        number: int,
    ) -> Self:
        """Return an empty layer."""
        edges = (window.top, window.bottom), (window.left, window.right)
        cells = [a.cells(tap.stride, e) for a, e in zip(axes, edges, strict=True)]
        (top, bottom), (left, right) = cells
        stride = axes[0].stride(tap.stride), axes[1].stride(tap.stride)
        start = top * stride[0] - window.top, left * stride[1] - window.left
        shape = bottom - top, right - left, tap.channels
        return cls(
            np.empty(shape, dtype), (top, left), stride, start, tap.stride, axes, number
        )

    def put(self, stored: np.ndarray, cells: Sequence[Cells]) -> None:
        """Take in what the network gave for a part, but for what surrounds it.

        Parameters
        ----------
        stored : ndarray of shape (h, w, C)
        cells : (Cells, Cells)
            Those outside this layer are left out.
        """
        slices = []
        for own, first, n in zip(cells, self.first, self.values.shape, strict=False):
            low, high = max(own.first, first), min(own.last, first + n)
            if low >= high:
                return
            slices.append(Cells(own.origin, low, high).slices(first))
        into, out_of = zip(*slices, strict=True)
        self.values[into] = stored[out_of]

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

    # Pixels that the network gets at once: about 0.6 GB in its layers.
    max_pixels: ClassVar[int] = 6_000_000
    # Side of what fine stages get at once, without what surrounds it.
    block_side: ClassVar[int] = 1024

    def __init__(self, features: DeepFeatures, image: Any, halo: int) -> None:
        self.features, self.image, self.halo = features, image, halo
        self.forward_pass = features.forward_pass
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
        every = [(s, tap) for s in self.features.scales for tap in self.backbone.taps]
        layers = [
            _Layer.of(
                Tap(tap.name, size, tap.stride),
                self._axes(scale, window),
                window,
                self.features.dtype,
                number,
            )
            for _ in range(self.features.n_views)
            for number, ((scale, tap), size) in enumerate(
                zip(every, self.forward_pass.layer_sizes, strict=True)
            )
        ]
        if self.backbone.stages is None:
            for block in self._blocks(window):
                self._fill(layers, block)
        else:
            self._fill_by_stages(layers, window)
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
            if most <= self.max_pixels or height <= self.unit:
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
            outputs = self._forward(views, self.backbone.trace)
            for tap, out in zip(self.backbone.taps, outputs, strict=True):
                layer = next(waiting)
                stored = self._stored(layer, out)
                edges = (block.top, block.bottom), (block.left, block.right)
                cells = [
                    Cells(axis.first // tap.stride, *axis.cells(tap.stride, edge))
                    for axis, edge in zip((down, across), edges, strict=True)
                ]
                layer.put(stored, cells)
            del outputs, out, stored
            release_freed_memory()

    def _fill_by_stages(self, layers: Sequence[_Layer], window: Rectangle) -> None:
        """Pass a window through the network, block by block through its fine stages."""
        axes = [self._axes(scale, window) for scale in self.features.scales]
        source = self._source(axes)
        n_taps = len(self.backbone.taps)
        n_views = self.features.n_views
        for i, own in enumerate(axes * n_views):
            view = i // len(axes)
            some = layers[i * n_taps : (i + 1) * n_taps]

            def pixels(down: Axis, across: Axis, view: int = view) -> torch.Tensor:
                part = source.pixels[source.inside(down, across)]
                chosen = self._views(part)[view]
                return _resized(chosen, down.resize, across.resize)

            self._stages(some, own, pixels)
            release_freed_memory()

    def _stages(
        self,
        layers: Sequence[_Layer],
        axes: tuple[Axis, Axis],
        pixels: Callable[[Axis, Axis], torch.Tensor],
    ) -> None:
        """Fill one scale's layers: fine stages in blocks, the coarse ones at once."""
        backbone, stages = self.backbone, self.backbone.stages
        assert stages is not None
        rows, columns = (
            list(axis.parts(self.block_side, stages.halo, self._unit)) for axis in axes
        )
        whole = [
            Part(axis, blocks[0].first, blocks[-1].last)
            for axis, blocks in zip(axes, (rows, columns), strict=True)
        ]
        cells = [part.cells(stages.stride) for part in whole]
        carried: torch.Tensor | None = None
        for block in product(rows, columns):
            x = pixels(block[0].axis, block[1].axis)
            outputs = self._forward(x, backbone.trace_fine)
            self._put(layers[: stages.n_fine], outputs, block)
            if carried is None:
                size = [own.last - own.first for own in cells]
                carried = outputs[-1].new_empty((1, *size, outputs[-1].shape[-1]))
            (to_y, from_y), (to_x, from_x) = (
                part.cells(stages.stride).slices(own.first)
                for part, own in zip(block, cells, strict=True)
            )
            carried[:, to_y, to_x] = outputs[-1][:, from_y, from_x]
            del outputs
        assert carried is not None
        release_freed_memory()
        outputs = self._forward(carried, backbone.trace_coarse)
        self._put(layers[stages.n_fine :], outputs, whole)

    def _put(
        self,
        layers: Sequence[_Layer],
        outputs: Sequence[torch.Tensor],
        block: Sequence[Part],
    ) -> None:
        for layer, out in zip(layers, outputs, strict=True):
            cells = [part.cells(layer.tap_stride) for part in block]
            layer.put(self._stored(layer, out), cells)

    def _stored(self, layer: _Layer, out: torch.Tensor) -> np.ndarray:
        stored = self.forward_pass.store(self.forward_pass.project(out, layer.number))
        self.forward_pass.check_stored(torch.aminmax(stored))
        return stored[0].cpu().numpy()

    def _forward(
        self, x: torch.Tensor, trace: Callable[[torch.Tensor], list[torch.Tensor]]
    ) -> list[torch.Tensor]:
        try:
            with torch.inference_mode():
                return self.forward_pass.forward(self.backbone, x, trace)
        except (RuntimeError, MemoryError) as error:
            raise explain_memory(error, (1, 1, *x.shape[2:], 3)) from error

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

    def _axes(self, scale: float, window: Rectangle) -> tuple[Axis, Axis]:
        edges = (window.top, window.bottom), (window.left, window.right)
        down, across = (
            Axis.plan(n, float(scale), edge, self.halo, self._unit)
            for n, edge in zip(self.shape, edges, strict=True)
        )
        return down, across

    def _inputs(self, axes: Sequence[tuple[Axis, Axis]]) -> Any:
        """Yield the network's inputs (1, 3, h, w), each with its axes."""
        source = self._source(axes)
        for view in self._views(source.pixels):
            for down, across in axes:
                part = view[source.inside(down, across)]
                yield _resized(part, down.resize, across.resize), (down, across)

    def _views(self, pixels: np.ndarray) -> np.ndarray:
        """Return the views of a part of the image, (n_views, h, w, 3)."""
        views = self.features.view_maker(check_image(pixels, "its image"), "its image")
        self.features.check_views(views, "its image")
        return views

    def _source(self, axes: Sequence[tuple[Axis, Axis]]) -> _Source:
        """Read all that the network needs, at every scale."""
        rows, columns = (
            slice(min(a.source.start for a in own), max(a.source.stop for a in own))
            for own in zip(*axes, strict=True)
        )
        return _Source(self.read(rows, columns), rows.start, columns.start)


@dataclass
class _Source:
    """Pixels of an image as they were read, and where they begin."""

    pixels: np.ndarray
    top: int
    left: int

    def inside(self, down: Axis, across: Axis) -> tuple[slice, slice]:
        """Return which of them two axes are made of."""
        rows, columns = down.source, across.source
        return (
            slice(rows.start - self.top, rows.stop - self.top),
            slice(columns.start - self.left, columns.stop - self.left),
        )


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
