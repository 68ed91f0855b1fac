"""Networks of a model: those that anyone can get stay outside its file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from sklearn.base import BaseEstimator
from torch import Tensor, nn

from mtsk.backbones import Backbone, load_backbone, module_backbone
from mtsk.backbones.named import network_size
from mtsk.backbones.weights import load_state
from mtsk.exceptions import ModelFileError, MtskError, WeightsError
from mtsk.features import DeepFeatures

__all__ = ["check_networks", "restore_networks", "extract_networks"]

_PLACE = "of this file: "  # what stands for a network that is in the file


def extract_networks(model: Any) -> tuple[Any, list[dict[str, Any]], list[Backbone]]:
    """Return a model that holds no network and no cache, and the networks.

    A network that has a name, and the weights that go with the name, is not among
    these. The model itself is left as it is.

    Parameters
    ----------
    model : object

    Returns
    -------
    model : object
    about : list of dict
        What must be known of each network but its weights.
    networks : list of Backbone
    """
    found: dict[str, Backbone] = {}

    def without(features: DeepFeatures) -> DeepFeatures:
        twin = copy.copy(features)
        twin.cache = None
        known = features.weights is None or features.weights == "random"
        if not (isinstance(features.backbone, str) and known):
            network = features.network()
            found.setdefault(network.digest, network)
            twin.backbone = f"{_PLACE}{list(found).index(network.digest)}"
            twin.weights = twin.weights_sha256 = twin.taps = None
        return twin

    portable = _replaced(model, without)
    networks = list(found.values())
    return portable, [_about(network) for network in networks], networks


def restore_networks(
    model: Any,
    about: Collection[Mapping[str, Any]],
    states: Collection[Mapping[str, Tensor]],
    allow: Collection[str],
    given: Any,
    name: str,
) -> Any:
    """Return the model with its networks.

    Parameters
    ----------
    model, about
        As of `extract_networks`.
    states : collection of dict of str to Tensor
        Weights of each network.
    allow : collection of str
        Import paths of modules that may be made.
    given : torch.nn.Module, Backbone or None
        A network that the caller brings.
    name : str
        How messages call the file.
    """
    if given is not None and all(_is_named(note["name"]) for note in about):
        raise ModelFileError(
            f"{name} holds no network of your own: leave out backbone="
        )
    networks = [
        _restored(note, state, allow, given, name)
        for note, state in zip(about, states, strict=True)
    ]

    def filled(features: DeepFeatures) -> DeepFeatures:
        twin = copy.copy(features)
        twin.cache = None
        if isinstance(features.backbone, str) and features.backbone.startswith(_PLACE):
            number = features.backbone.removeprefix(_PLACE)
            if not number.isdigit() or int(number) >= len(networks):
                raise ModelFileError(f"{name} lacks a network of the model's")
            twin.backbone = networks[int(number)]
        return twin

    return _replaced(model, filled)


def check_networks(model: Any, name: str) -> None:
    """Make sure that networks outside the file are those the model was fitted with.

    Raises
    ------
    WeightsError
    """
    for features in _all_features(model):
        expected = getattr(features, "backbone_digest_", None)
        if expected is None:
            continue
        got = features.network().digest
        if got != expected:
            raise WeightsError(
                f"{name} was made with a network {features.backbone!r} whose weights "
                f"have SHA-256 {expected[:12]}…, and here they have {got[:12]}…: "
                "install the versions that the file's card names (`mtsk describe`)"
            )


def _about(network: Backbone) -> dict[str, Any]:
    return {
        "name": network.name,
        "digest": network.digest,
        "taps": [tap.name for tap in network.taps],
        "mean": list(network.mean),
        "std": list(network.std),
    }


def _restored(
    note: Mapping[str, Any],
    state: Mapping[str, Tensor],
    allow: Collection[str],
    given: Any,
    name: str,
) -> Backbone:
    path = note["name"]
    if _is_named(path):
        _check_size(path, state, name)
        network = _named(path, note["taps"])
    elif isinstance(given, Backbone):
        network = given.copy()
    elif isinstance(given, nn.Module):  # a copy: a tuned model has two of a kind
        network = _own(copy.deepcopy(given), note, name)
    elif path in allow:
        network = _own(_make(path, name), note, name)
    else:
        raise ModelFileError(
            f"{name} was made with a network of your own, {path}: pass it as "
            f"backbone=, or allow=[{path!r}] where it is made without arguments"
        )
    try:
        load_state(network.network, dict(state), f"of {name}")
    except MtskError as error:
        raise ModelFileError(f"{error}; the network given is another one") from error
    network.renew_digest()
    if network.digest != note["digest"]:
        raise ModelFileError(
            f"{name}: a network's weights are not those it was saved with"
        )
    return network


def _check_size(path: str, state: Mapping[str, Tensor], name: str) -> None:
    """Refuse to build a large network for a file that holds next to nothing of it."""
    there = sum(tensor.numel() for tensor in state.values())
    needed = network_size(path) if ":" in path else 0
    if needed > _MOST_TIMES * there:
        raise ModelFileError(
            f"{name} holds {there} numbers of a network {path!r}, which has {needed}"
        )


_MOST_TIMES = 50  # the layers beyond the last tap are not in the file


def _own(module: nn.Module, note: Mapping[str, Any], name: str) -> Backbone:
    try:
        return module_backbone(module, note["taps"], mean=note["mean"], std=note["std"])
    except MtskError as error:
        raise ModelFileError(
            f"the network given for {name} is another one: {error}"
        ) from error


def _is_named(path: str) -> bool:
    """Tell a name, ``family:model`` or the bundled one's, from an import path."""
    return ":" in path or "." not in path


def _named(path: str, taps: list[str]) -> Backbone:
    """Return a network of a known name, to be filled with weights."""
    try:
        return load_backbone(path, weights="random", taps=taps).copy()
    except MtskError:  # one whose taps are fixed
        return load_backbone(path, weights="random").copy()


def _make(path: str, name: str) -> nn.Module:
    module, _, attribute = path.rpartition(".")
    try:
        made = getattr(import_module(module), attribute)()
    except Exception as error:  # of the caller's own code
        raise ModelFileError(
            f"{name}: {path} cannot be made without arguments ({error}); make it, and "
            "pass it as backbone="
        ) from error
    if not isinstance(made, nn.Module):
        raise ModelFileError(f"{name}: {path} is no torch.nn.Module")
    return made


def _replaced(value: Any, change: Callable[[DeepFeatures], DeepFeatures]) -> Any:
    """Return a value with all features in it changed; what holds none is not copied."""
    if isinstance(value, DeepFeatures):
        return change(value)
    if isinstance(value, dict):
        parts = {k: _replaced(v, change) for k, v in value.items()}
        same = all(parts[k] is v for k, v in value.items())
        return value if same else type(value)(parts)
    if isinstance(value, list | tuple):
        items = [_replaced(v, change) for v in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if same else type(value)(items)
    if _may_hold_features(value):
        parts = {k: _replaced(v, change) for k, v in vars(value).items()}
        if all(parts[k] is v for k, v in vars(value).items()):
            return value
        twin = copy.copy(value)
        vars(twin).update(parts)
        return twin
    return value


def _may_hold_features(value: Any) -> bool:
    """Tell whether to look into an object: estimators, what a fit or a search wraps."""
    if isinstance(value, type | nn.Module | Backbone) or not hasattr(value, "__dict__"):
        return False
    module = type(value).__module__
    is_scorer = module.startswith("sklearn.metrics._scorer")
    is_fitted_part = is_dataclass(value) and module.startswith("mtsk.segmenter.")
    return is_scorer or is_fitted_part or isinstance(value, BaseEstimator)


def _all_features(value: Any) -> Iterator[DeepFeatures]:
    found: list[DeepFeatures] = []

    def note(features: DeepFeatures) -> DeepFeatures:
        found.append(features)
        return features

    _replaced(value, note)
    yield from found
