"""Maps that stay on a GPU: what follows from them is computed there, and is the same.

Most of it is tested with tensors of the CPU that are left where they are, and some with
torch's fake tensors, which know their device and refuse to meet those of another. What
needs a real GPU is skipped where there is none.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mtsk import (
    DeepFeatures,
    MultiTaskSegmenter,
    SharedDecoder,
    Targets,
    suggest_labels,
)
from mtsk.backbones import Backbone
from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.features import ForwardPass, MemoryCache
from mtsk.features.feature_maps import FeatureMaps
from mtsk.inspection import layer_attribution
from mtsk.links import Links
from mtsk.structure import Structure
from mtsk.tables import shards
from mtsk.testing import toy_images

X, Y = toy_images(6, (32, 40))
FEATURES = DeepFeatures(scales=(1,))
TARGETS = Targets(
    parts=[m if i < 4 else None for i, m in enumerate(Y)],
    depth=[m * 0.5 for m in Y],
    kind=["a", "b"] * 3,
)
HEADS = {
    "linear": {},
    "pooled": {"links": Links(region_pooling="parts")},
    "structure": {"structure": Structure(SuperpixelCRF(), PixelCRF(), n_segments=30)},
    "decoder": {"head": SharedDecoder(n_epochs=1, random_state=0)},
}


@pytest.fixture
def kept(monkeypatch):
    """Let maps stay in tensors on the CPU; return what kinds of taps were asked."""
    monkeypatch.setattr(Backbone, "keeps_maps", True)
    kinds = set()
    for name in ("at", "scores", "region_means", "global_mean"):
        method = getattr(FeatureMaps, name)

        def seen(maps, *args, method=method):
            kinds.add(type(maps.taps[0]))
            return method(maps, *args)

        monkeypatch.setattr(FeatureMaps, name, seen)
    return kinds


def segmenter(**keywords):
    keywords = {
        "features": FEATURES,
        "random_state": 0,
        "max_pixels_per_image": 80,
        **keywords,
    }
    return MultiTaskSegmenter(**keywords)


@pytest.fixture(scope="module")
def on_the_host():
    return {
        name: segmenter(**keywords).fit(X, TARGETS).decision_function(X)
        for name, keywords in HEADS.items()
    }


@pytest.mark.parametrize("name", HEADS)
def test_fit_and_predict_are_the_same(name, kept, on_the_host):
    model = segmenter(**HEADS[name]).fit(X, TARGETS)
    for task, scores in model.decision_function(X).items():
        for got, expected in zip(scores, on_the_host[name][task], strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-3)
    if name in ("linear", "pooled"):
        assert kept == {torch.Tensor}


def test_what_transform_returns_is_on_the_host(kept):
    for maps in FEATURES.fit().transform(X[:2]):
        assert all(isinstance(tap, np.ndarray) for tap in maps.taps)
    assert all(
        isinstance(maps.taps[0], torch.Tensor) for _, maps in FEATURES.iter_maps(X[:2])
    )


def test_with_a_cache_everything_is_on_the_host(kept, tmp_path):
    for cache in (MemoryCache(), tmp_path):
        features = DeepFeatures(scales=(1,), cache=cache)
        model = segmenter(features=features).fit(X, TARGETS)
        first = model.decision_function(X)["parts"]
        assert kept == {np.ndarray}
        np.testing.assert_array_equal(first, model.decision_function(X)["parts"])


def test_the_other_ways_to_look_at_maps(kept):
    model = segmenter().fit(X, TARGETS)
    assert len(suggest_labels(model, X, 2, tasks=["parts"])) == 2
    found = layer_attribution(model, X[0], task="parts", label=7)
    scores = model.decision_function(X[:1])["parts"][0]
    of_7 = scores - scores.mean(axis=-1, keepdims=True)
    place = np.asarray(model.tasks_["parts"].classes_).tolist().index(7)
    np.testing.assert_allclose(found.total, of_7[..., place], atol=1e-3)
    few = DeepFeatures(scales=(1,), n_components=3).fit(X)
    assert few.transform(X[:1])[0].n_features == 21


def test_pictures_that_a_fit_keeps_are_on_the_host(kept, monkeypatch):
    pictures = []

    def picture(image, maps, *others):
        pictures.append(maps)
        return plain(image, maps, *others)

    plain = shards.Picture
    monkeypatch.setattr(shards, "Picture", picture)
    segmenter(**HEADS["structure"]).fit(X, TARGETS)
    assert {type(maps.taps[0]) for maps in pictures} == {np.ndarray}


# -- fake tensors ---------------------------------------------------------------


@pytest.fixture
def on_a_fake_gpu(monkeypatch):
    """A mode in which tensors may be on "cuda", with shapes but without numbers."""
    numpy_of = torch.Tensor.numpy

    def numbers(tensor):
        if type(tensor) is torch.Tensor:
            return numpy_of(tensor)
        assert tensor.device.type == "cpu"
        return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))

    monkeypatch.setattr(torch.Tensor, "numpy", numbers)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.mark.usefixtures("on_a_fake_gpu")
def test_nothing_of_one_device_meets_what_is_on_another():
    taps = [
        torch.empty(8, 9, 2, device="cuda"),
        torch.empty(4, 5, 3, device="cuda", dtype=torch.float16),
    ]
    for starts in (None, [(-1.0, -1.0), (-2.0, 0.0)]):
        maps = FeatureMaps(taps, [(2, 2), (4, 4)], (15, 17), True, starts=starts)
        assert maps.at([[1, 2], [3, 4]]).shape == (2, 14)
        assert maps.scores(np.ones((14, 3)), np.ones(3)).shape == (15, 17, 3)
        assert maps.global_mean().shape == (5,)
        assert maps.to_host().taps[1].dtype == np.float16


@pytest.mark.usefixtures("on_a_fake_gpu")
@pytest.mark.filterwarnings("ignore:CUDA is not available")  # autocast says so
@pytest.mark.parametrize("components", [None, 3])
def test_a_batch_goes_to_the_gpu_once_and_stays(monkeypatch, components):
    features = DeepFeatures(n_components=components)
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        features.fit(X)
        backbone = features.network().copy()
    for name, tensor in list(backbone.network.state_dict().items()):
        owner, _, last = name.rpartition(".")
        module = backbone.network.get_submodule(owner)
        delattr(module, last)
        module.register_buffer(last, torch.empty(tensor.shape, device="cuda"))
    assert backbone.device.type == "cuda"
    sent = []

    def pin(tensor):
        sent.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(ForwardPass, "check_stored", lambda *_: None)
    batch = np.zeros((2, 1, 64, 96, 3), np.float32)
    for maps in features.forward_pass.maps_of(backbone, batch, to_host=False):
        assert {tap.device.type for tap in maps.taps} == {"cuda"}
        assert {tap.dtype for tap in maps.taps} == {torch.float16}
    assert sent == [batch.shape]
    for maps in features.forward_pass.maps_of(backbone, batch):
        assert all(isinstance(tap, np.ndarray) for tap in maps.taps)


# -- a real GPU -----------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", HEADS)
def test_a_gpu_gives_what_the_cpu_gives(name, on_the_host):
    features = DeepFeatures(scales=(1,), device="cuda")
    model = segmenter(features=features, **HEADS[name]).fit(X, TARGETS)
    for task, scores in model.decision_function(X).items():
        for got, expected in zip(scores, on_the_host[name][task], strict=True):
            assert np.abs(got - expected).mean() < 0.1 * np.abs(expected).mean() + 0.01
