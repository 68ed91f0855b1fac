"""Stacks as slices, and objects joined across them."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, cross_val_score

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.data import ImageStacks, join_slices
from mtsk.exceptions import ImageError, TargetError


def stacks_of_discs(n=3, depth=4, shape=(40, 48), seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    images, labels = [], []
    for _ in range(n):
        y, x = rng.integers(12, 28, 2)
        stack = rng.integers(20, 60, (depth, *shape)).astype(np.uint8)
        label = np.zeros(stack.shape, int)
        for z in range(depth):
            disc = (rows - y) ** 2 + (columns - x - z) ** 2 < 64
            stack[z, disc] += 150
            label[z, disc] = 1
        images.append(stack)
        labels.append(label)
    return images, labels


def test_slices_are_learnt_and_come_back_as_stacks(tmp_path):
    volumes, labels = stacks_of_discs()
    stacks = ImageStacks(volumes)
    Y = Targets({"disc": stacks.split([labels[0], None, labels[2]])})
    model = MultiTaskSegmenter(features=DeepFeatures(scales=[1]), random_state=0)
    model.fit(stacks, Y)
    found = stacks.join(model.predict(stacks)["disc"])
    assert [f.shape for f in found] == [v.shape for v in volumes]
    assert (found[1] == labels[1]).mean() > 0.97
    paths = []
    for i, volume in enumerate(volumes):
        paths.append(tmp_path / f"{i}.tif")
        tifffile.imwrite(
            paths[-1], volume, photometric="minisblack", metadata={"axes": "ZYX"}
        )
    files = ImageStacks(paths)
    np.testing.assert_array_equal(files.groups, stacks.groups)
    np.testing.assert_array_equal(files[5], stacks[5])
    for a, b in zip(model.predict(files)["disc"], np.concatenate(found), strict=True):
        np.testing.assert_array_equal(a, b)


def test_stacks_keep_together_in_folds():
    volumes, labels = stacks_of_discs()
    stacks = ImageStacks(np.array(volumes))
    Y = stacks.split(labels)
    assert stacks.shape == (12,)
    model = MultiTaskSegmenter(features=DeepFeatures(scales=[1]), random_state=0)
    scores = cross_val_score(
        model, stacks, Targets({"d": Y}), groups=stacks.groups, cv=GroupKFold(3)
    )
    assert scores.shape == (3,)
    assert scores.min() > 0.8
    taken = stacks[np.arange(12) % 4 == 0]
    assert [t.shape for t in taken] == [(40, 48)] * 3


@pytest.mark.parametrize(
    ("stacks", "message"),
    [
        (np.zeros((4, 32, 32)), r"one stack alone is \[stack\]"),
        ([np.zeros((32, 32))], r"stack 0 must have shape \(Z, H, W\)"),
        ([[np.zeros((9, 9)), np.zeros((8, 9))]], "stack 0 has slices of diff"),
        ([], "no image"),
        (5, "takes a sequence of stacks, got int"),
        (np.zeros((4, 32, 32, 3), np.uint8), r"one alone is \[stack\]"),
        ([np.zeros((0, 32, 32))], "stack 0 is empty"),
        (["none.tif"], "stack 0: no such file"),
        ("stack.tif", r"one file alone is \[path\]"),
    ],
)
def test_what_is_no_stack_is_refused(stacks, message):
    with pytest.raises(ImageError, match=message):
        ImageStacks(stacks)


def test_labels_of_other_lengths_are_refused():
    stacks = ImageStacks(np.zeros((2, 3, 16, 16), np.uint8))
    with pytest.raises(TargetError, match="2 stacks, and labels of 1"):
        stacks.split([np.zeros((3, 16, 16))])
    with pytest.raises(TargetError, match="stack 1 has 3 slices, its labels 2"):
        stacks.split([None, np.zeros((2, 16, 16))])
    with pytest.raises(TargetError, match=r"must be a list .* got Targets"):
        stacks.split(Targets({"a": [1, 2]}))
    with pytest.raises(TargetError, match="labels of stack 0 must have 3 slices: 5"):
        stacks.split([5, None])
    with pytest.raises(ValueError, match="6 slices, got 5"):
        stacks.join([0] * 5)
    with pytest.raises(ValueError, match="predictions of one task, got dict"):
        stacks.join({"a": [0] * 6})
    with pytest.raises(ValueError, match="stack 1 have differing sizes"):
        stacks.join([np.zeros(2)] * 5 + [np.zeros(3)])


def test_an_object_goes_on_as_the_one_it_shares_most_with():
    a = np.zeros((3, 8, 8), int)
    a[0, 1:5, 1:5] = 7
    a[1, 2:6, 1:5] = 3
    a[1, 0:2, 4:8] = 5
    a[2, 6:8, 6:8] = 3
    found = join_slices(a)
    assert found[0, 1, 1] == found[1, 3, 3] == 1
    assert found[1, 0, 7] == 2
    assert found[2, 7, 7] == 3  # the id of the slice before means nothing
    assert set(np.unique(found)) == {0, 1, 2, 3}


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_a_solid_of_one_shape_stays_one_and_others_stay_apart(seed, depth):
    rng = np.random.default_rng(seed)
    flat = rng.integers(0, 4, (6, 6))
    renamed = [np.append(0, 1 + rng.permutation(3))[flat] for _ in range(depth)]
    found = join_slices(np.array(renamed))
    for z in range(depth):
        np.testing.assert_array_equal(found[z], found[0])
    assert len(np.unique(found)) == len(np.unique(flat))


@pytest.mark.parametrize(
    "ids", [np.zeros((4, 4), int), -np.ones((1, 2, 2), int), [[[0.5]]]]
)
def test_what_are_no_ids_is_refused(ids):
    with pytest.raises(ValueError, match="ids must be integers"):
        join_slices(ids)


def test_ids_that_only_64_bits_hold():
    ids = np.zeros((2, 2, 6), np.uint64)
    ids[0, 0], ids[0, 1] = 2**63 + 5, 2**63 + 6
    ids[1] = ids[0]
    np.testing.assert_array_equal(join_slices(ids)[1], [[1] * 6, [2] * 6])
    assert join_slices(np.zeros((0, 4, 4), int)).shape == (0, 4, 4)
    with pytest.raises(ValueError, match="one size"):
        join_slices([np.zeros((2, 2), int), np.zeros((2, 3), int)])
    with pytest.raises(ValueError, match="min_iou"):
        join_slices(ids, min_iou="a")
