"""Probabilities are those of the data, whatever weights classes had in the fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from mtsk import (
    DeepFeatures,
    JointLogistic,
    JointRidge,
    MultiTaskSegmenter,
    SharedLayerNetwork,
    Targets,
)
from mtsk.tasks.columns import ColumnGroup

HEADS = [
    JointLogistic(1e-3),
    JointLogistic(1e-3, class_weight="balanced"),
    JointLogistic(1e-3, class_weight=None),
    JointRidge(1e-3),
    SharedLayerNetwork((16,), dropout=0.0, n_epochs=150, random_state=0),
]


def _log_loss(p, y):
    return -np.mean(np.log(np.where(y == 1, p, 1 - p)))


def _calibration_error(p, y, n_bins=10):
    """Return the expected calibration error over bins of equal counts."""
    bins = np.array_split(np.argsort(p), n_bins)
    return float(np.mean([abs(p[b].mean() - y[b].mean()) for b in bins]))


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_every_kind_of_column_is_calibrated(head):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6000, 4)).astype(np.float32)
    logits = np.stack([np.zeros(6000), X[:, 0] - 2.5, 1.5 * X[:, 1] - 4.5], axis=1)
    truth = softmax(logits, axis=1)
    kinds = (rng.random(6000)[:, None] > truth.cumsum(axis=1)).sum(axis=1)
    rare = expit(1.5 * X[:, 2] - 4)  # some 4 %
    often = expit(2 * X[:, 3] + 2)
    labels = rng.random((6000, 2)) < np.stack([rare, often], axis=1)
    Y = np.column_stack([kinds, labels]).astype(np.float32)
    Y[rng.random(6000) < 0.2, 1:] = np.nan
    columns = [ColumnGroup("nominal", 3), ColumnGroup("binary", 2)]
    head = type(head)(**head.get_params(deep=False)).set_params(columns=columns)
    found = head.fit(X[:4000], Y[:4000]).predict_proba(X[4000:])
    np.testing.assert_allclose(found[:, :3].sum(axis=1), 1, rtol=1e-5)
    for k in range(3):
        hit = kinds[4000:] == k
        assert _calibration_error(found[:, k], hit) < 0.03
        assert found[:, k].mean() == pytest.approx(hit.mean(), abs=0.02)
    for j in range(2):
        hit = labels[4000:, j]
        p = found[:, 3 + j]
        assert _calibration_error(p, hit) < 0.03
        prior = np.full(len(hit), np.nanmean(Y[:4000, 1 + j]))
        assert _log_loss(p, hit) < 0.93 * _log_loss(prior, hit)


def test_the_correction_is_what_no_weights_give():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(5000, 3)).astype(np.float32)
    y = (rng.random(5000) < expit(X[:, 0] - 3)).astype(int)
    plain = LogisticRegression(C=1e4).fit(X, y).predict_proba(X)[:, 1]
    head = JointLogistic(1e-6, class_weight="balanced").fit(X, y)
    found = head.predict_proba(X)[:, 1]
    assert np.abs(found - plain).mean() < 0.005
    assert head.predict(X).mean() > 4 * y.mean()  # decisions favour rare classes


def test_in_the_segmenter():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 64, 64), dtype=np.uint8)
    masks = rng.random((6, 64, 64)) < 0.05  # nothing to be learnt: the prior is best
    kinds = np.where(rng.random((6, 64, 64)) < 0.1, 4, 2)
    Y = Targets(mask=list(masks), kind=list(kinds), tag=np.array([1, 0, 0, 0, 0, 0]))
    model = MultiTaskSegmenter(features=DeepFeatures(scales=(0.5,)), random_state=0)
    found = model.set_params(head__alpha=10.0).fit(images, Y).predict_proba(images)
    assert np.mean(found["mask"]) == pytest.approx(0.05, abs=0.01)
    assert np.mean(np.array(found["kind"])[..., 1]) == pytest.approx(0.1, abs=0.01)
    assert found["tag"][:, 1].mean() == pytest.approx(1 / 6, abs=0.05)
    decoder = MultiTaskSegmenter(
        features=DeepFeatures(scales=(0.5,)), head="fcn", random_state=0
    ).set_params(head__n_epochs=3)
    found = decoder.fit(images, Y).predict_proba(images)
    assert np.mean(found["mask"]) < 0.15
    assert found["tag"][:, 1].mean() < 0.4
