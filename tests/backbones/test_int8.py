"""The bundled network in integers: what it was, to what 8 bits can say."""

import pickle

import numpy as np
import pytest
import torch
from tests_support import noise
from timm.layers import Conv2dSame
from torch import nn

from mtsk import (
    DeepFeatures,
    MultiTaskSegmenter,
    SharedDecoder,
    load,
    predict_tiled,
    save,
)
from mtsk.backbones import INT8, choose_device, int8, known_backbones, load_backbone
from mtsk.backbones.engines import Session
from mtsk.backbones.int8 import _evenly_padded, _Graph, _Grid
from mtsk.datasets import make_digit_scenes
from mtsk.exceptions import BackboneError
from mtsk.testing import toy_images

needs_vnni = pytest.mark.skipif(
    not int8.int8_supported(),
    reason="onnxruntime is not there, or this CPU multiplies no integers of 8 bits",
)
X, MASKS = toy_images(6, (32, 40))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("groups", [1, 6])
def test_even_padding_is_tensorflows(kernel, groups):
    torch.manual_seed(0)
    conv = Conv2dSame(6, 6, kernel, stride=2, groups=groups)
    weight, padding = _evenly_padded(conv)
    x = torch.randn(2, 6, 12, 16)
    got = nn.functional.conv2d(x, weight, conv.bias, 2, padding, 1, groups)
    torch.testing.assert_close(got, conv(x))


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (0.5, 2.0), (-2.0, -1.0)])
def test_a_grid_covers_its_range_and_has_nought(low, high):
    grid = _Grid.over(low, high)
    x = torch.tensor([0.0, low, high, (low + high) / 2])
    back = on_grid(x, grid)
    assert back[0] == 0
    assert (back - x).abs().max() <= grid.step


def on_grid(x, grid):
    return torch.fake_quantize_per_tensor_affine(x, grid.step, grid.zero, 0, 255)


@needs_vnni
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_that_of_its_rounded_numbers(groups, stride):
    torch.manual_seed(0)
    padding = 0 if stride == 2 else 1
    kind = Conv2dSame if stride == 2 else nn.Conv2d
    conv = kind(8, 8, 3, stride=stride, padding=padding, groups=groups)
    x = torch.randn(1, 8, 10, 14)
    into, out = _Grid.over(-4, 4), _Grid.over(-2, 2)
    graph = _Graph()
    graph.output(graph.convolution(graph.rounded("x", into), conv, into, out))
    with torch.no_grad():
        (got,) = Session(graph.to_bytes(8), "onnxruntime")(x)
        step = conv.weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
        conv.weight.copy_((conv.weight / step).round() * step)
        want = conv(on_grid(x, into))
    want = want.clamp(-out.zero * out.step, (255 - out.zero) * out.step)
    # Half a step of the output, and half a step of the integer bias.
    assert (got - want).abs().max() <= 0.51 * out.step + into.step * float(step.max())


@needs_vnni
def test_taps_are_those_of_the_network_it_was_made_of():
    plain, rounded = load_backbone(), load_backbone(INT8)
    assert rounded.taps == plain.taps
    assert rounded.name == INT8
    assert INT8 in known_backbones()
    assert load_backbone(INT8) is rounded
    scenes = make_digit_scenes(4, subset="test").images  # none of its photographs
    images = torch.from_numpy(np.stack(scenes) / 255).float().permute(0, 3, 1, 2)
    for tap, want, got in zip(plain.taps, plain(images), rounded(images), strict=True):
        assert got.dtype == torch.float32
        error = (got - want).pow(2).mean() / want.var()
        assert error < 0.05, tap


@needs_vnni
def test_scenes_are_learnt_as_well():
    train, test = make_digit_scenes(24), make_digit_scenes(12, subset="test")
    masks = [[ids > 0 for ids in s.targets["instances"]] for s in (train, test)]
    scores = [
        MultiTaskSegmenter(
            features=DeepFeatures(name, scales=(1,)), head="ridge", random_state=0
        )
        .fit(train.images, masks[0])
        .score(test.images, masks[1])
        for name in ("efficientnet_lite0", INT8)
    ]
    assert abs(scores[0] - scores[1]) < 0.02
    assert scores[1] > 0.5


@needs_vnni
def test_it_is_saved_by_name_and_goes_to_workers(tmp_path):
    model = MultiTaskSegmenter(
        features=DeepFeatures(INT8, scales=(1,)), head="ridge", random_state=0
    ).fit(X, MASKS)
    save(model, tmp_path / "m.mtsk")
    for twin in (load(tmp_path / "m.mtsk"), pickle.loads(pickle.dumps(model))):
        for a, b in zip(twin.predict(X), model.predict(X), strict=True):
            np.testing.assert_array_equal(a, b)
    backbone = load_backbone(INT8)
    twin = pickle.loads(pickle.dumps(backbone))
    for a, b in zip(twin(noise(64, 64, 1)), backbone(noise(64, 64, 1)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@needs_vnni
def test_tiles_give_what_the_whole_gives():
    model = MultiTaskSegmenter(
        features=DeepFeatures(INT8, scales=(1,)), head="ridge", random_state=0
    ).fit(X, MASKS)
    image = np.tile(np.concatenate(X[:3]), (6, 14, 1))[:, :530]
    tiled = predict_tiled(model, image, tile_size=512)
    np.testing.assert_array_equal(tiled, model.predict([image])[0])


@needs_vnni
def test_what_it_cannot_do_is_told(tmp_path):
    with pytest.raises(BackboneError, match="has its weights fixed"):
        load_backbone(INT8, weights=str(tmp_path / "own.pth"))
    with pytest.raises(BackboneError, match="has its taps fixed"):
        load_backbone(INT8, taps=["blocks.0"])
    model = MultiTaskSegmenter(
        features=DeepFeatures(INT8, scales=(1,)),
        head=SharedDecoder(n_epochs=1, finetune="last"),
    )
    with pytest.raises(BackboneError, match="nothing that `finetune` could train"):
        model.fit(X, MASKS)
    assert load_backbone(INT8).to(choose_device("cpu")) is load_backbone(INT8)


def test_a_cpu_without_such_arithmetic_is_told(monkeypatch):
    monkeypatch.setattr(int8, "int8_supported", lambda: False)
    with pytest.raises(BackboneError, match="needs a CPU with VNNI"):
        int8.int8_backbone(load_backbone())


@pytest.mark.skipif(not int8.fast_int8(), reason="this CPU has no VNNI")
def test_a_cpu_with_vnni_is_supported():
    """Otherwise every test above would be skipped."""
    assert int8.int8_supported()
