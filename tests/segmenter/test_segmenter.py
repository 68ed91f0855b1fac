"""MultiTaskSegmenter: the conformance suite, the laws, model selection, bad input."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from skimage.io import imsave
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from toy_segmenters import FAST, SUMS, TASKS, many_targets, segmenter

from mtsk import (
    DeepFeatures,
    JointLogistic,
    MultiTaskSegmenter,
    SharedDecoder,
    SharedLayerNetwork,
    Targets,
)
from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.datasets import make_digit_scenes
from mtsk.exceptions import (
    BackboneError,
    ImageError,
    TargetError,
    UnknownTaskError,
)
from mtsk.links import Links
from mtsk.structure import Structure
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Classification,
    MultiLabel,
    SemanticSegmentation,
)
from mtsk.testing import image_estimator_checks, toy_images

NO_ROUNDS = Links(n_pseudo_label_rounds=0)
REAL = make_pipeline(StandardScaler(), Ridge(10))


PARTS = [
    (name, check)
    for parts in (
        {},
        {"head": "ridge"},
        {"structure": Structure(SuperpixelCRF(), PixelCRF(), n_segments=40)},
    )
    for name, check in image_estimator_checks(
        MultiTaskSegmenter(features=FAST, random_state=0, **parts)
    )
]


@pytest.mark.parametrize(("name", "check"), PARTS)
def test_conformance(name, check):
    check()


@pytest.fixture(scope="module")
def toys():
    return toy_images(8)


@pytest.fixture(scope="module")
def fitted(toys):
    X, Y = toys
    return segmenter(TASKS).fit(X, many_targets(Y))


def test_every_task_comes_back_in_its_own_form(fitted, toys):
    X, Y = toys
    given, guess = many_targets(Y), fitted.predict(X)
    assert list(guess) == given.task_names
    assert guess["semantic"].shape == Y.shape
    assert guess["disc"].dtype == bool
    assert guess["edges"].dtype == bool
    assert guess["depth"].shape == Y.shape
    assert guess["third"].dtype == bool
    assert set(guess["name"]) <= {"even", "odd"}
    assert guess["tags"].shape == (8, 2)
    assert all(isinstance(words, set) for words in guess["words"])
    assert guess["area"].shape == (8,)
    assert guess["place"].shape == (8, 2)


def test_scores_of_every_task_are_good_on_the_toys(fitted, toys):
    X, Y = toys
    scores = fitted.score_tasks(X, many_targets(Y))
    assert min(scores.values()) > 0.4, scores
    assert scores["semantic"] > 0.9
    assert 0.4 < fitted.score(X, many_targets(Y)) < np.mean(list(scores.values()))


def test_probabilities(fitted, toys):
    X, _ = toys
    proba = fitted.predict_proba(X[:2])
    assert proba["semantic"].shape == (2, 40, 48, 2)
    np.testing.assert_allclose(proba["semantic"].sum(axis=-1), 1, rtol=1e-5)
    assert proba["disc"].shape == (2, 40, 48)
    assert 0 <= proba["disc"].min() <= proba["disc"].max() <= 1
    assert "depth" not in proba
    with pytest.raises(AttributeError, match="'depth', a DenseRegression, has no prob"):
        fitted.predict_proba(X[:2], tasks=["semantic", "depth"])
    scores = fitted.decision_function(X[:2], tasks=["semantic"])["semantic"]
    np.testing.assert_array_equal(
        np.array([3, 7])[scores.argmax(axis=-1)], fitted.predict(X[:2])["semantic"]
    )


@pytest.mark.parametrize("head", ["logistic", SUMS], ids=["logistic", "ridge"])
def test_law_5_joint_equals_separate(toys, head):
    X, Y = toys
    targets = many_targets(Y)
    joint = segmenter(TASKS, head=head).fit(X, targets).decision_function(X[:2])
    for name in targets.task_names:
        tasks = {name: TASKS[name]} if name in TASKS else None
        alone = segmenter(tasks, head=head).fit(X, targets.subset([name]))
        got = alone.decision_function(X[:2])[name]
        scale = np.abs(got).max() + 1e-9
        np.testing.assert_allclose(joint[name] / scale, got / scale, atol=2e-3)


def test_law_7_unlabelled_pixels_change_nothing(toys):
    X, Y = toys
    void = Y.copy()
    void[:, :, :10] = -1
    other = Y.copy()
    other[:, :, :10] = 99
    one = segmenter().fit(X, void).decision_function(X[:1])
    two = segmenter(SemanticSegmentation(void=99)).fit(X, other)
    np.testing.assert_array_equal(one, two.decision_function(X[:1]))


def test_law_7_other_tasks_images_change_nothing(toys):
    X, Y = toys
    names = ["big", "small"] * 2 + [None] * 4
    partly = Targets(semantic=[*Y[:4], *[None] * 4], name=names)
    whole = segmenter().fit(X, partly).decision_function(X[:2])
    alone = segmenter().fit(X[:4], list(Y[:4])).decision_function(X[:2])
    np.testing.assert_allclose(whole["semantic"], alone, atol=1e-3)


def test_law_8_pickle_and_clone(fitted, toys):
    X, _ = toys
    again = pickle.loads(pickle.dumps(fitted))
    first, second = fitted.predict(X[:2]), again.predict(X[:2])
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_law_10_duplicated_images_change_nothing(toys):
    X, Y = toys
    head = JointLogistic(class_weight="balanced")
    once = segmenter(head=head).fit(X, Y).decision_function(X[:1])
    twice = segmenter(head=head).fit(np.tile(X, (2, 1, 1, 1)), np.tile(Y, (2, 1, 1)))
    # Logits of a search that has converged: see JointLogistic's `tol`.
    np.testing.assert_allclose(once, twice.decision_function(X[:1]), atol=1e-3)


def test_law_4_partial_fit_in_pieces_equals_one_fit(toys):
    X, Y = toys
    targets = many_targets(Y).subset(["semantic", "depth", "name", "area"])
    whole = segmenter(head=SUMS).fit(X, targets)
    pieces = segmenter(head=SUMS)
    for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
        assert pieces.partial_fit(X[part], targets[part]) is pieces
    assert pieces.n_images_ == 8
    assert pieces.n_rows_ == whole.n_rows_
    expected, got = whole.decision_function(X), pieces.decision_function(X)
    for name in targets.task_names:
        np.testing.assert_allclose(got[name], expected[name], atol=2e-3)


def test_law_4_partial_fit_goes_on_from_a_fit(toys):
    X, Y = toys
    targets = many_targets(Y).subset(["semantic", "depth", "name", "area"])
    whole = segmenter(head=SUMS).fit(X, targets)
    pieces = (
        segmenter(head=SUMS).fit(X[:6], targets[:6]).partial_fit(X[6:], targets[6:])
    )
    assert pieces.n_images_ == 8
    assert pieces.n_rows_ == whole.n_rows_
    expected, got = whole.decision_function(X), pieces.decision_function(X)
    for name in targets.task_names:
        # Sums in float32 blocks, cut elsewhere: scores of about 1, a few 1e-4 apart.
        np.testing.assert_allclose(got[name], expected[name], atol=2e-3)


@pytest.mark.parametrize("head", [None, "ridge", "network", "fcn", LinearRegression()])
def test_partial_fit_needs_a_head_that_can(toys, head):
    X, Y = toys
    for model in (segmenter(head=head), segmenter(head=SUMS).fit(X, Y)):
        with pytest.raises(AttributeError, match="JointRidge"):
            model.set_params(head=head).partial_fit(X, Y)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"head": None}, {"head": SUMS}),
        ({"structure": SuperpixelCRF(strength=1.0)}, {"structure": None}),
        ({"links": Links(region_pooling="semantic")}, {"links": NO_ROUNDS}),
        ({"links": Links(n_pseudo_label_rounds=1)}, {"links": NO_ROUNDS}),
    ],
)
def test_partial_fit_refuses_to_go_on_from_what_no_sums_tell(toys, first, then):
    X, Y = toys
    targets = Targets(semantic=Y, tags=[set(np.unique(y).tolist()) for y in Y])
    model = segmenter(**{"head": SUMS, "links": NO_ROUNDS, **first}).fit(X, targets)
    if "structure" in first or getattr(first.get("links"), "region_pooling", None):
        with pytest.raises(AttributeError, match="partial_fit cannot do"):
            model.partial_fit(X, targets)
    with pytest.raises(AttributeError, match="cannot go on from this fit"):
        model.set_params(**then).partial_fit(X, targets)


def test_partial_fit_refuses_new_classes(toys):
    X, Y = toys
    model = segmenter(head=SUMS).partial_fit(X[:2], Y[:2])
    with pytest.raises(TargetError, match=r"image 0: labels \[9\] are not among"):
        model.partial_fit(X[:1], [np.full((40, 48), 9)])


def test_partial_fit_keeps_to_its_tasks(toys):
    X, Y = toys
    model = segmenter(head=SUMS).partial_fit(X[:2], {"a": Y[:2]})
    with pytest.raises(UnknownTaskError, match=r"Y has .*'b'.*first call had .*'a'"):
        model.partial_fit(X[2:], {"b": Y[2:]})


def test_tasks_without_labels_do_not_count_in_score(toys):
    X, Y = toys
    model = segmenter().fit(X, Targets(a=Y, b=[float(i) for i in range(8)]))
    partly = Targets(a=Y, b=[None] * 8)
    miou = model.score_tasks(X, partly)["a"]
    shares = np.unique(Y, return_counts=True)[1] / Y.size
    constant = shares.max() / len(shares)  # IoU of the largest class, 0 of the others
    assert model.score(X, partly) == pytest.approx((miou - constant) / (1 - constant))
    with pytest.raises(TargetError, match="nothing in Y is labelled"):
        model.score(X, {"a": np.full_like(Y, -1)})


def test_a_metric_that_is_not_defined_is_told(toys):
    X, Y = toys
    model = segmenter({"target": Boundary()}).fit(X, Y == 7)
    with pytest.raises(TargetError, match="average precision need something positive"):
        model.score(X, np.zeros_like(Y, bool))


def test_the_score_of_a_mask_is_its_iou(toys):
    X, Y = toys
    model = segmenter().fit(X, Y == 7)
    guess = model.predict(X)
    iou = ((Y == 7) & guess).sum() / ((Y == 7) | guess).sum()
    assert model.score(X, Y == 7) == pytest.approx(iou)


def test_sample_weight_counts_like_repetition(toys):
    X, Y = toys
    weight = np.array([2, 1, 0, 1, 1, 1, 1, 0])
    weighted = segmenter(head=SUMS).fit(X, Y, sample_weight=weight)
    order = np.repeat(np.arange(8), weight)
    repeated = segmenter(head=SUMS).fit(X[order], Y[order])
    np.testing.assert_allclose(
        weighted.decision_function(X[:1]), repeated.decision_function(X[:1]), atol=1e-3
    )
    with pytest.raises(ValueError, match="sample_weight must hold 8 numbers"):
        segmenter().fit(X, Y, sample_weight=[1, 2])


@pytest.mark.parametrize(
    "head",
    [
        RandomForestClassifier(5, random_state=0),
        LinearSVC(),
        MultiOutputClassifier(LogisticRegression(max_iter=500)),
        OneVsRestClassifier(LogisticRegression(max_iter=500)),
        make_pipeline(PCA(10), LogisticRegression(max_iter=500)),
        make_pipeline(SelectKBest(f_classif, k=50), LogisticRegression(max_iter=500)),
    ],
    ids=lambda head: type(head).__name__,
)
def test_scikit_learn_heads(toys, head):
    X, Y = toys
    targets = many_targets(Y).subset(["semantic", "disc"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant features, slow convergence
        model = segmenter(head=head).fit(X[:6], targets[:6])
        scores = model.score_tasks(X[6:], targets[6:])
    assert min(scores.values()) > 0.7, scores
    assert model.predict(X[:1])["semantic"].shape == (1, 40, 48)


def test_one_head_a_task(toys):
    X, Y = toys
    targets = many_targets(Y).subset(["semantic", "depth", "area"])
    heads = {"semantic": RandomForestClassifier(5, random_state=0), "depth": REAL}
    model = segmenter(head=heads).fit(X, targets)
    assert model.score_tasks(X, targets)["depth"] > 0.5
    assert model.predict(X)["area"].shape == (8,)


def test_a_head_of_the_wrong_kind(toys):
    X, Y = toys
    targets = many_targets(Y).subset(["depth"])
    with pytest.raises(ValueError, match="a real task needs a regressor"):
        segmenter(head=LogisticRegression()).fit(X, targets)
    with pytest.raises(UnknownTaskError, match="`head` names 'depht'"):
        segmenter(head={"depht": Ridge()}).fit(X, targets)
    with pytest.raises(ValueError, match="`head` of MultiTaskSegmenter must be"):
        segmenter(head="forest").fit(X, targets)


def test_head_stride_one_is_exact(toys):
    X, Y = toys
    head = {"target": REAL}
    depth = list(many_targets(Y)["depth"])
    model = segmenter(head=head, prediction_stride=1).fit(X, depth)
    maps = model.features_.transform(X[:1])[0]
    points = np.argwhere(np.ones((40, 48)))
    expected = model.pixel_head_.decision_function(maps.at(points)).reshape(40, 48)
    np.testing.assert_allclose(model.predict(X[:1])[0], expected, atol=1e-4)


def test_n_jobs_changes_nothing(toys):
    X, Y = toys
    targets = many_targets(Y).subset(["semantic", "disc"])
    head = RandomForestClassifier(5, random_state=0)
    one = segmenter(head=head, n_jobs=1).fit(X, targets).predict(X[:2])
    two = segmenter(head=head, n_jobs=2).fit(X, targets).predict(X[:2])
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_scores_count_a_class_that_training_never_saw(toys):
    X, Y = toys
    strange = Y[:2].copy()
    strange[:, :5] = 9
    model = segmenter().fit(X, Y)
    with pytest.warns(
        UserWarning, match=r"labels \[9\] are not among.* count as wrong"
    ):
        score = model.score_tasks(X[:2], strange)["target"]
    assert score < 0.7, "the unseen class counts with an IoU of 0"


def test_dataframe_and_mapping_targets(toys):
    X, Y = toys
    frame = pd.DataFrame({"name": ["a", "b"] * 4, "area": np.arange(8.0)}, range(8, 16))
    frame.loc[9, "name"] = None
    model = segmenter().fit(X, frame)
    assert set(model.predict(X)) == {"name", "area"}
    assert isinstance(model.tasks_["name"], Classification)
    assert set(segmenter().fit(X, {"m": Y}).predict(X)) == {"m"}


def test_bare_targets_may_have_a_bare_task(toys):
    X, Y = toys
    model = segmenter(SemanticSegmentation(void=3)).fit(X, np.where(Y == 7, 7, 5))
    assert set(np.unique(model.predict(X))) <= {5, 7}


def test_string_label_maps(toys):
    X, Y = toys
    words = np.where(Y == 7, "disc", "ground")
    assert set(np.unique(segmenter().fit(X, words).predict(X[:1]))) == {
        "disc",
        "ground",
    }


def test_binary_masks_of_255(toys):
    X, Y = toys
    masks = np.where(Y == 7, 255, 0).astype(np.uint8)
    guess = segmenter(BinaryMask(positive=255)).fit(X, masks).predict(X)
    assert guess.dtype == np.uint8
    assert set(np.unique(guess)) == {0, 255}
    with pytest.raises(TargetError, match=r"image 0: a binary mask .*\[255\]"):
        segmenter(BinaryMask()).fit(X, masks)


def test_scribbles_are_nearly_enough(toys):
    X, Y = toys
    strokes = np.full_like(Y, -1)
    strokes[:, ::8, ::8] = Y[:, ::8, ::8]
    assert segmenter().fit(X, strokes).score(X, Y) > 0.8


def test_tags_by_name(toys):
    X, _ = toys
    tags = [{"a"}, {"a", "b"}, None, {"b"}, set(), {"a"}, {"b"}, {"a", "b"}]
    model = segmenter(MultiLabel()).fit(X, tags)
    assert model.tasks_["target"].classes_.tolist() == ["a", "b"]
    assert all(guess <= {"a", "b"} for guess in model.predict(X))


def test_digit_scenes_end_to_end():
    scenes = make_digit_scenes(
        12, size=(64, 80), n_digits=(1, 2), digit_size=(28, 56), random_state=0
    )
    targets = scenes.targets
    Y = Targets(
        semantic=targets["semantic"],
        edges=targets["instances"],
        depth=targets["depth"],
        tags=targets["tags"],
        count=targets["count"],
    )
    model = segmenter(TASKS, max_pixels_per_image=300).fit(scenes.images, Y)
    scores = model.score_tasks(scenes.images, Y)
    assert scores["semantic"] > 0.5
    assert scores["edges"] > 0.3
    assert scores["tags"] > 0.9


def test_verbose_shows_bars(toys, capsys):
    X, Y = toys
    segmenter(verbose=1, features=DeepFeatures(scales=[1])).fit(X[:2], Y[:2])
    shown = capsys.readouterr().err
    assert "features" in shown
    assert "head" in shown


def test_the_html_repr_shows_the_flow_with_its_sizes(fitted, toys):
    shown = fitted._repr_html_()
    n, taps = len(toys[0]), len(fitted.features_.forward_pass.layer_sizes)
    width = fitted.features_.n_features_out_
    assert f"{n} images → {taps} taps → {width:,} features" in shown
    assert f"pixel table: {fitted.n_rows_:,} rows" in shown
    assert "image table" in shown
    for name, task in fitted.tasks_.items():
        assert f"{name}: {task.n_scores_} score" in shown
        assert type(task).__name__ in shown
    assert "pixel table" not in clone(fitted)._repr_html_()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"head": "ridge"},
        {"head": SUMS},
        {"head": SharedLayerNetwork((8,), n_epochs=1, early_stopping=True)},
        {"head": SharedDecoder(width=8, n_blocks=1, n_epochs=1, augment="flip")},
        {"features": DeepFeatures(scales=[1], n_components=4)},
        {"structure": SuperpixelCRF()},
    ],
    ids=["logistic", "ridge", "sums", "network", "decoder", "components", "structure"],
)
def test_law_7_images_of_weight_0_change_nothing(parameters):
    """Whatever they show and whatever their labels are; new classes, too."""
    X, Y = toy_images(8)
    weight = np.ones(8)
    weight[[2, 5]] = 0
    others, wrong = X.copy(), Y.copy()
    others[[2, 5]] = 255 - X[[2, 5]]
    wrong[[2, 5]] = 99
    one, other = (
        segmenter(**parameters).fit(images, {"a": masks, "b": list(kinds)}, weight)
        for images, masks, kinds in (
            (X, Y, "xyxyxyxy"),
            (others, wrong, "xyzyxzxy"),
        )
    )
    assert list(other.tasks_["a"].classes_) == [3, 7]
    for name, scores in one.decision_function(X).items():
        np.testing.assert_array_equal(scores, other.decision_function(X)[name])


def test_images_without_labels_leave_the_number_of_rows_as_it_is(toys):
    X, Y = toys
    images, masks = [*X] * 60, [*Y, *[None] * (59 * 8)]
    model = segmenter(max_pixels_per_image=None, features=FAST, head="logistic")
    assert model.fit(images, masks).n_rows_ == 8 * 500


def test_folders_by_path_and_a_backbone_by_name(tmp_path):
    X, Y = toy_images(4)
    for name, arrays in (("photos", X), ("masks", Y.astype(np.uint8))):
        (tmp_path / name).mkdir()
        for i, array in enumerate(arrays):
            path = tmp_path / name / f"{i}.png"
            imsave(path, array, check_contrast=False)
    photos, masks = str(tmp_path / "photos"), tmp_path / "masks"
    model = MultiTaskSegmenter(random_state=0).fit(photos, masks)
    np.testing.assert_array_equal(
        np.array(model.predict(photos)), model.predict(np.array(X))
    )
    named = MultiTaskSegmenter(features="efficientnet_lite0", random_state=0)
    assert named.get_params()["features__scales"] == (0.5, 1.0, 2.0)
    named.set_params(features__scales=(1.0,))
    assert isinstance(named.features, DeepFeatures)
    assert set(named.fit(photos, {"parts": masks}).predict(photos)) == {"parts"}
    with pytest.raises(ImageError, match="is neither"):
        model.predict(photos + "x")
    with pytest.raises(BackboneError, match="resnet_18"):
        MultiTaskSegmenter(features="timm:resnet_18").fit(photos, masks)
