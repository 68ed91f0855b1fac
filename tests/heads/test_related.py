"""RelatedRidge: against a dense Kronecker solve, and where relations help."""

import numpy as np
import pytest
from sklearn.base import clone

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter
from mtsk.heads import RelatedRidge
from mtsk.heads.related import System, solve_related, task_covariance
from mtsk.heads.sharing_ridge import Equations
from mtsk.heads.statistics import Moments
from mtsk.tasks.columns import ColumnGroup
from mtsk.testing import toy_images


def views(rng, n, d=12, tasks=4, noise=1.0):
    """Several noisy views of one direction."""
    X = rng.normal(size=(n, d)).astype(np.float32)
    w = rng.normal(size=d)
    y = (X @ w)[:, None] / np.linalg.norm(w) + rng.normal(0, noise, (n, tasks))
    return X, y


def systems_of(X, T, rows):
    return [
        System.of(
            Equations.of(Moments.of(X, T[:, cols], r.astype(float)), np.array(cols))
        )
        for cols, r in rows
    ]


def test_the_covariance_is_that_of_the_paper():
    V = np.random.default_rng(0).normal(size=(9, 3))
    values, axes = np.linalg.eigh(V.T @ V)
    root = (axes * np.sqrt(values)) @ axes.T
    omega = task_covariance(V.T @ V)
    np.testing.assert_allclose(omega, root / np.trace(root), atol=2e-3)
    assert np.trace(omega) == pytest.approx(1)
    np.testing.assert_allclose(task_covariance(np.zeros((3, 3))), np.eye(3) / 3)
    assert np.linalg.eigvalsh(task_covariance(np.ones((3, 3)))).min() > 0


@pytest.mark.parametrize("partly", [False, True])
def test_weights_solve_the_dense_kronecker_system(partly):
    rng = np.random.default_rng(1)
    X, T = views(rng, 60, d=5, tasks=3)
    every = np.ones(60, bool)
    first = np.arange(60) < 40
    rows = [([0, 2], every), ([1], first)] if partly else [([0, 1, 2], every)]
    systems = systems_of(X, T, rows)
    alphas = np.array([0.1, 0.2, 0.3])
    weights, omega = solve_related(systems, alphas, 0.5, tol=1e-9)
    V = np.zeros((5, 3))
    for system, own in zip(systems, weights, strict=True):
        V[:, system.cols] = system.axes @ own
    # At the fixed point, V solves the system that its own covariance makes.
    np.testing.assert_allclose(task_covariance(V.T @ V), omega, atol=1e-3)
    precision = 0.5 * np.linalg.inv(omega) / 3
    dense, right = np.kron(precision + np.diag(alphas), np.eye(5)), np.zeros(15)
    for system in systems:
        correlation = (system.axes * system.values) @ system.axes.T
        for j, t in enumerate(system.cols):
            block = slice(5 * t, 5 * t + 5)
            dense[block, block] += correlation
            right[block] = system.axes @ system.cross[:, j]
    theirs = np.linalg.solve(dense, right).reshape(3, 5).T
    np.testing.assert_allclose(V, theirs, atol=3e-4)


@pytest.mark.parametrize("calibrate", [False, True])
def test_share_0_is_exactly_the_separate_fit(calibrate):
    rng = np.random.default_rng(0)
    X, y = views(rng, 80)
    Y = np.column_stack([y[:, 0] > 0, y[:, 1:]]).astype(float)
    Y[:30, 1] = np.nan
    columns = [ColumnGroup("binary", 1), ColumnGroup("real", 3)]
    parts = {"alpha": [0.01, 0.1], "calibrate": calibrate, "columns": columns}
    separate = JointRidge(**parts).fit(X, Y)
    shared = RelatedRidge(share=0, **parts).fit(X, Y)
    np.testing.assert_array_equal(shared.coef_, separate.coef_)
    np.testing.assert_array_equal(shared.intercept_, separate.intercept_)
    assert shared.covariance_.shape == (4, 4)


def test_related_tasks_with_few_labels_gain():
    gains, shares = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, y = views(rng, 400, noise=0.7)
        few = y.copy()
        few[15:, 0] = np.nan
        few[200:] = np.nan
        head = RelatedRidge(alpha=0.1).fit(X, few)
        alone = JointRidge(alpha=0.1).fit(X, few)
        truth = y[200:, 0]
        gains.append(
            ((alone.predict(X[200:])[:, 0] - truth) ** 2).mean()
            - ((head.predict(X[200:])[:, 0] - truth) ** 2).mean()
        )
        shares.append(head.share_)
    assert np.median(shares) > 0
    assert np.mean(gains) > 0.1


def test_unrelated_tasks_stay_apart():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6)).astype(np.float32)
    Y = X[:, :3] + rng.normal(0, 0.1, (500, 3))
    head = RelatedRidge(alpha=1e-3, share=1.0).fit(X, Y)
    off = head.covariance_[~np.eye(3, dtype=bool)]
    assert np.abs(off).max() < 0.02
    np.testing.assert_allclose(np.diag(head.covariance_), 1 / 3, atol=0.02)


def test_tasks_may_be_permuted():
    rng = np.random.default_rng(0)
    X, y = views(rng, 100)
    y[:40, 2] = np.nan
    order = [2, 0, 3, 1]
    a = RelatedRidge(alpha=0.1, share=2.0).fit(X, y)
    b = RelatedRidge(alpha=0.1, share=2.0).fit(X, y[:, order])
    np.testing.assert_allclose(b.coef_, a.coef_[:, order], atol=1e-4)
    np.testing.assert_allclose(
        b.covariance_, a.covariance_[np.ix_(order, order)], atol=1e-4
    )


def test_pieces_give_what_the_whole_gives():
    rng = np.random.default_rng(0)
    X, y = views(rng, 120)
    head = RelatedRidge(alpha=0.1, share=1.0, calibrate=False)
    whole = clone(head).fit(X, y)
    for part in np.split(np.arange(120), 3):
        head.partial_fit(X[part], y[part])
    np.testing.assert_allclose(head.coef_, whole.coef_, atol=1e-4)
    np.testing.assert_allclose(head.covariance_, whole.covariance_, atol=1e-4)
    with pytest.raises(AttributeError, match="has no attribute 'partial_fit'"):
        RelatedRidge(alpha=0.1, calibrate=False).partial_fit(X, y)


@pytest.mark.parametrize("share", [-1, "much", [1, -1], None])
def test_a_bad_share_is_named(share):
    X, y = views(np.random.default_rng(0), 20)
    with pytest.raises(ValueError, match="`share` of RelatedRidge must be"):
        RelatedRidge(share=share).fit(X, y)


def test_in_the_segmenter():
    X, Y = toy_images(4)
    model = MultiTaskSegmenter(
        features=DeepFeatures(scales=(1.0,)),
        head=RelatedRidge(),
        random_state=0,
        max_pixels_per_image=100,
    )
    assert model.fit(X, Y).score(X, Y) > 0.8
