"""Fold batch normalisation into the convolutions before it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_batch_norm"]


def fold_batch_norm(
    network: nn.Module,
    *,
    keep: Sequence[str] = (),
    taps: Callable[[nn.Module, Tensor], object] | None = None,
    probe: int = 64,
) -> nn.Module:
    """Return a copy in which each normalisation is part of its convolution.

    Which convolution feeds which normalisation is found by tracing one forward pass,
    not by names. A pair is folded only where both run once and the convolution's output
    goes to no other module. timm's normalisations with an activation inside keep their
    activation. Uses that hooks miss (a function that reads the convolution's output)
    are detected by comparing outputs: where they differ, nothing is folded.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    keep : sequence of str, default=()
        Modules whose own outputs are needed, and which are therefore not folded.
    taps : callable, optional
        Maps a network and a batch to what is taken of it, which must stay the same:
        a tap may lie between a convolution and its normalisation.
    probe : int, default=64
        Side, in pixels, of the image sent through.

    Returns
    -------
    torch.nn.Module
        A copy; the same function up to rounding, in evaluation mode.
    """
    plain = copy.deepcopy(network).eval()
    folded = _fold_pairs(copy.deepcopy(plain), set(keep), probe)
    runs = [_run, *([taps] if taps is not None else [])]
    return folded if all(_agree(plain, folded, run, probe) for run in runs) else plain


def _run(network: nn.Module, x: Tensor) -> object:
    return network(x)


@torch.inference_mode()
def _agree(
    plain: nn.Module,
    folded: nn.Module,
    run: Callable[[nn.Module, Tensor], object],
    probe: int,
) -> bool:
    """Compare two networks on noise."""
    x = torch.rand(1, 3, probe, probe, generator=torch.Generator().manual_seed(0))
    a, b = (_tensors(run(network, x)) for network in (plain, folded))
    return len(a) == len(b) and all(
        (x - y).abs().max() <= 1e-3 * x.abs().max() + 1e-6
        for x, y in zip(a, b, strict=True)
    )


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [t for part in parts for t in _tensors(part)]  # type: ignore[attr-defined]


def _fold_pairs(network: nn.Module, keep: set[str], probe: int) -> nn.Module:
    pairs = [p for p in _conv_norm_pairs(network, probe) if not keep & set(p)]
    for conv_name, norm_name in pairs:
        conv = network.get_submodule(conv_name)
        norm = network.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _replace(network, conv_name, fuse_conv_bn_eval(conv, norm))
        _replace(network, norm_name, _rest_of(norm))
    return network


def _conv_norm_pairs(network: nn.Module, probe: int) -> list[tuple[str, str]]:
    made_by: dict[int, str] = {}
    calls: Counter[str] = Counter()
    read_by: dict[int, list[str]] = {}
    alive: list[Tensor] = []  # keeps ids from being used again

    def hook(name: str):  # type: ignore[no-untyped-def]
        def note(module: nn.Module, args: tuple, output: object) -> None:
            calls[name] += 1
            if args and isinstance(args[0], Tensor):
                read_by.setdefault(id(args[0]), []).append(name)
                alive.append(args[0])
            if isinstance(module, nn.Conv2d) and isinstance(output, Tensor):
                made_by[id(output)] = name
                alive.append(output)

        return note

    leaves = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) or not list(module.children())
    }
    inside_norm = {
        name
        for name in leaves
        for other, module in leaves.items()
        if isinstance(module, nn.BatchNorm2d) and name.startswith(other + ".")
    }
    handles = [
        module.register_forward_hook(hook(name))
        for name, module in leaves.items()
        if name not in inside_norm
    ]
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, probe, probe))
    finally:
        for handle in handles:
            handle.remove()
    pairs = [
        (conv, read_by[key][0])
        for key, conv in made_by.items()
        if len(read_by.get(key, [])) == 1
        and isinstance(leaves[read_by[key][0]], nn.BatchNorm2d)
    ]
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]


def _rest_of(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a normalisation does after normalising."""
    act = getattr(norm, "act", None)
    return act if isinstance(act, nn.Module) else nn.Identity()


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
