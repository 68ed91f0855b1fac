"""Which pixels become rows: rare classes have some, and weights undo their excess."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtsk import JointRidge, MultiTaskSegmenter
from mtsk.tables import TableBuilder, pixel_ranks, sample_pixels
from mtsk.tasks import BinaryMask, SemanticSegmentation
from mtsk.tasks.task_set import TaskSet

from mtsk import DeepFeatures, Targets  # isort: skip


@given(
    counts=st.lists(st.integers(0, 400), min_size=1, max_size=6),
    max_pixels=st.integers(1, 200),
    seed=st.integers(0, 5),
)
def test_every_class_is_seen_and_weights_give_its_share(counts, max_pixels, seed):
    codes = np.repeat(np.arange(len(counts)), counts).astype(np.float32)
    known = np.random.default_rng(seed).permutation(len(codes))
    codes = np.concatenate([codes[known], np.full(50, np.nan, np.float32)])
    ranks = pixel_ranks(len(codes), seed, "ab")
    places, weights = sample_pixels(~np.isnan(codes), ranks, max_pixels, codes)
    total = np.array(counts)
    assert len(places) == min(max_pixels, total.sum())
    assert len(set(places.tolist())) == len(places)
    assert not np.isnan(codes[places]).any()
    taken = np.bincount(codes[places].astype(int), minlength=len(counts))
    n_present = np.count_nonzero(total)
    if n_present <= max_pixels:
        quota = np.minimum(total, max(1, max_pixels // (2 * n_present or 1)))
        assert (taken >= quota).all()
    if not len(places):
        return
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    if (taken > 0)[total > 0].all() and (weights != 1).any():
        mass = np.bincount(codes[places].astype(int), weights, minlength=len(counts))
        np.testing.assert_allclose(mass / mass.sum(), total / total.sum(), rtol=1e-5)


def test_without_rare_classes_the_choice_is_that_of_ranks_alone():
    codes = (np.arange(5000) % 3).astype(np.float32)
    ranks = pixel_ranks(5000, 1, "ff")
    places, weights = sample_pixels(codes >= 0, ranks, 300, codes)
    plain = sample_pixels(codes >= 0, ranks, 300)
    np.testing.assert_array_equal(places, plain.places)
    np.testing.assert_array_equal(places, np.sort(np.argsort(ranks)[:300]))
    assert (weights == 1).all()


def test_weighted_means_are_unbiased():
    rng = np.random.default_rng(0)
    values = rng.normal(size=4000)
    codes = np.where(rng.random(4000) < 0.003, 1.0, 0.0)
    values[codes == 1] += 50
    means, plain = [], []
    for seed in range(400):
        ranks = pixel_ranks(4000, seed, "a")
        places, weights = sample_pixels(codes >= 0, ranks, 100, codes)
        means.append(np.average(values[places], weights=weights))
        plain.append(values[places].mean())
    error = np.std(means) / np.sqrt(len(means))
    assert np.mean(means) == pytest.approx(values.mean(), abs=4 * error)
    assert np.mean(plain) > values.mean() + 100 * error


def _maps_and_masks(n=3, side=96, dots=5):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (n, side, side, 3), dtype=np.uint8)
    masks = np.zeros((n, side, side), int)
    masks[:, side // 2 :] = 1
    for i in range(n):
        places = rng.choice(side * side, dots, replace=False)
        masks[i].flat[places] = 2
    return images, masks


def test_rare_classes_have_rows_and_other_tasks_do_not_feel_them():
    images, masks = _maps_and_masks()
    tasks = TaskSet.fit(
        {"a": SemanticSegmentation(), "b": BinaryMask()},
        Targets(a=list(masks), b=list(masks == 1)),
    )
    features = DeepFeatures(scales=(0.5,)).fit(images)
    builder = TableBuilder(tasks, "pixel", 100, 0)
    alone = TableBuilder(tasks, "pixel", 100, 0, by_class=False)
    for index, maps in features.iter_maps(images):
        entries = {"a": masks[index], "b": masks[index] == 1}
        builder.add(index, maps, entries)
        alone.add(index, maps, entries)
    part, plain = builder.part(), alone.part()
    rare = part.Y[:, 0] == 2
    assert (np.bincount(part.images[rare], minlength=3) == 5).all()
    assert (plain.weights == 1).all()
    own = ~np.isnan(part.Y)
    assert (own.sum(axis=0) == 300).all()
    share = part.weights[0, rare].sum() / part.weights[0, own[:, 0]].sum()
    assert share == pytest.approx(5 / 96**2, rel=1e-4)
    assert (part.weights[1] == 1).all()  # halves: no class of the mask is rare
    np.testing.assert_array_equal(part.X[own[:, 1]], plain.X[~np.isnan(plain.Y[:, 1])])


def test_few_pixels_of_a_class_are_learnt():
    rng = np.random.default_rng(0)
    images = rng.integers(60, 120, (4, 96, 96, 3), dtype=np.uint8)
    masks = np.zeros((4, 96, 96), int)
    for i in range(4):
        y, x = rng.integers(10, 80, 2)
        images[i, y - 6 : y + 10, x - 6 : x + 10] = (250, 20, 20)
        masks[i, y : y + 3, x : x + 3] = 1  # of an object of 256 pixels, 9 are labelled
        masks[i, y - 6 : y + 10, x - 6 : x + 10][
            masks[i, y - 6 : y + 10, x - 6 : x + 10] == 0
        ] = -1
    model = MultiTaskSegmenter(max_pixels_per_image=100, random_state=0)
    found = model.fit(images, masks).predict(images)
    assert (found[masks == 1] == 1).mean() > 0.9
    assert (found[masks == 0] == 0).mean() > 0.95


def test_sums_take_the_weights_too():
    images, masks = _maps_and_masks()
    head = JointRidge(alpha=1e-2, calibrate=False)
    model = MultiTaskSegmenter(
        {"a": SemanticSegmentation()},
        features=DeepFeatures(scales=(0.5,)),
        head=head,
        max_pixels_per_image=100,
        random_state=0,
    )
    whole = model.fit(images, {"a": masks})
    parts = MultiTaskSegmenter(**model.get_params(deep=False))
    parts.set_params(tasks={"a": SemanticSegmentation(classes=[0, 1, 2])})
    parts.partial_fit(images[:2], {"a": masks[:2]})
    parts.partial_fit(images[2:], {"a": masks[2:]})
    np.testing.assert_allclose(
        parts.decision_function(images)["a"],
        whole.decision_function(images)["a"],
        atol=2e-3,
    )
