"""Convolutions by one library, for any batch size and number of threads.

torch chooses the library for a convolution on a CPU by the number of images, the size
of the image and the number of threads (``use_mkldnn`` in torch's ``Convolution.cpp``):
a layer of one small image goes to a matrix product, the same layer of two images to
oneDNN, and the two round differently. Here oneDNN computes them all.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["OneDNNConv2d", "use_onednn"]


class OneDNNConv2d(nn.Conv2d):
    """A convolution by oneDNN, where it runs on a CPU in float32 without gradients.

    Elsewhere torch chooses, as for any ``nn.Conv2d``.

    Attributes
    ----------
    same_padding : bool
        Whether the input is padded as TensorFlow does, by `timm.layers.pad_same`.
    """

    same_padding: bool

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """Return a convolution with the parameters of another, which are shared."""
        from timm.layers import Conv2dSame

        geometry: dict[str, Any] = {
            name: getattr(conv, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "groups")
        }
        has_bias = conv.bias is not None
        own = cls(
            conv.in_channels,
            conv.out_channels,
            **geometry,
            bias=has_bias,
            device="meta",
        )
        own.weight, own.bias = conv.weight, conv.bias
        own.same_padding = isinstance(conv, Conv2dSame)
        return own.train(conv.training)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of images, (n, channels, H, W)."""
        if self.same_padding:
            from timm.layers import pad_same

            kernel, stride = list(self.kernel_size), list(self.stride)
            input = pad_same(input, kernel, stride, list(self.dilation))
        if (
            torch.is_grad_enabled()
            or input.device.type != "cpu"
            or input.dtype != torch.float32
        ):
            return super().forward(input)
        assert not isinstance(self.padding, str)
        out: Tensor = torch.mkldnn_convolution(
            input,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
        )
        return out


def use_onednn(network: nn.Module) -> None:
    """Replace, in place, the 2-D convolutions of a network, where torch has oneDNN.

    Parameters
    ----------
    network : torch.nn.Module
        Its convolutions are padded by numbers, with zeros.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, OneDNNConv2d.of(child))
