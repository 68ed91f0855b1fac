"""Images through a network, at every scale, in the precision that is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mtsk._resources import explain_memory
from mtsk.backbones import Backbone, Tap
from mtsk.exceptions import BackboneError
from mtsk.features.feature_maps import FeatureMaps
from mtsk.features.pca import TapProjection

__all__ = ["ForwardPass"]


@dataclass(frozen=True)
class ForwardPass:
    """How images go through a backbone: at which scales, and what is kept of it.

    Attributes
    ----------
    taps : tuple of Tap
        Of the backbone.
    scales : tuple of float
        The sizes that every image is brought to.
    position : bool
        Whether hypercolumns end with functions of the place in the image.
    dtype : {"float16", "float32"}
        Precision in which taps are kept.
    projection : TapProjection or None
        Onto the components that are kept of every tap.
    """

    taps: tuple[Tap, ...]
    scales: tuple[float, ...]
    position: bool
    dtype: Literal["float16", "float32"]
    projection: TapProjection | None

    def passes(
        self, backbone: Backbone, images: torch.Tensor
    ) -> Iterator[tuple[float, float, torch.Tensor]]:
        """Yield every tap of every view and scale: (strides down, across, output).

        Parameters
        ----------
        backbone : Backbone
        images : Tensor of shape (n, views, H, W, 3)
            In [0, 1].

        Yields
        ------
        down, across : float
            Pixels of the image per cell.
        output : Tensor of shape (n, h, w, channels)
            With gradients where these are wanted.
        """
        n_views, height, width = images.shape[1:4]
        images = _to_device(images, backbone.device)
        for view in range(n_views):
            # One plane after another: so they are resized four times faster.
            x = images[:, view].permute(0, 3, 1, 2).contiguous()
            layer = 0
            for scale in self.scales:
                resized = _resize(x, scale)
                down, across = resized.shape[2] / height, resized.shape[3] / width
                outputs = self.forward(backbone, resized)
                for tap, out in zip(backbone.taps, outputs, strict=True):
                    out = self.project(out, layer)
                    layer += 1
                    yield tap.stride / down, tap.stride / across, out

    def forward(
        self,
        backbone: Backbone,
        x: torch.Tensor,
        trace: Callable[[torch.Tensor], list[torch.Tensor]] | None = None,
    ) -> list[torch.Tensor]:
        """Run the network, in mixed precision on a GPU.

        Parameters
        ----------
        backbone : Backbone
        x : Tensor of shape (n, 3, H, W)
            In [0, 1].
        trace : callable, default=None
            A method of the backbone that runs part of it. None runs all.

        Returns
        -------
        list of Tensor of shape (n, h, w, channels)
            One a tap, on the network's device.
        """
        x = _to_device(x, backbone.device)
        trace = trace or backbone.trace
        if x.device.type != "cuda":
            return trace(x)
        with torch.autocast("cuda", dtype=torch.float16):
            return trace(x)

    def project(self, out: torch.Tensor, layer: int) -> torch.Tensor:
        """Return the components of a tap's output, or the output itself.

        Parameters
        ----------
        out : Tensor of shape (n, h, w, channels)
        layer : int
            Counted over the taps of all scales.

        Returns
        -------
        Tensor of shape (n, h, w, n_components)
        """
        return out if self.projection is None else self.projection(out, layer)

    @property
    def layer_sizes(self) -> list[int]:
        """Channels of every tap of every scale, or their components."""
        if self.projection is not None:
            return self.projection.sizes
        return [tap.channels for _ in self.scales for tap in self.taps]

    def maps_of(
        self, backbone: Backbone, batch: np.ndarray, *, to_host: bool = True
    ) -> list[FeatureMaps]:
        """Return the features of a batch.

        Parameters
        ----------
        backbone : Backbone
        batch : ndarray of float32, shape (n, views, H, W, 3)
        to_host : bool, default=True
            Whether taps are brought to the host, as arrays. Else they are tensors where
            the network is.

        Returns
        -------
        list of FeatureMaps

        Raises
        ------
        BackboneError
            Where features are no finite numbers.
        MemoryError
            With the remedy.
        """
        taps: list[list[Any]] = [[] for _ in batch]
        strides: list[tuple[float, float]] = []
        extremes: list[torch.Tensor] = []
        try:
            with torch.inference_mode():
                for down, across, out in self.passes(backbone, torch.from_numpy(batch)):
                    strides.append((down, across))
                    stored = self.store(out)
                    extremes += torch.aminmax(stored)
                    stored = stored.cpu() if to_host else stored
                    for own, one in zip(taps, stored, strict=True):
                        one = one.contiguous()
                        own.append(one.numpy() if to_host else one)
                self.check_stored(extremes)  # all at once: a GPU is waited for
        except (RuntimeError, MemoryError) as error:
            raise explain_memory(error, batch.shape) from error
        shape = batch.shape[2], batch.shape[3]
        return [FeatureMaps(own, strides, shape, self.position) for own in taps]

    def store(self, out: torch.Tensor) -> torch.Tensor:
        """Return a tap's output in the precision that is kept."""
        return out.to(getattr(torch, self.dtype))

    def check_stored(self, extremes: Sequence[torch.Tensor]) -> None:
        """Refuse what is no finite number.

        Parameters
        ----------
        extremes : sequence of Tensor of shape ()
            The least and the greatest of what was stored, several times.

        Raises
        ------
        BackboneError
        """
        every = torch.stack(list(extremes))
        if torch.isfinite(every).all():
            return
        if torch.isnan(every).any():
            raise BackboneError("the network gives NaN for an image")
        advice = '; use dtype="float32"' if self.dtype == "float16" else ""
        raise BackboneError(f"features overflow {self.dtype}{advice}")


def _to_device(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return images on a device; the way to a GPU is by memory that it can read."""
    if images.device == device:
        return images
    if device.type == "cuda":
        images = images.pin_memory()
    return images.to(device, non_blocking=device.type == "cuda")


def _resize(x: torch.Tensor, scale: float) -> torch.Tensor:
    if scale == 1:
        return x
    size = [max(1, round(side * scale)) for side in x.shape[2:]]
    return nn.functional.interpolate(
        x, size=size, mode="bilinear", align_corners=False, antialias=scale < 1
    )
