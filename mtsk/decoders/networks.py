"""Decoder networks: from taps to scores of every task on one coarse grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtsk.features.interpolation import interpolate_at
from mtsk.tasks.columns import ColumnGroup

__all__ = ["FCN", "Decoder", "TapInfo", "UNet"]


@dataclass(frozen=True)
class TapInfo:
    """Properties of a tap by which a decoder is built.

    Attributes
    ----------
    channels : int
    stride : float
        Pixels of the image per cell, at least the decoder's own stride.
    """

    channels: int
    stride: float


class Residual(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut (He et al., CVPR 2016)."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Decoder(nn.Module):
    """Base of the architectures: standardised taps in, a small output per task.

    Parameters
    ----------
    taps : sequence of TapInfo
    stride : int
        Pixels per cell of the scores.
    width : int
        Channels that all tasks share.
    dropout : float
        Dropout rate of whole channels (Tompson et al., CVPR 2015).
    pixel, image : sequence of ColumnGroup
        Each gets an output layer: a 1 × 1 convolution, or a layer over the means of
        the taps, of the shared channels, and of these over the area of each class of
        the pixel tasks, and the maximum logit of each class.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        taps: Sequence[TapInfo],
        stride: int,
        width: int,
        dropout: float,
        pixel: Sequence[ColumnGroup],
        image: Sequence[ColumnGroup],
    ) -> None:
        super().__init__()
        self.stride, self.width = stride, width
        n_channels = sum(tap.channels for tap in taps)
        self.register_buffer("mean", torch.zeros(n_channels))
        self.register_buffer("scale", torch.ones(n_channels))
        self.sizes = [tap.channels for tap in taps]
        self.dropout = nn.Dropout2d(dropout)
        self.maps = nn.ModuleList(nn.Conv2d(width, group.size, 1) for group in pixel)
        self.corrections = nn.ModuleList()
        self.summary = self.by_class = None
        if image:
            self.summary = nn.Sequential(
                nn.Linear(n_channels, width), nn.ReLU(), nn.Dropout(dropout)
            )
        self.kinds = [group.kind for group in pixel]
        n_classes = sum(group.size for group in pixel if group.kind != "real")
        if n_classes and image:
            self.by_class = nn.Sequential(
                nn.Linear(n_classes * (width + 1), width),
                nn.ReLU(),
                nn.Dropout(dropout),
            )
        n_summaries = 2 * width if self.by_class is None else 3 * width + n_classes
        self.labels = nn.ModuleList(
            nn.Linear(n_summaries, group.size) for group in image
        )

    def trunk(self, taps: list[Tensor], strides: Strides, shape: Size) -> Tensor:
        """Return the shared channels (n, width, h, w)."""
        raise NotImplementedError

    def refine(
        self,
        shared: Tensor,
        maps: list[Tensor],
        taps: list[Tensor],
        strides: Strides,
        shape: Size,
    ) -> list[Tensor]:
        """Return score maps at the decoder's stride, given those of the trunk."""
        return maps

    def forward(
        self, taps: Sequence[Tensor], strides: Strides, shape: Size
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return score maps of the pixel groups and scores of the image groups.

        Parameters
        ----------
        taps : sequence of Tensor of shape (n, C, h, w)
        strides : sequence of (float, float)
            Pixels per cell, down and across, of each tap.
        shape : (int, int)
            Shape of the images, in pixels.

        Returns
        -------
        maps : list of Tensor of shape (n, size, ceil(H / stride), ceil(W / stride))
        labels : list of Tensor of shape (n, size)
        """
        taps = [
            ((tap - mean[:, None, None]) * scale[:, None, None]).clamp(-_FAR, _FAR)
            for tap, mean, scale in zip(
                taps,
                self.mean.split(self.sizes),
                self.scale.split(self.sizes),
                strict=True,
            )
        ]
        shared = self.trunk(taps, strides, shape)
        maps = [layer(self.dropout(shared)).float() for layer in self.maps]
        finer = self.refine(shared, maps, taps, strides, shape)
        if self.summary is None:
            return finer, []
        means = torch.cat([tap.mean(dim=(2, 3)) for tap in taps], dim=1)
        whole = [self.summary(means), shared.mean(dim=(2, 3))]
        if self.by_class is not None:
            covered, peaks = self._over_classes(shared, maps)
            whole += [self.by_class(covered), peaks]
        joined = torch.cat(whole, dim=1)
        return finer, [layer(joined).float() for layer in self.labels]

    def _over_classes(
        self, shared: Tensor, maps: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return features of the classes' areas, (n, numbers), and maximum logits.

        For every class the root of its area (more sensitive to small areas) and the
        mean of the shared channels over it; and the logit of its maximum probability,
        which indicates whether the class is present. The maps are detached: labels of
        whole images do not train them.
        """
        squash = {"nominal": lambda m: m.softmax(dim=1), "binary": torch.sigmoid}
        cover = torch.cat(
            [
                squash[kind](plane.detach())
                for kind, plane in zip(self.kinds, maps, strict=True)
                if kind != "real"
            ],
            dim=1,
        )
        area = cover.mean(dim=(2, 3))
        covered = torch.einsum("nkhw,nchw->nkc", cover, shared.to(cover))
        cells = cover.shape[2] * cover.shape[3]
        means = covered / (area * cells + 1)[..., None]
        peaks = torch.logit(cover.amax(dim=(2, 3)), eps=_SURE)
        return torch.cat([area.sqrt(), means.flatten(1)], dim=1), peaks

    def receptive_radius(self) -> int:
        """Return the distance in pixels from a score to its furthest tap cell."""
        raise NotImplementedError

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that all tasks share, those of the last layer last."""
        parts = (self.maps, self.labels, self.corrections, self.summary, self.by_class)
        own = {id(p) for part in parts if part is not None for p in part.parameters()}
        return [p for p in self.parameters() if id(p) not in own]


class FCN(Decoder):
    """A fully convolutional decoder (Long, Shelhamer & Darrell, CVPR 2015).

    A 1 × 1 convolution of each tap, summed on one grid into a hidden layer over
    hypercolumns (Hariharan et al., CVPR 2015), then residual blocks with dilations 1,
    2, 4, … (Yu & Koltun, ICLR 2016), all at twice the stride. Finer taps add their
    scores to these, as the skips of Long et al. do.
    """

    def __init__(
        self,
        taps: Sequence[TapInfo],
        stride: int,
        width: int,
        n_blocks: int,
        dropout: float,
        pixel: Sequence[ColumnGroup],
        image: Sequence[ColumnGroup],
    ) -> None:
        super().__init__(taps, stride, width, dropout, pixel, image)
        self.coarse = 2 * stride
        self.laterals = nn.ModuleList(
            nn.Conv2d(tap.channels, 2 * width, 1, bias=False) for tap in taps
        )
        self.squeeze = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(2 * width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(*(Residual(width, 2**i) for i in range(n_blocks)))
        narrow = -(-width // 2)
        self.fine = [i for i, tap in enumerate(taps) if tap.stride < self.coarse]
        self.skips = nn.ModuleList(
            nn.Conv2d(taps[i].channels, narrow, 1, bias=False) for i in self.fine
        )
        self.context = nn.Conv2d(width, narrow, 1, bias=False)
        self.sharpen = nn.Sequential(
            nn.BatchNorm2d(narrow), nn.ReLU(), Residual(narrow)
        )
        self.corrections = nn.ModuleList(
            nn.Conv2d(narrow, group.size, 1) for group in pixel
        )

    def trunk(self, taps: list[Tensor], strides: Strides, shape: Size) -> Tensor:
        size = cells(shape, self.coarse)
        grids: dict[tuple, Tensor] = {}
        for layer, tap, stride in zip(self.laterals, taps, strides, strict=True):
            if stride[0] < self.coarse:  # fewer cells to convolve
                tap = resample(tap, stride, self.coarse, size)
                stride = (self.coarse, self.coarse)
            grid = (*tap.shape[2:], *stride)
            grids[grid] = grids[grid] + layer(tap) if grid in grids else layer(tap)
        parts = [
            resample(plane, grid[2:], self.coarse, size)
            for grid, plane in grids.items()
        ]
        return self.blocks(self.squeeze(_sum(parts)))

    def receptive_radius(self) -> int:
        blocks = sum(2**i + 1 for i in range(len(self.blocks)))
        return self.coarse * (blocks + 2) + 3 * self.stride

    def refine(
        self,
        shared: Tensor,
        maps: list[Tensor],
        taps: list[Tensor],
        strides: Strides,
        shape: Size,
    ) -> list[Tensor]:
        if not maps:
            return []
        size, coarse = cells(shape, self.stride), (self.coarse, self.coarse)
        parts = [resample(self.context(shared), coarse, self.stride, size)]
        for layer, i in zip(self.skips, self.fine, strict=True):
            parts.append(resample(layer(taps[i]), strides[i], self.stride, size))
        sharp = self.sharpen(_sum(parts))
        return [
            resample(plane, coarse, self.stride, size) + layer(sharp).float()
            for plane, layer in zip(maps, self.corrections, strict=True)
        ]


class UNet(Decoder):
    """From the coarsest taps to the finest, each stride adding its own.

    The expanding path of the U-Net (Ronneberger, Fischer & Brox, MICCAI 2015), with
    sums in place of concatenation (Lin et al., CVPR 2017) and residual blocks.
    """

    def __init__(
        self,
        taps: Sequence[TapInfo],
        stride: int,
        width: int,
        n_blocks: int,
        dropout: float,
        pixel: Sequence[ColumnGroup],
        image: Sequence[ColumnGroup],
    ) -> None:
        super().__init__(taps, stride, width, dropout, pixel, image)
        self.laterals = nn.ModuleList(
            nn.Conv2d(tap.channels, width, 1, bias=False) for tap in taps
        )
        found = {octave(tap.stride / stride) for tap in taps} | {0}
        self.levels = sorted(found, reverse=True)
        self.level_of = [octave(tap.stride / stride) for tap in taps]
        self.entries = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()) for _ in self.levels
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(Residual(width) for _ in range(n_blocks)))
            for _ in self.levels
        )

    def receptive_radius(self) -> int:
        convolutions = 2 * len(self.blocks[0])  # type: ignore[arg-type]
        return sum(self.stride * 2**level * (convolutions + 1) for level in self.levels)

    def trunk(self, taps: list[Tensor], strides: Strides, shape: Size) -> Tensor:
        size = cells(shape, self.stride)
        above: Tensor | None = None
        before = 0.0
        for level, entry, block in zip(
            self.levels, self.entries, self.blocks, strict=True
        ):
            step = float(self.stride * 2**level)
            wanted = cells(size, 2**level)
            parts = [
                resample(layer(tap), its, step, wanted)
                for layer, tap, its, own in zip(
                    self.laterals, taps, strides, self.level_of, strict=True
                )
                if own == level
            ]
            if above is not None:
                parts.append(resample(above, (before, before), step, wanted))
            joined = _sum(parts)
            above, before = block(self.dropout(entry(joined))), step
        assert above is not None
        return above


Strides = Sequence[tuple[float, float]]
Size = tuple[int, int]
_SURE = 1e-3  # probabilities are clipped to this distance from 0 and 1
_FAR = 10.0  # standard deviations; larger values are clipped


def octave(ratio: float) -> int:
    """Return the nearest power of two, as its exponent, at least 0."""
    return max(0, round(torch.tensor(ratio).log2().item()))


def cells(shape: Size, stride: int) -> Size:
    """Return how many cells cover an image."""
    # Of positive numbers: an ONNX graph, which this is traced to, rounds towards 0.
    return (shape[0] + stride - 1) // stride, (shape[1] + stride - 1) // stride


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Add planes one by one: stacking them first would copy them all."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def resample(x: Tensor, stride: Sequence[float], target: float, size: Size) -> Tensor:
    """Interpolate (n, C, h, w) from cells of one stride to those of another.

    Cell i of stride s is centred on pixel s·i + (s − 1)/2, as in FeatureMaps, which
    `torch.nn.functional.interpolate` does not support where a last cell reaches beyond
    the image.
    """
    down, across = (s / target for s in stride)
    same_stride = isinstance(down, float) and (down, across) == (1, 1)
    if torch.jit.is_tracing():  # sizes, and strides that follow from them, are tensors
        return x if same_stride else _interpolate(x, down, across, size)
    same_size = [n == m for n, m in zip(x.shape[2:], size, strict=True)]
    if same_stride and all(same_size):
        return x
    if any(same_size):  # where torch copies, whatever the strides
        return _interpolate(x, down, across, size)
    return torch.ops.aten.upsample_bilinear2d(x, list(size), False, down, across)


def _interpolate(x: Tensor, down: Any, across: Any, size: Any) -> Tensor:
    """Do what `resample` does, at places in cells."""
    rows, columns = (
        (torch.arange(n, device=x.device) + 0.5) / factor - 0.5
        for n, factor in zip(size, (down, across), strict=True)
    )
    return interpolate_at(x, rows, columns)
