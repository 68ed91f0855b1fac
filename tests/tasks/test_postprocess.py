"""Steps of post-processing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from mtsk.tasks.postprocess import (
    ConnectedComponents,
    FillHoles,
    LargestComponent,
    RemoveSmall,
    SmoothOutline,
    Steps,
    suppress_boxes,
    thin_ridges,
)

RING = np.zeros((9, 9), bool)
RING[1:8, 1:8] = True
RING[3:6, 3:6] = False
RING[4, 4] = True
STEPS = [RemoveSmall(5), FillHoles(), FillHoles(3), LargestComponent(), SmoothOutline()]


def test_small_parts_go():
    assert RemoveSmall(2)(RING)[4, 4] == False  # noqa: E712
    assert (RemoveSmall(1)(RING) == RING).all()


def test_holes_are_filled_by_size():
    assert FillHoles()(RING)[1:8, 1:8].all()
    assert (FillHoles(8)(RING) == RING).all()  # the hole has eight pixels
    assert FillHoles(9)(RING)[1:8, 1:8].all()


@pytest.mark.parametrize("names", [[0, 7, 9], ["ground", "cow", "fly"]])
def test_only_background_is_a_hole(names):
    ground, cow, fly = names
    labels = np.full((9, 9), ground)
    labels[1:8, 1:8] = cow
    labels[2, 2], labels[4:6, 4:6] = ground, fly
    found = FillHoles(background=ground)(labels)
    expected = labels.copy()
    expected[2, 2] = cow
    assert (found == expected).all()


def test_the_largest_part_stays():
    found = LargestComponent()(RING)
    assert found.sum() == RING.sum() - 1
    assert not LargestComponent()(np.zeros((4, 4), bool)).any()


def test_outlines_lose_what_is_thin():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    mask[9, 15:19] = True
    found = SmoothOutline(1)(mask)
    assert not found[9, 16:].any()
    assert found[6:14, 6:14].all()
    assert (SmoothOutline(0)(mask) == mask).all()
    assert SmoothOutline(2)(np.ones((6, 6), bool)).all()  # the border takes nothing


def test_classes_that_give_up_pixels_give_them_to_neighbours():
    labels = np.array([["sea"] * 6] * 4)
    labels[:, 3:] = "sky"
    labels[1, 1] = "fly"
    found = RemoveSmall(3)(labels)
    assert found[1, 1] == "sea"
    assert (found == np.where(labels == "fly", "sea", labels)).all()


def test_components_get_ids():
    found = ConnectedComponents()(RING)
    assert found.dtype == np.int32
    assert sorted(np.unique(found)) == [0, 1, 2]
    diagonal = np.eye(3, dtype=bool)
    assert ConnectedComponents(1)(diagonal).max() == 3
    assert ConnectedComponents(2)(diagonal).max() == 1
    assert ConnectedComponents()(np.array([[1, 2, 0, 2]])).tolist() == [[1, 2, 0, 3]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), which=st.sampled_from(range(len(STEPS))))
def test_steps_keep_shape_dtype_and_inputs(seed, which):
    rng = np.random.default_rng(seed)
    for labels in (rng.random((8, 11)) > 0.4, rng.integers(0, 4, (8, 11))):
        before = labels.copy()
        found = STEPS[which](labels)
        assert found.shape == labels.shape
        assert found.dtype == labels.dtype
        assert (labels == before).all()
        assert set(np.unique(found)) <= {*np.unique(labels), False, True}


def test_steps_run_in_order_and_are_reached_by_name():
    steps = Steps([("fill", FillHoles()), ("small", RemoveSmall(5))])
    assert steps(RING)[1:8, 1:8].all()
    other = clone(steps).set_params(small__min_size=100)
    assert not other(RING).any()
    assert steps.get_params()["small__min_size"] == 5
    assert isinstance(steps.set_params(fill=RemoveSmall(3)).steps[0][1], RemoveSmall)
    with pytest.raises(ValueError, match="Invalid parameter 'big__min_size'"):
        steps.set_params(big__min_size=3)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (RemoveSmall(0), "min_size"),
        (FillHoles("all"), "max_size"),
        (SmoothOutline(-1), "radius"),
        (ConnectedComponents(3), "connectivity"),
        (Steps([("a", 3)]), "steps"),
        (Steps([("a", FillHoles()), ("a", FillHoles())]), "different names"),
        (Steps("fill"), "steps"),
    ],
)
def test_bad_parameters(step, message):
    with pytest.raises(ValueError, match=message):
        step(RING)


@pytest.mark.parametrize(
    "labels", [np.zeros((3, 3)), np.zeros(3, bool), "map", np.zeros((0, 4), bool)]
)
def test_what_is_no_map(labels):
    with pytest.raises(ValueError, match="a step takes a map"):
        RemoveSmall()(labels)


# -- boxes -----------------------------------------------------------------------


def test_hard_suppression_by_brute_force():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (40, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, (40, 2))], axis=1)
    scores, labels = rng.random(40), rng.integers(0, 2, 40)
    kept = []
    for i in np.argsort(-scores):
        if all(labels[i] != labels[j] or iou(boxes[i], boxes[j]) <= 0.4 for j in kept):
            kept.append(int(i))
    found, theirs = suppress_boxes(boxes, scores, labels, overlap=0.4)
    assert found.tolist() == kept
    assert (theirs == scores[kept]).all()


def iou(a, b):
    w, h = (min(a[2 + k], b[2 + k]) - max(a[k], b[k]) for k in (0, 1))
    shared = max(w, 0) * max(h, 0)
    area = lambda x: (x[2] - x[0]) * (x[3] - x[1])  # noqa: E731
    return shared / (area(a) + area(b) - shared)


def test_soft_suppression_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60.0]])
    found, scores = suppress_boxes(
        boxes, np.array([0.9, 0.8, 0.5]), overlap=0.5, mode="soft"
    )
    assert found.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores, [0.9, 0.5, 0.8 * 0.2])


def test_no_boxes_and_bad_ones():
    found, scores = suppress_boxes(np.empty((0, 4)), np.empty(0))
    assert len(found) == len(scores) == 0
    with pytest.raises(ValueError, match="mode"):
        suppress_boxes(np.zeros((1, 4)), np.ones(1), mode="mild")
    with pytest.raises(ValueError, match="as many scores"):
        suppress_boxes(np.zeros((2, 4)), np.ones(1))
    with pytest.raises(ValueError, match="finite and of shape"):
        suppress_boxes(np.full((1, 4), np.nan), np.ones(1))
    with pytest.raises(ValueError, match=r"`overlap` of suppress_boxes.*got 5"):
        suppress_boxes(np.zeros((1, 4)), np.ones(1), overlap=5)


def test_scores_of_boxes_that_are_none():
    boxes = np.array([[0, 0, 9, 9], [1, 1, 9, 9]])
    with pytest.raises(ValueError, match="must not be NaN"):
        suppress_boxes(boxes, [np.nan, 0.8])
    with pytest.raises(ValueError, match="must be numbers"):
        suppress_boxes(boxes, ["a", "b"])


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_labels_may_be_words(mode):
    boxes = np.array([[0, 0, 9, 9.0]] * 3)
    found, _ = suppress_boxes(
        boxes, np.array([0.9, 0.8, 0.7]), np.array(["a", "a", "b"]), mode=mode
    )
    assert found.tolist()[:2] == [0, 2]


# -- ridges ----------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90, 135])
def test_ridges_become_thin_wherever_they_go(angle):
    y, x = np.mgrid[-20:21, -20:21]
    away = y * np.cos(np.deg2rad(angle)) - x * np.sin(np.deg2rad(angle))
    thin = thin_ridges(np.exp(-(away**2) / 8)) > 0.1
    inner = thin[6:-6, 6:-6]  # at the border nobody knows how a ridge goes on
    assert (np.abs(away[6:-6, 6:-6][inner]) <= 1).all()
    assert len(inner) <= inner.sum() <= 1.5 * len(inner)


def test_plateaus_two_wide_become_one():
    edges = np.zeros((12, 12))
    edges[:, 5:7] = 1
    assert (thin_ridges(edges)[3:-3] > 0).sum(axis=1).tolist() == [1] * 6


def test_ridges_of_tiny_maps_and_of_none():
    assert thin_ridges(np.zeros((1, 1))).shape == (1, 1)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        thin_ridges(np.zeros(3))
    with pytest.raises(ValueError, match="must be finite"):
        thin_ridges(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="`sigma` of thin_ridges"):
        thin_ridges(np.zeros((3, 3)), sigma=0)
