"""Which parameters of a backbone are trained with a decoder."""

from __future__ import annotations

import torch
from torch import nn

from mtsk.backbones import Backbone
from mtsk.exceptions import BackboneError

__all__ = ["trainable"]

_PROBE = 64  # pixels


def trainable(backbone: Backbone, which: str) -> list[nn.Parameter]:
    """Enable gradients of some parameters, and return them.

    Parameters
    ----------
    backbone : Backbone
        Its parameters that do not shape a tap are left out.
    which : {"last", "all"}
        ``"last"``: those that only the taps of the largest stride depend on.

    Returns
    -------
    list of Parameter

    Raises
    ------
    BackboneError
        Where it has none.
    """
    if next(backbone.network.parameters(), None) is None:
        raise BackboneError(f"{backbone.name} has nothing that `finetune` could train")
    for weight in backbone.network.parameters():
        weight.requires_grad_(True)
    coarsest = max(tap.stride for tap in backbone.taps)
    finer = [tap.stride < coarsest for tap in backbone.taps]
    every = _reached(backbone, [True] * len(finer))
    if which == "last" and any(finer):
        every -= _reached(backbone, finer)
    chosen = [p for p in backbone.network.parameters() if id(p) in every]
    for weight in backbone.network.parameters():
        weight.requires_grad_(id(weight) in every)
    return chosen


def _reached(backbone: Backbone, which: list[bool]) -> set[int]:
    """Return the ids of the parameters that some taps depend on."""
    weights = list(backbone.network.parameters())
    side = max(_PROBE, *(tap.stride for tap in backbone.taps), backbone.multiple)
    images = torch.rand(1, 3, side, side, device=weights[0].device)
    taps = backbone.trace(images)
    total = sum(tap.sum() for tap, wanted in zip(taps, which, strict=True) if wanted)
    slopes = torch.autograd.grad(total, weights, allow_unused=True)  # type: ignore[arg-type]
    return {
        id(w) for w, slope in zip(weights, slopes, strict=True) if slope is not None
    }
