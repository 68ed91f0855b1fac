"""Scores of held-out rows become logits, by a model that images left out bear."""

import numpy as np
import pytest
from scipy.special import log_softmax

from mtsk import JointRidge
from mtsk.heads.calibration import (
    calibrate_classes,
    calibrate_label,
    relative_loss,
)
from mtsk.tasks import ColumnGroup


def loss(slope, offset, scores, codes):
    logits = log_softmax(scores @ slope + offset, axis=1)
    return -logits[np.arange(len(codes)), codes].mean()


def many(n=2000, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n)
    scores = np.eye(n_classes)[codes] + rng.normal(0, 0.6, (n, n_classes))
    return scores, codes, np.arange(n) % 5


def test_a_masked_class_is_untangled_where_there_is_enough():
    # Class 1's score is never the greatest: the others' say where it is.
    scores, codes, folds = many()
    scores[:, 1] = -0.5
    slope, offset = calibrate_classes(scores, codes, np.ones(len(codes)), folds)
    found = (scores @ slope + offset).argmax(axis=1)
    assert (found == codes).mean() > 0.68 > (scores.argmax(axis=1) == codes).mean()


def test_classes_of_one_fold_each_get_one_scale():
    # Whoever is held out was never seen: its own score is lowest, which misleads.
    scores, codes, _ = many(300, 5)
    scores[np.arange(300), codes] -= 1.0
    scores += np.eye(5)[codes] * 0.3
    slope, offset = calibrate_classes(scores, codes, np.ones(300), codes)
    assert not offset.any()
    np.testing.assert_array_equal(slope, slope[0, 0] * np.eye(5))


def test_the_scale_is_the_likeliest():
    scores, codes, _ = many(400)
    folds = codes  # so that the scale is taken
    slope, offset = calibrate_classes(scores, codes, np.ones(400), folds)
    best = loss(slope, offset, scores, codes)
    for factor in (0.8, 1.25):
        assert loss(slope * factor, offset, scores, codes) > best


def test_rows_without_weight_change_nothing():
    scores, codes, folds = many(500)
    more = np.concatenate([scores, -9 * np.ones((50, 3))])
    weight = np.concatenate([np.ones(500), np.zeros(50)])
    slope, offset = calibrate_classes(
        more, np.concatenate([codes, np.zeros(50, int)]), weight, np.r_[folds, [0] * 50]
    )
    alone = calibrate_classes(scores, codes, np.ones(500), folds)
    np.testing.assert_allclose(slope, alone[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(offset, alone[1], rtol=1e-3, atol=1e-3)


def test_a_label_gets_slope_and_intercept():
    rng = np.random.default_rng(0)
    score = rng.normal(size=(4000, 1))
    target = (rng.random(4000) < 1 / (1 + np.exp(-(3 * score[:, 0] - 1)))).astype(float)
    slope, offset = calibrate_label(score, target, np.ones(4000))
    assert slope[0, 0] == pytest.approx(3, abs=0.4)
    assert offset[0] == pytest.approx(-1, abs=0.3)


def test_few_images_are_not_made_worse_by_calibration():
    # Ten images, each of one or two of eight classes, each with a tint of its own.
    rng = np.random.default_rng(1)
    means = rng.normal(size=(8, 30))

    def images(n, per_image=40):
        X, y, g = [], [], []
        for i in range(n):
            tint = rng.normal(size=30)
            own = rng.choice(8, 2, replace=False)
            codes = rng.choice(own, per_image)
            X.append(means[codes] + tint + rng.normal(0, 0.5, (per_image, 30)))
            y.append(codes)
            g.append(np.full(per_image, i))
        return np.concatenate(X), np.concatenate(y)[:, None] * 1.0, np.concatenate(g)

    X, y, groups = images(10)
    X_new, y_new, _ = images(60)
    columns = [ColumnGroup("nominal", 8)]
    scores = [
        JointRidge(alpha=0.1, calibrate=calibrate, columns=columns)
        .fit(X, y, groups=groups)
        .decision_function(X_new)
        for calibrate in (True, False)
    ]
    right = [(s.argmax(axis=1) == y_new[:, 0]).mean() for s in scores]
    assert right[0] > right[1] - 0.05


@pytest.mark.parametrize("n_classes", [2, 3])
def test_held_out_scores_that_mislead_teach_mistrust_not_the_opposite(n_classes):
    # Few images of which each is its own class's exception, as with leave-one-out.
    codes = np.arange(60) % n_classes
    scores = (
        1
        - np.eye(n_classes)[codes]
        + np.random.default_rng(0).normal(0, 0.1, (60, n_classes))
    )
    slope, _ = calibrate_classes(scores, codes, np.ones(60), np.arange(60) % 6)
    own = np.diag(slope) - slope.mean(axis=1)
    assert (own > 0).all()
    label = (codes == 0).astype(float)
    slope, offset = calibrate_label(-label[:, None], label, np.ones(60))
    assert 0 < slope[0, 0] < 0.1
    share = 1 / (1 + np.exp(-(-label.mean() * slope + offset)))
    assert share == pytest.approx(label.mean(), abs=1e-3)


def test_images_of_noise_are_not_classed_upside_down():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 50))
    y = np.array(list("xyxxyx"))
    head = JointRidge().fit(X, y)
    assert (head.predict(X) == y).mean() >= 0.5
    labels = np.array([[1, 0, 1, 0, 0, 1], [0, 1, 0, 1, 0, 1]]).T * 1.0
    head = JointRidge(columns=[ColumnGroup("binary", 2)]).fit(X, labels)
    scores = head.decision_function(X)
    for column, score in zip(labels.T, scores.T, strict=True):
        assert score[column == 1].mean() > score[column == 0].mean()


# -- what strengths are compared by ---------------------------------------------


def held_out(kind, rng, n=4000):
    """Scores that say a little, and targets."""
    if kind == "real":
        target = rng.normal(3, 2, n)
        return (0.5 * (target - 3) + 3)[:, None], target
    codes = rng.integers(0, 3 if kind == "nominal" else 2, n)
    sure = np.eye(3)[codes] if kind == "nominal" else codes[:, None]
    return sure + rng.normal(0, 0.5, (n, sure.shape[1])), codes.astype(float)


@pytest.mark.parametrize("kind", ["nominal", "binary", "real"])
def test_a_loss_is_in_units_of_the_priors(kind):
    rng = np.random.default_rng(0)
    scores, target = held_out(kind, rng)
    ones = np.ones(len(target))
    told = relative_loss(kind, scores, target, ones)
    untold = relative_loss(kind, rng.permutation(scores), target, ones)
    assert 0.1 < told < 0.7
    assert untold > 0.99
    if kind == "real":
        assert told == pytest.approx(0.25, rel=1e-3)  # half of each deviation is left
        assert relative_loss(kind, target[:, None], target, ones) == 0
    else:  # calibrated: the scale of the scores does not matter
        assert relative_loss(kind, 3 * scores, target, ones) == pytest.approx(told)


@pytest.mark.parametrize("kind", ["nominal", "binary", "real"])
def test_what_is_unlabelled_has_no_loss(kind):
    rng = np.random.default_rng(0)
    scores, target = held_out(kind, rng)
    weight = np.where(np.arange(len(target)) < 2000, 1.0, 0.0)
    spoilt = np.where(weight[:, None] > 0, scores, 99)
    part = relative_loss(kind, scores[:2000], target[:2000], np.ones(2000))
    assert relative_loss(kind, spoilt, target, weight) == part
    same = np.zeros(4000)  # nothing to tell apart
    assert relative_loss(kind, scores, same, weight) == 0
