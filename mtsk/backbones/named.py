"""Backbones by name, from timm and torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor, nn

from mtsk.backbones.base import Backbone
from mtsk.backbones.fold import fold_batch_norm
from mtsk.backbones.hooks import HookedTaps, find_tap_names
from mtsk.backbones.weights import check_reachable, load_state, read_weights
from mtsk.exceptions import BackboneError, WeightsError

__all__ = [
    "cached_weights",
    "import_timm",
    "named_backbones",
    "network_size",
    "timm_backbone",
    "torchvision_backbone",
    "weights_config",
]

_VIT_TAPS = 4
_ODD = 98, 131  # pixels; no stride divides both


def import_timm() -> ModuleType:
    """Import timm, or raise with the reason."""
    import_torchvision()
    import timm

    return timm


def import_torchvision() -> ModuleType:
    """Import torchvision, or raise with the reason."""
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise BackboneError(
            f"torchvision cannot be imported beside torch {torch.__version__} "
            f"({error}). The two belong together: a CPU-only torch beside PyPI's "
            "torchvision does not work. Reinstall both from one place: "
            "pip install --force-reinstall torch torchvision"
        ) from error
    return torchvision


def named_backbones() -> list[str]:
    """Return the names of all networks of timm and torchvision."""
    models = import_torchvision().models
    return [
        *(f"timm:{name}" for name in import_timm().list_models()),
        *(f"torchvision:{name}" for name in models.list_models(module=models)),
    ]


def network_size(name: str) -> int:
    """Return how many numbers a network of timm or torchvision has; builds none.

    Parameters
    ----------
    name : str
        ``"timm:<name>"`` or ``"torchvision:<name>"``.

    Returns
    -------
    int
        Of parameters and buffers; 0 where there is no network of that name.
    """
    family, _, model = name.partition(":")
    try:
        with torch.device("meta"):  # shapes without memory
            if family == "timm":
                network: Any = import_timm().create_model(model)
            else:
                network = import_torchvision().models.get_model(model, weights=None)
    except Exception:  # of many kinds, for a name that is none
        return 0
    return sum(tensor.numel() for tensor in network.state_dict().values())


def weights_config(model: str) -> Any:
    """Return what timm knows of a model's weights, such as licence and repository."""
    import_timm()
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(model)
    if config is None:
        raise BackboneError(f"timm has no weights for {model!r}")
    return config


def cached_weights(model: str) -> Path | None:
    """Return the file of a timm model's weights in the local cache; None if not there.

    Parameters
    ----------
    model : str
        timm's name, with or without a tag.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    repository = weights_config(model).hf_hub_id
    if not repository:
        return None
    for file in (constants.SAFETENSORS_SINGLE_FILE, constants.PYTORCH_WEIGHTS_NAME):
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def timm_backbone(
    name: str, weights: str | None, sha256: str | None, taps: tuple[str, ...] | None
) -> Backbone:
    """Return a timm model, convolutional or transformer, with its stages as taps."""
    timm = import_timm()
    if name not in timm.list_models():
        known = timm.list_models()
        if name.split(".")[0] not in known:
            close = get_close_matches(name, known, n=8, cutoff=0.4)
            hint = f"; close to it: {close}" if close else ""
            raise BackboneError(f"timm has no model {name!r}{hint}")
    arguments = _any_size_arguments(timm, name)
    network = _create(
        lambda **kw: timm.create_model(name, **arguments, **kw),
        f"timm:{name}",
        weights,
        sha256,
        None if weights is not None or cached_weights(name) else _timm_url(name),
    )
    config = network.pretrained_cfg
    multiple = _patch_size(network)
    try:
        names, forward = _timm_taps(network, taps)
        if multiple == 1:
            network = fold_batch_norm(network, keep=taps or (), taps=forward)
            multiple = _least_multiple(network)
        network = network.to(memory_format=torch.channels_last)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise BackboneError(
            f"timm:{name} takes images of {_sides(config['input_size'])} pixels only, "
            f"and mtsk those of any size: {str(error).splitlines()[0]}"
        ) from error
    make = partial(
        Backbone,
        f"timm:{name}",
        network,
        forward,
        names,
        mean=config["mean"],
        std=config["std"],
    )
    if multiple == 1:
        backbone = make()
        if _sees_every_pixel(backbone):
            return backbone
        multiple = max(tap.stride for tap in backbone.taps)
    return make(multiple=multiple, probe=max(8, -(-128 // multiple)) * multiple)


def torchvision_backbone(
    name: str, weights: str | None, sha256: str | None, taps: tuple[str, ...] | None
) -> Backbone:
    """Return a torchvision classification model, with one tap per stride."""
    models = import_torchvision().models
    if name not in models.list_models(module=models):
        raise BackboneError(
            f"torchvision has no classification model {name!r}; it has "
            f"{models.list_models(module=models)[:8]} and more"
        )
    network = _create(
        lambda pretrained: models.get_model(
            name, weights="DEFAULT" if pretrained else None
        ),
        f"torchvision:{name}",
        weights,
        sha256,
        _torchvision_url(models, name),
    )
    names = list(taps) if taps else find_tap_names(network)
    network = fold_batch_norm(network, keep=names)
    network = network.to(memory_format=torch.channels_last)
    return Backbone(f"torchvision:{name}", network, HookedTaps(tuple(names)), names)


def _timm_url(name: str) -> str:
    """Return where timm would fetch weights from."""
    from huggingface_hub import constants

    config = weights_config(name)
    return str(constants.ENDPOINT if config.hf_hub_id else config.url)


def _torchvision_url(models: ModuleType, name: str) -> str | None:
    """Return where torchvision would fetch weights from; None if they are here."""
    url = models.get_model_weights(name).DEFAULT.url
    here = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    return None if here.exists() else str(url)


def _create(
    build: Any, name: str, weights: str | None, sha256: str | None, url: str | None
) -> Any:
    """Build a network with downloaded, local or random weights.

    ``url`` is where they would be fetched from; None where they need not be.
    """
    if weights is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build(pretrained=False).eval()
        if weights != "random":
            load_state(network, read_weights(weights, sha256), weights)
        return network
    try:
        if url is not None:
            check_reachable(url)
        return build(pretrained=True).eval()
    except Exception as error:  # hubs raise errors of many libraries
        raise WeightsError(
            f"the weights of {name} could not be downloaded "
            f"({_reason(error)}). Without a network, put the model's .pth or "
            '.safetensors file on this machine and pass weights="/path/to/file" '
            '(or weights="random" for an untrained network)'
        ) from error


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, WeightsError) else type(error).__name__


def _any_size_arguments(timm: ModuleType, name: str) -> dict[str, Any]:
    """Return the arguments by which a model takes images of any size, if any."""
    for arguments in ({"dynamic_img_size": True}, {"strict_img_size": False}):
        try:
            timm.create_model(name, **arguments)
        except TypeError:
            continue
        return arguments
    return {}


@torch.inference_mode()
def _least_multiple(network: nn.Module) -> int:
    """Return 1, or 32 for networks whose branches need multiples of it."""
    try:
        network(torch.zeros(1, 3, *_ODD))
    except (RuntimeError, AssertionError):
        return 32
    return 1


def _sees_every_pixel(backbone: Backbone) -> bool:
    """Return whether the taps' cells reach the border of an image of any size.

    Convolutions without padding take as many whole patches as there are: up to 31
    columns of pixels would not be seen by the coarsest stage.
    """
    return all(
        out.shape[1:3] == (-(-_ODD[0] // tap.stride), -(-_ODD[1] // tap.stride))
        for tap, out in zip(
            backbone.taps, backbone(torch.zeros(1, 3, *_ODD)), strict=True
        )
    )


def _patch_size(network: nn.Module) -> int:
    embed = getattr(network, "patch_embed", None)
    size = getattr(embed, "patch_size", 1)
    return int(np.max(size)) if hasattr(network, "blocks") and embed is not None else 1


def _timm_taps(network: Any, taps: tuple[str, ...] | None) -> tuple[list[str], Any]:
    if taps:
        return list(taps), HookedTaps(tuple(taps))
    if not hasattr(network, "forward_intermediates"):
        names = [info["module"] for info in network.feature_info]
        return names, HookedTaps(tuple(names))
    indices = None
    if _patch_size(network) > 1:  # every block has the same stride: take four, evenly
        depth = len(network.blocks)
        indices = [(i + 1) * depth // _VIT_TAPS - 1 for i in range(_VIT_TAPS)]

    forward = _Intermediates(None if indices is None else tuple(indices))
    with torch.inference_mode():
        size = 8 * max(8, _patch_size(network))
        count = len(forward(network, torch.zeros(1, 3, size, size)))
    chosen = indices if indices is not None else range(count)
    return [f"stage{i}" for i in chosen], forward


@dataclass(frozen=True)
class _Intermediates:
    """Returns the outputs of some or all stages of a timm model."""

    indices: tuple[int, ...] | None

    def __call__(self, network: Any, x: Tensor) -> list[Tensor]:
        indices = None if self.indices is None else list(self.indices)
        return network.forward_intermediates(x, indices, intermediates_only=True)
