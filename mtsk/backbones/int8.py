"""The bundled network in integers of 8 bits, for CPUs that multiply these faster.

After training, by Jacob et al. (CVPR 2018): weights are integers times one scale an
output channel, activations integers times one scale a tensor. After a ReLU6 that scale
is 6 / 255, and saturation replaces the ReLU6. Between blocks, where activations are
unbounded, the range is measured on photographs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from threading import Lock
from typing import Any, Self

import torch
from skimage import data
from skimage.transform import resize
from torch import Tensor, nn

from mtsk._resources import fast_int8
from mtsk.backbones.base import Backbone
from mtsk.exceptions import BackboneError

__all__ = ["INT8", "int8_backbone", "int8_supported"]

INT8 = "efficientnet_lite0_int8"
_ENGINE = "onednn"  # the engine of torch that uses VNNI
_MARGIN = 1.1  # of ranges, over those of photographs
_PICTURES = ("astronaut", "chelsea", "coffee", "immunohistochemistry", "moon", "page")
_SIDES = 256, 320
_STRIP_CELLS = 60_000  # of a byte each; more shapes of strips would cost more
_packing = Lock()  # torch's engine is global to all threads
_SHAPES = 36  # that weights are kept for: four sizes of images, each at three scales,
# whose first, middle and last strips may all differ


def int8_backbone(plain: Backbone) -> Backbone:
    """Return the bundled network in integers, on the CPU.

    Parameters
    ----------
    plain : Backbone
        What `bundled_backbone` gives.

    Returns
    -------
    Backbone
        Its outputs are float32. Without parameters: it cannot be trained further.

    Raises
    ------
    BackboneError
        Where torch or the CPU cannot multiply such integers fast and exactly.
    """
    if not int8_supported():
        raise BackboneError(
            f"{INT8} needs a CPU with VNNI, which ONEDNN_MAX_CPU_ISA must not switch "
            f"off, and a torch with quantised tensors and {_ENGINE}; use {plain.name!r}"
        )
    assert plain.stages is not None
    grids = _grids(plain)
    before = _Grid.over(*((level - plain.mean[0]) / plain.std[0] for level in (0, 1)))
    of: Any = plain.network
    network: Any = nn.Module()
    network.conv_stem = _Stem(_Conv(of.conv_stem, _SIX), before)
    network.bn1 = nn.Identity()
    network.blocks = nn.Sequential()
    before = _SIX
    for i, stage in enumerate(of.blocks):
        blocks = []
        for j, block in enumerate(stage):
            name = f"blocks.{i}.{j}"
            blocks.append(_Block(block, grids[f"{name}.within"], grids[name]))
        network.blocks.append(_Stage(blocks, before))
        before = grids[name]
    return Backbone(
        INT8,
        network,
        replace(plain.stages, cells=_STRIP_CELLS),
        [tap.name for tap in plain.taps],
        mean=plain.mean,
        std=plain.std,
        multiple=plain.multiple,
        digest=f"{plain.digest}-int8",
        takes_batches=True,
    )


@cache
def int8_supported() -> bool:
    """Return whether 8-bit integers are multiplied fast, and added up exactly.

    Without VNNI oneDNN adds two products in 16 bits, which overflow, and so it does on
    a CPU that has VNNI where ``ONEDNN_MAX_CPU_ISA`` names a lesser one: it is tried.
    """
    engines = torch.backends.quantized.supported_engines
    if not (hasattr(torch, "quint8") and _ENGINE in engines and fast_int8()):
        return False
    n_channels, largest = 64, 255
    conv = nn.Conv2d(n_channels, 8, 1, bias=False)
    nn.init.ones_(conv.weight)
    out = _Grid(float(n_channels), 0)  # on which the exact sum is the largest code
    x = _Grid(1.0, 0).of(torch.full((1, n_channels, 4, 4), float(largest)))
    with torch.inference_mode():
        found: Tensor = _Conv(conv, out)(x).int_repr()
    return bool((found == largest).all())


@dataclass(frozen=True)
class _Grid:
    """The values of 8-bit codes: (0 … 255, minus ``zero``) times ``step``."""

    step: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> Self:
        """Return the grid that covers a range, and 0, the padding value."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = max(high - low, 1e-6) / 255
        return cls(step, round(-low / step))

    def of(self, x: Tensor) -> Tensor:
        """Quantise a tensor, unless it is quantised already."""
        if x.is_quantized:
            return x
        _silence_deprecation()
        return torch.quantize_per_tensor(x, self.step, self.zero, torch.quint8)


_SIX = _Grid(6 / 255, 0)


class _Conv(nn.Module):
    """A convolution of integers; values outside its grid saturate."""

    def __init__(self, conv: nn.Conv2d, grid: _Grid) -> None:
        super().__init__()
        weight, padding = _evenly_padded(conv)
        self.weight = weight
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.geometry = conv.stride, padding, conv.dilation, conv.groups
        self.grid = grid
        self._packed_for = lru_cache(_SHAPES)(self._pack)

    def _pack(self, shape: torch.Size) -> Any:
        """Return the weights packed by torch, for inputs of one shape.

        oneDNN caches its preparation for the first input of packed weights; for another
        shape it repeats this at every call, which takes longer than the convolution. So
        weights are packed for each shape.
        """
        _silence_deprecation()
        scales = self.weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-8) / 127
        zeros = torch.zeros(len(scales), dtype=torch.long)
        integers = torch.quantize_per_channel(
            self.weight, scales, zeros, 0, torch.qint8
        )
        with _packing, _engine():
            return torch.ops.quantized.conv2d_prepack(
                integers, self.bias, *self.geometry
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in vars(self).items() if name != "_packed_for"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._packed_for = lru_cache(_SHAPES)(self._pack)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.conv2d(
            x, self._packed_for(x.shape), self.grid.step, self.grid.zero
        )
        return out


class _Stem(nn.Module):
    """The first convolution, of pixels."""

    def __init__(self, conv: _Conv, grid: _Grid) -> None:
        super().__init__()
        self.conv, self.grid = conv, grid

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.grid.of(x))


class _Block(nn.Module):
    """One of timm's blocks without squeeze and excitation: convolutions in a row.

    All but the last are followed by a ReLU6; to the last, the block's input is added
    where it has a shortcut.
    """

    def __init__(self, block: Any, within: _Grid, after: _Grid) -> None:
        super().__init__()
        *inner, last = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        self.convs = nn.Sequential(
            *(_Conv(conv, _SIX) for conv in inner), _Conv(last, within)
        )
        self.after = after if block.has_skip else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convs(x)
        if self.after is None:
            return out
        return torch.ops.quantized.add(out, x, self.after.step, self.after.zero)


class _Stage(nn.Module):
    """Blocks of integers; outputs are float32, as taps are."""

    def __init__(self, blocks: Sequence[_Block], before: _Grid) -> None:
        super().__init__()
        self.blocks, self.before = nn.Sequential(*blocks), before

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.before.of(x))
        return out.dequantize()


def _evenly_padded(conv: nn.Conv2d) -> tuple[Tensor, tuple[Any, ...]]:
    """Return weights, and a padding that is the same at both ends.

    TensorFlow pads a layer of stride 2, of even sides, with one more at the end than at
    the start. A row and a column of zeros before the weights are equivalent.
    """
    weight = conv.weight.detach()
    if conv.stride[0] == 1:
        return weight, tuple(conv.padding)
    half = conv.kernel_size[0] // 2
    return nn.functional.pad(weight, (1, 0, 1, 0)), (half, half)


@cache
def _silence_deprecation() -> None:
    """Suppress torch's once-per-process deprecation warning of such tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)


@contextmanager
def _engine() -> Iterator[None]:
    """Pack weights for ``_ENGINE`` within this context."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = _ENGINE
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@torch.inference_mode()
def _grids(plain: Backbone) -> Mapping[str, _Grid]:
    """Return the grid of every block's output, and of its last convolution."""
    ranges: dict[str, tuple[float, float]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(output.min())), max(high, float(output.max()))

        return hook

    handles = []
    for i, stage in enumerate(plain.network.blocks):  # type: ignore[arg-type]
        for j, block in enumerate(stage):
            *_, last = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
            name = f"blocks.{i}.{j}"
            handles.append(block.register_forward_hook(note(name)))
            handles.append(last.register_forward_hook(note(f"{name}.within")))
    try:
        for picture in _PICTURES:
            plain(_photograph(picture))
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: _Grid.over(low * _MARGIN, high * _MARGIN)
        for name, (low, high) in ranges.items()
    }


def _photograph(name: str) -> Tensor:
    """Return one of scikit-image's photographs, (1, 3, h, w)."""
    picture = resize(getattr(data, name)(), _SIDES, anti_aliasing=True)
    grey = picture if picture.ndim == 3 else picture[..., None]
    pixels = torch.from_numpy(grey).float().permute(2, 0, 1)[None]
    return pixels.expand(1, 3, *_SIDES)
