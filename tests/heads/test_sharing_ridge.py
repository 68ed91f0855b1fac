"""SharingRidge: units of the equations, and the choice on held-out folds."""

import numpy as np
import pytest
from sklearn.base import clone

from mtsk.heads import JointRidge, RelatedRidge
from mtsk.heads.blocks import Block
from mtsk.heads.sharing_ridge import Equations, separate_weights
from mtsk.heads.statistics import Moments
from mtsk.tasks.columns import ColumnGroup

HEADS = [
    (RelatedRidge(), "share", [0.0, 0.5, 5.0]),
]
NAMES = ["share"]


def table(n=90):
    """Three tasks in units of their own, the second labelled on some rows."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(n, 6)) * np.logspace(-1, 2, 6) + 5).astype(np.float32)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    Y = z[:, :2] @ rng.normal(size=(2, 3)) + rng.normal(0, 0.7, (n, 3))
    Y *= [1, 100, 0.01]
    Y[: n // 2, 1] = np.nan
    return X, Y


def test_equations_are_those_of_standardised_columns():
    X, Y = table()
    w = np.random.default_rng(1).uniform(0.5, 2, 90)
    system = Equations.of(Moments.of(X, Y[:, [0, 2]], w), np.array([0, 2]))

    def standardised(table):
        table = table - np.average(table, axis=0, weights=w)
        return table / np.sqrt(np.average(table**2, axis=0, weights=w))

    Z, T = standardised(X.astype(float)), standardised(Y[:, [0, 2]])
    expected = (Z * w[:, None]).T @ Z / w.sum()
    np.testing.assert_allclose(system.correlation, expected, atol=1e-5)
    expected = (Z * w[:, None]).T @ T / w.sum()
    np.testing.assert_allclose(system.cross, expected, atol=1e-5)


def test_weights_on_x_give_the_standardised_scores():
    X, Y = table()
    system = Equations.of(Moments.of(X, Y[:, [0, 2]], np.ones(90)), np.arange(2))
    V = np.random.default_rng(1).normal(size=(6, 2))
    coef, intercept = system.on_x(V)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    expected = Z @ V * Y[:, [0, 2]].std(axis=0) + Y[:, [0, 2]].mean(axis=0)
    np.testing.assert_allclose(X @ coef + intercept, expected, rtol=1e-3, atol=1e-4)


def test_separate_weights_have_penalties_of_their_own():
    X, Y = table()
    system = Equations.of(Moments.of(X, Y[:, [0, 2, 2]], np.ones(90)), np.arange(3))
    alphas = np.array([0.1, 1.0, 0.1])
    V = separate_weights([system], alphas)
    for t, alpha in enumerate(alphas):
        left = system.correlation @ V[:, t] + alpha * V[:, t]
        np.testing.assert_allclose(left, system.cross[:, t], atol=1e-10)


@pytest.mark.parametrize(("head", "name", "values"), HEADS, ids=NAMES)
def test_the_choice_is_that_of_refits_without_each_fold(head, name, values):
    X, Y = table()
    fold = np.arange(90) % 3
    columns = [ColumnGroup("real", 1)] * 3
    head = clone(head).set_params(alpha=0.1, calibrate=False, columns=columns)
    errors = np.zeros((3, 3))  # of strengths and tasks
    for i, value in enumerate(values):
        for k in range(3):
            own = (
                clone(head).set_params(**{name: value}).fit(X[fold != k], Y[fold != k])
            )
            errors[i] += np.nansum((own.predict(X) - Y)[fold == k] ** 2, axis=0)
    errors /= (~np.isnan(Y)).sum(axis=0) * np.nanvar(Y, axis=0)
    head.set_params(**{name: values}, n_folds=3).fit(X, Y)
    T, W = np.nan_to_num(Y), 1.0 - np.isnan(Y)
    blocks = [Block(X, T, W, fold, np.array(cols)) for cols in ([0, 2], [1])]
    theirs = head._held_out_losses(X, T, W, blocks, np.full(3, 0.1), values)
    np.testing.assert_allclose(theirs, errors.sum(axis=1), rtol=2e-3)
    assert getattr(head, f"{name}_") == values[int(errors.sum(axis=1).argmin())]


@pytest.mark.parametrize(("head", "name", "values"), HEADS, ids=NAMES)
def test_where_nothing_is_shared_it_is_the_same_arithmetic(head, name, values):
    """In float64, where another order of factors would show."""
    X, Y = table()
    parts = [
        (Moments.of(X, Y[:, cols], 1.0 - np.isnan(Y[:, cols[0]])), np.array(cols))
        for cols in ([0, 2], [1])
    ]
    alphas = np.array([0.1, 0.2, 0.3])
    head = clone(head).set_params(**{name: values[0]})
    head.n_features_in_ = 6
    for own, alone in zip(
        head._solve(parts, alphas), JointRidge()._solve(parts, alphas), strict=True
    ):
        np.testing.assert_array_equal(own, alone)


@pytest.mark.parametrize(
    ("errors", "chosen"),
    [
        ([1.0 + 1e-8, 1.0, 1.0], 0),
        ([1.001, 1.0 + 1e-8, 1.0], 1),
        ([1.001, 1.001, 1.0], 2),
        ([0.0, 0.0, 0.0], 0),
    ],
)
@pytest.mark.parametrize(("head", "name", "values"), HEADS, ids=NAMES)
def test_of_equals_what_shares_least(head, name, values, errors, chosen, monkeypatch):
    X, Y = table()
    head = clone(head).set_params(**{name: values[::-1]}, calibrate=False, n_folds=2)
    monkeypatch.setattr(head, "_held_out_losses", lambda *about: np.array(errors))
    assert getattr(head.fit(X, Y), f"{name}_") == values[chosen]


@pytest.mark.parametrize(("head", "name", "values"), HEADS, ids=NAMES)
def test_one_image_is_folded_by_rows(head, name, values):
    """There is nothing else to hold out, and choosing nothing would overfit."""
    X, Y = table()
    head = clone(head).set_params(**{name: values[::-1]})
    one_image = clone(head).fit(X, Y, groups=np.zeros(90))
    rows = clone(head).fit(X, Y)
    assert getattr(one_image, f"{name}_") == getattr(rows, f"{name}_")
    np.testing.assert_array_equal(one_image.coef_, rows.coef_)


@pytest.mark.parametrize(("head", "name", "values"), HEADS, ids=NAMES)
def test_partial_fit_says_what_it_shares(head, name, values):
    X, Y = table()
    params = {"alpha": 0.1, "calibrate": False, name: values[1]}
    pieces = clone(head).set_params(**params).partial_fit(X, Y)
    assert getattr(pieces, f"{name}_") == values[1]
    assert pieces.alpha_ == [0.1] * 3


def test_classes_are_judged_by_cross_entropy_and_not_by_squares(monkeypatch):
    """Scores shrunk to the prior have smaller squares, and order rows no better."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 200)
    X = np.eye(3)[codes] + rng.normal(0, 0.3, (200, 3))
    head = RelatedRidge(alpha=1e-6, share=[0.0, 1.0], calibrate=False, n_folds=2)

    def weights(equations, alphas, strengths):
        good = separate_weights(equations, alphas)
        return [5 * good, 0.5 * good + 0.1 * rng.normal(size=good.shape)]

    monkeypatch.setattr(head, "_shared_weights", weights)
    monkeypatch.setattr(head, "_describe", lambda V: None)
    assert head.fit(X, codes).share_ == 0.0
