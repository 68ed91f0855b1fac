"""Networks of many families: their taps are timm's own intermediates, at any size."""

import numpy as np
import pytest
import timm
import torch

from mtsk.backbones import load_backbone
from mtsk.exceptions import BackboneError

SIZE = 97, 131  # odd: no patch and no stride divides it
BY_FAMILY = {
    "ViT": ["vit_tiny_patch16_224", "deit3_small_patch16_224", "samvit_base_patch16"],
    "ViT with registers": ["vit_small_patch14_reg4_dinov2"],
    "ViT with rotary positions": ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224"],
    "hierarchical ViT": ["sam2_hiera_tiny"],
    "windows": ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"],
    "pyramid ViT": ["pvt_v2_b0", "tiny_vit_5m_224", "davit_tiny"],
    "cross-covariance": ["xcit_nano_12_p16_224"],
    "ConvNeXt": ["convnext_atto", "inception_next_atto", "mambaout_femto"],
    "ResNet": ["resnet18", "resnet26d", "regnety_002"],
    "EfficientNet": ["efficientnet_b0", "tf_efficientnetv2_b0"],
    "mobile": ["mobilenetv3_small_050", "mobilenetv4_conv_small", "ghostnet_050"],
    "mobile hybrid": ["edgenext_xx_small", "fastvit_t8", "mobilevit_xxs"],
    "dense": ["densenet121", "dpn48b", "rdnet_tiny"],
    "other": ["hrnet_w18_small", "repvit_m0_9", "poolformer_s12", "starnet_s050"],
}
NAMES = [name for names in BY_FAMILY.values() for name in names]


def untrained(name):
    """Return timm's own network, with the weights that "random" stands for."""
    for arguments in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return timm.create_model(name, **arguments).eval()
        except TypeError:
            continue
    raise AssertionError(name)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_taps_are_timms_intermediates(name):
    backbone = load_backbone(f"timm:{name}", weights="random")
    network = untrained(name)
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(network.pretrained_cfg[key])[:, None, None]
        for key in ("mean", "std")
    )
    down, right = (-side % backbone.multiple for side in SIZE)
    padded = torch.nn.functional.pad(
        (image - mean) / std, (0, right, 0, down), mode="replicate"
    )
    stages = [int(tap.name.removeprefix("stage")) for tap in backbone.taps]
    expected = network.forward_intermediates(padded, stages, intermediates_only=True)
    for tap, found, own in zip(backbone.taps, backbone(image), expected, strict=True):
        rows, columns = (-(-side // tap.stride) for side in SIZE)
        assert found.shape == (1, rows, columns, tap.channels)
        own = own if own.shape[1] == tap.channels else own.permute(0, 3, 1, 2)
        own = own[:, :, :rows, :columns].permute(0, 2, 3, 1)
        scale = float(own.abs().max())
        # Batch norms are folded into convolutions, which rounds differently.
        np.testing.assert_allclose(found / scale, own / scale, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["beit_base_patch16_224", "mixer_s32_224", "levit_128s", "cait_xxs24_224"]
)
def test_networks_of_one_size_of_image_are_refused(name):
    with pytest.raises(
        BackboneError, match=r"224 x 224 pixels only, and mtsk those of"
    ):
        load_backbone(f"timm:{name}", weights="random")
