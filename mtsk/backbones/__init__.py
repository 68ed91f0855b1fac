"""Backbones: frozen networks with taps, by name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from mtsk.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, Tap
from mtsk.backbones.bundled import BUNDLED, bundled_backbone
from mtsk.backbones.catalogue import CATALOGUE, CatalogueEntry
from mtsk.backbones.field import receptive_radius
from mtsk.backbones.hooks import HookedTaps, find_tap_names
from mtsk.backbones.int8 import INT8, int8_backbone
from mtsk.backbones.named import (
    named_backbones,
    timm_backbone,
    torchvision_backbone,
)
from mtsk.exceptions import BackboneError

__all__ = [
    "BUNDLED",
    "CATALOGUE",
    "INT8",
    "Backbone",
    "CatalogueEntry",
    "Tap",
    "choose_device",
    "known_backbones",
    "load_backbone",
    "module_backbone",
    "receptive_radius",
]


def load_backbone(
    backbone: str | nn.Module | Backbone = BUNDLED,
    *,
    weights: str | os.PathLike | None = None,
    weights_sha256: str | None = None,
    taps: Sequence[str] | None = None,
) -> Backbone:
    """Return a backbone by name, or make one of a module.

    A named backbone is loaded once per process and then shared.

    Parameters
    ----------
    backbone : str, torch.nn.Module or Backbone, default="efficientnet_lite0"
        The bundled network, the same in integers of 8 bits
        (``"efficientnet_lite0_int8"``), a short name of `CATALOGUE` such as
        ``"dinov2-small"``, ``"timm:<name>"``, ``"torchvision:<name>"``, or your own.
    weights : path, "random" or None, default=None
        A local file of weights. None takes the bundled ones, or lets timm or
        torchvision download theirs. ``"random"`` leaves the network untrained.
    weights_sha256 : str, optional
        Hash that the file must have.
    taps : sequence of str, optional
        Names of the modules to tap. None takes one or more per stride.

    Returns
    -------
    Backbone

    Raises
    ------
    BackboneError
        On a name or a tap that does not exist.
    WeightsError
        Where weights are missing, damaged, of another hash, or cannot be fetched.

    Examples
    --------
    >>> from mtsk.backbones import load_backbone
    >>> [(tap.channels, tap.stride) for tap in load_backbone().taps][:3]
    [(16, 2), (24, 4), (40, 8)]
    """
    if isinstance(backbone, Backbone | nn.Module) and weights is not None:
        raise BackboneError(
            "`weights` goes with a backbone given by name; load your own module's "
            "weights into it before"
        )
    if isinstance(backbone, Backbone):
        if taps is not None:
            raise BackboneError("`taps` are fixed in a Backbone; give it without them")
        return backbone
    if isinstance(backbone, nn.Module):
        return module_backbone(backbone, taps)
    if not isinstance(backbone, str):
        raise BackboneError(
            "`backbone` must be a name, a torch.nn.Module or a Backbone, "
            f"got {type(backbone).__name__}"
        )
    path = None if weights is None else os.fspath(weights)
    return _load_named(backbone, path, weights_sha256, tuple(taps) if taps else None)


def known_backbones() -> list[str]:
    """Return the names that `load_backbone` knows: bundled, short, then the others.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from mtsk.backbones import known_backbones
    >>> known_backbones()[0]
    'efficientnet_lite0'
    """
    return [BUNDLED, INT8, *CATALOGUE, *named_backbones()]


def module_backbone(
    network: nn.Module,
    taps: Sequence[str] | None = None,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Backbone:
    """Make a backbone of a custom module, which is not copied.

    Parameters
    ----------
    network : torch.nn.Module
        Takes (n, 3, H, W). Run in evaluation mode, whatever its mode is.
    taps : sequence of str, optional
        Modules whose outputs, (n, C, h, w), are taken, as in ``named_modules()``.
        None takes the last one of each stride.
    mean, std : sequence of three float
        Its input is (image − mean) / std for an image in [0, 1]; the default is
        ImageNet's.

    Returns
    -------
    Backbone
    """
    names = list(taps) if taps else find_tap_names(network)
    name = f"{type(network).__module__}.{type(network).__qualname__}"
    return Backbone(name, network, HookedTaps(tuple(names)), names, mean=mean, std=std)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device asked for; "auto" is cuda, then mps, then cpu.

    Warns
    -----
    UserWarning
        Once, of a device other than the CPU: no such machine has tested it.

    Raises
    ------
    BackboneError
        Where the device is unknown or unavailable.
    """
    if device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            device = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
        if chosen.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise BackboneError(
            f"`device`={str(device)!r} cannot be used: {reason}"
        ) from error
    if chosen.type != "cpu":
        _warn_of_experimental(chosen.type)
    return chosen


@lru_cache
def _warn_of_experimental(kind: str) -> None:
    """Warn, once a process, that a kind of device is used that nobody has tested."""
    warnings.warn(
        f"computing on {kind} is experimental: its tests have not been run on a "
        'machine that has it yet; DeepFeatures(device="cpu") is the tested way',
        UserWarning,
        stacklevel=3,
    )


@lru_cache(maxsize=8)
def _load_named(
    name: str, weights: str | None, sha256: str | None, taps: tuple[str, ...] | None
) -> Backbone:
    if name in (BUNDLED, INT8):
        if taps is not None:
            raise BackboneError(
                f"{name} has its taps fixed; for others use "
                'backbone="timm:tf_efficientnet_lite0"'
            )
        if name == BUNDLED:
            return bundled_backbone(weights, sha256)
        if weights not in (None, "random"):
            raise BackboneError(f"{INT8} has its weights fixed; use {BUNDLED!r}")
        return int8_backbone(_load_named(BUNDLED, weights, sha256, None))
    if name in CATALOGUE:
        return timm_backbone(CATALOGUE[name].model, weights, sha256, taps)
    family, _, model = name.partition(":")
    if family == "timm" and model:
        return timm_backbone(model, weights, sha256, taps)
    if family == "torchvision" and model:
        return torchvision_backbone(model, weights, sha256, taps)
    raise BackboneError(
        f"unknown backbone {name!r}: it must be {BUNDLED!r}, {INT8!r}, one of "
        f"{list(CATALOGUE)}, 'timm:<name>', 'torchvision:<name>' or a torch.nn.Module"
    )
