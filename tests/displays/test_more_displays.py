"""UncertaintyDisplay, ConfusionDisplay and AttributionDisplay: what they hold."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from skimage.io import imsave
from sklearn.exceptions import NotFittedError
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import GridSearchCV

from mtsk import DeepFeatures, MultiTaskSegmenter, SegmentationDisplay, Targets
from mtsk.displays import AttributionDisplay, ConfusionDisplay, UncertaintyDisplay
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.inspection import layer_attribution
from mtsk.tasks import BinaryMask, DenseRegression, Ordinal
from mtsk.testing import toy_images

mpl.use("Agg")
X, MASKS = toy_images(6, (32, 40))
KINDS = ["a", "b", "c"] * 2
DEPTH = [image.mean(axis=2) for image in X]
Y = Targets(
    parts=MASKS,
    disc=[mask == 7 for mask in MASKS],
    depth=DEPTH,
    kind=KINDS,
    rank=[0, 1, 2] * 2,
    number=[float(i) for i in range(6)],
)


@pytest.fixture(scope="module")
def model():
    tasks = {"disc": BinaryMask(), "depth": DenseRegression(), "rank": Ordinal()}
    features = DeepFeatures(scales=(0.5, 1), position=True)
    return MultiTaskSegmenter(tasks, features=features, random_state=0).fit(X, Y)


@pytest.fixture(scope="module")
def bare():
    return MultiTaskSegmenter(features=DeepFeatures(scales=(1,)), random_state=0).fit(
        X, MASKS
    )


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(display, name):
    return np.asarray(display.images_[name].get_array(), float)


# -- doubt --------------------------------------------------------------------------


def test_doubt_is_that_of_the_probabilities(model):
    display = UncertaintyDisplay.from_estimator(model, X[0], task="parts")
    proba = model.predict_proba(X[:1], tasks=["parts"])["parts"][0]
    other = UncertaintyDisplay.from_predictions(X[0], proba)
    np.testing.assert_allclose(
        drawn(display, "doubt"), drawn(other, "doubt"), atol=1e-5
    )
    assert display.images_["doubt"].get_clim() == (0, 1)
    assert "on average" in display.axes_["doubt"].get_title()


def test_a_mask_is_in_doubt_at_one_half(model):
    display = UncertaintyDisplay.from_predictions(X[0], np.full((32, 40), 0.5))
    np.testing.assert_allclose(drawn(display, "doubt"), 1)
    sure = UncertaintyDisplay.from_predictions(X[0], np.eye(32, 40))
    np.testing.assert_allclose(drawn(sure, "doubt"), 0)
    found = UncertaintyDisplay.from_estimator(model, X[0], task="disc")
    assert 0 <= drawn(found, "doubt").min() <= drawn(found, "doubt").max() <= 1


def test_doubt_on_given_axes(bare):
    _, axes = plt.subplots(1, 2)
    display = UncertaintyDisplay.from_estimator(bare, X[0], axes=axes)
    assert list(display.axes_.values()) == list(axes)
    with pytest.raises(ValueError, match="`axes` must be 2"):
        UncertaintyDisplay.from_estimator(bare, X[0], axes=axes[:1])


@pytest.mark.parametrize("task", [None, "depth", "kind", "no such"])
def test_doubt_of_what_has_none(model, task):
    with pytest.raises(ValueError, match=r"must be one of \['parts', 'disc'\]"):
        UncertaintyDisplay.from_estimator(model, X[0], task=task)


def test_doubt_of_another_shape():
    with pytest.raises(ValueError, match=r"must be of shape \(32, 40\)"):
        UncertaintyDisplay(X[0], np.zeros((4, 4))).plot()


@pytest.mark.parametrize(
    ("proba", "message"),
    [
        (np.full((32, 40), 7.0), r"in \[0, 1\]"),
        (np.full((32, 40), -0.1), r"in \[0, 1\]"),
        (np.ones((32, 40, 3)), "sum to 1"),
        (np.ones((32, 40, 0)), r"must be \(H, W\)"),
        (np.full((32, 40), np.nan), "sum to 1"),
    ],
)
def test_what_is_no_probability(proba, message):
    with pytest.raises(ValueError, match=message):
        UncertaintyDisplay.from_predictions(X[0], proba)


def test_paths_are_read(bare, tmp_path):
    path = tmp_path / "one.png"
    imsave(path, X[0], check_contrast=False)
    for given in (path, str(path)):
        display = UncertaintyDisplay.from_estimator(bare, given)
        assert drawn(display, "image").shape == X[0].shape
        AttributionDisplay.from_predictions(
            given, layer_attribution(bare, given, label=7)
        )
        SegmentationDisplay.from_estimator(bare, given)


def test_a_search_is_no_segmenter_to_draw():
    search = GridSearchCV(
        MultiTaskSegmenter(features=DeepFeatures(scales=(1,))),
        {"max_pixels_per_image": [9]},
        cv=2,
    ).fit(X, MASKS)
    for display, more in (
        (UncertaintyDisplay, [X[0]]),
        (SegmentationDisplay, [X[0]]),
        (ConfusionDisplay, [X, MASKS]),
    ):
        with pytest.raises(TypeError, match="give its best_estimator_"):
            display.from_estimator(search, *more)
    with pytest.raises(TypeError, match="give its best_estimator_"):
        layer_attribution(search, X[0])


# -- confusion ----------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
def test_confusion_of_pixels_is_scikit_learns(model, normalize):
    truth = [mask.copy() for mask in MASKS]
    truth[0][:10] = -1
    truth[1] = None
    display = ConfusionDisplay.from_estimator(
        model, X, {"parts": truth}, normalize=normalize, task="parts"
    )
    found = model.predict(X, tasks=["parts"])["parts"]
    pairs = [
        (t[t >= 0], f[t >= 0])
        for t, f in zip(truth, found, strict=True)
        if t is not None
    ]
    expected = confusion_matrix(
        *(np.concatenate(side) for side in zip(*pairs, strict=True)),
        normalize=normalize,
    )
    np.testing.assert_allclose(display.confusion_matrix, expected)
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["3", "7"]


@pytest.mark.parametrize(
    ("task", "labels"), [("kind", ["a", "b", "c"]), ("rank", [0, 1, 2])]
)
def test_confusion_of_images(model, task, labels):
    display = ConfusionDisplay.from_estimator(model, X, Y, task=task)
    found = model.predict(X, tasks=[task])[task]
    expected = confusion_matrix(Y[task], found, labels=labels)
    np.testing.assert_array_equal(display.confusion_matrix, expected)


def test_confusion_of_yes_and_no(model):
    display = ConfusionDisplay.from_estimator(model, X, Y, task="disc")
    assert list(display.display_labels) == ["no", "yes"]
    assert display.confusion_matrix[1].sum() == sum(m.sum() for m in Y["disc"])


def test_confusion_of_one_task_without_a_name(bare):
    _, ax = plt.subplots()
    display = ConfusionDisplay.from_estimator(bare, X, MASKS, ax=ax, colorbar=False)
    assert display.ax_ is ax
    assert display.confusion_matrix.sum() == sum(m.size for m in MASKS)


def test_what_confusion_refuses(model, bare):
    with pytest.raises(ValueError, match="`task` must be one of"):
        ConfusionDisplay.from_estimator(model, X, Y)
    with pytest.raises(ValueError, match="`task` must be one of"):
        ConfusionDisplay.from_estimator(model, X, Y, task="depth")
    with pytest.raises(ValueError, match="normalize"):
        ConfusionDisplay.from_estimator(bare, X, MASKS, normalize="rows")
    with pytest.raises(UnknownTaskError):
        ConfusionDisplay.from_estimator(model, X, {"kind": KINDS}, task="parts")
    with pytest.raises(TargetError, match="nothing of task"):
        ConfusionDisplay.from_estimator(bare, X, [None] * 6)
    strange = [*MASKS[:5], MASKS[5] + 90]
    with pytest.raises(TargetError, match="image 5"):
        ConfusionDisplay.from_estimator(bare, X, strange)
    with pytest.raises(NotFittedError):
        ConfusionDisplay.from_estimator(MultiTaskSegmenter(), X, MASKS)


# -- evidence -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "label"), [("parts", 3), ("parts", 7), ("disc", None), ("depth", None)]
)
def test_layers_add_up_to_the_score(model, task, label):
    found = layer_attribution(model, X[0], task, label)
    scores = model.decision_function(X[:1], tasks=[task])[task][0]
    if label is None:
        expected = scores[..., 0]
    else:
        expected = scores[..., [3, 7].index(label)] - scores.mean(axis=-1)
    np.testing.assert_allclose(found.total, expected, atol=2e-3)
    assert set(found.layers) == {
        *(f"scale{s}_blocks.{i}" for s in ("0.5", "1") for i in range(7)),
        "position",
    }


@pytest.mark.parametrize(("task", "label"), [("kind", "b"), ("number", None)])
def test_evidence_of_whole_images_averages_to_the_score(model, task, label):
    found = layer_attribution(model, X[0], task, label)
    (scores,) = model.decision_function(X[:1], tasks=[task])[task]
    expected = scores[1] - scores.mean() if label else scores[0]
    assert found.total.mean() == pytest.approx(expected, abs=2e-3)
    assert "position" not in found.layers


def test_shares_sum_to_one(model):
    shares = layer_attribution(model, X[0], "disc").shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_evidence_knows_components():
    features = DeepFeatures(scales=(1,), n_components=3)
    model = MultiTaskSegmenter(features=features, random_state=0).fit(X, MASKS)
    found = layer_attribution(model, X[0], label=7)
    scores = model.decision_function(X[:1])[0]
    np.testing.assert_allclose(
        found.total, scores[..., 1] - scores.mean(axis=-1), atol=2e-3
    )
    assert len(found.layers) == 7


def test_evidence_is_drawn_on_one_scale(model):
    found = layer_attribution(model, X[0], "parts", 7)
    display = AttributionDisplay.from_predictions(X[0], found, label=7, n_layers=2)
    best = list(found.shares())[:2]
    assert list(display.axes_) == ["image", "evidence", *best]
    limits = {display.images_[n].get_clim() for n in ("evidence", *best)}
    ((low, high),) = limits
    assert low == -high < 0
    assert display.axes_["evidence"].get_title() == "evidence for 7"
    expected = found.total - found.total.mean()
    np.testing.assert_allclose(drawn(display, "evidence"), expected, atol=1e-6)
    assert display.axes_[best[0]].get_title().endswith("%")


def test_what_evidence_refuses(model, bare):
    with pytest.raises(ValueError, match="name one of the tasks"):
        layer_attribution(model, X[0])
    with pytest.raises(ValueError, match=r"must be one of \[3, 7\]"):
        layer_attribution(bare, X[0])
    with pytest.raises(ValueError, match="it has one score"):
        layer_attribution(model, X[0], "disc", 3)
    for label in (False, 0, 1.5):
        with pytest.raises(ValueError, match="it has one score"):
            layer_attribution(model, X[0], "disc", label)
    yes = layer_attribution(model, X[0], "disc", True)
    np.testing.assert_array_equal(
        yes.total, layer_attribution(model, X[0], "disc").total
    )
    with pytest.raises(ValueError, match=r"must be one of \[3, 7\]"):
        layer_attribution(bare, X[0], label=np.array([3, 7]))
    with pytest.raises(ValueError, match="must be what mtsk"):
        AttributionDisplay(X[0], np.zeros((32, 40))).plot()
    with pytest.raises(UnknownTaskError):
        layer_attribution(model, X[0], "no such")
    with pytest.raises(NotFittedError):
        layer_attribution(MultiTaskSegmenter(), X[0])
    network = MultiTaskSegmenter(
        features=DeepFeatures(scales=(1,)), head="network", random_state=0
    ).fit(X, MASKS)
    with pytest.raises(TypeError, match="needs a linear head"):
        layer_attribution(network, X[0], label=7)
    found = layer_attribution(bare, X[0], label=7)
    with pytest.raises(ValueError, match="n_layers"):
        AttributionDisplay(X[0], found).plot(n_layers=-1)
    with pytest.raises(ValueError, match="evidence is of shape"):
        AttributionDisplay(X[0][:9], found).plot()


def test_nothing_varies():
    image = np.full((32, 40, 3), 90, np.uint8)
    features = DeepFeatures(scales=(1,))
    model = MultiTaskSegmenter(features=features, random_state=0).fit(X, MASKS)
    found = layer_attribution(model, image, label=7)
    assert np.isfinite(list(found.shares().values())).all()
    AttributionDisplay(image, found).plot()
