"""Metrics of objects: by hand, by brute force, and against pycocotools."""

import contextlib
import io
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from skimage.measure import label

from mtsk.metrics import (
    AveragePrecision,
    Matches,
    box_iou,
    instance_iou,
    match_instances,
    task_metric,
)
from mtsk.tasks import Detection, InstanceSegmentation
from mtsk.testing import perfect_scores

OVERLAPS = np.linspace(0.5, 0.95, 10)


def test_matches_by_hand():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0]] * 2)
    guess = np.array([[9, 9, 9, 0, 0, 0, 4, 4]] * 2)
    iou = instance_iou(truth, guess)
    assert_allclose(iou, [[0, 0.75], [1 / 3, 0]])
    matches = match_instances(iou, 0.5)
    assert matches == Matches(1, 1, 1, 0.75)
    assert matches.threat_score == pytest.approx(1 / 3)
    assert matches.panoptic_quality == pytest.approx(0.75 / 2)
    assert match_instances(iou, 0.3).tp == 2
    assert match_instances(iou, 0.8) == Matches(0, 2, 2, 0.0)


def test_nothing_and_nothing():
    empty = np.zeros((4, 4), int)
    disc = np.eye(4, dtype=int)
    assert np.isnan(match_instances(instance_iou(empty, empty)).threat_score)
    assert match_instances(instance_iou(disc, empty)) == Matches(0, 0, 1, 0.0)
    assert match_instances(instance_iou(empty, disc)) == Matches(0, 1, 0, 0.0)


def test_unlabelled_pixels_count_for_nothing():
    truth = np.array([[1, 1, -1, -1, 0, 0]])
    guess = np.array([[1, 1, 1, 0, 0, 0]])
    assert instance_iou(truth, guess).tolist() == [[1.0]]
    outside = np.array([[1, 1, 0, 2, 0, 0]])  # 2 lies on unlabelled ground
    assert match_instances(instance_iou(truth, outside)) == Matches(1, 0, 0, 1.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.45))
def test_matching_is_the_best_there_is(seed, least):
    iou = np.random.default_rng(seed).random((4, 3)).round(1)
    best = max(
        (sum(iou[i, j] > least for j, i in enumerate(rows)) for rows in choices(4, 3)),
        default=0,
    )
    assert match_instances(iou, least).tp == best


def choices(n, k):
    return permutations(range(n), k)


@given(st.integers(0, 10**6))
def test_iou_is_what_loops_say(seed):
    rng = np.random.default_rng(seed)
    truth, guess = (label(rng.random((6, 7)) < 0.6, connectivity=1) for _ in range(2))
    iou = instance_iou(truth, guess)
    for i in range(truth.max()):
        for j in range(guess.max()):
            a, b = truth == i + 1, guess == j + 1
            assert iou[i, j] == pytest.approx((a & b).sum() / (a | b).sum())


def test_box_iou_by_hand():
    a = np.array([[0, 0, 2, 2.0]])
    b = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6.0]])
    assert_allclose(box_iou(a, b), [[1 / 7, 1, 0]])
    assert_allclose(box_iou(a, b, within=True), [[1 / 4, 1, 0]])


def test_boxes_of_bytes_do_not_wrap_around():
    a, b = np.array([[[0, 0, 100, 200]], [[101, 100, 200, 200]]], np.uint8)
    assert box_iou(a, b)[0, 0] == 0


def test_codes_and_scores_that_cannot_be():
    curve = AveragePrecision(2, [0.5])
    zero = np.zeros(1, int)
    with pytest.raises(ValueError, match="`codes` must lie in 0 … 1"):
        curve.update(np.zeros((1, 1)), np.ones(1), zero + 2, zero)
    with pytest.raises(ValueError, match="not be NaN"):
        curve.update(np.zeros((1, 1)), np.full(1, np.nan), zero, zero)


# -- average precision -----------------------------------------------------------


def scenes(seed, n_images=6, n_classes=3, crowds=True):
    """Random truths and guesses, some near, some far, some among what to ignore."""
    rng = np.random.default_rng(seed)
    for _ in range(n_images):
        n = rng.integers(0, 6)
        low = rng.uniform(0, 60, (n, 2))
        truth = np.concatenate([low, low + rng.uniform(5, 40, (n, 2))], axis=1)
        codes = rng.integers(0, n_classes, n)
        near = truth + rng.normal(0, 3, truth.shape)
        low = rng.uniform(0, 60, (4, 2))
        far = np.concatenate([low, low + rng.uniform(5, 40, (4, 2))], axis=1)
        guess = np.concatenate([near, near[: n // 2] + 1, far])
        guess[:, 2:] = np.maximum(guess[:, 2:], guess[:, :2] + 1)
        named = np.concatenate([codes, codes[: n // 2], rng.integers(0, n_classes, 4)])
        ignore = (
            np.array([[0, 0, 30, 100.0]]) if crowds and rng.random() < 0.5 else None
        )
        yield truth, codes, guess, named, rng.random(len(guess)), ignore


def coco_precision(cases, n_classes):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, annotations, results = [], [], []
    for i, (truth, codes, guess, named, scores, ignore) in enumerate(cases, 1):
        images.append({"id": i, "height": 200, "width": 200})
        marked = [(box, code, 0) for box, code in zip(truth, codes, strict=True)]
        if ignore is not None:  # crowds have a class in COCO: one for each
            marked += [(ignore[0], c, 1) for c in range(n_classes)]
        for box, code, crowd in marked:
            wh = box[2:] - box[:2]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(code) + 1,
                    "bbox": [*box[:2], *wh],
                    "area": float(wh.prod()),
                    "iscrowd": crowd,
                }
            )
        for box, code, score in zip(guess, named, scores, strict=True):
            results.append(
                {
                    "image_id": i,
                    "category_id": int(code) + 1,
                    "bbox": [*box[:2], *(box[2:] - box[:2])],
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": c + 1} for c in range(n_classes)],
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, -1]  # overlaps, recalls, classes
    return np.where((precision > -1).all(axis=1), precision.mean(axis=1), np.nan)


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_pycocotools(seed):
    cases = list(scenes(seed))
    ours = AveragePrecision(3, OVERLAPS)
    for truth, codes, guess, named, scores, ignore in cases:
        inside = None
        if ignore is not None:
            inside = box_iou(guess, ignore, within=True)[:, 0]
        ours.update(box_iou(guess, truth), scores, named, codes, inside)
    assert_allclose(ours.compute(), coco_precision(cases, 3), atol=1e-12)


def test_average_precision_by_hand():
    curve = AveragePrecision(1, [0.5])
    iou = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.9]])
    zeros = np.zeros(3, int)
    curve.update(iou, np.array([0.9, 0.8, 0.7]), zeros, zeros[:2])
    # Recall 0.5 at precision 1 (51 of 101 points), recall 1 at precision 2 / 3.
    assert curve.compute()[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_class_that_is_true_nowhere_has_no_precision():
    curve = AveragePrecision(2, [0.5])
    curve.update(np.empty((1, 0)), np.ones(1), np.ones(1, int), np.empty(0, int))
    assert np.isnan(curve.compute()).all()


# -- meters ----------------------------------------------------------------------


def instances(seed, shape=(20, 30)):
    return label(np.random.default_rng(seed).random(shape) < 0.4, connectivity=1)


@pytest.mark.parametrize("name", InstanceSegmentation.metrics)
def test_true_instances_score_one_and_none_score_zero(name):
    ids = instances(0)
    task = InstanceSegmentation().fit([ids])
    good, bad = task_metric(task, name), task_metric(task, name)
    scores = perfect_scores(task, task.encode(ids, ids.shape))
    good.update(ids, scores)
    bad.update(ids, np.full_like(scores, -9))
    assert good.compute() == pytest.approx(1.0)
    assert bad.compute() == 0.0
    assert np.isnan(task_metric(task, name).compute())


@pytest.mark.parametrize("name", Detection.metrics)
def test_true_boxes_score_one(name):
    target = {"boxes": np.array([[2, 3, 12, 9], [15, 2, 29, 18]]), "labels": ["a", "b"]}
    task = Detection().fit([target])
    meter = task_metric(task, name)
    meter.update(target, perfect_scores(task, task.encode(target, (20, 30))))
    assert meter.compute() == pytest.approx(1.0)
    empty = {"boxes": np.empty((0, 4))}
    none = task_metric(task, name)
    none.update(empty, perfect_scores(task, task.encode(empty, (20, 30))))
    assert np.isnan(none.compute())


def test_labels_unknown_to_the_task_are_a_class_never_found():
    known = {"boxes": np.array([[2, 3, 12, 9]]), "labels": ["a"]}
    task = Detection().fit([known])
    meter = task_metric(task, "box_ap50")
    both = {"boxes": np.array([[2, 3, 12, 9], [15, 2, 29, 18]]), "labels": ["a", "z"]}
    meter.update(both, perfect_scores(task, task.encode(known, (20, 30))))
    assert meter.compute() == pytest.approx(0.5)


def test_regions_to_ignore_excuse_what_is_found_there():
    target = {"boxes": np.array([[2, 3, 12, 9]]), "labels": ["a"]}
    spurious = {
        "boxes": np.array([[2, 3, 12, 9], [20, 4, 28, 12]]),
        "labels": ["a"] * 2,
    }
    task = Detection().fit([target])
    scores = perfect_scores(task, task.encode(spurious, (20, 30)))
    scores[5:9, 22:26, 0] = np.where(scores[5:9, 22:26, 0] > 0, 25, -20)  # the better
    plain, excused = (task_metric(task, "box_ap50") for _ in range(2))
    plain.update(target, scores)
    excused.update({**target, "ignore": np.array([[18, 0, 30, 20]])}, scores)
    assert plain.compute() < excused.compute() == pytest.approx(1.0)


def test_maps_that_differ_in_shape():
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(4, 3\)"):
        instance_iou(np.zeros((3, 4), int), np.zeros((4, 3), int))
