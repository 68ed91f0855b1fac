"""A network of stages, whose fine ones see large images part by part.

The first stages hold nearly all the memory of a pass, at half and a quarter of the
image's sides, and look only a few pixels around. So they can see an image in parts,
each with what surrounds it; the coarse stages, which look far, see it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Stages"]


@dataclass(frozen=True)
class Stages:
    """Runs the stem and the stages of one of timm's EfficientNets; gives every stage.

    Attributes
    ----------
    n_fine : int
        Stages that may see parts.
    halo : int
        Pixels around a part that they need, a multiple of ``stride``.
    stride : int
        Of the last of them. The image's sides, and those of parts, must be multiples
        of twice this.
    reach : tuple of int
        Of each coarse stage: cells of its input that it looks beyond its own; even.
    """

    n_fine: int
    halo: int
    stride: int
    reach: tuple[int, ...]

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
        if torch.is_grad_enabled() or x.shape[0] * x.shape[2] * x.shape[3] <= _MOST:
            outputs = self.fine(network, x)
        else:
            outputs = self._in_strips(network, x)
        return outputs + self.coarse(network, outputs[-1])

    def fine(self, network: Any, x: Tensor) -> list[Tensor]:
        """Return the outputs of the stages that may see parts.

        Parameters
        ----------
        network : torch.nn.Module
        x : Tensor of shape (n, 3, H, W)

        Returns
        -------
        list of Tensor of shape (n, C, h, w)
        """
        x = network.bn1(network.conv_stem(x))
        outputs = []
        for stage in network.blocks[: self.n_fine]:
            x = stage(x)
            outputs.append(x)
        return outputs

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
        outputs: list[Tensor] = []
        stages = network.blocks[self.n_fine :]
        for stage, reach in zip(stages, self.reach, strict=True):
            x = _by_rows(stage, x, reach)
            outputs.append(x)
        return outputs

    def _in_strips(self, network: Any, x: Tensor) -> list[Tensor]:
        n, _, height, width = x.shape
        unit = 2 * self.stride
        room = _STRIP // (n * width) - 2 * self.halo
        rows = max(unit, room // unit * unit)
        whole: list[Tensor] = []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(0, top - self.halo), min(height, bottom + self.halo)
            parts = self.fine(network, x[:, :, first:last])
            if not whole:
                whole = [_empty(part, height, last - first) for part in parts]
            for all_of_it, part in zip(whole, parts, strict=True):
                step = (last - first) // part.shape[2]
                inner = slice((top - first) // step, (bottom - first) // step)
                all_of_it[:, :, top // step : bottom // step] = part[:, :, inner]
        return whole


_MOST, _STRIP = 1_500_000, 1_000_000  # pixels that fine stages see at once
_STRIP_CELLS = 60_000  # that a coarse stage sees at once


def _by_rows(stage: nn.Module, x: Tensor, reach: int) -> Tensor:
    """Run a coarse stage, which has six times its input's channels within.

    In strips of rows, where that would be much.
    """
    n, _, height, width = x.shape
    rows = _STRIP_CELLS // (n * width) // 2 * 2
    if torch.is_grad_enabled() or rows >= height:
        return stage(x)
    rows = max(2, rows)
    parts = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(0, top - reach), min(height, bottom + reach)
        part = stage(x[:, :, first:last])
        step = 1 if part.shape[2] == last - first else 2
        parts.append(part[:, :, (top - first) // step : -(-(bottom - first) // step)])
    return torch.cat(parts, dim=2)


def _empty(part: Tensor, height: int, part_height: int) -> Tensor:
    """Return room for what a part is of the whole, in its order in memory."""
    n, channels, rows, columns = part.shape
    size: Sequence[int] = (n, channels, height * rows // part_height, columns)
    return torch.empty(
        size,
        dtype=part.dtype,
        device=part.device,
        memory_format=torch.channels_last,
    )
