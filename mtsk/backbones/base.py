"""A backbone: a frozen network, its taps and its input format."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mtsk.backbones.stages import StagedForward
from mtsk.exceptions import BackboneError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Backbone", "Tap", "state_digest"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_TRIALS = (5, 3, 64, 64), (2, 3, 41, 70)
_PROBE = 128  # pixels; a multiple of every stride and patch size in use
# What networks raise on images of sizes that they do not take.
_REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)


@dataclass(frozen=True)
class Tap:
    """A layer whose output is taken.

    Attributes
    ----------
    name : str
        Name of its module in the network.
    channels : int
        Number of channels.
    stride : int
        Input pixels per output pixel.
    """

    name: str
    channels: int
    stride: int


class Backbone:
    """A network that gives feature maps at its taps.

    ``clone`` returns the same object, so that model selection never copies a network.

    Parameters
    ----------
    name : str
        Name by which it was requested.
    network : torch.nn.Module
        In evaluation mode.
    forward : callable
        Maps the network and a batch (n, 3, H, W) to the taps' outputs, each
        (n, C, h, w) or (n, h, w, C).
    tap_names : sequence of str
        One name for each output of ``forward``.
    mean, std : sequence of three float
        The network's input is (image − mean) / std for an image in [0, 1].
    multiple : int, default=1
        Sides are padded up to a multiple of this (patch size of a transformer).
    probe : int, default=128
        Side of the image by which channels and strides are found.
    takes_batches : bool, default=False
        Whether, on a CPU, the output for an image is known not to depend on the other
        images of a batch, not even by rounding. Used only where a trial on this machine
        agrees; see `batch_invariant`.
    engine : str, default="torch"
        What ``forward`` computes with, without gradients.

    Attributes
    ----------
    taps : tuple of Tap
    digest : str
        SHA-256 over the network's weights.
    run : callable
        ``forward``.
    channels_first : list of bool
        Of every tap, whether ``forward`` gives (n, C, h, w).

    Raises
    ------
    BackboneError
        Where an output is no feature map.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        forward: Callable[[nn.Module, Tensor], Sequence[Tensor]],
        tap_names: Sequence[str],
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        multiple: int = 1,
        probe: int = _PROBE,
        digest: str | None = None,
        takes_batches: bool = False,
        engine: str = "torch",
    ) -> None:
        self.name = name
        self.network = network
        self.run = forward
        self.mean = tuple(float(v) for v in mean)
        self.std = tuple(float(v) for v in std)
        self.multiple = multiple
        self.engine = engine
        self.digest = digest or state_digest(network)
        self._takes_batches = takes_batches
        self.channels_first: list[bool] = []
        self.taps = self._find_taps(network, list(tap_names), probe)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        state.pop("batch_invariant", None)  # depends on the processor
        return state

    def __sklearn_clone__(self) -> Backbone:
        return self

    def __deepcopy__(self, memo: dict) -> Backbone:
        return self

    def __repr__(self) -> str:
        taps = ", ".join(f"{t.channels} at stride {t.stride}" for t in self.taps)
        return f"Backbone({self.name!r}: {taps})"

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the taps of a batch.

        Parameters
        ----------
        images : Tensor of shape (n, 3, H, W)
            In [0, 1], on the network's device.

        Returns
        -------
        list of Tensor of shape (n, ceil(H / stride), ceil(W / stride), channels)
        """
        return self.trace(images)

    def trace(self, images: Tensor) -> list[Tensor]:
        """Return the taps as ``__call__`` does, ready for gradients.

        Parameters
        ----------
        images : Tensor of shape (n, 3, H, W)

        Returns
        -------
        list of Tensor
        """
        outputs = self.run(self.network, self._normalised(images))
        height, width = images.shape[2:]
        taps = []
        for tap, first, out in zip(
            self.taps, self.channels_first, outputs, strict=True
        ):
            out = out.permute(0, 2, 3, 1) if first else out
            rows, cols = -(-height // tap.stride), -(-width // tap.stride)
            taps.append(out[:, :rows, :cols])
        return taps

    @property
    def keeps_maps(self) -> bool:
        """Whether maps stay on its device and later steps are computed there.

        The CPU is then free to read ahead; where the CPU itself computes, reading ahead
        gained nothing (a fit took 248 ms per image with it, 246 without, on two cores).
        """
        return self.device.type == "cuda"

    @property
    def device(self) -> torch.device:
        """Device of the network; the CPU where it has no parameters."""
        own = chain(self.network.parameters(), self.network.buffers())
        return next(own, torch.zeros(0)).device

    @cached_property
    def batch_invariant(self) -> bool:
        """Whether images may be batched on a CPU.

        Rounding of float sums depends on the order of summation, which libraries choose
        by the shape of a batch, too. Networks of convolutions by one library alone
        (`mtsk.backbones.onednn`) are not affected on the processors tested; two small
        batches are compared with their single images to verify this. Others (matrix
        products, means over an image) agree at some shapes and differ at others: they
        are given one image at a time, and so are other engines.
        """
        by_torch = self.engine == "torch" and self.device.type == "cpu"
        if not (self._takes_batches and by_torch):
            return False
        noise = torch.Generator().manual_seed(0)
        for shape in _TRIALS:
            images = torch.rand(shape, generator=noise)
            alone = [self(image[None]) for image in images]
            for together, *each in zip(self(images), *alone, strict=True):
                if not torch.equal(together, torch.cat(each)):
                    return False
        return True

    @property
    def stages(self) -> StagedForward | None:
        """How its fine stages process parts of an image; None where they cannot."""
        return self.run if isinstance(self.run, StagedForward) else None

    def trace_fine(self, images: Tensor) -> list[Tensor]:
        """Return the taps of the fine stages alone, with the cells of the padding.

        Parameters
        ----------
        images : Tensor of shape (n, 3, H, W)

        Returns
        -------
        list of Tensor of shape (n, h, w, channels)
            The last is the input of `trace_coarse`.
        """
        assert self.stages is not None
        outputs = self.stages.fine(self.network, self._normalised(images))
        return [out.permute(0, 2, 3, 1) for out in outputs]

    def trace_coarse(self, cells: Tensor) -> list[Tensor]:
        """Return the other taps, from the last of the fine stages.

        Parameters
        ----------
        cells : Tensor of shape (n, h, w, channels)

        Returns
        -------
        list of Tensor of shape (n, h, w, channels)
        """
        assert self.stages is not None
        outputs = self.stages.coarse(self.network, cells.permute(0, 3, 1, 2))
        return [out.permute(0, 2, 3, 1) for out in outputs]

    def to(self, device: torch.device) -> Backbone:
        """Move the network in place and return self."""
        self.network.to(device)
        return self

    def copy(self) -> Backbone:
        """Return a backbone with a copied network, to be trained further, by torch.

        Its ``digest`` is that of this one until ``renew_digest``.
        """
        run = getattr(self.run, "for_training", self.run)
        twin = self.running_by(run, self.engine if run is self.run else "torch")
        twin.network = copy.deepcopy(self.network)
        return twin

    def running_by(self, run: Callable, engine: str) -> Backbone:
        """Return a backbone of the same network, whose ``run`` is another."""
        twin = copy.copy(self)
        vars(twin).pop("batch_invariant", None)
        twin.run, twin.engine = run, engine
        return twin

    def renew_digest(self) -> None:
        """Recompute the hash of the weights, after training."""
        self.digest = state_digest(self.network)

    def _normalised(self, images: Tensor) -> Tensor:
        """Return the network's input: normalised, padded, channels last."""
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.std, device=images.device)[:, None, None]
        x = self._pad((images - mean).div_(std))
        return x.contiguous(memory_format=torch.channels_last)

    def _pad(self, x: Tensor) -> Tensor:
        down, right = (-s % self.multiple for s in x.shape[2:])
        if not (down or right):
            return x
        return nn.functional.pad(x, (0, right, 0, down), mode="replicate")

    @torch.inference_mode()
    def _find_taps(
        self, network: nn.Module, names: list[str], probe: int
    ) -> tuple[Tap, ...]:
        """Find channels and strides from forward passes, not from documentation."""
        device = next(network.parameters(), torch.zeros(1)).device
        step = -(-32 // self.multiple) * self.multiple
        sizes = (probe, 2 * probe), (probe + step, probe + 3 * step)
        try:
            outputs = [
                list(self.run(network, torch.zeros(1, 3, *size, device=device)))
                for size in sizes
            ]
        except _REFUSALS as error:
            shape = 1, 3, *sizes[0]
            raise BackboneError(
                f"{self.name} cannot take images of shape {shape}: {error}"
            ) from error
        taps = []
        for name, first, second in zip(names, *outputs, strict=True):
            for out in (first, second):
                if not isinstance(out, Tensor) or out.ndim != 4:
                    raise BackboneError(
                        f"tap {name!r} of {self.name} must give a 4-D tensor, got "
                        f"{getattr(out, 'shape', type(out).__name__)}"
                    )
            # The axis unchanged between two image sizes is that of the channels.
            axis = 1 if first.shape[1] == second.shape[1] else 3
            height, width = (first.shape[i] for i in ((2, 3) if axis == 1 else (1, 2)))
            stride = round(probe / max(height, 1))
            if first.shape[axis] != second.shape[axis] or width != -(
                -2 * probe // stride
            ):
                raise BackboneError(
                    f"tap {name!r} of {self.name} gives {tuple(first.shape)} for an "
                    f"image of {probe} x {2 * probe}: not a feature map"
                )
            self.channels_first.append(axis == 1)
            taps.append(Tap(name, first.shape[axis], stride))
        return tuple(taps)


def state_digest(network: nn.Module) -> str:
    """Return the SHA-256 over a network's tensors and their names."""
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode())
        array: Any = tensor.detach().cpu().contiguous()
        if array.dtype == torch.bfloat16:
            array = array.view(torch.int16)
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()
