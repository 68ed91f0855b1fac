"""A network of stages, each of which processes an image in strips.

Inside, a stage has six times its input's channels, the first ones at half and a quarter
of the image's sides: unsplit, these take nearly all the memory of a pass. But the
receptive field of a stage is a few cells, so it can run on strips of rows, each with a
margin. That of the fine stages together is so small that they can also process a large
image in parts; the coarse ones process all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["StagedForward", "Stages", "room_for"]


@runtime_checkable
class StagedForward(Protocol):
    """Runs a network whose fine stages may process parts of an image."""

    def __call__(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the outputs of all stages."""

    def fine(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the outputs of the fine stages."""

    def coarse(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the outputs of the other stages, from that of the last fine one."""

    @property
    def n_fine(self) -> int:
        """Number of stages that may process parts of an image."""

    @property
    def halo(self) -> int:
        """Margin of a part that they need, in pixels."""

    @property
    def stride(self) -> int:
        """Stride of the last of them."""


@dataclass(frozen=True)
class Stages:
    """Runs the stem and the stages of one of timm's EfficientNets; gives every stage.

    Attributes
    ----------
    n_fine : int
        Number of stages that may process parts of an image.
    halo : int
        Margin of a part that they need, in pixels, a multiple of ``stride``.
    stride : int
        Stride of the last of them. The image's sides, and those of parts, must be
        multiples of twice this.
    radii : tuple of int
        Receptive radius of each stage, the first with the stem, in cells of its input
        (pixels for the first); even.
    cells : int, default=30000
        Cells that a stage processes at once, on a CPU: 12 MB within the second.
    min_radii : int, default=8
        Minimum rows of a strip, in radii: a quarter more is computed than kept.
    """

    n_fine: int
    halo: int
    stride: int
    radii: tuple[int, ...]
    cells: int = 30_000
    min_radii: int = 8

    def __call__(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the outputs of all stages.

        Parameters
        ----------
        network : torch.nn.Module
            With ``conv_stem``, ``bn1`` and ``blocks``.
        x : Tensor of shape (n, 3, H, W)

        Returns
        -------
        list of Tensor of shape (n, C, h, w)
        """
        outputs = self.fine(network, x)
        return outputs + self.coarse(network, outputs[-1])

    def fine(self, network: Any, x: Tensor) -> list[Tensor]:
        """Return the outputs of the fine stages.

        Parameters
        ----------
        network : torch.nn.Module
        x : Tensor of shape (n, 3, H, W)

        Returns
        -------
        list of Tensor of shape (n, C, h, w)
        """
        first = nn.Sequential(network.conv_stem, network.bn1, network.blocks[0])
        x = _by_rows(
            first, x, self.radii[0], 4 * self.cells, self.min_radii
        )  # halved at once
        rest = slice(1, self.n_fine)
        return [x, *self._one_after_another(network, rest, x)]

    def coarse(self, network: Any, x: Tensor) -> list[Tensor]:
        """Return the outputs of the other stages, from that of the last fine one.

        Parameters
        ----------
        network : torch.nn.Module
        x : Tensor of shape (n, C, h, w)

        Returns
        -------
        list of Tensor of shape (n, C, h, w)
        """
        return self._one_after_another(network, slice(self.n_fine, None), x)

    def _one_after_another(self, network: Any, some: slice, x: Tensor) -> list[Tensor]:
        outputs = []
        for stage, radius in zip(network.blocks[some], self.radii[some], strict=True):
            x = _by_rows(stage, x, radius, self.cells, self.min_radii)
            outputs.append(x)
        return outputs


_MORE_ON_GPU = 64


def _by_rows(
    stage: nn.Module, x: Tensor, radius: int, cells: int, min_radii: int
) -> Tensor:
    """Run a stage in strips of rows, where it would exceed ``cells``."""
    n, _, height, width = x.shape
    cells *= 1 if x.device.type == "cpu" else _MORE_ON_GPU
    n_strips = -(-height // max(cells // (n * width), radius * min_radii))
    if torch.is_grad_enabled() or n_strips == 1:
        return stage(x)
    rows = -(-height // (2 * n_strips)) * 2  # strides of two start at even rows
    whole: Tensor | None = None
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(0, top - radius), min(height, bottom + radius)
        part = stage(x[:, :, first:last])
        step = 1 if part.shape[2] == last - first else 2
        if whole is None:
            whole = room_for(part, -(-height // step))
        inner = part[:, :, (top - first) // step : -(-(bottom - first) // step)]
        whole[:, :, top // step : -(-bottom // step)] = inner
    assert whole is not None
    return whole


def room_for(part: Tensor, height: int) -> Tensor:
    """Return an empty tensor for the whole, in the memory order of a strip."""
    n, channels, _, width = part.shape
    return torch.empty(
        (n, channels, height, width),
        dtype=part.dtype,
        device=part.device,
        memory_format=torch.channels_last,
    )
