"""A model as one network from an image to scores, for images of any size.

All that depends on the size of the image is written with tensors, so that a trace of it
holds for other sizes: resizing and padding are sums over, or choices of, rows and
columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtsk.backbones import Backbone
from mtsk.backbones.onednn import OneDNNConv2d
from mtsk.segmenter import Predictor
from mtsk.tasks.task_set import GRANULARITIES

__all__ = ["ScoreGraph"]


class ScoreGraph(nn.Module):
    """Scores of some tasks from an image, as `Predictor.scores` gives them.

    Parameters
    ----------
    predictor : Predictor
        Without structure, whose heads are linear or fully connected networks.
    names : sequence of str
        Tasks.
    """

    def __init__(self, predictor: Predictor, names: Sequence[str]) -> None:
        super().__init__()
        features = predictor.features
        self.scales = [float(scale) for scale in features.scales]
        self.backbone = _traceable(features.network())
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
        found: dict[str, Tensor] = {}
        if self.names["pixel"]:
            make = self._linear_maps if self.is_linear else self._strided_maps
            scores = make(taps, strides, height, width)[0].permute(1, 2, 0)
            found |= {n: scores[..., self.parts[n]] for n in self.names["pixel"]}
        if self.names["image"]:
            row = torch.cat([tap.mean(dim=3).mean(dim=2) for tap in taps], dim=1)
            scores = self.heads["image"](row)[0]
            found |= {n: scores[self.parts[n]] for n in self.names["image"]}
        return tuple(found.values())

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
            total = total + _at(scores, rows, columns)
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
                _at(tap, (rows + 0.5) / down - 0.5, (columns + 0.5) / across - 0.5)
                for tap, (down, across) in zip(taps, strides, strict=True)
            ],
            dim=1,
        )
        coarse = self.heads["pixel"](hypercolumns[0].permute(1, 2, 0))
        rows, columns = ((_range(n) + 0.5) / step - 0.5 for n in (height, width))
        return _at(coarse.permute(2, 0, 1)[None], rows, columns)


def _traceable(backbone: Backbone) -> Backbone:
    """Return a backbone whose trace for one size of image holds for others."""
    twin = backbone.copy()
    if twin.stages is not None:  # in one strip, whatever the size
        twin.run = replace(twin.stages, cells=2**40)
    for name, module in list(twin.network.named_modules()):
        if isinstance(module, OneDNNConv2d):
            parent, _, own = name.rpartition(".")
            setattr(twin.network.get_submodule(parent), own, _plain_convolution(module))
    return twin


def _plain_convolution(conv: OneDNNConv2d) -> nn.Module:
    """Return a convolution by torch; padded as TensorFlow does for even sides."""
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        device="meta",
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    if not conv.same_padding:
        return plain
    rows, columns = (
        kernel - stride
        for kernel, stride in zip(conv.kernel_size, conv.stride, strict=True)
    )
    around = (
        columns // 2,
        columns - columns // 2,
        rows // 2,
        rows - rows // 2,
    )
    return nn.Sequential(nn.ConstantPad2d(around, 0.0), plain)


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


def _at(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate maps (1, C, h, w) at places, in cells; the border is repeated."""
    for axis, places in ((3, columns), (2, rows)):
        last = torch._shape_as_tensor(maps)[axis] - 1
        places = places.clamp(min=0).minimum(last.float())
        low = places.floor()
        high = (low + 1).minimum(last.float())
        share = places - low
        share = share if axis == 3 else share[:, None]
        first = maps.index_select(axis, low.long())
        second = maps.index_select(axis, high.long())
        maps = first + (second - first) * share
    return maps
