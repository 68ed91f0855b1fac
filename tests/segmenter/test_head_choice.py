"""The automatic head: compared on held-out images, chosen for each task."""

import numpy as np
import pytest
from sklearn.base import clone
from toy_segmenters import FAST

import mtsk
from mtsk import MultiTaskSegmenter, Targets
from mtsk.features import DeepFeatures
from mtsk.heads import JointLogistic, SharedLayerNetwork, SplitHead
from mtsk.segmenter.head_choice import HeadChoice, choose_heads
from mtsk.segmenter.head_factory import HeadFactory, HeadFitter
from mtsk.tables import Table
from mtsk.tasks import BinaryMask, DenseRegression, SemanticSegmentation
from mtsk.tasks.task_set import TaskSet
from mtsk.testing import toy_images

CLASSES = np.array([[0, 1], [1, 0]])


def tasks():
    """Return fitted tasks: classes, and a number, at pixels."""
    targets = Targets(classes=[CLASSES], depth=[CLASSES / 1.0])
    given = {"classes": SemanticSegmentation(), "depth": DenseRegression()}
    return TaskSet.fit(given, targets)


def table(n_images, labelled=None, n=60):
    """Return rows where classes follow a product, and numbers a sum and much noise."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (n_images * n, 8)).astype(np.float32)
    noisy = X @ np.arange(8) + 20 * rng.normal(size=len(X))
    Y = np.column_stack([X[:, 0] * X[:, 1] > 0, noisy]).astype(np.float32)
    images = np.repeat(np.arange(n_images), n)
    if labelled is not None:
        Y[~np.isin(images, labelled), 0] = np.nan
    return Table(X, Y, images, "", {}, np.ones((2, len(X)), np.float32))


def fitter(n_images):
    heads = HeadFactory(JointLogistic(), 0, is_automatic=True)
    features = DeepFeatures(scales=[1]).fit()
    return HeadFitter(heads, tasks(), features, np.ones(n_images))


def test_each_task_gets_what_predicts_held_out_images_best():
    fit_head, rows = fitter(40), table(40)
    choice = choose_heads(fit_head, "pixel", rows, 0)
    assert choice.by_task == {"classes": "network", "depth": "logistic"}
    assert choice.n_held_out == 8
    own = choice.scores["classes"]
    assert own["logistic"] < 0.5 < own["network"]
    assert 0 < choice.scores["depth"]["logistic"] < 0.2  # R²: there is much noise
    head = fit_head.choosing({"pixel": choice.by_task})("pixel", rows)
    assert isinstance(head, SplitHead)
    assert [type(own) for own in head.heads_] == [SharedLayerNetwork, JointLogistic]
    words = str(choice)
    assert "classes: network (logistic 0." in words
    assert "on 8 held-out images" in words


def test_the_same_seed_gives_the_same_choice():
    rows = table(12)
    first, again = (choose_heads(fitter(12), "pixel", rows, 3) for _ in range(2))
    assert first == again


def test_a_task_of_few_images_gets_what_the_others_fare_best_with():
    choice = choose_heads(fitter(40), "pixel", table(40, labelled=[3, 5, 9]), 0)
    assert set(choice.scores) == {"depth"}
    assert choice.by_task == {"classes": "logistic", "depth": "logistic"}
    assert "classes: logistic (too few labels" in str(choice)


def test_with_few_images_nothing_is_compared():
    choice = choose_heads(fitter(7), "pixel", table(7), 0)
    assert choice == HeadChoice({"classes": "logistic", "depth": "logistic"})


def test_every_task_has_held_out_images():
    """Where tasks are labelled on images of their own, each is compared."""
    rows = table(20)
    first = rows.images < 10
    rows.Y[first, 0] = rows.Y[~first, 1] = np.nan
    choice = choose_heads(fitter(20), "pixel", rows, 0)
    assert set(choice.scores) == {"classes", "depth"}
    assert choice.n_held_out == 4


@pytest.fixture(scope="module")
def images():
    X, Y = toy_images(12)
    return X, Targets(
        shape=list(Y), disc=list(Y == 7), odd=[i % 2 == 0 for i in range(12)]
    )


def model(**keywords):
    return MultiTaskSegmenter(
        features=FAST, max_pixels_per_image=40, random_state=0, **keywords
    )


def test_a_segmenter_chooses_by_default(images, tmp_path):
    X, Y = images
    found = model().fit(X, Y)
    choices = found.head_choices_
    assert set(choices) == {"pixel", "image"}
    assert set(choices["pixel"].by_task) == {"shape", "disc"}
    assert set(choices["pixel"].scores["shape"]) == {"logistic", "network"}
    assert "held-out images" in found._repr_html_()
    found.save(tmp_path / "model.mtsk")
    kept = mtsk.load(tmp_path / "model.mtsk")
    assert kept.head_choices_ == choices
    for a, b in zip(found.predict(X)["shape"], kept.predict(X)["shape"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_named_head_is_not_chosen(images):
    X, Y = images
    assert model(head="logistic").fit(X, Y).head_choices_ == {}


def test_fits_again_alike(images):
    X, Y = images
    first = model().fit(X, Y)
    again = clone(first).fit(X, Y)
    assert first.head_choices_ == again.head_choices_
    for a, b in zip(
        first.decision_function(X)["disc"],
        again.decision_function(X)["disc"],
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_structure_is_learnt_from_the_chosen_heads(images):
    X, Y = images
    found = model(structure="crf").fit(X, Y)
    assert found.structures_
    assert found.score(X, Y) > 0.5


def test_a_task_with_labels_on_held_out_images_alone_is_not_compared():
    for image in range(10):  # two of them are held out
        choice = choose_heads(fitter(10), "pixel", table(10, labelled=[image]), 0)
        assert set(choice.scores) == {"depth"}


def test_a_task_of_few_rows_keeps_them():
    """Rows are thinned task by task: strokes are not lost among whole maps."""
    rows = table(20, n=600)
    first = np.arange(len(rows.X)) % 600 == 7  # not among every second row
    rows.Y[~first, 0] = np.nan
    choice = choose_heads(fitter(20), "pixel", rows, 0)
    assert set(choice.scores) == {"classes", "depth"}


def test_masks_that_are_blank_where_held_out_are_not_compared(tmp_path):
    X, Y = toy_images(10)
    masks = [y == 7 if i == 3 else np.zeros(y.shape, bool) for i, y in enumerate(Y)]
    kept = set()
    for seed in range(4):  # for some of which the image with a disc is held out
        found = model(tasks=BinaryMask()).set_params(random_state=seed)
        choice = found.fit(X, masks).head_choices_["pixel"]
        assert np.isfinite([list(own.values()) for own in choice.scores.values()]).all()
        if not choice.scores:
            assert choice.by_task == {"target": "logistic"}
            found.save(tmp_path / "m.mtsk")
            kept.add(mtsk.load(tmp_path / "m.mtsk").head_choices_["pixel"] == choice)
    assert kept == {True}
