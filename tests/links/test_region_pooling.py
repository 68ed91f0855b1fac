"""pool_by: tasks of whole images look where a task of pixels finds something."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score
from tests_support import Counting

import mtsk
from mtsk import DeepFeatures, MultiTaskSegmenter, Targets, predict_tiled
from mtsk.exceptions import TilingError, UnknownTaskError
from mtsk.features import FeatureMaps, MemoryCache
from mtsk.inspection import layer_attribution, task_table
from mtsk.links import Links
from mtsk.links.region_pooling import RegionPooling
from mtsk.tasks import BinaryMask, Boundary, Classification, SemanticSegmentation
from mtsk.tasks.task_set import TaskSet
from mtsk.testing import toy_images

FEATURES = DeepFeatures(scales=(1,))
X, MASKS = toy_images(12, (32, 40))
KINDS = ["a", "b"] * 6
KIND = Classification().fit(KINDS)
Y = Targets(parts=[m if i < 5 else None for i, m in enumerate(MASKS)], kind=KINDS)


def segmenter(region_pooling="parts", **more):
    features = more.pop("features", FEATURES)
    return MultiTaskSegmenter(
        features=features,
        links=Links(region_pooling=region_pooling),
        random_state=0,
        **more,
    )


@pytest.fixture(scope="module")
def fitted():
    return segmenter().fit(X, Y)


def test_rows_are_the_means_over_what_is_predicted(fitted):
    (maps,) = FEATURES.fit().transform(X[:1])
    labels = fitted.predict(X[:1], tasks=["parts"])["parts"][0]
    rows = [maps.region_means(np.where(labels == k, 0, -1))[0] for k in (3, 7)]
    row = np.concatenate(rows)[None]
    expected = fitted.image_head_.decision_function(row)[0]
    found = fitted.decision_function(X[:1], tasks=["kind"])["kind"][0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_law_5_pixels_do_not_know(fitted):
    alone = segmenter(None).fit(X, Y)
    np.testing.assert_array_equal(fitted.pixel_head_.coef_, alone.pixel_head_.coef_)
    np.testing.assert_array_equal(fitted.predict(X)["parts"], alone.predict(X)["parts"])


def test_some_labels_in_their_order():
    both = segmenter(("parts", [7, 3])).fit(X, Y)
    assert both.region_pooling_.codes == (1, 0)
    one = segmenter(("parts", [7])).fit(X, Y)
    n = one.features_.n_features_out_
    assert (one.image_head_.coef_.shape[0], both.image_head_.coef_.shape[0]) == (
        n,
        2 * n,
    )


def test_a_mask_is_looked_into():
    targets = Targets(disc=[m == 7 for m in MASKS], kind=KINDS)
    model = segmenter("disc").fit(X, targets)
    assert model.region_pooling_.codes == (1,)
    assert model.predict(X)["kind"].shape == (12,)


def test_a_label_that_is_nowhere_gets_the_mean_over_the_image():
    task = SemanticSegmentation(classes=[0, 1, 2]).fit([np.zeros((4, 4), int)])
    maps = FeatureMaps([np.arange(16.0).reshape(4, 4, 1)], [(1, 1)], (4, 4))
    scores = np.zeros((4, 4, 3))
    scores[:2, :, 2] = 1
    pooling = RegionPooling.of("t", TaskSet({"t": task, "kind": KIND}), "test")
    np.testing.assert_allclose(pooling.pooled(maps, scores), [11.5, 7.5, 3.5])


def test_columns_of_position_are_left_out():
    features = DeepFeatures(scales=(1,), position=True)
    model = segmenter(features=features).fit(X, Y)
    assert model.image_head_.coef_.shape[0] == 2 * 784


def test_it_helps_where_only_a_part_tells():
    """One of six patches has a red frame; which way its stripes run is the class."""
    rng = np.random.default_rng(0)
    images = np.full((48, 54, 72, 3), 90, np.uint8)
    masks = np.zeros((48, 54, 72), int)
    kinds = ["ab"[i % 2] for i in range(48)]
    stripes = np.broadcast_to(np.arange(12)[:, None] % 4 < 2, (12, 12))[..., None] * 255
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        places = rng.permutation([(t, x) for t in (3, 21, 39) for x in (3, 27, 51)])
        ways = [i % 2, *rng.integers(0, 2, 5)]
        for (top, left), way in zip(places[:6], ways, strict=True):
            patch = stripes.transpose(1, 0, 2) if way else stripes
            image[top : top + 12, left : left + 12] = patch
        top, left = places[0]
        frame = np.zeros((54, 72), bool)
        frame[top - 3 : top + 15, left - 3 : left + 15] = True
        frame[top : top + 12, left : left + 12] = False
        image[frame] = [255, 0, 0]
        mask[top : top + 12, left : left + 12] = 1
    known = [m if i < 12 else None for i, m in enumerate(masks)]
    targets = Targets(parts=known, kind=kinds)
    scores = {}
    for name, by in (("mean", None), ("parts", ("parts", [1]))):
        model = segmenter(by).fit(images[:24], targets[:24])
        truth = {"kind": kinds[24:]}
        scores[name] = model.score_tasks(images[24:], truth)["kind"]
    assert scores["parts"] > scores["mean"] + 0.1
    assert scores["parts"] > 0.9


def test_the_network_sees_each_image_once_with_a_cache():
    network = Counting()
    features = DeepFeatures(network, scales=[1], cache=MemoryCache(2**26))
    segmenter(features=features).fit(X, Y)
    assert network.images == len(X)


def test_laws_6_and_8_and_model_selection(fitted, tmp_path):
    probabilities = fitted.predict_proba(X)["kind"]
    again = [
        clone(fitted).set_params(n_jobs=2).fit(X, Y),
        pickle.loads(pickle.dumps(fitted)),
    ]
    fitted.save(tmp_path / "m")
    again.append(mtsk.load(tmp_path / "m"))
    for model in again:
        np.testing.assert_allclose(
            model.predict_proba(X)["kind"], probabilities, atol=1e-6
        )
    folds = KFold(2, shuffle=True, random_state=0)
    assert np.isfinite(cross_val_score(segmenter(), X, Y, cv=folds)).all()


def test_with_structure_and_other_heads():
    for more in ({"structure": "crf"}, {"head": "ridge"}, {"head": "network"}):
        model = segmenter(**more).fit(X, Y)
        assert set(model.predict(X)) == {"parts", "kind"}


def test_images_that_are_skipped():
    features = DeepFeatures(scales=(1,), on_error="skip")
    images = [*X, np.zeros(3, np.uint8)]
    targets = Targets(parts=[*Y["parts"], None], kind=[*KINDS, "a"])
    with pytest.warns(UserWarning, match="12"):
        model = segmenter(features=features).fit(images, targets)
    assert list(model.skipped_) == [12]


@pytest.mark.parametrize(
    "by",
    [
        "kind",
        ("kind", ["a"]),
        ("parts", [4]),
        ("parts", []),
        ("parts", [3, 3]),
        ("parts", 3),
        ("parts", [3], 1),
        ("parts",),
        (),
        (["parts"], [3]),
    ],
)
def test_what_cannot_be_looked_at(by):
    with pytest.raises(ValueError, match="`region_pooling` of Links must be"):
        segmenter(by).fit(X, Y)


def test_a_task_that_only_pixels_around_tell(fitted):
    targets = Targets(edges=list(MASKS), kind=KINDS)
    with pytest.raises(ValueError, match="`region_pooling` of Links must be"):
        segmenter("edges", tasks={"edges": Boundary()}).fit(X, targets)


def test_nothing_to_pool_for(fitted):
    with pytest.raises(ValueError, match=r"`region_pooling`.*None where no task is of"):
        segmenter("parts").fit(X, Targets(parts=list(MASKS)))


def test_what_is_refused(fitted):
    with pytest.raises(UnknownTaskError, match="`region_pooling` names 'other'"):
        segmenter("other").fit(X, Y)
    with pytest.raises(ValueError, match="`region_pooling`"):
        segmenter(3).fit(X, Y)
    with pytest.raises(ValueError, match="`region_pooling`"):
        segmenter(head="fcn").fit(X, Y)
    with pytest.raises(TilingError, match="`region_pooling`"):
        predict_tiled(fitted, X[0])
    with pytest.raises(TypeError, match="`region_pooling`"):
        layer_attribution(fitted, X[0], "kind", "a")
    with pytest.raises(ValueError, match="`region_pooling`"):
        task_table(segmenter(), X, Y, "image")
    head = mtsk.JointRidge(alpha=1e-3, calibrate=False)
    with pytest.raises(AttributeError, match="cannot do `links__region_pooling`"):
        segmenter(head=head).partial_fit(X, Y)
    tasks = TaskSet({"disc": BinaryMask().fit([MASKS[0] == 7]), "kind": KIND})
    assert RegionPooling.of(("disc", [True]), tasks, "test").codes == (1,)
    with pytest.raises(ValueError, match=r"each of \[True\] once at most"):
        RegionPooling.of(("disc", [False]), tasks, "test")
