"""A model as one network from an image to scores, for images of any size.

All that depends on the size of the image is written with tensors, so that a trace of it
holds for other sizes: resizing and padding are sums over, or choices of, rows and
columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtsk.backbones.graphs import traceable
from mtsk.features.interpolation import interpolate_at
from mtsk.segmenter import Predictor
from mtsk.tasks.task_set import GRANULARITIES

__all__ = ["ScoreGraph"]


class ScoreGraph(nn.Module):
    """Scores of some tasks from an image, as `Predictor.scores` gives them.

    Parameters
    ----------
    predictor : Predictor
        Without structure, whose heads are linear, fully connected networks or a
        decoder.
    names : sequence of str
        Tasks.
    """

    def __init__(self, predictor: Predictor, names: Sequence[str]) -> None:
        super().__init__()
        features = predictor.features
        self.scales = [float(scale) for scale in features.scales]
        self.backbone = traceable(features.network())
        self.network = self.backbone.network
        self.in_half = features.dtype == "float16"
        self.stride = predictor.prediction_stride
        self.names = {
            kind: [n for n in predictor.tasks.names(kind) if n in names]
            for kind in GRANULARITIES
        }
        self.parts = {
            name: predictor.tasks.layout(kind).scores[name]
            for kind, own in self.names.items()
            for name in own
        }
        self.is_linear = predictor.capabilities("pixel").is_linear
        heads: dict[str, Any] = predictor.heads  # type: ignore[assignment]
        self.decoder_stride: int | None = None
        if predictor.is_convolutional:
            decoder = heads["pixel"] or heads["image"]
            self.decoder_stride = decoder.stride
            self.heads = nn.ModuleDict({"both": decoder.to_torch()})
            return
        self.heads = nn.ModuleDict(
            {kind: heads[kind].to_torch() for kind, own in self.names.items() if own}
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the scores of every task, in the order of the names.

        Parameters
        ----------
        image : Tensor of float32, shape (H, W, 3)
            In [0, 1].

        Returns
        -------
        tuple of Tensor, shape (H, W, size) or (size,)
        """
        shape = torch._shape_as_tensor(image)
        height, width = shape[0], shape[1]
        x = image.permute(2, 0, 1)[None]
        taps: list[Tensor] = []
        strides: list[tuple[Tensor, Tensor]] = []
        for scale in self.scales:
            own, down, across = self._taps(x, height, width, scale)
            taps += own
            strides += [
                (tap.stride / down, tap.stride / across) for tap in self.backbone.taps
            ]
        if self.decoder_stride is not None:
            maps, labels = self._decoder_scores(taps, strides, height, width)
        else:
            maps, labels = self._head_scores(taps, strides, height, width)
        found = {n: maps[..., self.parts[n]] for n in self.names["pixel"]}
        found |= {n: labels[self.parts[n]] for n in self.names["image"]}
        return tuple(found.values())

    def _head_scores(
        self,
        taps: Sequence[Tensor],
        strides: Sequence[tuple[Tensor, Tensor]],
        height: Tensor,
        width: Tensor,
    ) -> tuple[Any, Any]:
        """Return scores of pixels, (H, W, k), and of the image, by their heads."""
        maps = labels = None
        if self.names["pixel"]:
            make = self._linear_maps if self.is_linear else self._strided_maps
            maps = make(taps, strides, height, width)[0].permute(1, 2, 0)
        if self.names["image"]:
            row = torch.cat([tap.mean(dim=3).mean(dim=2) for tap in taps], dim=1)
            labels = self.heads["image"](row)[0]
        return maps, labels

    def _decoder_scores(
        self,
        taps: Sequence[Tensor],
        strides: Sequence[tuple[Tensor, Tensor]],
        height: Tensor,
        width: Tensor,
    ) -> tuple[Any, Any]:
        """Return scores of pixels, (H, W, k), and of the image, by a decoder."""
        finest = self.decoder_stride
        assert finest is not None
        pooled, own_strides = [], []
        nominal = [tap.stride / s for s in self.scales for tap in self.backbone.taps]
        for tap, stride, about in zip(taps, strides, nominal, strict=True):
            step = max(1, round(finest / about))
            if step > 1:
                tap = _block_means(tap, step)
                tap = tap.half().float() if self.in_half else tap
            pooled.append(tap)
            own_strides.append((stride[0] * step, stride[1] * step))
        planes, labels = self.heads["both"](pooled, own_strides, (height, width))
        if planes is None:
            return None, labels[0]
        rows, columns = ((_range(n) + 0.5) / finest - 0.5 for n in (height, width))
        return interpolate_at(planes, rows, columns)[0].permute(1, 2, 0), labels[0]

    def _taps(
        self, x: Tensor, height: Tensor, width: Tensor, scale: float
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the taps of one scale, (1, C, h, w), and how far the image grew."""
        rows, columns = _scaled(height, scale), _scaled(width, scale)
        if scale != 1:
            x = _resize_matrix(height, rows, scale < 1) @ x
            x = x @ _resize_matrix(width, columns, scale < 1).T
        mean, std = (torch.tensor(v)[:, None, None] for v in self.backbone_input)
        x = (x - mean) / std
        multiple = self.backbone.multiple
        for axis, n in ((2, rows), (3, columns)):
            padded = (n + multiple - 1).div(multiple, rounding_mode="floor") * multiple
            x = x.index_select(axis, _range(padded).minimum(n - 1))
        taps = []
        for tap, out in zip(
            self.backbone.taps, self.backbone.run(self.network, x), strict=True
        ):
            for axis, n in ((2, rows), (3, columns)):
                cells = (n + tap.stride - 1).div(tap.stride, rounding_mode="floor")
                out = out.index_select(axis, _range(cells))
            taps.append(out.half().float() if self.in_half else out)
        return taps, rows / height, columns / width

    @property
    def backbone_input(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and standard deviation that the network's input is normalised by."""
        return self.backbone.mean, self.backbone.std

    def _linear_maps(
        self,
        taps: Sequence[Tensor],
        strides: Sequence[tuple[Tensor, Tensor]],
        height: Tensor,
        width: Tensor,
    ) -> Tensor:
        """Apply the head at the taps' own strides; interpolate and sum the scores."""
        layer: Any = self.heads["pixel"]
        ends = np.cumsum([0, *(tap.shape[1] for tap in taps)]).tolist()
        total = layer.bias[None, :, None, None]
        for tap, (down, across), a, b in zip(
            taps, strides, ends[:-1], ends[1:], strict=True
        ):
            scores = nn.functional.conv2d(tap, layer.weight[:, a:b, None, None])
            rows = (_range(height) + 0.5) / down - 0.5
            columns = (_range(width) + 0.5) / across - 0.5
            total = total + interpolate_at(scores, rows, columns)
        return total

    def _strided_maps(
        self,
        taps: Sequence[Tensor],
        strides: Sequence[tuple[Tensor, Tensor]],
        height: Tensor,
        width: Tensor,
    ) -> Tensor:
        """Apply the head at every few pixels; interpolate its scores between them."""
        step = self.stride
        rows, columns = (
            _range((n + step - 1).div(step, rounding_mode="floor")) * step
            + (step - 1) / 2
            for n in (height, width)
        )
        hypercolumns = torch.cat(
            [
                interpolate_at(
                    tap, (rows + 0.5) / down - 0.5, (columns + 0.5) / across - 0.5
                )
                for tap, (down, across) in zip(taps, strides, strict=True)
            ],
            dim=1,
        )
        coarse = self.heads["pixel"](hypercolumns[0].permute(1, 2, 0))
        rows, columns = ((_range(n) + 0.5) / step - 0.5 for n in (height, width))
        return interpolate_at(coarse.permute(2, 0, 1)[None], rows, columns)


def _range(n: Tensor) -> Tensor:
    """Return 0 … n − 1, in a trace as a range whose end is that tensor."""
    return torch.arange(n)  # type: ignore[call-overload]


def _scaled(n: Tensor, scale: float) -> Tensor:
    """Return a side of a resized image; halves are rounded to even, as in Python."""
    return n if scale == 1 else (n * scale).round().clamp(min=1).long()


def _resize_matrix(n_in: Tensor, n_out: Tensor, antialias: bool) -> Tensor:
    """Return the (n_out, n_in) weights of bilinear resizing along an axis.

    A triangle about every output's place, as wide as an input's pixel, or, with
    ``antialias``, as an output's.
    """
    step = n_in / n_out
    centres = (_range(n_out) + 0.5) * step
    places = _range(n_in) + 0.5
    if antialias:
        weights = 1 - (places - centres[:, None]).abs() / step
    else:
        centres = centres.maximum(torch.tensor(0.5)).minimum(n_in - 0.5)
        weights = 1 - (places - centres[:, None]).abs()
    weights = weights.clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def _block_means(maps: Tensor, step: int) -> Tensor:
    """Average blocks of cells; those at the end are of the cells that there are."""
    for axis in (2, 3):
        n = torch._shape_as_tensor(maps)[axis]
        n_blocks = (n + step - 1).div(step, rounding_mode="floor")
        places = _range(n_blocks * step)
        inside = (places < n).float()
        beside = inside[:, None] if axis == 2 else inside
        own = maps.index_select(axis, places.minimum(n - 1)) * beside
        shape = list(own.shape)
        shape[axis : axis + 1] = [-1, step]
        counts = inside.reshape(-1, step).sum(dim=1)
        counts = counts[:, None] if axis == 2 else counts
        maps = own.reshape(shape).sum(dim=axis + 1) / counts
    return maps
