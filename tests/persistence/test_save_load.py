"""save and load: the same predictions, for every head, structure and task."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from saved_models import BUNDLED, MASKS, SMALL, X, check, returned, same
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import mtsk
from mtsk import (
    DeepFeatures,
    JointLogistic,
    JointRidge,
    MultiTaskSegmenter,
    SharedDecoder,
    SharedLayerNetwork,
    Targets,
)
from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.exceptions import ModelFileError
from mtsk.heads import RelatedRidge
from mtsk.structure import Structure
from mtsk.tasks import (
    Boundary,
    Classification,
    Count,
    DensityCount,
    Detection,
    ImageToImage,
    InstanceSegmentation,
    Ordinal,
    SurfaceNormals,
)

OBJECTS = (MASKS == 7).astype(int)
RANDOM = np.random.default_rng(0)


def everything():
    """Targets of every kind of task, and the tasks that must be named."""
    n, height, width = MASKS.shape
    normals = np.zeros((n, height, width, 3))
    normals[..., 2] = 1
    boxes = [np.array([[5, 5, 18, 18]]) for _ in range(n)]
    targets = {
        "semantic": MASKS,
        "words": np.where(MASKS == 7, "disc", "ground"),
        "mask": MASKS == 7,
        "edges": OBJECTS,
        "depth": MASKS / 2.0,
        "normals": normals,
        "density": [np.array([[12, 14]]) for _ in range(n)],
        "picture": X[..., ::-1] / 255,
        "objects": OBJECTS,
        "boxes": boxes,
        "class": ["a", "b"] * (n // 2),
        "tags": RANDOM.random((n, 2)) > 0.5,
        "number": np.arange(n) / 2,
        "count": np.arange(n),
        "grade": [0, 1, 2] * (n // 3),
    }
    tasks = {
        "edges": Boundary(),
        "normals": SurfaceNormals(),
        "density": DensityCount(sigma=3),
        "picture": ImageToImage(),
        "objects": InstanceSegmentation(),
        "boxes": Detection(),
        "count": Count(),
        "grade": Ordinal(),
    }
    return Targets(targets), tasks


HEADS = {
    "default": None,
    "logistic": JointLogistic(),
    "ridge": JointRidge(),
    "sums": JointRidge(alpha=1e-3, calibrate=False),
    "related": RelatedRidge(class_weight=None),
    "network": SharedLayerNetwork((8,), n_epochs=1),
    "fcn": SharedDecoder(width=4, n_blocks=1, n_epochs=1),
    "unet": SharedDecoder("unet", width=4, n_epochs=1),
}
PEERS = {
    "forest": RandomForestClassifier(5),
    "tree": DecisionTreeClassifier(max_depth=4),
    "boosting": GradientBoostingClassifier(n_estimators=3),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=3),
    "svm": SVC(probability=False),
    "linear svm": LinearSVC(),
    "sgd": SGDClassifier(),
    "neighbours": KNeighborsClassifier(),
    "bayes": GaussianNB(),
    "perceptron": MLPClassifier((4,), max_iter=300),
    "pipeline": make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
    "function": make_pipeline(FunctionTransformer(np.abs), LogisticRegression()),
}


ALLOWED = {
    "neighbours": [
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
    ]
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("head", HEADS)
def test_every_head_of_ours_with_every_task(head, tmp_path):
    Y, tasks = everything()
    model = MultiTaskSegmenter(
        tasks, features=SMALL, head=HEADS[head], random_state=0, max_pixels_per_image=30
    )
    check(model.fit(X, Y), tmp_path, X[:2])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("head", PEERS)
def test_every_head_of_scikit_learn(head, tmp_path):
    Y = Targets(semantic=MASKS, kind=["a", "b"] * 3)
    model = MultiTaskSegmenter(
        features=SMALL, head=PEERS[head], random_state=0, max_pixels_per_image=40
    )
    check(model.fit(X, Y), tmp_path, X[:2], allow=ALLOWED.get(head, ()))


def test_heads_by_task(tmp_path):
    Y = Targets(semantic=MASKS, depth=MASKS / 2.0, kind=["a", "b"] * 3)
    head = {"semantic": LinearSVC(), "depth": Ridge(), "kind": LogisticRegression()}
    model = MultiTaskSegmenter(
        features=SMALL, head=head, random_state=0, max_pixels_per_image=40
    )
    check(model.fit(X, Y), tmp_path, X[:2])


@pytest.mark.parametrize(
    "structure",
    ["crf", SuperpixelCRF(strength=1.0), PixelCRF(), Structure(SuperpixelCRF(), None)],
    ids=["crf", "superpixels", "pixels", "parts"],
)
def test_every_structure(structure, tmp_path):
    Y = Targets(semantic=MASKS, mask=MASKS == 7, tags=RANDOM.random((6, 2)) > 0.5)
    model = MultiTaskSegmenter(
        {"semantic": mtsk.tasks.SemanticSegmentation()},
        features=SMALL,
        structure=structure,
        random_state=0,
        max_pixels_per_image=30,
    )
    check(model.fit(X, Y), tmp_path, X[:2])


@pytest.mark.parametrize(
    "features",
    [
        DeepFeatures(scales=(1,), n_components=5),
        DeepFeatures(scales=(0.5,), position=True, cache="memory"),
        DeepFeatures(scales=(1, 0.5), channels=[(0, 1, 2), (2, 1, 0)]),
        DeepFeatures("timm:mobilenetv3_small_050", weights="random", scales=(1,)),
    ],
    ids=["components", "cache", "views", "timm"],
)
def test_every_kind_of_features(features, tmp_path):
    model = MultiTaskSegmenter(
        features=features, random_state=0, max_pixels_per_image=30
    )
    loaded = check(model.fit(X, MASKS), tmp_path, X[:2], backbone=None)
    assert loaded.features_.cache is None
    assert model.features.cache == features.cache


def test_what_is_not_a_segmenter(tmp_path):
    features = DeepFeatures(output="vector", scales=(1,)).fit()
    features = returned(features, tmp_path, backbone=None)
    pipe = make_pipeline(features, LogisticRegression()).fit(X, ["a", "b"] * 3)
    loaded = returned(pipe, tmp_path, backbone=None)
    assert same(loaded.predict(X), pipe.predict(X))
    table = RANDOM.normal(size=(20, 3))
    head = JointRidge().fit(table, table[:, 0] > 0)
    assert same(returned(head, tmp_path).predict(table), head.predict(table))


def test_a_search(tmp_path):
    model = MultiTaskSegmenter(
        features=SMALL, head=JointRidge(), random_state=0, max_pixels_per_image=40
    )
    search = GridSearchCV(model, {"head__alpha": [1e-3, 1.0]}, cv=2).fit(X, MASKS)
    loaded = returned(search, tmp_path)
    assert loaded.best_params_ == search.best_params_
    assert same(loaded.predict(X), search.predict(X))


def test_a_loaded_model_can_be_fitted_further_and_saved_again(tmp_path):
    head = JointRidge(alpha=1e-3, calibrate=False)
    model = MultiTaskSegmenter(features=SMALL, head=head, random_state=0)
    loaded = returned(model.fit(X, MASKS), tmp_path)
    again = returned(loaded, tmp_path)
    for one in (model, loaded, again):
        one.partial_fit(X[::-1], MASKS[::-1])
    assert same(model.decision_function(X[:1]), again.decision_function(X[:1]))


# -- types of one's own -------------------------------------------------------


class Scarlet(Classification):
    """A task of one's own."""


def test_a_task_of_your_own_must_be_allowed(tmp_path):
    model = MultiTaskSegmenter({"kind": Scarlet()}, features=SMALL, random_state=0)
    model.fit(X, Targets(kind=["a", "b"] * 3))
    with pytest.raises(ModelFileError, match=r"types that mtsk does not know.*Scarlet"):
        returned(model, tmp_path)
    assert (
        "Scarlet" in mtsk.persistence.describe(tmp_path / "my model é.mtsk")["types"][0]
    )
    loaded = returned(model, tmp_path, allow=[Scarlet])
    assert isinstance(loaded.tasks_["kind"], Scarlet)


def test_a_lambda_cannot_be_saved(tmp_path):
    head = make_pipeline(FunctionTransformer(lambda t: t), LogisticRegression())
    model = MultiTaskSegmenter(features=SMALL, head=head, random_state=0)
    model.fit(X, MASKS)
    with pytest.raises(ModelFileError, match="no lambdas"):
        mtsk.save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


# -- other processes ----------------------------------------------------------


def test_another_process_with_another_hash_seed_says_the_same(tmp_path):
    Y = Targets(
        semantic=np.where(MASKS == 7, "disc", "ground"), tags=[{"a"}, set()] * 3
    )
    model = MultiTaskSegmenter(features=BUNDLED, random_state=0).fit(X, Y)
    mtsk.save(model, tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    script = (
        "import sys, json, numpy as np, mtsk\n"
        "found = mtsk.load('model').predict(np.load('X.npy'))\n"
        "json.dump([np.asarray(m).tolist() for m in found['semantic']]"
        " + [sorted(t) for t in found['tags']], sys.stdout)"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
        check=True,
    )
    found = model.predict(X)
    expected = [np.asarray(m).tolist() for m in found["semantic"]]
    assert json.loads(run.stdout) == expected + [sorted(t) for t in found["tags"]]


# -- the card -----------------------------------------------------------------


def test_the_card_says_what_the_model_is(tmp_path):
    Y = Targets(semantic=MASKS, depth=MASKS / 2.0)
    model = MultiTaskSegmenter(features=BUNDLED, random_state=0).fit(X, Y)
    path = tmp_path / "model.mtsk"
    mtsk.save(model, path, scores={"semantic": 0.91}, description="Discs on noise.")
    card = mtsk.persistence.describe(path)
    assert card["tasks"]["semantic"]["classes"] == [3, 7]
    assert card["data"]["images"] == 6
    assert card["features"]["sha256"] == model.features_.backbone_digest_
    for said in (
        "Discs on noise.",
        "score 0.91",
        "Apache-2.0",
        "3, 7",
        "depth",
        "6 images",
    ):
        assert said in str(card)


def test_a_card_is_read_without_making_the_model(tmp_path, monkeypatch):
    path = tmp_path / "model.mtsk"
    mtsk.save(MultiTaskSegmenter(features=BUNDLED, random_state=0).fit(X, MASKS), path)
    monkeypatch.setattr("skops.io.loads", None)
    assert mtsk.persistence.describe(path)["model"] == "MultiTaskSegmenter"


# -- writing ------------------------------------------------------------------


def test_what_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.mtsk"
    model = MultiTaskSegmenter(features=SMALL, random_state=0).fit(X, MASKS)
    mtsk.save(model, path)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match="cannot be written: No space left"):
        mtsk.save(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_path_that_is_none_or_a_folder(tmp_path):
    model = JointRidge().fit(np.eye(4), np.arange(4.0))
    with pytest.raises(ValueError, match="`path` of save must be a path, got 3"):
        mtsk.save(model, 3)
    with pytest.raises(ModelFileError, match="is a folder; name a file"):
        mtsk.save(model, tmp_path)


def test_a_folder_that_is_not_there(tmp_path):
    model = JointRidge().fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(ModelFileError, match="cannot be written: No such file"):
        mtsk.save(model, tmp_path / "none" / "model.mtsk")


@pytest.mark.parametrize("what", [3, None, "model"])
def test_only_estimators_are_saved(what, tmp_path):
    with pytest.raises(TypeError, match="save needs an estimator"):
        mtsk.save(what, tmp_path / "model")


def test_only_fitted_models_are_saved(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        mtsk.save(MultiTaskSegmenter(), tmp_path / "model")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"description": 3}, "`description` of save"),
        ({"description": b"x"}, "`description` of save"),
        ({"scores": {"t": float("nan")}}, "`scores` of save"),
        ({"scores": [1]}, "`scores` of save"),
        ({"description": "x" * 2**20}, "shorten `description`"),
    ],
)
def test_cards_that_could_not_be_read_are_not_written(given, message, tmp_path):
    model = JointRidge().fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(ValueError, match=message):
        mtsk.save(model, tmp_path / "m", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [{"allow": "x.y"}, {"allow": 3}, {"backbone": 3}])
def test_what_load_cannot_be_given(given, tmp_path):
    mtsk.save(JointRidge().fit(np.eye(4), [0, 1, 0, 1]), tmp_path / "m")
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` of load must be"):
        mtsk.load(tmp_path / "m", **given)


def test_a_name_that_no_file_can_have():
    model = JointRidge().fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(ModelFileError, match="cannot be written"):
        mtsk.save(model, "a\0b")
    with pytest.raises(ModelFileError, match="cannot be read"):
        mtsk.load("a\0b")


def test_a_card_prints_no_control_characters(tmp_path):
    model = JointRidge().fit(np.eye(4), [0, 1, 0, 1])
    mtsk.save(model, tmp_path / "m", description="\x1b[2Jé\u202e")
    assert "?[2Jé?" in str(mtsk.persistence.describe(tmp_path / "m"))


def test_tags_that_teach_pixels(tmp_path):
    masks = [mask if i < 3 else None for i, mask in enumerate(MASKS)]
    tags = [set(np.unique(mask).tolist()) for mask in MASKS]
    model = MultiTaskSegmenter(features=BUNDLED, random_state=0)
    model.fit(X, Targets(parts=masks, tags=tags))
    assert model.tag_links_
    check(model, tmp_path, backbone=None)


def test_a_segmenter_saves_itself(tmp_path):
    model = MultiTaskSegmenter(features=BUNDLED, random_state=0).fit(X, MASKS)
    model.save(tmp_path / "m", scores={"target": 0.5}, description="Discs.")
    card = mtsk.persistence.describe(tmp_path / "m")
    assert (card["scores"], card["description"]) == ({"target": 0.5}, "Discs.")
    assert same(mtsk.load(tmp_path / "m").predict(X), model.predict(X))
    with pytest.raises(NotFittedError):
        MultiTaskSegmenter().save(tmp_path / "n")
    assert not (tmp_path / "n").exists()
