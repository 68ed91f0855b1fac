"""make_digit_scenes: labels that agree with one another, the same every time."""

import numpy as np
import pytest

from mtsk._validation import InvalidParameterError
from mtsk.datasets import make_digit_scenes
from mtsk.tasks import infer_task

SMALL = {"size": (64, 72), "digit_size": (14, 24)}


@pytest.fixture(scope="module")
def scenes():
    return make_digit_scenes(6, random_state=0, **SMALL)


def test_shapes_and_dtypes(scenes):
    assert scenes.images.shape == (6, 64, 72, 3)
    assert scenes.images.dtype == np.uint8
    assert len(scenes.targets) == 6
    for row in range(6):
        Y = scenes.targets
        assert Y["semantic"][row].shape == (64, 72)
        assert Y["semantic"][row].dtype.kind == "i"
        assert Y["instances"][row].dtype.kind == "i"
        assert Y["depth"][row].dtype.kind == "f"
        assert Y["tags"][row].dtype == bool
        assert isinstance(Y["count"][row], float)


def test_labels_tell_one_story(scenes):
    Y = scenes.targets
    for row in range(6):
        semantic, instances = Y["semantic"][row], Y["instances"][row]
        boxes, labels = Y["boxes"][row]["boxes"], Y["boxes"][row]["labels"]
        n = len(labels)
        assert 1 <= n <= 5
        assert Y["count"][row] == n
        assert set(np.unique(instances)) == set(range(n + 1))
        np.testing.assert_array_equal(semantic == 10, instances == 0)
        np.testing.assert_array_equal(np.flatnonzero(Y["tags"][row]), np.unique(labels))
        for i, (label, box) in enumerate(zip(labels, boxes, strict=True)):
            rows, cols = np.nonzero(instances == i + 1)
            assert (semantic[rows, cols] == label).all()
            assert box.tolist() == [
                cols.min(),
                rows.min(),
                cols.max() + 1,
                rows.max() + 1,
            ]


def test_depth_falls_towards_the_top(scenes):
    for instances, depth in zip(
        scenes.targets["instances"], scenes.targets["depth"], strict=True
    ):
        assert (depth[instances == 0] == 1).all()
        means = [depth[instances == i].mean() for i in range(instances.max() + 1)]
        assert (np.diff(means) < 0).all()
        assert depth.min() > 0


def test_digits_stand_out(scenes):
    for image, instances in zip(
        scenes.images, scenes.targets["instances"], strict=True
    ):
        inside, outside = image[instances > 0], image[instances == 0]
        assert np.abs(inside.mean(axis=0) - outside.mean(axis=0)).sum() > 10


def test_same_seed_same_scenes():
    one, two = (make_digit_scenes(2, random_state=3, **SMALL) for _ in range(2))
    np.testing.assert_array_equal(one.images, two.images)
    assert one.targets == two.targets
    other = make_digit_scenes(2, random_state=4, **SMALL)
    assert (one.images != other.images).any()


def test_more_scenes_begin_with_the_same():
    one, more = (make_digit_scenes(n, random_state=3, **SMALL) for n in (1, 3))
    np.testing.assert_array_equal(one.images[0], more.images[0])


def test_random_state_may_be_a_generator_in_use():
    random = np.random.RandomState(0)
    one, two = (make_digit_scenes(1, random_state=random, **SMALL) for _ in range(2))
    assert (one.images != two.images).any()


def test_train_and_test_differ():
    train, test = (
        make_digit_scenes(2, subset=s, random_state=0, **SMALL)
        for s in ("train", "test")
    )
    assert (train.images != test.images).any()


def test_scenes_without_digits():
    scenes = make_digit_scenes(2, n_digits=(0, 0), **SMALL)
    Y = scenes.targets
    assert (Y["semantic"][0] == 10).all()
    assert Y["boxes"][0]["boxes"].shape == (0, 4)
    assert Y["boxes"][0]["labels"].shape == (0,)
    assert not Y["tags"][0].any()
    assert Y["count"][0] == 0
    assert (Y["depth"][0] == 1).all()


def test_exact_number_of_digits_where_there_is_room():
    scenes = make_digit_scenes(
        3, n_digits=(2, 2), size=(96, 96), digit_size=(10, 14), random_state=1
    )
    assert scenes.targets["count"] == [2.0, 2.0, 2.0]


def test_digit_heights_keep_their_range():
    scenes = make_digit_scenes(
        4, n_digits=(1, 1), size=(64, 64), digit_size=(20, 24), random_state=0
    )
    for target in scenes.targets["boxes"]:
        (box,) = target["boxes"]
        assert 8 <= box[3] - box[1] <= 24


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("semantic", "SemanticSegmentation"),
        ("depth", "DenseRegression"),
        ("boxes", "Detection"),
        ("tags", "MultiLabel"),
        ("count", "Regression"),
    ],
)
def test_tasks_are_read_from_the_targets(scenes, task, expected):
    assert type(infer_task(task, scenes.targets[task])).__name__ == expected


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_scenes": 0}, "`n_scenes` of make_digit_scenes must be an int >= 1, got 0"),
        ({"n_scenes": 1.5}, "`n_scenes` of make_digit_scenes.*got 1.5"),
        ({"n_digits": (3, 1)}, r"`n_digits` of make_digit_scenes.*got \(3, 1\)"),
        ({"n_digits": (-1, 1)}, r"`n_digits` of make_digit_scenes.*got \(-1, 1\)"),
        ({"digit_size": (4, 20)}, r"`digit_size` of make_digit_scenes.*got \(4, 20\)"),
        (
            {"size": (32, 64), "digit_size": (20, 40)},
            r"`digit_size` of make.*\(32, 64\), got \(20, 40\)",
        ),
        (
            {"subset": "val"},
            "`subset` of make_digit_scenes.*'train' or 'test', got 'val'",
        ),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(InvalidParameterError, match=message):
        make_digit_scenes(**{"n_scenes": 1, **params})
