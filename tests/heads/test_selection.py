"""JointSelectionRidge: against scikit-learn and the KKT conditions."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import MultiTaskElasticNet
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from mtsk import JointRidge, MultiTaskSegmenter
from mtsk._validation import InvalidParameterError
from mtsk.heads import JointSelectionRidge, selection
from mtsk.heads.selection import selection_weights
from mtsk.heads.sharing_ridge import Equations, separate_weights
from mtsk.heads.statistics import Moments
from mtsk.tasks.columns import ColumnGroup
from mtsk.testing import toy_images


def chosen(rng, n, d=20, tasks=4, features=3, noise=1.0):
    """Tasks that read the same few features, the first ones."""
    X = rng.normal(size=(n, d)).astype(np.float32)
    y = X[:, :features] @ rng.normal(size=(features, tasks))
    return X, y / y.std(axis=0) + rng.normal(0, noise, y.shape)


def partly(seed=0, d=20):
    """Equations of tasks labelled on three sets of rows, and their penalties."""
    rng = np.random.default_rng(seed)
    X, T = chosen(rng, 80, d=d)
    X = (X + 0.7 * rng.normal(size=(80, 1))).astype("f")  # correlated features
    row = np.arange(80)
    rows = [([0, 2], row >= 0), ([1], row < 25), ([3], row >= 30)]
    equations = [
        Equations.of(Moments.of(X, T[:, c], r.astype(float)), np.array(c))
        for c, r in rows
    ]
    return equations, np.array([0.05, 0.1, 0.2, 0.4])


def gradient(equations, alphas, V):
    """Of the penalised error, without the selection."""
    out = np.empty_like(V)
    for system in equations:
        for j, t in enumerate(system.cols):
            out[:, t] = system.correlation @ V[:, t] - system.cross[:, j]
    return 2 * (out + V * alphas)


def strongest(equations, alphas):
    zeros = np.zeros((len(equations[0].correlation), len(alphas)))
    return np.linalg.norm(gradient(equations, alphas, zeros), axis=1).max()


# -- oracles ------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.8])
def test_equals_the_multi_task_elastic_net(strength):
    X, y = chosen(np.random.default_rng(0), 100)
    X[:, 5:] += 0.8 * X[:, :1]
    head = JointSelectionRidge(alpha=0.1, selection=strength, calibrate=False).fit(X, y)
    Z = StandardScaler().fit_transform(X.astype(float))
    T = (y - y.mean(axis=0)) / y.std(axis=0)
    most = 2 * np.linalg.norm(Z.T @ T / 100, axis=1).max() * strength
    # Theirs is ‖T − ZV‖² / 2n + a·r·Σ‖V_j‖ + a·(1 − r)·‖V‖² / 2: half of ours.
    a = most / 2 + 0.1
    net = MultiTaskElasticNet(a, l1_ratio=most / 2 / a, tol=1e-10, max_iter=10000)
    V = net.fit(Z, T).coef_.T
    expected = V / X.std(axis=0)[:, None] * y.std(axis=0)
    np.testing.assert_allclose(head.coef_, expected, atol=2e-3)
    np.testing.assert_array_equal(head.selected_, V.any(axis=1))
    assert 0 < head.selected_.sum() < 20


@pytest.mark.parametrize("strength", [0.01, 0.1, 0.5, 0.95])
def test_weights_meet_the_optimality_conditions(strength):
    equations, alphas = partly()
    (V,) = selection_weights(equations, alphas, [strength], tol=1e-12)
    by = strength * strongest(equations, alphas)
    slope = gradient(equations, alphas, V)
    norms = np.linalg.norm(V, axis=1)
    used = norms > 0
    assert used.any()
    pull = by * V[used] / norms[used, None]
    np.testing.assert_allclose(slope[used], -pull, atol=1e-4)
    assert np.linalg.norm(slope[~used], axis=1).max(initial=0) <= by + 1e-4


def test_the_path_equals_each_strength_alone():
    equations, alphas = partly()
    values = [0.0, 0.03, 0.3, 1.0]
    path = selection_weights(equations, alphas, values, tol=1e-11)
    for value, V in zip(values, path, strict=True):
        (alone,) = selection_weights(equations, alphas, [value], tol=1e-11)
        np.testing.assert_allclose(V, alone, atol=1e-5)
    np.testing.assert_array_equal(path[0], separate_weights(equations, alphas))


def test_a_growing_working_set_finds_the_same(monkeypatch):
    equations, alphas = partly(d=40)
    (at_once,) = selection_weights(equations, alphas, [0.05], tol=1e-11)
    monkeypatch.setattr(selection, "_FEW", 1)
    (grown,) = selection_weights(equations, alphas, [0.05], tol=1e-11)
    np.testing.assert_allclose(grown, at_once, atol=1e-5)


def test_the_gap_bounds_what_is_left():
    equations, alphas = partly()
    problem = selection._Problem(equations, alphas)
    by = 0.1 * strongest(equations, alphas)

    def objective(V):
        fit = (V * (gradient(equations, alphas, V) / 2)).sum()
        cross = sum((V[:, e.cols] * e.cross).sum() for e in equations)
        return fit - cross + by * np.linalg.norm(V, axis=1).sum()

    (best,) = selection_weights(equations, alphas, [0.1], tol=1e-12)
    rng = np.random.default_rng(0)
    for size in (0, 1e-3, 1e-2, 0.1):
        V = best + size * rng.normal(size=best.shape)
        gap = problem.gap(V, problem.gradient(V), by / 2)
        left = objective(V) - objective(best)
        assert left - 1e-9 <= gap <= 1e-9 + 100 * max(left, size)


def test_the_gap_equals_that_of_the_rows():
    """With the ridge penalty as more rows: ‖t − Zv‖² and the scaled residual's dual."""
    rng = np.random.default_rng(0)
    X, T = chosen(rng, 80, d=6, tasks=2)
    moments = Moments.of(X, T, np.ones(80))
    problem = selection._Problem(
        [Equations.of(moments, np.arange(2))], np.array([0.1, 0.1])
    )
    Z = np.concatenate(
        [StandardScaler().fit_transform(X.astype(float)), np.sqrt(8) * np.eye(6)]
    )
    t = np.concatenate([StandardScaler().fit_transform(T), np.zeros((6, 2))])
    V, by = rng.normal(size=(6, 2)), 0.3
    residual = (t - Z @ V) / np.sqrt(80)
    pull = 2 * np.linalg.norm(Z.T @ residual, axis=1).max() / np.sqrt(80)
    dual = 2 * residual * min(1, by / pull)
    primal = (residual**2).sum() + by * np.linalg.norm(V, axis=1).sum()
    expected = primal - (dual * t).sum() / np.sqrt(80) + (dual**2).sum() / 4
    assert pull > by
    gap = problem.gap(V, problem.gradient(V), by / 2)
    assert gap == pytest.approx(expected, rel=1e-4)


def test_power_iteration_bounds_the_curvature():
    equations, alphas = partly()
    most = max(
        np.linalg.eigvalsh(e.correlation).max() + alphas[e.cols].max()
        for e in equations
    )
    assert most <= selection._Problem(equations, alphas).curvature() <= 1.2 * most


# -- laws ---------------------------------------------------------------------


@pytest.mark.parametrize("calibrate", [False, True])
def test_selection_0_is_exactly_the_separate_fit(calibrate):
    X, y = chosen(np.random.default_rng(0), 80)
    Y = np.column_stack([y[:, 0] > 0, y[:, 1:]]).astype(float)
    Y[:30, 1] = np.nan
    columns = [ColumnGroup("binary", 1), ColumnGroup("real", 3)]
    parts = {"alpha": [0.01, 0.1], "calibrate": calibrate, "columns": columns}
    separate = JointRidge(**parts).fit(X, Y)
    head = JointSelectionRidge(selection=0, **parts).fit(X, Y)
    np.testing.assert_array_equal(head.coef_, separate.coef_)
    np.testing.assert_array_equal(head.intercept_, separate.intercept_)
    assert head.selected_.all()


@pytest.mark.parametrize("missing", [0, 30])
def test_selection_1_selects_nothing_and_less_something(missing):
    X, y = chosen(np.random.default_rng(0), 80)
    y[:missing, 1] = np.nan
    head = JointSelectionRidge(alpha=0.1, selection=1).fit(X, y)
    assert not head.selected_.any()
    assert not head.coef_.any()
    np.testing.assert_allclose(head.intercept_, np.nanmean(y, axis=0), atol=1e-5)
    assert head.set_params(selection=0.99).fit(X, y).selected_.any()


def test_more_strength_selects_less():
    X, y = chosen(np.random.default_rng(0), 80)
    counts = [
        JointSelectionRidge(alpha=0.1, selection=s).fit(X, y).selected_.sum()
        for s in (0, 0.1, 0.2, 0.5, 1)
    ]
    assert counts[0] == 20
    assert counts[-1] == 0
    assert np.diff(counts).max() < 0


def test_calibration_keeps_what_is_selected():
    X, y = chosen(np.random.default_rng(0), 120, tasks=3)
    labels = y.argmax(axis=1)
    head = JointSelectionRidge(alpha=0.1, selection=0.3, calibrate=False)
    plain = clone(head).fit(X, labels)
    logits = clone(head).set_params(calibrate=True).fit(X, labels)
    # Sums merged from folds are rounded otherwise, which may tip one feature.
    assert (logits.selected_ != plain.selected_).sum() <= 1
    assert 0 < plain.selected_.sum() < 20
    assert np.abs(logits.coef_ - plain.coef_).max() > 0.1
    np.testing.assert_array_equal(logits.coef_[~logits.selected_], 0)


def test_tasks_may_be_permuted_and_rescaled():
    X, y = chosen(np.random.default_rng(0), 100)
    y[:40, 2] = np.nan
    order, unit = [2, 0, 3, 1], np.array([1e3, 1, 1e-2, 7])
    head = JointSelectionRidge(alpha=0.1, selection=0.2)
    a = clone(head).fit(X, y)
    b = clone(head).fit(X, (y * unit)[:, order])
    np.testing.assert_allclose(b.coef_ / unit[order], a.coef_[:, order], atol=2e-3)
    np.testing.assert_array_equal(b.selected_, a.selected_)


def test_units_of_features_change_nothing():
    X, y = chosen(np.random.default_rng(0), 100)
    y[:40, 2] = np.nan
    unit = np.logspace(-2, 2, 20).astype("f")
    head = JointSelectionRidge(alpha=0.1, selection=0.2)
    a, b = clone(head).fit(X, y), clone(head).fit(X * unit + 3, y)
    np.testing.assert_allclose(b.predict(X * unit + 3), a.predict(X), atol=5e-3)


def test_unlabelled_rows_change_nothing():
    X, y = chosen(np.random.default_rng(0), 60)
    head = JointSelectionRidge(alpha=0.1, selection=0.2, calibrate=False)
    more = np.concatenate([X, 100 * X[:20]])
    padded = np.concatenate([y, np.full((20, 4), np.nan)])
    a, b = clone(head).fit(X, y), clone(head).fit(more, padded)
    np.testing.assert_allclose(b.coef_, a.coef_, atol=1e-5)


def test_constant_features_are_not_selected():
    X, y = chosen(np.random.default_rng(0), 60)
    X[:, 0] = 2.0
    for strength in (0, 0.05):
        head = JointSelectionRidge(alpha=0.1, selection=strength).fit(X, y)
        assert not head.selected_[0]
        assert head.selected_[1]


def test_weights_are_repetitions():
    X, y = chosen(np.random.default_rng(0), 60)
    y[:20, 2] = np.nan
    weight = np.random.default_rng(1).integers(0, 4, 60)
    head = JointSelectionRidge(alpha=0.1, selection=0.2, calibrate=False)
    weighted = clone(head).fit(X, y, sample_weight=weight)
    repeated = clone(head).fit(np.repeat(X, weight, 0), np.repeat(y, weight, 0))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=2e-3)


def test_pieces_give_what_the_whole_gives():
    X, y = chosen(np.random.default_rng(0), 120)
    y[:50, 3] = np.nan  # the first piece lacks it
    head = JointSelectionRidge(alpha=0.1, selection=0.2, calibrate=False)
    whole = clone(head).fit(X, y)
    for part in np.split(np.arange(120), 3):
        head.partial_fit(X[part], y[part])
    np.testing.assert_allclose(head.coef_, whole.coef_, atol=1e-3)
    np.testing.assert_array_equal(head.selected_, whole.selected_)
    assert head.selection_ == 0.2


def test_targets_that_do_not_vary():
    X, _ = chosen(np.random.default_rng(0), 40)
    head = JointSelectionRidge(alpha=0.1, selection=0.2).fit(X, np.full((40, 2), 3.0))
    np.testing.assert_allclose(head.coef_, 0, atol=1e-6)
    np.testing.assert_allclose(head.predict(X), 3.0, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_rows(n):
    X, y = chosen(np.random.default_rng(0), 10)
    assert np.isfinite(JointSelectionRidge().fit(X[:n], y[:n]).coef_).all()


# -- choosing -----------------------------------------------------------------


def test_a_joint_selection_is_found_and_gains():
    gains, selected = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, y = chosen(rng, 260, d=60, tasks=8)
        some = np.where(rng.random(y.shape) < 0.7, y, np.nan)
        some[:, :4] = y[:, :4]
        some[60:] = np.nan
        head = JointSelectionRidge(alpha=0.1).fit(X, some)
        alone = JointRidge(alpha=0.1).fit(X, some)
        errors = [((h.predict(X[60:]) - y[60:]) ** 2).mean() for h in (alone, head)]
        gains.append(errors[0] - errors[1])
        selected.append(head.selected_)
    assert np.min(gains) > 0.1
    assert np.all(selected, axis=0)[:3].all()
    assert np.mean(selected, axis=0)[3:].mean() < 0.6


def test_tasks_that_share_nothing_lose_nothing():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 8)).astype(np.float32)
    Y = X @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + rng.normal(0, 0.3, (300, 8))
    head = JointSelectionRidge().fit(X[:100], Y[:100])
    alone = JointRidge().fit(X[:100], Y[:100])
    errors = [((h.predict(X[100:]) - Y[100:]) ** 2).mean() for h in (alone, head)]
    assert head.selected_.all()
    assert errors[1] < 1.01 * errors[0]


def test_in_a_grid_search():
    X, y = chosen(np.random.default_rng(0), 60, d=60)
    grid = {"selection": [0, 0.3, 1]}
    search = GridSearchCV(JointSelectionRidge(alpha=0.1), grid, scoring="r2")
    assert search.fit(X, y).best_params_ == {"selection": 0.3}


def test_in_the_segmenter():
    X, Y = toy_images(4)
    model = MultiTaskSegmenter(head=JointSelectionRidge(), random_state=0, n_pixels=100)
    assert model.fit(X, Y).score(X, Y) > 0.8


# -- errors -------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [-0.1, 1.1, "some", [], [0.1, 2], None, True, float("nan")]
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_bad_selection_is_named(method, value):
    X, y = chosen(np.random.default_rng(0), 20)
    head = JointSelectionRidge(alpha=1.0, selection=0.1, calibrate=False)
    learn = getattr(head, method)
    head.selection = value
    message = "`selection` of JointSelectionRidge must be"
    with pytest.raises(InvalidParameterError, match=message):
        learn(X, y)


@pytest.mark.parametrize(
    "params", [{"selection": [0.1]}, {"alpha": "cv"}, {"calibrate": True}]
)
def test_partial_fit_is_absent_where_rows_are_needed(params):
    head = JointSelectionRidge(alpha=1, selection=0.1, calibrate=False)
    with pytest.raises(AttributeError, match="no attribute 'partial_fit'") as caught:
        head.set_params(**params).partial_fit  # noqa: B018
    message = "needs a number as `alpha` and `selection`, and calibrate=False, got"
    assert message in str(caught.value.__cause__)


def test_steps_that_run_out_are_told(monkeypatch):
    X, y = chosen(np.random.default_rng(0), 60)
    monkeypatch.setattr(selection, "_MAX_STEPS", 1)
    with pytest.warns(ConvergenceWarning, match="has not converged in 1 steps"):
        JointSelectionRidge(alpha=1e-3, selection=0.1).fit(X, y[:, 0])
