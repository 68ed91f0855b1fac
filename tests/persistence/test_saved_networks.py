"""Networks of a model: in its file, by name, or given by the caller."""

import json

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from saved_models import BUNDLED, MASKS, X, check, returned, same
from tests_support import Slight

import mtsk
from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter, SharedDecoder
from mtsk.exceptions import ModelFileError, WeightsError
from mtsk.persistence.container import MANIFEST, read_container, write_container


def test_a_tuned_network_is_in_the_file(tmp_path):
    head = SharedDecoder(width=4, n_epochs=1, finetune="last")
    model = MultiTaskSegmenter(features=BUNDLED, head=head, random_state=0)
    loaded = check(model.fit(X, MASKS), tmp_path, backbone=None)
    assert loaded.features_.backbone_digest_ == model.features_.backbone_digest_


def test_weights_of_a_file_are_in_the_file(tmp_path):
    name, weights = "timm:mobilenetv3_small_050", tmp_path / "weights.pth"
    state = timm.create_model(name.removeprefix("timm:")).state_dict()
    torch.save(state, weights)
    features = DeepFeatures(name, weights=weights, scales=(1,))
    model = MultiTaskSegmenter(features=features, random_state=0).fit(X, MASKS)
    expected = model.predict(X)
    mtsk.save(model, tmp_path / "model")
    weights.unlink()
    assert same(mtsk.load(tmp_path / "model").predict(X), expected)


def test_a_module_of_your_own_must_be_given_or_allowed(tmp_path):
    network = Slight()
    with torch.no_grad():
        network.first.weight += 1
    model = MultiTaskSegmenter(
        features=DeepFeatures(network, taps=["first", "second"]), random_state=0
    ).fit(X, MASKS)
    with pytest.raises(ModelFileError, match=r"tests_support\.Slight: pass it as"):
        returned(model, tmp_path, backbone=None)
    for how in (
        {"backbone": Slight()},
        {
            "backbone": None,
            "allow": ["tests_support.Slight"],
        },
    ):
        assert same(returned(model, tmp_path, **how).predict(X), model.predict(X))
    with pytest.raises(ModelFileError, match="is another one"):
        returned(model, tmp_path, backbone=torch.nn.Conv2d(3, 4, 3))


def test_a_tuned_module_of_your_own_and_what_it_was_are_two(tmp_path):
    network = Slight()
    head = SharedDecoder(width=4, n_epochs=1, finetune="all")
    features = DeepFeatures(network, taps=["first", "second"], scales=(1,))
    model = MultiTaskSegmenter(features=features, head=head, random_state=0)
    model.fit(X, MASKS)
    given = Slight()
    before = given.first.weight.detach().clone()
    loaded = check(model, tmp_path, backbone=given)
    assert torch.equal(given.first.weight, before)
    plain, tuned = (f.network().digest for f in (loaded.features, loaded.features_))
    assert plain == features.network().digest
    assert tuned == model.features_.backbone_digest_ != plain


def test_a_network_that_is_not_asked_for(tmp_path):
    mtsk.save(JointRidge().fit(np.eye(4), [0, 1, 0, 1]), tmp_path / "m")
    with pytest.raises(ModelFileError, match="holds no network of your own"):
        mtsk.load(tmp_path / "m", backbone=Slight())


def test_a_network_with_other_weights_is_told(tmp_path, monkeypatch):
    model = MultiTaskSegmenter(features=BUNDLED, random_state=0).fit(X, MASKS)
    mtsk.save(model, tmp_path / "model")
    other = mtsk.backbones.load_backbone(weights="random")
    monkeypatch.setattr(DeepFeatures, "network", lambda self: other)
    with pytest.raises(WeightsError, match="whose weights have SHA-256"):
        mtsk.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["torchvision:vgg16", "timm:vit_large_patch16_224"])
def test_a_large_network_is_not_built_for_an_empty_file(tmp_path, name):
    small = "timm:mobilenetv3_small_050"
    torch.save(timm.create_model(small.partition(":")[2]).state_dict(), tmp_path / "w")
    features = DeepFeatures(small, weights=tmp_path / "w", scales=(1,))
    head = JointRidge(alpha=1e-2, calibrate=False)
    model = MultiTaskSegmenter(features=features, head=head, random_state=0)
    mtsk.save(model.fit(X, MASKS), tmp_path / "model")
    content = read_container(tmp_path / "model")
    manifest = json.loads(content.pop(MANIFEST))
    manifest["networks"][0]["name"] = name
    content["network0.safetensors"] = safetensors.torch.save({})
    write_container(tmp_path / "model", manifest, content)
    with pytest.raises(ModelFileError, match=f"0 numbers of a network '{name}'"):
        mtsk.load(tmp_path / "model")
