"""Metrics of numbers, ranks, pictures and boundaries, by hand and against peers."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import cohen_kappa_score

from mtsk.metrics import boundary_curve, task_metric
from mtsk.tasks import (
    Boundary,
    Count,
    DenseRegression,
    DensityCount,
    ImageToImage,
    Ordinal,
    Regression,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtsk.testing import perfect_scores

random = np.random.default_rng(0)


def result(task, name, pairs):
    meter = task_metric(task, name)
    for truth, scores in pairs:
        meter.update(truth, scores)
    return meter.compute()


def test_depth_errors_by_hand():
    truth, guess = np.array([[1.0, 2.0, np.nan]]), np.array([[1.1, 4.0, 7.0]])
    task = DenseRegression("log").fit([truth])
    pair = (task.encode(truth, (1, 3)), np.log(guess)[..., None])
    assert result(task, "abs_rel", [pair]) == pytest.approx((0.1 + 1) / 2)
    assert result(task, "delta1", [pair]) == 0.5
    logs = np.log([1.1, 2.0])
    assert result(task, "silog", [pair]) == pytest.approx(np.std(logs))
    assert result(task, "rmse", [pair]) == pytest.approx(np.sqrt((0.01 + 4) / 2))
    twice = (pair[0], pair[1] + np.log(3))  # a common factor changes no shape
    assert result(task, "silog", [twice]) == pytest.approx(np.std(logs))
    assert np.isnan(result(task, "abs_rel", []))


def test_depth_errors_need_depths():
    task = DenseRegression().fit([np.zeros((2, 2))])
    with pytest.raises(ValueError, match="'abs_rel' needs numbers above 0"):
        result(task, "abs_rel", [(np.zeros((2, 2, 1)), np.ones((2, 2, 1)))])
    ones = (np.ones((2, 2, 1)), np.full((2, 2, 1), -5.0))
    assert 0.99 < result(task, "abs_rel", [ones]) <= 1  # negative guesses are as near 0


def test_angles_by_hand():
    truth = np.array([[[1.0, 0, 0], [0, 1.0, 0]]])
    task = SurfaceNormals().fit([truth])
    guess = np.array([[[5.0, 0, 0], [0, 1.0, 1.0]]])
    pair = (task.encode(truth, (1, 2)), guess)
    assert result(task, "angular_error", [pair]) == pytest.approx(22.5)
    assert result(task, "within_30", [pair]) == 0.5


def test_counts_by_hand():
    task = DensityCount().fit([np.empty((0, 2))])
    one, three = np.zeros((10, 10, 1)), np.full((10, 10, 1), 0.03)
    pairs = [(np.array([[2, 2]]), one), (np.array([[2, 2], [3, 3]]), three)]
    assert result(task, "count_mae", pairs) == pytest.approx(1.0)
    assert result(task, "count_rmse", pairs) == pytest.approx(1.0)
    assert result(task, "count_r2", pairs) == pytest.approx(1 - 2 / 0.5)


def test_counts_of_images_are_judged_as_counts():
    task = Count().fit([4, 9])
    pair = (task.encode(9, (1, 1)), np.array([2.0]))
    assert result(task, "mae", [pair]) == pytest.approx(5.0)


def test_kappa_is_scikit_learns():
    grades = random.integers(0, 4, 40)
    guesses = (grades + random.integers(-1, 2, 40)).clip(0, 3)
    task = Ordinal(range(4)).fit(grades)
    pairs = [
        (task.encode(int(g), (1, 1)), np.where(np.arange(3) < k, 2.0, -2.0))
        for g, k in zip(grades, guesses, strict=True)
    ]
    expected = cohen_kappa_score(grades, guesses, weights="quadratic")
    assert result(task, "kappa", pairs) == pytest.approx(expected)
    assert result(task, "rank_mae", pairs) == np.abs(grades - guesses).mean()
    assert result(task, "accuracy", pairs) == (grades == guesses).mean()


def test_pictures_are_judged_by_scikit_image():
    truth = random.integers(0, 256, (20, 22, 3), dtype=np.uint8)
    task = ImageToImage().fit([truth])
    noisy = (truth / 255 + random.normal(0, 0.05, truth.shape)).clip(0, 1)
    pair = (task.encode(truth, (20, 22)), noisy)
    psnr = peak_signal_noise_ratio(truth / 255, noisy, data_range=1)
    ssim = structural_similarity(truth / 255, noisy, data_range=1, channel_axis=2)
    assert result(task, "psnr", [pair]) == pytest.approx(psnr, rel=1e-5)
    assert result(task, "ssim", [pair]) == pytest.approx(ssim, rel=1e-5)
    assert result(task, "psnr", [(pair[0], pair[0])]) == np.inf


def test_boundaries_at_every_threshold_by_hand():
    truth = np.zeros((20, 20), bool)
    truth[10] = True
    strength = np.zeros((20, 20))
    strength[11], strength[3] = 0.8, 0.3
    curve = boundary_curve(truth, strength, np.array([0.2, 0.5]), tolerance=1)
    assert curve.tolist() == [[20, 40, 20, 20], [20, 20, 20, 20]]
    ignored = np.zeros_like(truth)
    ignored[:5] = True
    curve = boundary_curve(truth, strength, np.array([0.2]), 1, ignored)
    assert curve.tolist() == [[20, 20, 20, 20]]


def test_best_threshold_of_all_images_and_of_each():
    edges = [np.zeros((30, 30), bool) for _ in range(2)]
    edges[0][10], edges[1][:, 20] = True, True
    task = Boundary().fit(edges)
    # The first image has its edge at 0.3 and clutter at 0.2; the second's clutter is
    # at 0.6 and its edge at 0.9: no one threshold suits both.
    scores = [np.full((30, 30, 1), -9.0) for _ in edges]
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    scores[0][10], scores[0][25] = logit(0.32), logit(0.22)
    scores[1][:, 20], scores[1][:, 5] = logit(0.92), logit(0.62)
    pairs = [(task.encode(e, e.shape), s) for e, s in zip(edges, scores, strict=True)]
    assert result(task, "ois", pairs) == pytest.approx(1.0)
    assert 0.6 < result(task, "ods", pairs) < 0.9
    blank = np.full((30, 30, 1), np.nan)
    assert np.isnan(result(task, "ods", [(blank, scores[0])]))
    assert np.isnan(result(task, "ois", [(blank, scores[0])]))


def test_postprocessing_is_scored():
    from mtsk.tasks.postprocess import RemoveSmall

    truth = np.zeros((12, 12), int)
    truth[2:8, 2:8] = 1
    speckled = truth.copy()
    speckled[10, 10] = 1
    task = SemanticSegmentation().fit([truth])
    clean = SemanticSegmentation(postprocess=RemoveSmall(4)).fit([truth])
    pair = (
        task.encode(truth, truth.shape),
        perfect_scores(task, task.encode(speckled, truth.shape)),
    )
    for name in ("miou", "accuracy", "class_accuracy"):
        assert result(task, name, [pair]) < 1 == result(clean, name, [pair])
    assert task_metric(clean, "miou").needs_maps
    assert not task_metric(task, "miou").needs_maps


@pytest.mark.parametrize(
    ("task", "metric", "scores"),
    [
        (Regression(), "r2", [2.0]),
        (Count(), "r2", [2.0]),
        (Ordinal([1, 2, 3]), "kappa", [3.0, -3.0]),
    ],
)
def test_one_image_is_too_few(task, metric, scores):
    task.fit([1, 2, 3])
    meter = task_metric(task, metric)
    meter.update(task.encode(2, ()), np.array(scores))
    with pytest.warns(UndefinedMetricWarning, match=f"{metric} is not defined"):
        assert np.isnan(meter.compute())
