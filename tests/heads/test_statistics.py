"""Moments: laws of merging, and agreement with numpy in double precision."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsk.heads import Moments
from mtsk.heads.blocks import solve_ridge, squared_error

FEW = settings(max_examples=25, deadline=None)


def table(seed=0, n=60, d=4, k=2, offset=0.0):
    random = np.random.default_rng(seed)
    X = (offset + random.normal(size=(n, d)) * [1, 2, 0.5, 3][:d]).astype(np.float32)
    T = random.normal(size=(n, k))
    w = random.uniform(0.1, 3, n)
    return X, T, w


def assert_like_numpy(moments, X, T, w, rtol=1e-5):
    X = X.astype(float)
    scale = X.std(axis=0)
    assert moments.weight == pytest.approx(w.sum())
    mean = np.average(X, axis=0, weights=w)
    np.testing.assert_allclose((moments.x_mean - mean) / scale, 0, atol=rtol)
    np.testing.assert_allclose(
        moments.t_mean, np.average(T, axis=0, weights=w), atol=rtol
    )
    centred, share = X - mean, w / w.sum()
    covariance = (centred * share[:, None]).T @ centred
    np.testing.assert_allclose(
        moments.covariance() / np.outer(scale, scale),
        covariance / np.outer(scale, scale),
        atol=rtol,
    )
    cross = (centred * share[:, None]).T @ (T - moments.t_mean)
    np.testing.assert_allclose(
        moments.cross_covariance() / scale[:, None], cross / scale[:, None], atol=rtol
    )
    np.testing.assert_allclose(moments.tt, w @ T**2, rtol=rtol)


@pytest.mark.parametrize("n", [1, 2, 60, 8192, 8193])
def test_agrees_with_numpy(n):
    X, T, w = table(n=max(n, 2))
    X, T, w = X[:n], T[:n], w[:n]
    moments = Moments.of(X, T, w)
    if n > 1:
        assert_like_numpy(moments, X, T, w)
    else:
        np.testing.assert_allclose(moments.x_mean, X[0], rtol=1e-6)
        np.testing.assert_allclose(moments.covariance(), 0, atol=1e-6)


@given(st.integers(0, 1000), st.integers(2, 6))
@FEW
def test_merged_in_any_order_is_the_whole(seed, n_parts):
    X, T, w = table(seed)
    random = np.random.default_rng(seed)
    shard = random.permutation(np.arange(len(X)) % n_parts)
    parts = [
        Moments.of(X[shard == s], T[shard == s], w[shard == s]) for s in range(n_parts)
    ]
    assert_like_numpy(
        Moments.merge([parts[i] for i in random.permutation(n_parts)]), X, T, w
    )


def test_merging_is_associative_and_leaves_its_parts_alone():
    X, T, w = table()
    a, b, c = (Moments.of(X[i::3], T[i::3], w[i::3]) for i in range(3))
    before = a.xx.copy(), a.weight
    assert_like_numpy((a + b) + c, X, T, w)
    assert_like_numpy(a + (b + c), X, T, w)
    np.testing.assert_array_equal(a.xx, before[0])
    assert a.weight == before[1]


def test_taking_a_part_away():
    X, T, w = table()
    whole, part = Moments.of(X, T, w), Moments.of(X[:20], T[:20], w[:20])
    assert_like_numpy(whole - part, X[20:], T[20:], w[20:])


def test_times_multiplies_every_weight():
    X, T, w = table()
    assert_like_numpy(Moments.of(X, T, w).times(2.5), X, T, 2.5 * w)


def test_about_another_centre_nothing_changes():
    X, T, w = table()
    moved = Moments.of(X, T, w).moved_to(np.array([5.0, -3, 0, 1]))
    assert_like_numpy(moved, X, T, w)


def test_rows_of_weight_zero_are_not_read():
    X, T, w = table()
    X[::2], T[::2], w[::2] = np.nan, np.nan, 0
    assert_like_numpy(Moments.of(X, T, w), X[1::2], T[1::2], w[1::2])


def test_repetition_is_weight():
    X, T, w = table()
    twice = Moments.of(np.repeat(X, 2, 0), np.repeat(T, 2, 0), np.repeat(w, 2))
    assert_like_numpy(twice, X, T, 2 * w)


@pytest.mark.parametrize("offset", [1e2, 1e3, 1e4])
def test_a_large_mean_costs_no_precision(offset):
    """Naive float32 sums gave negative eigenvalues here."""
    X, T, w = table(offset=offset)
    moments = Moments.of(X, T, w)
    assert_like_numpy(moments, X, T, w)
    assert np.linalg.eigvalsh(moments.covariance()).min() > 0


@pytest.mark.parametrize("offset", [1e2, 1e3, 1e4])
def test_merging_about_a_large_mean_costs_no_precision(offset):
    """The centre that is recorded must be the one that was subtracted."""
    X, T, w = table(offset=offset, n=200)
    X += np.repeat(np.arange(4), 50)[:, None].astype(np.float32)  # shards differ
    parts = [
        Moments.of(X[i : i + 50], T[i : i + 50], w[i : i + 50])
        for i in (0, 50, 100, 150)
    ]
    assert_like_numpy(Moments.merge(parts), X, T, w)


# -- what is solved from them -------------------------------------------------


@given(st.integers(0, 1000), st.sampled_from([1e-4, 0.1, 10.0]))
@FEW
def test_solve_ridge_is_the_minimum(seed, alpha):
    """Brute force: normal equations on explicitly standardised features."""
    X, T, w = table(seed)
    (coef, intercept), *_ = solve_ridge(Moments.of(X, T, w), [alpha])
    x = X.astype(float)
    share = w / w.sum()
    mean = share @ x
    std = np.sqrt(share @ (x - mean) ** 2)
    z = (x - mean) / std
    t = T - share @ T
    inner = np.linalg.solve(
        (z * share[:, None]).T @ z + alpha * np.eye(x.shape[1]),
        (z * share[:, None]).T @ t,
    )
    np.testing.assert_allclose(coef * std[:, None], inner, atol=2e-5)
    np.testing.assert_allclose(intercept, share @ T - mean @ coef, atol=1e-5)


def test_solve_ridge_gives_one_fit_a_penalty():
    moments = Moments.of(*table())
    several = solve_ridge(moments, [0.1, 1.0])
    for alpha, (coef, intercept) in zip([0.1, 1.0], several, strict=True):
        alone = solve_ridge(moments, [alpha])[0]
        np.testing.assert_array_equal(coef, alone[0])
        np.testing.assert_array_equal(intercept, alone[1])


def test_solve_ridge_ignores_a_constant_feature():
    X, T, w = table()
    X[:, 1] = 7
    coef, intercept = solve_ridge(Moments.of(X, T, w), [1e-3])[0]
    without, its_intercept = solve_ridge(
        Moments.of(np.delete(X, 1, axis=1), T, w), [1e-3]
    )[0]
    np.testing.assert_array_equal(coef[1], 0)
    np.testing.assert_allclose(np.delete(coef, 1, axis=0), without, atol=1e-5)
    np.testing.assert_allclose(intercept, its_intercept, atol=1e-5)


def test_solve_ridge_survives_copies_of_a_feature():
    X, T, w = table()
    X[:, 1] = X[:, 0]
    coef, _ = solve_ridge(Moments.of(X, T, w), [1e-9])[0]
    assert np.isfinite(coef).all()
    assert np.abs(coef).max() < 10


@given(st.integers(0, 1000))
@FEW
def test_squared_error_is_that_of_the_rows(seed):
    X, T, w = table(seed, offset=3.0)
    random = np.random.default_rng(seed)
    coef, intercept = random.normal(size=(4, 2)), random.normal(size=2)
    expected = w @ (T - X.astype(float) @ coef - intercept) ** 2
    got = squared_error(Moments.of(X, T, w), coef, intercept)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_sums_come_back_from_pickle_whole_and_half_as_long():
    X, T, w = table(n=200)
    moments = Moments.of(X.repeat(8, axis=1), T, w)
    moments = moments + Moments.of(2 * X.repeat(8, axis=1), T, w)
    data = pickle.dumps(moments)
    again = pickle.loads(data)
    for name, value in vars(moments).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert len(data) < 0.75 * moments.xx.nbytes + 3000


@given(st.integers(0, 1000))
@FEW
def test_sums_stay_symmetric_to_the_bit(seed):
    X, T, w = table(seed)
    moments = Moments.of(X[:20], T[:20], w[:20]) + Moments.of(X[20:], T[20:], w[20:])
    for own in (moments, moments.moved_to(np.ones(4)), moments.times(0.3)):
        np.testing.assert_array_equal(own.xx, own.xx.T)
