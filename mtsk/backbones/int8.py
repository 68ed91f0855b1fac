"""The bundled network in integers of 8 bits, for CPUs that multiply these faster.

After training, by Jacob et al. (CVPR 2018): weights are integers times one scale an
output channel, activations integers times one scale a tensor. After a ReLU6 that scale
is 6 / 255, and saturation replaces the ReLU6. Between blocks, where activations are
unbounded, the range is measured on photographs. The network is an ONNX graph, in which
every tensor is rounded to its grid; onnxruntime multiplies the integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from skimage import data
from skimage.transform import resize
from torch import Tensor, nn

from mtsk._resources import fast_int8
from mtsk.backbones.base import Backbone
from mtsk.backbones.engines import GraphStages, Session, is_installed
from mtsk.backbones.graphs import OPSET
from mtsk.backbones.stages import Stages
from mtsk.exceptions import BackboneError

__all__ = ["INT8", "int8_backbone", "int8_supported"]

INT8 = "efficientnet_lite0_int8"
_ENGINE = "onnxruntime"
_MARGIN = 1.1  # of ranges, over those of photographs
_PICTURES = ("astronaut", "chelsea", "coffee", "immunohistochemistry", "moon", "page")
_SIDES = 256, 320
_IR_VERSION = 8  # of ONNX's files, as the operators of its set 17 have


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
        Where onnxruntime is not installed, or the CPU cannot multiply such integers
        fast and exactly.
    """
    if not int8_supported():
        raise BackboneError(
            f"{INT8} needs a CPU with VNNI, and onnx and onnxruntime; use "
            f"{plain.name!r}"
        )
    stages = plain.run
    assert isinstance(stages, Stages)
    fine, coarse = (Session(graph, _ENGINE) for graph in _graphs(plain, stages.n_fine))
    return Backbone(
        INT8,
        nn.Module(),
        GraphStages(stages, fine, coarse, is_trainable=False),
        [tap.name for tap in plain.taps],
        mean=plain.mean,
        std=plain.std,
        multiple=plain.multiple,
        digest=f"{plain.digest}-int8",
        engine=_ENGINE,
    )


@cache
def int8_supported() -> bool:
    """Return whether 8-bit integers are multiplied fast, and added up exactly.

    Without VNNI, two products may be added in 16 bits, which overflow: it is tried.
    """
    if not (is_installed(_ENGINE) and fast_int8()):
        return False
    n_channels, largest = 64, 255
    conv = nn.Conv2d(n_channels, 8, 1)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    into, out = _Grid(1.0, 0), _Grid(float(n_channels), 0)
    graph = _Graph()
    graph.output(graph.convolution(graph.rounded("x", into), conv, into, out))
    x = torch.full((1, n_channels, 4, 4), float(largest))
    (found,) = Session(graph.to_bytes(n_channels), _ENGINE)(x)
    return bool((found == n_channels * largest).all())


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


_SIX = _Grid(6 / 255, 0)


class _Graph:
    """An ONNX graph whose tensors are rounded to grids of 8 bits, in the making.

    Every method adds what it says and returns the name of its value.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.outputs: list[str] = []

    def rounded(self, x: str, grid: _Grid) -> str:
        """Round to a grid; values outside saturate."""
        at = [
            self._constant(np.float32(grid.step)),
            self._constant(np.uint8(grid.zero)),
        ]
        codes = self._node("QuantizeLinear", [x, *at])
        return self._node("DequantizeLinear", [codes, *at])

    def convolution(self, x: str, conv: nn.Conv2d, into: _Grid, out: _Grid) -> str:
        """Convolve what lies on a grid, with integers; round to another."""
        weight, padding = _evenly_padded(conv)
        steps = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-8) / 127
        integers = (weight / steps[:, None, None, None]).round()
        assert conv.bias is not None
        bias_steps = into.step * steps
        bias = (conv.bias.detach() / bias_steps).round().clamp(-(2.0**30), 2.0**30)
        made = self._node(
            "Conv",
            [
                x,
                self._integers(integers.numpy().astype(np.int8), steps.numpy()),
                self._integers(bias.numpy().astype(np.int32), bias_steps.numpy()),
            ],
            kernel_shape=list(weight.shape[2:]),
            strides=list(conv.stride),
            pads=[*padding, *padding],
            dilations=list(conv.dilation),
            group=conv.groups,
        )
        return self.rounded(made, out)

    def stage(
        self, x: str, blocks: Any, into: _Grid, grids: Mapping[str, _Grid], name: str
    ) -> tuple[str, _Grid]:
        """Run timm's blocks without squeeze and excitation, one after another.

        All convolutions of a block but the last are followed by a ReLU6; to the last,
        the block's input is added where it has a shortcut.

        Returns
        -------
        str
        _Grid
            That of the value.
        """
        for j, block in enumerate(blocks):
            *inner, last = _convolutions(block)
            within, after = grids[f"{name}.{j}.within"], grids[f"{name}.{j}"]
            made, own = x, into
            for conv in inner:
                made, own = self.convolution(made, conv, own, _SIX), _SIX
            made = self.convolution(made, last, own, within)
            if block.has_skip:
                x, into = self.rounded(self._node("Add", [made, x]), after), after
            else:
                x, into = made, within
        return x, into

    def output(self, x: str) -> None:
        """Give a value, its channels last."""
        self.outputs.append(self._node("Transpose", [x], perm=[0, 2, 3, 1]))

    def to_bytes(self, n_channels: int) -> bytes:
        """Return the graph, of the input ``x``, (n, n_channels, height, width)."""
        from onnx import TensorProto, helper

        sizes = "n", n_channels, "height", "width"
        graph = helper.make_graph(
            self.nodes,
            "stages",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
            [
                helper.make_tensor_value_info(
                    name, TensorProto.FLOAT, [f"{name}_{i}" for i in range(4)]
                )
                for name in self.outputs
            ],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        made: bytes = model.SerializeToString()
        return made

    def _integers(self, values: np.ndarray, steps: np.ndarray) -> str:
        """Add constant integers times one step for each entry of their first axis."""
        zeros = np.zeros(len(steps), values.dtype)
        inputs = [self._constant(v) for v in (values, steps, zeros)]
        return self._node("DequantizeLinear", inputs, axis=0)

    def _constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name


def _graphs(plain: Backbone, n_fine: int) -> tuple[bytes, bytes]:
    """Return the fine and the other stages as graphs."""
    of: Any = plain.network
    grids = _grids(plain)
    before = _Grid.over(*((level - plain.mean[0]) / plain.std[0] for level in (0, 1)))
    fine, coarse = _Graph(), _Graph()
    x = fine.convolution(fine.rounded("x", before), of.conv_stem, before, _SIX)
    grid, graph = _SIX, fine
    for i, blocks in enumerate(of.blocks):
        if i == n_fine:
            x, graph = coarse.rounded("x", grid), coarse
        x, grid = graph.stage(x, blocks, grid, grids, f"blocks.{i}")
        graph.output(x)
    n_carried = plain.taps[n_fine - 1].channels
    return fine.to_bytes(3), coarse.to_bytes(n_carried)


def _convolutions(block: nn.Module) -> list[nn.Conv2d]:
    return [module for module in block.modules() if isinstance(module, nn.Conv2d)]


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
            last = _convolutions(block)[-1]
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
