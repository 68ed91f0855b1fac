"""Receptive field of a network."""

from __future__ import annotations

import torch

from mtsk.backbones.base import Backbone

__all__ = ["receptive_radius"]

_LONGEST = 8192  # pixels; a longer field counts as unlimited


def receptive_radius(backbone: Backbone) -> int | None:
    """Return the distance in pixels from a cell to the furthest input it uses.

    Measured: one column of a long strip is changed, and the furthest change of the taps
    is found. This is, up to rounding, the field for which tiles give the same result as
    the whole; Luo et al. (NeurIPS 2016) show that it can be smaller than the one
    computed from kernels and strides.

    Parameters
    ----------
    backbone : Backbone

    Returns
    -------
    int or None
        Pixels of the network's input, to the left or to the right, whichever is more.
        None where every output depends on every input, as with attention or pooling of
        the whole image.
    """
    length = 1024
    while length <= _LONGEST:
        radius = _radius_in(backbone, length)
        if radius is not None:
            return radius
        length *= 2
    return None


@torch.inference_mode()
def _radius_in(backbone: Backbone, length: int) -> int | None:
    """Return the radius measured on a strip, None where the strip is too short."""
    device = backbone.device
    side = max(64, 2 * backbone.multiple)
    generator = torch.Generator().manual_seed(0)
    plain = torch.rand(1, 3, side, length, generator=generator)
    changed = plain.clone()
    middle = length // 2
    changed[..., middle] = 1 - changed[..., middle]
    radius = 0
    pairs = zip(
        backbone.taps,
        backbone(plain.to(device)),
        backbone(changed.to(device)),
        strict=True,
    )
    for tap, before, after in pairs:
        cells = torch.nonzero((before != after).any(dim=3))
        if not len(cells):
            continue
        columns = cells[:, -1]
        if columns.min() == 0 or columns.max() == before.shape[2] - 1:
            return None
        centres = columns * tap.stride + (tap.stride - 1) / 2
        radius = max(radius, int((centres - middle).abs().max()) + tap.stride)
    return radius
