"""Every codec undoes itself, moves with the image, and refuses what it cannot take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from mtsk.exceptions import TargetError
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Classification,
    Count,
    DenseRegression,
    DensityCount,
    Detection,
    ImageToImage,
    InstanceSegmentation,
    MultiLabel,
    Ordinal,
    PixelTask,
    Regression,
    SemanticSegmentation,
    SurfaceNormals,
    boxes_of_instances,
)
from mtsk.testing import check_task, perfect_scores

SHAPE = (24, 31)
MIRROR = np.array([[1.0, 0.0], [0.0, -1.0]])
random = np.random.default_rng(0)


def same_objects(a, b):
    """Whether two maps have the same objects, whatever their ids."""
    pairs = np.unique(np.stack([np.ravel(a), np.ravel(b)]), axis=1)
    n = len(np.unique(a))
    zero = (pairs == 0).any(axis=0)
    return bool(
        pairs.shape[1] == n == len(np.unique(b)) and (pairs[:, zero] == 0).all()
    )


def same_boxes(found, target, tolerance=1e-3):
    """Whether boxes are found again, with their labels, in whatever order."""
    boxes, labels = np.asarray(target["boxes"], float), np.asarray(target["labels"])
    if len(found["boxes"]) != len(boxes):
        return False
    if not len(boxes):
        return True
    away = np.abs(found["boxes"][:, None] - boxes).max(axis=2)
    away[found["labels"][:, None] != labels] = np.inf
    order = away.argmin(axis=1)
    return bool(
        away.min(axis=1).max() < tolerance and len(set(order.tolist())) == len(boxes)
    )


def mirrored_boxes(target, width=SHAPE[1]):
    boxes = np.array(target["boxes"], float)
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return {**target, "boxes": boxes}


def mirrored_points(points, width=SHAPE[1]):
    return np.stack([points[:, 0], width - 1 - points[:, 1]], axis=1)


def mirrored_normals(normals):
    return normals[:, ::-1] * [-1, 1, 1]


def normals():
    vectors = random.normal(size=(*SHAPE, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def blobs(shape=SHAPE, share=0.4, seed=0):
    return label(np.random.default_rng(seed).random(shape) < share, connectivity=1)


BOXES = {
    "boxes": np.array([[2, 3, 9, 8], [8.5, 7, 30, 23.5], [1, 12, 2, 13]]),
    "labels": np.array([4, 7, 4]),
}
EMPTY = {"boxes": np.empty((0, 4)), "labels": np.empty(0, int)}
THIN = np.zeros(SHAPE, bool)
THIN[5, :] = True
CASES = {
    "semantic": (SemanticSegmentation(), [random.integers(3, 6, SHAPE)], {}),
    "words": (
        SemanticSegmentation(),
        [np.array(["sky", "tree"])[random.integers(0, 2, SHAPE)]],
        {},
    ),
    "mask": (BinaryMask(), [random.random(SHAPE) > 0.5], {}),
    "boundary": (Boundary(thin=False), [random.random(SHAPE) > 0.5], {}),
    "thin boundary": (Boundary(), [THIN], {}),
    "depth": (DenseRegression(), [random.random(SHAPE) + 0.1], {}),
    "log depth": (DenseRegression("log"), [random.random(SHAPE) + 0.1], {}),
    "flow": (DenseRegression(), [random.random((*SHAPE, 2)) + 0.1], {}),
    "normals": (SurfaceNormals(), [normals()], {"mirrored": mirrored_normals}),
    "density": (
        DensityCount(2.0),
        [np.array([[3, 4], [20, 30], [3, 4]]), np.empty((0, 2))],
        {
            "same": lambda found, points: abs(found.sum() - len(points)) < 1e-3,
            "mirrored": mirrored_points,
        },
    ),
    "picture": (
        ImageToImage(),
        [random.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)],
        {},
    ),
    "grey float": (ImageToImage(), [random.random(SHAPE)], {}),
    "instances": (
        InstanceSegmentation(),
        [blobs(), blobs(share=0.8, seed=1), np.zeros(SHAPE, int)],
        {"same": same_objects},
    ),
    "boxes": (
        Detection(),
        [BOXES, EMPTY],
        {"same": same_boxes, "mirrored": mirrored_boxes},
    ),
    "class": (Classification(), ["cat", "dog"], {}),
    "tags": (MultiLabel(), [np.array([True, False]), np.array([True, True])], {}),
    "number": (Regression(), [1.5, -2.0], {}),
    "count": (Count(), [3, 7], {}),
    "grade": (Ordinal(["low", "mid", "high"]), ["low", "high", "mid"], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_contract(name):
    task, targets, how = CASES[name]
    check_task(task, targets, [SHAPE] * len(targets), **how)


class Forgetful(SurfaceNormals):
    transform_columns = PixelTask.transform_columns


class Backwards(BinaryMask):
    metrics = ("mae",)


class Wrong(BinaryMask):
    def decode(self, scores):
        return ~super().decode(scores)


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        (Forgetful(), normals(), "must be the mirrored entry"),
        (Wrong(), THIN, "undo encode"),
        (Backwards(), np.ones(SHAPE, bool), "more is better"),
    ],
)
def test_the_contract_can_be_broken(task, target, message):
    mirrored = mirrored_normals if target.ndim == 3 else None
    with pytest.raises(AssertionError, match=message):
        check_task(task, [target], [SHAPE], mirrored=mirrored)


# -- instances -------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.floats(0.02, 0.98),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    joined=st.booleans(),
)
def test_instances_come_back_whatever_their_shape(seed, share, height, width, joined):
    rng = np.random.default_rng(seed)
    ids = label(rng.random((height, width)) < share, connectivity=1)
    if joined:  # touching objects, parts that are apart, one-pixel ones
        ids = np.where(ids > 0, rng.permutation(ids.max() + 1)[ids] // 2 + 1, 0)
    task = InstanceSegmentation().fit([ids, [[1]]])  # there is one somewhere
    found = task.decode(perfect_scores(task, task.encode(ids, ids.shape)))
    assert same_objects(found, ids)


def test_touching_squares_are_two_and_a_list_of_masks_is_a_map():
    ids = np.zeros((8, 10), int)
    ids[2:6, 1:5], ids[2:6, 5:9] = 40, 7
    task = InstanceSegmentation().fit([ids])
    columns = task.encode(ids, ids.shape)
    np.testing.assert_array_equal(
        columns, task.encode([ids == 40, ids == 7], ids.shape)
    )
    found = task.decode(perfect_scores(task, columns))
    np.testing.assert_array_equal(found, np.where(ids == 40, 1, np.where(ids, 2, 0)))
    np.testing.assert_array_equal(task.encode([], ids.shape)[..., 0], 0)


def test_instances_have_scores_and_small_ones_are_left_out():
    ids = np.zeros((12, 12), int)
    ids[1:6, 1:6], ids[9, 9] = 1, 2
    task = InstanceSegmentation(min_size=3).fit([ids])
    scores = perfect_scores(task, task.encode(ids, ids.shape))
    scores[..., 0] = np.where(ids == 1, 1.0, scores[..., 0])
    found = task.instances(scores)
    assert found.ids.max() == 1
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-1.0)), rtol=1e-6)


def test_votes_that_agree_on_nothing_are_no_object():
    # Every pixel is sure that it is of a large object, each of another one.
    task = InstanceSegmentation(min_votes=0.5).fit([np.eye(8, dtype=int)])
    scores = np.zeros((40, 40, 4))
    scores[..., 0] = 5
    scores[..., 3] = np.log(30)
    assert task.decode(scores).max() == 0


def test_void_instances_are_unlabelled():
    ids = np.array([[0, 5, 255, -1]] * 3)
    columns = InstanceSegmentation(void=255).fit([ids]).encode(ids, ids.shape)
    np.testing.assert_array_equal(columns[0, :, 0], [0, 1, np.nan, np.nan])
    assert np.isnan(columns[:, 2:]).all()


def test_noisy_votes_still_find_discs():
    y, x = np.mgrid[:60, :90]
    ids = np.zeros((60, 90), int)
    for i, (cy, cx, r) in enumerate([(20, 20, 9), (20, 39, 9), (45, 60, 12)], 1):
        ids[(y - cy) ** 2 + (x - cx) ** 2 <= r**2] = i
    task = InstanceSegmentation().fit([ids])
    scores = perfect_scores(task, task.encode(ids, ids.shape))
    rng = np.random.default_rng(0)
    scores[..., 1:3] += rng.normal(0, 0.15, (*ids.shape, 2))
    scores[..., 3] += rng.normal(0, 0.1, ids.shape)
    found = task.decode(scores)
    assert found.max() == 3
    assert (np.where(ids == 1, found, 0) == np.where(ids == 1, 1, 0)).mean() > 0.99


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.zeros((4, 5)), "integer map of ids"),
        (np.full((4, 5), -7), "ids must be >= 0"),
        (np.full((4, 5), 2**64 - 1, np.uint64), "below 2"),
        (np.zeros((3, 5), int), r"\(3, 5\) does not fit"),
        ([np.zeros((4, 5), bool), np.zeros((4, 6), bool)], "differ in shape"),
        ([np.zeros((4, 5))], "must be bool"),
        ([np.zeros((5, 4), bool)], "do not fit"),
        ("a word", "map"),
    ],
)
def test_bad_instances(target, message):
    task = InstanceSegmentation().fit([np.eye(4, 5, dtype=int)])
    with pytest.raises(TargetError, match=message):
        task.encode(target, (4, 5))


# -- boxes -----------------------------------------------------------------------


@st.composite
def apart(draw):
    """Boxes in cells of a grid, of all sizes down to a pixel, up to the border."""
    rows, cols = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    cell = draw(st.integers(2, 40))
    boxes, labels = [], []
    for r in range(rows):
        for c in range(cols):
            if draw(st.booleans()):
                size = [draw(st.floats(1, cell)) for _ in range(2)]
                low = [draw(st.floats(0, cell - s)) for s in size]
                x0, y0 = c * cell + low[0], r * cell + low[1]
                boxes.append([x0, y0, x0 + size[0], y0 + size[1]])
                labels.append(draw(st.sampled_from(["a", "b"])))
    boxes = np.array(boxes).reshape(-1, 4)
    boxes[:, 2:] = np.minimum(boxes[:, 2:], [cols * cell, rows * cell])
    shape = (rows * cell, cols * cell)
    return shape, {"boxes": boxes, "labels": np.array(labels, dtype="<U1")}


@settings(max_examples=60, deadline=None)
@given(apart())
def test_boxes_come_back(case):
    shape, target = case
    somewhere = {"boxes": [[0, 0, 1, 1]], "labels": ["a"]}
    task = Detection(classes=["a", "b"]).fit([target, somewhere])
    found = task.decode(perfect_scores(task, task.encode(target, shape)))
    assert same_boxes(found, target, tolerance=0.01)


@pytest.mark.parametrize("format", ["xyxy", "xywh", "yxyx"])
def test_formats_round_trip(format):
    as_given = {
        "xyxy": [[2, 3, 12, 8]],
        "xywh": [[2, 3, 10, 5]],
        "yxyx": [[3, 2, 8, 12]],
    }
    target = {"boxes": np.array(as_given[format]), "labels": np.array([1])}
    task = Detection(format).fit([target])
    found = task.decode(perfect_scores(task, task.encode(target, SHAPE)))
    np.testing.assert_allclose(found["boxes"], target["boxes"], atol=1e-3)
    plain = Detection(format).fit([target["boxes"]])
    np.testing.assert_array_equal(
        plain.encode(target["boxes"], SHAPE), task.encode(target, SHAPE)
    )


def test_the_smaller_box_has_the_middle_and_regions_to_ignore_teach_nothing():
    target = {
        "boxes": np.array([[0, 0, 20, 20], [8, 8, 12, 12]]),
        "labels": np.array([0, 1]),
        "ignore": np.array([[22, 0, 30, 24]]),
    }
    task = Detection().fit([target])
    columns = task.encode(target, SHAPE)
    assert columns[10, 10, :2].tolist() == [0, 1]
    assert columns[6, 6, :2].tolist() == [1, 0]
    assert np.isnan(columns[1, 1, 0])  # in the box, not in its middle
    assert columns[1, 1, 1] == 0
    assert np.isnan(columns[:, 22:30]).all()
    found = task.decode(perfect_scores(task, columns))
    assert same_boxes(found, target)
    for name, void in ((-9, -9), (-1, ())):  # −1 is unlabelled everywhere
        given = {"boxes": [[1, 1, 9, 9], [22, 0, 30, 24]], "labels": [3, name]}
        columns = Detection(void=void).fit([given]).encode(given, SHAPE)
        assert np.isnan(columns[:, 22:30]).all()


def test_boxes_turn_with_the_image():
    target = {"boxes": np.array([[4, 6, 14.2, 12.4]]), "labels": np.array([0])}
    task = Detection().fit([target])
    columns = task.encode(target, (24, 24))
    # A quarter turn: what was down goes left, what was right goes down.
    turned = task.transform_columns(
        np.rot90(columns, -1), np.array([[0.0, 1.0], [-1.0, 0.0]])
    )
    boxes = np.array([[24 - 12.4, 4, 24 - 6, 14.2]])
    expected = task.encode({"boxes": boxes, "labels": [0]}, (24, 24))
    np.testing.assert_allclose(turned, expected, atol=1e-4)


def test_boxes_of_instances():
    ids = np.full((5, 6), -1)
    ids[0], ids[1:3, 2:6], ids[4, 0] = 0, 7, 2
    boxes, names = boxes_of_instances(ids, "yxyx")
    np.testing.assert_array_equal(boxes, [[4, 0, 5, 1], [1, 2, 3, 6]])
    np.testing.assert_array_equal(names, [2, 7])
    assert boxes_of_instances(np.zeros((3, 3), int))[0].shape == (0, 4)
    assert boxes_of_instances(np.ones((3, 3), int))[0].tolist() == [[0, 0, 3, 3]]
    for bad in (np.zeros((3, 3)), np.zeros((0, 0), int)):
        with pytest.raises(TargetError, match="integer map"):
            boxes_of_instances(bad)
    with pytest.raises(ValueError, match="`format` of boxes_of_instances"):
        boxes_of_instances(np.eye(3, dtype=int), "zzz")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"boxes": [[5, 5, 2, 9]], "labels": [0]}, r"box 0 has no area: \[5.*xyxy"),
        (
            {"boxes": [[5, 5, 9, 9], [1, 1, np.nan, 4]], "labels": [0, 0]},
            "box 1 .*fini",
        ),
        ({"boxes": [[5, 5, 40, 9]], "labels": [0]}, "beyond an image of height 24"),
        ({"boxes": [[-1, 5, 4, 9]], "labels": [0]}, "beyond an image"),
        ({"boxes": [[5, 5, 9]], "labels": [0]}, r"shape \(n, 4\)"),
        ({"boxes": [[5, 5, 9, 9]], "labels": [0, 1]}, "1 boxes need 1 labels"),
        ({"boxes": [[5, 5, 9, 9]], "labels": [8]}, r"\[8\] are not among"),
        ({"boxes": [[5, 5, 9, 9]], "labels": [0.5]}, "labels must be int"),
        ({"labels": [0]}, "key 'boxes'"),
        ({"boxes": [[5, 5, 9, 9]], "label": [0]}, "got \\['label'\\]"),
        ("a word", "must be numbers"),
    ],
)
def test_bad_boxes(target, message):
    task = Detection().fit([{"boxes": [[1, 1, 5, 5]], "labels": [0]}])
    with pytest.raises(TargetError, match=message):
        task.encode(target, SHAPE)


def test_no_box_at_all_cannot_be_learnt():
    for task in (Detection(), Detection(classes=["a", "b"])):
        with pytest.raises(TargetError, match="no entry has a box"):
            task.fit([EMPTY])
    with pytest.raises(TargetError, match="no entry has an object"):
        InstanceSegmentation().fit([np.zeros(SHAPE, int), []])


@pytest.mark.parametrize(
    "empty",
    [
        np.empty((0, 4)),
        [],
        {"boxes": []},
        {"boxes": [], "labels": []},
        {"boxes": np.empty((0, 4)), "labels": []},
    ],
)
def test_no_box_in_an_image_may_be_said_in_any_way(empty):
    task = Detection().fit([BOXES, empty])
    columns = task.encode(empty, SHAPE)
    assert (columns[..., :2] == 0).all()
    assert np.isnan(columns[..., 2:]).all()


# -- the rest --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "good", "bad", "message"),
    [
        (DenseRegression("log"), np.ones((4, 5)), np.zeros((4, 5)), "above 0"),
        (SurfaceNormals(), np.eye(3)[None], np.ones((1, 3, 3)), "length 1.73"),
        (DensityCount(), [[1, 1]], [[1, 9]], r"point 0 .*outside"),
        (DensityCount(), [[1, 1]], [[1, np.nan]], "outside"),
        (DensityCount(), [[1, 1]], [1, 2, 3], r"shape \(n, 2\)"),
        (ImageToImage(), np.ones((4, 5)), np.full((4, 5), 2.0), r"\[0, 1\]"),
        (
            ImageToImage(),
            np.ones((4, 5), np.uint8),
            np.ones((4, 5)),
            "others are uint8",
        ),
        (Count(), 3, -1, ">= 0"),
        (Count(), 3, "many", "must be a number"),
        (Ordinal(), 3, "word", "word|mix|among|not"),
    ],
)
def test_bad_targets(task, good, bad, message):
    shape = (1, 3) if isinstance(task, SurfaceNormals) else (4, 5)
    task.fit([good, 4] if isinstance(task, Ordinal) else [good])
    with pytest.raises((TargetError, TypeError), match=message):
        task.encode(bad, shape)


@pytest.mark.parametrize(
    "task",
    [
        DenseRegression("cubic"),
        DensityCount(0),
        Detection("abcd"),
        Detection(threshold=2),
        Detection(suppression="mild"),
        Detection(classes="a"),
        Detection(classes=["a", "a"]),
        Detection(classes=3),
        Ordinal(3),
        InstanceSegmentation(separation=0),
        InstanceSegmentation(min_votes=1),
        Ordinal(classes=[1, 1]),
        SemanticSegmentation(postprocess="fill"),
    ],
)
def test_bad_parameters_are_named(task):
    with pytest.raises(ValueError, match=type(task).__name__):
        task.fit([np.zeros((4, 5), int)])


def test_zoom_changes_lengths_only():
    ids = blobs((40, 40))
    task = InstanceSegmentation().fit([ids])
    columns = task.encode(ids, ids.shape)
    moved = task.transform_columns(columns, 2 * np.eye(2))
    np.testing.assert_allclose(moved[..., :3], columns[..., :3])
    np.testing.assert_allclose(moved[..., 3], columns[..., 3] + np.log(2), rtol=1e-5)
    density = DensityCount().fit([np.array([[3, 3]])])
    np.testing.assert_allclose(
        density.transform_columns(np.ones((2, 2, 1)), 2 * np.eye(2)), 0.25
    )


def test_ordinal_counts_steps():
    task = Ordinal([10, 5, 7]).fit([5, 10])
    assert task.encode(7, SHAPE).tolist() == [1, 1]
    assert task.decode(np.array([3.0, -1.0])) == 5
    assert np.isnan(task.encode(-1, SHAPE)).all()
    with pytest.raises(TargetError, match="two classes"):
        Ordinal().fit([3, 3])
    with pytest.raises(TargetError, match=r"no order of their own.*Ordinal\(\['hi'"):
        Ordinal().fit(["mid", "hi", "lo"])
    with pytest.raises(TargetError, match=r"\[6\] are not among"):
        task.encode(6, SHAPE, unseen=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int32])
def test_void_numbers_are_unlabelled(dtype):
    depth = np.array([[0, 3, 5], [2, 0, 9]], dtype)
    task = DenseRegression(void=0).fit([depth])
    columns = task.encode(depth, (2, 3))[..., 0]
    np.testing.assert_array_equal(np.isnan(columns), depth == 0)
    np.testing.assert_array_equal(columns[depth > 0], depth[depth > 0])
    logs = DenseRegression("log", void=[0, 9]).fit([depth]).encode(depth, (2, 3))
    np.testing.assert_array_equal(np.isnan(logs[..., 0]), (depth == 0) | (depth == 9))


def test_void_of_several_numbers_is_where_all_are():
    normals = np.tile([0.0, 0.0, 1.0], (2, 3, 1))
    normals[0, 1] = 0
    columns = SurfaceNormals(void=0).fit([normals]).encode(normals, (2, 3))
    np.testing.assert_array_equal(
        np.isnan(columns), np.repeat((normals == 0).all(axis=2)[..., None], 3, axis=2)
    )
    picture = np.full((2, 3, 3), 7, np.uint8)
    picture[1, 2], picture[0, 0, 0] = 0, 0
    task = ImageToImage(void=0).fit([picture])
    columns = task.encode(picture, (2, 3))
    assert np.isnan(columns).sum() == 3
    assert np.isnan(columns[1, 2]).all()
    with pytest.raises(ValueError, match="`void`"):
        DenseRegression(void="sky").fit([normals])
