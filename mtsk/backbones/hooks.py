"""Taps of any module by forward hooks, by name or found automatically."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtsk.exceptions import BackboneError

__all__ = ["HookedTaps", "find_tap_names"]


@dataclass(frozen=True)
class HookedTaps:
    """Runs a network and returns the outputs of some of its modules.

    Attributes
    ----------
    names : tuple of str
        As in ``network.named_modules()``.
    """

    names: tuple[str, ...]

    def __call__(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the outputs, in the order of the names.

        Parameters
        ----------
        network : torch.nn.Module
            Run in evaluation mode; its mode is then restored.
        x : Tensor of shape (n, 3, H, W)

        Returns
        -------
        list of Tensor

        Raises
        ------
        BackboneError
            Where the network has no module of a name, or does not run it.
        """
        with _ONE_AT_A_TIME:
            return self._run(network, x)

    def _run(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        caught: dict[str, Tensor] = {}

        def catch(name: str) -> Callable:
            return lambda module, args, output: caught.__setitem__(name, output)

        modules = self._modules(network)
        handles = [m.register_forward_hook(catch(n)) for n, m in modules.items()]
        training = [m for m in network.modules() if m.training]
        network.eval()
        try:
            network(x)
        finally:
            for handle in handles:
                handle.remove()
            for module in training:
                module.training = True
        absent = [name for name in self.names if name not in caught]
        if absent:
            raise BackboneError(f"tapped modules {absent} did not run in forward")
        return [caught[name] for name in self.names]

    def _modules(self, network: nn.Module) -> dict[str, nn.Module]:
        modules = dict(network.named_modules())
        missing = [name for name in self.names if name not in modules]
        if missing:
            some = [n for n in modules if n and n.count(".") <= 1][:20]
            raise BackboneError(
                f"`taps` names modules that the network lacks: {missing}; it has {some}"
            )
        return {name: modules[name] for name in self.names}


# Hooks are set on the network itself: another thread's pass would trigger them too.
_ONE_AT_A_TIME = threading.Lock()


@torch.inference_mode()
def find_tap_names(network: nn.Module, probe: int = 128) -> list[str]:
    """Return, for each stride, the last module to give a feature map of that stride.

    Parameters
    ----------
    network : torch.nn.Module
    probe : int, default=128
        Side, in pixels, of the image sent through.

    Returns
    -------
    list of str
        From the finest stride above 1 to the coarsest.

    Raises
    ------
    BackboneError
        Where no module gives a feature map.
    """
    last: dict[int, str] = {}

    def note(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: object) -> None:
            if not isinstance(output, Tensor) or output.ndim != 4:
                return
            height, width = output.shape[2:]
            if height > 1 and width == 2 * height and height < probe:
                last[round(probe / height)] = name

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if name
    ]
    training = [m for m in network.modules() if m.training]
    network.eval()
    device = next(network.parameters(), torch.zeros(1)).device
    shape = 1, 3, probe, 2 * probe
    try:
        network(torch.zeros(shape, device=device))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise BackboneError(
            f"{type(network).__name__} cannot take images of shape {shape}: {error}"
        ) from error
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()
    if not last:
        raise BackboneError(
            "no module of the network gives a feature map (n, C, h, w) at a stride "
            "above 1; name the modules with taps="
        )
    return [last[stride] for stride in sorted(last)]
