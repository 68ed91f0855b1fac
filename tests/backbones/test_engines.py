"""Engines: the same taps as torch's, whichever runs the network."""

import importlib.util
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

import mtsk
from mtsk import DeepFeatures, MultiTaskSegmenter, SharedDecoder, predict_tiled
from mtsk.backbones import engines, load_backbone, module_backbone
from mtsk.backbones.engines import choose_engine, with_engine
from mtsk.backbones.machine import CACHE_VARIABLE
from mtsk.exceptions import BackboneError
from mtsk.testing import toy_images

OPTIONAL = pytest.mark.skipif(
    not engines.is_installed("openvino"), reason="openvino is not installed"
)
by_each = pytest.mark.parametrize(
    "engine", ["onnxruntime", pytest.param("openvino", marks=OPTIONAL)]
)
X, MASKS = toy_images(6, (32, 40))


def taps(backbone, x):
    with torch.inference_mode():
        return backbone(x)


def close(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 2e-5 * b.abs().max()


@by_each
@pytest.mark.parametrize("size", [(64, 96), (97, 131), (33, 200)])
def test_the_bundled_network(engine, size):
    plain = load_backbone()
    own = with_engine(plain, engine)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    close(taps(own, x), taps(plain, x))
    assert own.taps == plain.taps
    assert own.digest == plain.digest
    assert own.engine == engine
    assert with_engine(plain, engine) is own


@by_each
@pytest.mark.parametrize("name", ["timm:convnext_atto", "torchvision:resnet18"])
def test_other_networks_by_a_graph_for_each_size(engine, name):
    plain = load_backbone(name, weights="random")
    own = with_engine(plain, engine)
    for size in ((97, 131), (64, 64)):
        x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
        close(taps(own, x), taps(plain, x))


@by_each
def test_gradients_are_torchs_and_a_copy_to_be_trained_is_torch(engine):
    own = with_engine(load_backbone(), engine)
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    own.trace(x)[-1].sum().backward()
    assert x.grad.abs().max() > 0
    copy = own.copy()
    assert copy.engine == "torch"
    with torch.no_grad():
        next(copy.network.parameters()).mul_(0)
    x = torch.rand(1, 3, 64, 64)
    assert not torch.equal(taps(copy, x)[0], taps(own, x)[0])


@by_each
def test_stages_of_parts_are_those_of_the_whole(engine):
    own = with_engine(load_backbone(), engine)
    x = torch.rand(1, 3, 128, 160)
    with torch.inference_mode():
        whole = own.trace(x)
        fine = own.trace_fine(x)
        coarse = own.trace_coarse(fine[-1])
    for a, b in zip(fine + coarse, whole, strict=True):
        torch.testing.assert_close(a, b)


@by_each
@pytest.mark.parametrize("height", [320, 336, 352])
def test_strips_give_what_the_whole_gives(engine, height):
    own = with_engine(load_backbone(), engine)
    strips = own.running_by(replace(own.run, max_pixels=64 * 96), engine)
    x = torch.rand(1, 3, height, 64, generator=torch.Generator().manual_seed(1))
    close(taps(strips, x), taps(own, x))


@by_each
def test_models_agree_and_travel(engine, tmp_path):
    def fitted(engine):
        features = DeepFeatures(scales=[1], engine=engine)
        return MultiTaskSegmenter(features=features, random_state=0).fit(X, MASKS)

    model, other = fitted(engine), fitted("torch")
    assert model.features_.fingerprint() != other.features_.fingerprint()
    scores = [m.decision_function(X)[0] for m in (model, other)]
    np.testing.assert_allclose(*scores, atol=0.02 * np.abs(scores[1]).max())
    model.save(tmp_path / "m.mtsk")
    for twin in (mtsk.load(tmp_path / "m.mtsk"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.predict(X)[0], model.predict(X)[0])
    image = np.tile(np.concatenate(X[:3]), (6, 14, 1))[:, :530]
    tiled = predict_tiled(model, image, tile_size=512)
    whole = model.predict([image])[0]
    assert (tiled == whole).mean() > 0.9999


@by_each
def test_features_depend_on_the_image_alone(engine):
    images = np.random.default_rng(0).integers(0, 255, (3, 75, 110, 3), np.uint8)
    features = DeepFeatures(engine=engine).fit()
    for i, maps in enumerate(features.transform(images)):
        (alone,) = features.transform(images[i : i + 1])
        for a, b in zip(maps.taps, alone.taps, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_decoder_is_finetuned_by_torch():
    features = DeepFeatures(scales=[1], engine="onnxruntime")
    head = SharedDecoder(n_epochs=1, finetune="last", random_state=0)
    model = MultiTaskSegmenter(features=features, head=head).fit(X, MASKS)
    assert len(model.predict(X)) == len(X)


def test_what_an_engine_cannot_do_is_told(monkeypatch):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)[:, :, ::2, ::2].contiguous()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd = Odd()

        def forward(self, x):
            return self.odd(x)

    backbone = with_engine(module_backbone(Network(), ["odd"]), "onnxruntime")
    with pytest.raises(BackboneError, match=r"cannot be written as an ONNX graph.*use"):
        taps(backbone, torch.rand(1, 3, 64, 64))
    with pytest.raises(InvalidParameterError, match="`engine` of DeepFeatures"):
        DeepFeatures(engine="tensorrt").fit()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if "onnx" in n else find(n)
    )
    assert choose_engine(load_backbone()) == "torch"
    with pytest.raises(BackboneError, match=r"needs: .* install onnx onnxruntime"):
        DeepFeatures(engine="onnxruntime").fit()


@by_each
def test_a_network_that_chooses_by_pixels_is_refused(engine):
    class Chooses(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, stride=2, padding=1)

        def forward(self, x):
            return self.layer(x * 3 + 1 if x.mean() > 0 else x)

    own = with_engine(module_backbone(Chooses(), ["layer"]), engine)
    with pytest.raises(BackboneError, match="gives other features than by torch"):
        taps(own, torch.rand(1, 3, 64, 64))


def test_the_choice_is_made_once_for_a_machine(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "kept"))
    monkeypatch.setattr("mtsk.backbones.machine.known_answers", {})
    first = choose_engine(load_backbone())
    assert first in ("torch", "onnxruntime")
    (file,) = (tmp_path / "kept").iterdir()
    question, answer = file.read_text().splitlines()
    assert answer == first
    other = {"torch": "onnxruntime", "onnxruntime": "torch"}[first]
    file.write_text(f"{question}\n{other}\n")
    assert choose_engine(load_backbone()) == first  # known in this process
    monkeypatch.setattr("mtsk.backbones.machine.known_answers", {})
    assert choose_engine(load_backbone()) == other  # as another process finds it
    for spoilt in ("spoilt", f"{question}\ntensorrt\n", ""):
        file.write_text(spoilt)
        monkeypatch.setattr("mtsk.backbones.machine.known_answers", {})
        found = choose_engine(load_backbone())
        assert file.read_text() == f"{question}\n{found}\n"  # mended


def test_engines_are_chosen_by_their_times(monkeypatch, tmp_path):
    """Whichever a trial says is faster; the other only where it clearly is."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    for faster in ("torch", "onnxruntime"):
        monkeypatch.setattr("mtsk.backbones.machine.known_answers", {faster: faster})
        monkeypatch.setattr(engines, "_faster", lambda backbone, name=faster: name)
        monkeypatch.setattr(engines, "cpu_name", lambda name=faster: f"cpu of {name}")
        assert choose_engine(load_backbone()) == faster
        assert DeepFeatures().fit().network().engine == faster


def test_a_module_is_made_once_a_pass(monkeypatch):
    """Its making takes two passes through the network."""
    made = []
    monkeypatch.setattr(
        DeepFeatures,
        "network",
        lambda self, network=DeepFeatures.network: made.append(1) or network(self),
    )
    features = DeepFeatures(nn.Conv2d(3, 4, 3, stride=2, padding=1), taps=[""]).fit()
    made.clear()
    features.transform(X[:2])
    assert len(made) == 1


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    monkeypatch.setattr("mtsk.backbones.machine.known_answers", {})
    assert choose_engine(load_backbone()) in ("torch", "onnxruntime")
