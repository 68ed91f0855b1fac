"""MultiTaskSegmenter: bad input is told, by name, and leaves nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from toy_segmenters import TASKS, many_targets, segmenter

from mtsk import DeepFeatures, ImageFolder, JointRidge, Targets, make_task_scorer
from mtsk.exceptions import (
    ImageError,
    SkippedImageWarning,
    TargetError,
    UnknownTaskError,
)
from mtsk.tasks import BinaryMask, MultiLabel, SemanticSegmentation
from mtsk.testing import toy_images


@pytest.fixture(scope="module")
def toys():
    return toy_images(8)


@pytest.fixture(scope="module")
def fitted(toys):
    X, Y = toys
    return segmenter(TASKS).fit(X, many_targets(Y))


def test_a_target_that_is_void_everywhere_is_told(toys):
    X, Y = toys
    void = Y.copy()
    void[3] = -1
    with pytest.warns(UserWarning, match=r"\('target', 3\)"):
        model = segmenter().fit(X, void)
    alone = segmenter().fit(X, [None if i == 3 else y for i, y in enumerate(Y)])
    np.testing.assert_array_equal(model.predict(X), alone.predict(X))


def test_maps_of_one_class_are_told(toys):
    X, Y = toys
    with pytest.warns(UserWarning, match="'target' has one class only, 3"):
        segmenter(SemanticSegmentation(void=7)).fit(X, Y)
    segmenter(SemanticSegmentation(void=7, classes=[3])).fit(X, Y)


def test_maps_without_pixels_are_told(toys):
    X, Y = toys
    with pytest.raises(TargetError, match=r"image 1.* shape \(0, 0\) has no pixels"):
        segmenter().fit([X[0], np.zeros((0, 0), X.dtype)], [Y[0], Y[1][:0, :0]])


def test_grey_values_as_classes_are_told(toys):
    X, Y = toys
    grey = np.arange(Y.size).reshape(Y.shape).astype(np.uint8)
    with pytest.warns(UserWarning, match=r"'target' has 256 classes.*mask > 127"):
        segmenter().fit(X, grey)


def test_a_corrupt_file_among_good_ones(toys, tmp_path):
    from skimage.io import imsave

    X, Y = toys
    for i, image in enumerate(X):
        imsave(tmp_path / f"{i}.png", image, check_contrast=False)
    (tmp_path / "5.png").write_bytes(b"broken")
    images = ImageFolder(tmp_path)
    with pytest.raises(ImageError, match=r"5\.png"):
        segmenter().fit(images, Y)
    skipping = DeepFeatures(scales=[1], on_error="skip")
    with pytest.warns(SkippedImageWarning, match=r"1 of 8.*5\.png"):
        model = segmenter(features=skipping).fit(images, Y)
    assert list(model.skipped_) == [5]
    assert model.n_images_ == 7
    with pytest.warns(SkippedImageWarning):
        guess = model.predict(images)
    assert guess[5] is None
    assert guess[4].shape == (40, 48)
    kept = [i for i in range(8) if i != 5]
    expected = segmenter().fit(X[kept], Y[kept]).predict(X[:1])
    np.testing.assert_array_equal(guess[0], expected[0])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"max_pixels_per_image": 0},
            "`max_pixels_per_image` of MultiTaskSegmenter must be an int.*got 0",
        ),
        ({"prediction_stride": 0}, "`prediction_stride` of MultiTaskSegmenter"),
        (
            {"max_pixels_per_image": True},
            "`max_pixels_per_image` of MultiTaskSegmenter.*got True",
        ),
        ({"n_jobs": 0}, "`n_jobs` of MultiTaskSegmenter.*other than 0"),
        ({"random_state": "a"}, "`random_state` of MultiTaskSegmenter"),
        ({"tasks": 3}, "`tasks` of MultiTaskSegmenter"),
        ({"tasks": {"a": 3}}, r"`tasks\['a'\]` of MultiTaskSegmenter must be a Task"),
        ({"features": 3}, "`features` of MultiTaskSegmenter"),
        ({"head": 3}, "`head` of MultiTaskSegmenter"),
    ],
)
def test_bad_parameters(toys, keywords, message):
    X, Y = toys
    with pytest.raises(ValueError, match=message):
        segmenter(**keywords).fit(X, Y)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (lambda Y: [*Y[:7], Y[7].astype(float)], "image 7: 2-D float"),
        (lambda Y: [*Y[:6], [1, 2], Y[7]], "image 6: 1-D integer"),
        (lambda Y: [[1, 2]] * 8, "cannot tell the task"),
        (lambda Y: {"a": Y, "b": [None] * 8}, "'b': labelled on no image"),
        (lambda Y: {"a": Y, "b": list(Y)[:7]}, "differ in number"),
        (lambda Y: np.full((8, 40, 48), np.nan), "holds nothing but void"),
        (lambda Y: np.full((8, 40, 48), np.inf), "image 0: .*infinite"),
        (lambda Y: [{"a"}, *[3] * 7], "several kinds"),
        (lambda Y: [np.ones(2, bool), *[np.ones(3, bool)] * 7], "one length"),
        (lambda Y: "masks", "one entry per image"),
        (lambda Y: {}, "at least one task"),
        (lambda Y: [object()] * 8, "cannot tell the task"),
        (lambda Y: [np.zeros((2, 2, 3), int)] * 8, r"three axes .*\(2, 2, 3\)"),
        (lambda Y: [f"masks/{i}.png" for i in range(8)], "names of image files"),
        (lambda Y: np.arange(8 * 1920).reshape(8, 40, 48), "ids of instances"),
    ],
)
def test_bad_targets(toys, targets, message):
    X, Y = toys
    with pytest.raises(TargetError, match=message):
        segmenter().fit(X, targets(Y))


def test_unknown_names(fitted, toys):
    X, Y = toys
    with pytest.raises(UnknownTaskError, match=r"'sky'.*'semantic'"):
        fitted.predict(X, tasks=["sky"])
    with pytest.raises(UnknownTaskError, match="'sky'"):
        fitted.score_tasks(X, {"sky": Y})
    with pytest.raises(UnknownTaskError, match="`tasks` names 'sky'"):
        segmenter({"sky": BinaryMask()}).fit(X, {"a": Y})
    with pytest.raises(UnknownTaskError, match="'sky'"):
        make_task_scorer("sky")(fitted, X, Y)
    with pytest.raises(ValueError, match=r"has the metrics .*not 'rmse'"):
        fitted.score_tasks(X, many_targets(Y), metrics={"semantic": "rmse"})


def test_not_fitted(toys):
    X, Y = toys
    for call in (
        lambda m: m.predict(X),
        lambda m: m.predict_proba(X),
        lambda m: m.decision_function(X),
        lambda m: m.score(X, Y),
    ):
        with pytest.raises(NotFittedError, match="MultiTaskSegmenter"):
            call(segmenter())


def test_a_failed_fit_leaves_the_images_alone(toys):
    X, Y = toys
    model = segmenter().fit(X, Y)
    before = model.predict(X[:1])
    with pytest.raises(ImageError, match="image 1"):
        model.predict([X[0], X[1].astype(int)])
    np.testing.assert_array_equal(model.predict(X[:1]), before)


# -- labels that fit did not see ------------------------------------------------


def test_tags_that_fit_did_not_see_are_told_at_score(toys):
    X, _ = toys
    model = segmenter().fit(X, Targets(tags=[{"a"}, {"b"}] * 4, kind=["x", "y"] * 4))
    with pytest.warns(UserWarning, match=r"'tags', image 0: unknown labels \['q'\]"):
        scores = model.score_tasks(X, {"tags": [{"q"}] * 8, "kind": ["x", "y"] * 4})
    assert np.isnan(scores["tags"])  # neither of its labels is there to be found
    assert scores["kind"] == 1


@pytest.mark.parametrize(
    ("learnt", "judged"), [(["a", "b"] * 4, [1] * 8), ([1, 2] * 4, ["a"] * 8)]
)
def test_words_are_no_numbers_at_score(toys, learnt, judged):
    X, Y = toys
    model = segmenter().fit(X, Targets(kind=learnt))
    with pytest.raises(TargetError, match="are not among the classes"):
        model.score_tasks(X, {"kind": judged})
    model = segmenter().fit(X, Y)
    with pytest.raises(TargetError, match="are not among the classes"):
        model.score(X, Y.astype(str))


# -- heads of single tasks ------------------------------------------------------


def test_heads_of_single_tasks_may_be_named(toys):
    X, Y = toys
    targets = Targets(semantic=Y, kind=["a", "b"] * 4)
    named = segmenter(head={"semantic": "ridge", "kind": "logistic"}).fit(X, targets)
    made = segmenter(head={"semantic": JointRidge()}).fit(X, targets)
    np.testing.assert_array_equal(
        named.predict(X)["semantic"], made.predict(X)["semantic"]
    )


@pytest.mark.parametrize("head", ["network", "fcn", "cake", None, 5, JointRidge])
def test_what_is_no_head_of_a_single_task(toys, head):
    X, Y = toys
    with pytest.raises(ValueError, match=r"`head\['target'\]` of MultiTaskSegmenter"):
        segmenter(head={"target": head}).fit(X, Y)


@pytest.mark.parametrize("weight", ["balanced", [None] * 8, {"a": 1}])
def test_weights_that_are_no_numbers(toys, weight):
    X, Y = toys
    with pytest.raises(ValueError, match="sample_weight must"):
        segmenter().fit(X, Y, sample_weight=weight)


def test_pictures_of_twelve_bits_are_told(toys):
    X, Y = toys
    dark = X.astype(np.uint16) * 16
    with pytest.warns(UserWarning, match=r"uint16 with no value above \d+, and 65535"):
        segmenter(features=DeepFeatures(scales=(1,))).fit(dark, Y)


@pytest.mark.parametrize(
    "names", [[["a", "b"], ["a"]] * 4, [["a", "b"], ["c", "a"]] * 4]
)
def test_names_of_tags_go_into_a_set(toys, names):
    X, _ = toys
    with pytest.raises(TargetError, match="names of labels go into a set"):
        segmenter({"tags": MultiLabel()}).fit(X, Targets(tags=names))
