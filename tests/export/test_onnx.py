"""ONNX graphs: onnxruntime says of images of any size what the model says."""

import json

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from toy_segmenters import segmenter

from mtsk import DeepFeatures, SharedDecoder, SharedLayerNetwork, Targets
from mtsk.backbones import INT8
from mtsk.backbones.int8 import int8_supported
from mtsk.cli import main
from mtsk.exceptions import BackboneError, ExportError, UnknownTaskError
from mtsk.export import export_onnx
from mtsk.links import Links
from mtsk.tasks import BinaryMask
from mtsk.testing import toy_images

onnxruntime = pytest.importorskip("onnxruntime")
X, Y = toy_images(6, (48, 64))
TARGETS = Targets(
    parts=list(Y),
    disc=list(Y == 7),
    depth=[y * 1.5 for y in Y],
    kind=["a", "b", "c"] * 2,
    tags=[{"x"}, {"x", "y"}] * 3,
    area=[float((y == 7).mean()) for y in Y],
)
HEADS = {
    "logistic": "logistic",
    "ridge": "ridge",
    "network": SharedLayerNetwork((16,), n_epochs=2),
    "fcn": SharedDecoder(width=8, n_epochs=1),
    "unet": SharedDecoder("unet", width=8, n_epochs=1),
}


@pytest.fixture(scope="module", params=HEADS)
def exported(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    model = segmenter(
        {"disc": BinaryMask(threshold=0.3)},
        features=DeepFeatures(scales=[0.5, 1, 2]),
        head=HEADS[request.param],
    ).fit(X, TARGETS)
    about = export_onnx(model, path)
    session = onnxruntime.InferenceSession(path)
    return model, session, about


@pytest.mark.parametrize("shape", [(48, 64), (97, 131), (33, 250), (130, 70)])
def test_outputs_are_the_models(exported, shape):
    model, session, _ = exported
    image = toy_images(1, shape)[0][0]
    names = [out.name for out in session.get_outputs()]
    found = session.run(None, {"image": image.astype(np.float32) / 255})
    found = dict(zip(names, found, strict=True))
    for task, (scores,) in model.decision_function([image]).items():
        assert found[f"{task}_scores"].shape == scores.shape
        # A value of a tap that lies between two of half precision may go to either, and
        # a decoder's convolutions carry that further than a linear head does.
        share = 1e-3 if model.predictor_.is_convolutional else 2e-4
        limit = share * max(1, np.abs(scores).max())
        np.testing.assert_allclose(found[f"{task}_scores"], scores, atol=limit)
    predicted = model.predict([image])
    classes = model.tasks_["parts"].classes_
    np.testing.assert_array_equal(classes[found["parts"]], predicted["parts"][0])
    np.testing.assert_array_equal(found["disc"], predicted["disc"][0])
    assert model.tasks_["kind"].classes_[found["kind"]] == predicted["kind"][0]
    shares = model.predict_proba([image], tasks=["parts", "disc", "kind"])
    for task, (share,) in shares.items():
        np.testing.assert_allclose(found[f"{task}_probabilities"], share, atol=1e-3)


def test_the_file_tells_what_a_program_must_know(exported):
    model, session, about = exported
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["mtsk"]) == about
    assert about["tasks"]["parts"] == {
        "type": "SemanticSegmentation",
        "classes": [3, 7],
        "outputs": ["parts_scores", "parts_probabilities", "parts"],
    }
    assert about["tasks"]["area"]["outputs"] == ["area_scores"]
    assert set(about["tasks"]) == set(model.tasks_)


def test_the_command_and_some_tasks(tmp_path, capsys):
    model = segmenter(features=DeepFeatures(scales=[1])).fit(X, TARGETS)
    model.save(tmp_path / "m.mtsk")
    out = tmp_path / "m.onnx"
    arguments = [str(tmp_path / "m.mtsk"), "-o", str(out), "--tasks", "disc", "kind"]
    assert main(["export", *arguments]) == 0
    assert "disc_scores, disc_probabilities, disc" in capsys.readouterr().out
    names = [o.name for o in onnxruntime.InferenceSession(out).get_outputs()]
    assert "parts_scores" not in names
    assert len(names) == 6
    with pytest.raises(UnknownTaskError, match="nope"):
        export_onnx(model, out, tasks=["nope"])


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:convnext_atto"])
def test_other_convolutional_networks(tmp_path, name):
    features = DeepFeatures(name, weights="random", scales=[1])
    model = segmenter(features=features).fit(X, Y)
    export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    image = toy_images(1, (77, 101))[0][0]
    (place,) = session.run(["target"], {"image": image.astype(np.float32) / 255})
    expected = model.predict([image])[0]
    assert (model.tasks_["target"].classes_[place] == expected).mean() > 0.999


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"structure": "crf"}, "`structure`"),
        ({"links": Links(region_pooling="parts")}, "`links__region_pooling`"),
        (
            {"features": DeepFeatures(scales=[1], position=True)},
            "`features__position`",
        ),
        (
            {"features": DeepFeatures(scales=[1], n_components=3)},
            "`features__n_components`",
        ),
        (
            {"features": DeepFeatures(scales=[1], channels="each")},
            "`features__channels`",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_exported_is_named(tmp_path, parameters, message):
    features = DeepFeatures(scales=[1])
    model = segmenter(**{"features": features, **parameters}).fit(X, TARGETS)
    with pytest.raises(ExportError, match=message):
        export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_says_something_else_is_not_written(tmp_path, monkeypatch):
    model = segmenter(features=DeepFeatures(scales=[1])).fit(X, Y)
    scores = type(model.predictor_).scores

    def other(self, *arguments):
        return {n: s + 1 for n, s in scores(self, *arguments).items()}

    monkeypatch.setattr(type(model.predictor_), "scores", other)
    with pytest.raises(ExportError, match=r"scores of 'target' differ .* by \d"):
        export_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_head_that_is_no_graph_is_named(tmp_path):
    model = segmenter(head=DummyClassifier()).fit(X, Targets(parts=list(Y)))
    with pytest.raises(ExportError, match="PerTaskHead cannot be exported"):
        export_onnx(model, tmp_path / "m.onnx")


@pytest.mark.skipif(not int8_supported(), reason="this CPU has no VNNI")
def test_a_network_that_is_a_graph_already_is_named(tmp_path):
    features = DeepFeatures(INT8, scales=[1])
    model = segmenter(features=features).fit(X, Targets(parts=list(Y)))
    with pytest.raises(BackboneError, match="it is an ONNX graph already"):
        export_onnx(model, tmp_path / "m.onnx")


def test_a_model_that_runs_by_onnxruntime_is_exported(tmp_path):
    features = DeepFeatures(scales=[1], engine="onnxruntime")
    model = segmenter(features=features).fit(X, Targets(parts=list(Y)))
    export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(["parts"], {"image": X[0].astype(np.float32) / 255})
    classes = model.tasks_["parts"].classes_
    assert (classes[found] == model.predict(X[:1])["parts"][0]).mean() > 0.999
