"""Networks as ONNX graphs, for images of any size."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mtsk.backbones.base import Backbone
from mtsk.backbones.onednn import OneDNNConv2d
from mtsk.backbones.stages import Stages
from mtsk.exceptions import BackboneError

__all__ = ["OPSET", "network_graph", "stage_graphs", "traceable", "write_graph"]

OPSET = 17
_TRACED = 96, 128  # the image that is traced; other sides than a network's channels


def traceable(backbone: Backbone) -> Backbone:
    """Return a copy of a backbone whose trace for one size of image holds for others.

    Parameters
    ----------
    backbone : Backbone

    Returns
    -------
    Backbone

    Raises
    ------
    BackboneError
        Where it is a graph already.
    """
    twin = backbone.copy()
    if twin.engine != "torch":
        raise BackboneError(
            f"{backbone.name} cannot be exported: it is an ONNX graph already, without "
            "a network of torch"
        )
    if isinstance(twin.run, Stages):  # in one strip, whatever the size
        twin.run = replace(twin.run, cells=2**40)
    for name, module in list(twin.network.named_modules()):
        if isinstance(module, OneDNNConv2d):
            parent, _, own = name.rpartition(".")
            setattr(twin.network.get_submodule(parent), own, _plain_convolution(module))
    return twin


def write_graph(
    module: nn.Module,
    example: Tensor,
    name: str,
    outputs: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
) -> bytes:
    """Return a module as the bytes of an ONNX graph.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode; of one input.
    example : Tensor
        An input, by which the module is traced.
    name : str
        Of the input.
    outputs : sequence of str
        Their names.
    dynamic_axes : mapping
        Of inputs and outputs, which axes may have other lengths, and their names.

    Returns
    -------
    bytes
    """
    written = io.BytesIO()
    silent = redirect_stdout(io.StringIO())  # a trace that fails is printed in full
    with warnings.catch_warnings(), torch.no_grad(), silent:
        # Of the trace (all that depends on the image's size is in tensors), and of the
        # exporter, whose successor does not take sizes that follow from the image's.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            written,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[name],
            output_names=list(outputs),
            dynamic_axes={key: dict(axes) for key, axes in dynamic_axes.items()},
        )
    return written.getvalue()


def network_graph(backbone: Backbone, size: tuple[int, int]) -> bytes:
    """Return a backbone's network as a graph, for images of one size.

    Parameters
    ----------
    backbone : Backbone
    size : tuple of int
        Height and width.

    Returns
    -------
    bytes
        From ``x``, (1, 3, height, width), normalised and padded as the network takes
        it, to its taps, each (1, h, w, C).

    Raises
    ------
    BackboneError
        Where the network has what ONNX has not.
    """
    twin = traceable(backbone)
    taps = _Taps(twin.network, twin.run, backbone.channels_first)
    return _written(backbone, taps, torch.zeros(1, 3, *size), dynamic=False)


def stage_graphs(backbone: Backbone) -> tuple[bytes, bytes]:
    """Return the fine and the other stages of a backbone as graphs, for any size.

    Parameters
    ----------
    backbone : Backbone
        With stages.

    Returns
    -------
    fine, coarse : bytes
        From ``x``, (n, C, H, W), to the stages' outputs, each (n, h, w, C).

    Raises
    ------
    BackboneError
    """
    twin = traceable(backbone)
    stages: Any = twin.stages
    first, n = backbone.channels_first, stages.n_fine
    fine = _Taps(twin.network, stages.fine, first[:n])
    coarse = _Taps(twin.network, stages.coarse, first[n:])
    x = torch.zeros(1, 3, *_TRACED)
    with torch.no_grad():
        cells = stages.fine(twin.network, x)[-1]
    return tuple(  # type: ignore[return-value]
        _written(backbone, part, example, dynamic=True)
        for part, example in ((fine, x), (coarse, cells))
    )


class _Taps(nn.Module):
    """Some taps of a network, with their channels last."""

    def __init__(
        self, network: nn.Module, run: Any, channels_first: Sequence[bool]
    ) -> None:
        super().__init__()
        self.network, self.run, self.channels_first = network, run, channels_first

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            out.permute(0, 2, 3, 1) if first else out
            for out, first in zip(
                self.run(self.network, x), self.channels_first, strict=True
            )
        )


def _written(backbone: Backbone, taps: _Taps, x: Tensor, *, dynamic: bool) -> bytes:
    outputs = [f"tap{i}" for i in range(len(taps.channels_first))]
    axes = {"x": {0: "n", 2: "height", 3: "width"}}
    axes |= {name: {i: f"{name}_{i}" for i in range(3)} for name in outputs}
    try:
        return write_graph(taps.eval(), x, "x", outputs, axes if dynamic else {})
    except Exception as error:  # the exporter raises arbitrary exceptions
        reason = str(error).strip().split("\n")[0]
        raise BackboneError(
            f"{backbone.name} cannot be written as an ONNX graph: {reason}; use "
            "engine='torch'"
        ) from error


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
