"""ReducedRankRidge: against a dense search, and where a shared layer helps."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from mtsk import JointRidge, MultiTaskSegmenter
from mtsk._validation import InvalidParameterError
from mtsk.heads import ReducedRankRidge
from mtsk.heads.reduced_rank import reduced_rank_weights
from mtsk.heads.sharing_ridge import Equations, separate_weights
from mtsk.heads.statistics import Moments
from mtsk.tasks.columns import ColumnGroup
from mtsk.testing import toy_images

ROW = np.arange(60)
ALIKE = [([0, 1, 2, 3], ROW >= 0)]
PARTLY = [([0, 2], ROW >= 0), ([1], ROW < 25), ([3], ROW >= 30)]
SAME, OWN = np.full(4, 0.1), np.array([0.05, 0.1, 0.2, 0.4])


def shared(rng, n, d=10, tasks=8, rank=2, noise=1.0):
    """Tasks that are mixtures of a few directions."""
    X = rng.normal(size=(n, d)).astype(np.float32)
    y = X @ rng.normal(size=(d, rank)) @ rng.normal(size=(rank, tasks))
    return X, y / y.std(axis=0) + rng.normal(0, noise, y.shape)


def equations_of(rows, seed=0):
    X, T = shared(np.random.default_rng(seed), 60, d=5, tasks=4, rank=3)
    return [
        Equations.of(Moments.of(X, T[:, c], r.astype(float)), np.array(c))
        for c, r in rows
    ]


def objective(equations, alphas, V):
    total = 0.0
    for system in equations:
        for j, t in enumerate(system.cols):
            v = V[:, t]
            total += v @ system.correlation @ v + alphas[t] * v @ v
            total -= 2 * v @ system.cross[:, j]
    return total


def searched(equations, alphas, rank):
    """The best of many searches over A and B."""

    def of_factors(flat):
        A, B = flat[: 5 * rank].reshape(5, rank), flat[5 * rank :].reshape(rank, 4)
        return objective(equations, alphas, A @ B)

    rng = np.random.default_rng(0)
    starts = rng.normal(size=(8, 9 * rank))
    found = min(
        (minimize(of_factors, s, tol=1e-10) for s in starts), key=lambda f: f.fun
    )
    return found.x[: 5 * rank].reshape(5, rank) @ found.x[5 * rank :].reshape(rank, 4)


# -- oracles ------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("rows", [ALIKE, PARTLY], ids=["alike", "partly"])
@pytest.mark.parametrize("alphas", [SAME, OWN], ids=["same", "own"])
def test_weights_equal_those_of_a_search(rows, alphas, rank):
    equations = equations_of(rows)
    (V,) = reduced_rank_weights(equations, alphas, [rank], tol=1e-11)
    expected = searched(equations, alphas, rank)
    assert np.linalg.matrix_rank(V, tol=1e-8) == rank
    np.testing.assert_allclose(V, expected, atol=2e-3)
    assert (
        objective(equations, alphas, V) <= objective(equations, alphas, expected) + 1e-6
    )


def test_in_closed_form_equals_the_svd_of_the_whitened_fit():
    (system,) = equations = equations_of(ALIKE)
    root = np.linalg.cholesky(system.correlation + 0.1 * np.eye(5)).T
    U, s, Vt = np.linalg.svd(root @ separate_weights(equations, SAME))
    (V,) = reduced_rank_weights(equations, SAME, [2])
    expected = np.linalg.solve(root, U[:, :2] * s[:2] @ Vt[:2])
    np.testing.assert_allclose(V, expected, atol=1e-10)


def test_by_turns_equals_the_closed_form():
    """Two systems that are the same rows: turns have nothing left to do."""
    rows = [([0, 2], ROW >= 0), ([1, 3], ROW >= 0)]
    for rank in (1, 2, 3):
        (whole,) = reduced_rank_weights(equations_of(ALIKE), SAME, [rank])
        (apart,) = reduced_rank_weights(equations_of(rows), SAME, [rank], tol=1e-11)
        np.testing.assert_allclose(apart, whole, atol=1e-5)


def test_more_rank_fits_better():
    equations = equations_of(PARTLY)
    weights = reduced_rank_weights(equations, OWN, [1, 2, 3, 4])
    errors = [objective(equations, OWN, V) for V in weights]
    assert np.diff(errors).max() < -1e-3
    np.testing.assert_array_equal(weights[3], separate_weights(equations, OWN))


def test_a_rank_above_that_of_the_separate_fit():
    """Scores of three classes have rank 2: the layer's third axis is arbitrary."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 6)).astype(np.float32)
    y = X[:, :3].argmax(axis=1)
    Y = np.column_stack([y, np.where(np.arange(90) < 60, X @ np.ones(6), np.nan)])
    columns = [ColumnGroup("nominal", 3), ColumnGroup("real", 1)]
    parts = {"alpha": 0.01, "calibrate": False, "columns": columns}
    head = ReducedRankRidge(rank=3, **parts).fit(X, Y)
    alone = JointRidge(**parts).fit(X, Y)
    np.testing.assert_allclose(head.coef_, alone.coef_, atol=2e-3)


# -- laws ---------------------------------------------------------------------


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("rank", [4, 9, [5, 4]])
def test_a_full_rank_is_exactly_the_separate_fit(rank, calibrate):
    X, y = shared(np.random.default_rng(0), 80, tasks=4)
    Y = np.column_stack([y[:, 0] > 0, y[:, 1:]]).astype(float)
    Y[:30, 1] = np.nan
    columns = [ColumnGroup("binary", 1), ColumnGroup("real", 3)]
    parts = {"alpha": [0.01, 0.1], "calibrate": calibrate, "columns": columns}
    separate = JointRidge(**parts).fit(X, Y)
    head = ReducedRankRidge(rank=rank, **parts).fit(X, Y)
    np.testing.assert_array_equal(head.coef_, separate.coef_)
    np.testing.assert_array_equal(head.intercept_, separate.intercept_)
    assert head.rank_ == 4


def test_a_rank_of_all_features_is_exactly_the_separate_fit():
    X, y = shared(np.random.default_rng(0), 80, d=3)
    head = ReducedRankRidge(alpha=0.1, rank=5).fit(X, y)
    np.testing.assert_array_equal(head.coef_, JointRidge(alpha=0.1).fit(X, y).coef_)
    assert head.rank_ == 3


def test_components_span_the_weights():
    X, y = shared(np.random.default_rng(0), 80)
    y[:40, 1] = np.nan
    X = X * np.logspace(-1, 1, 10).astype("f")
    head = ReducedRankRidge(alpha=0.1, rank=2, calibrate=False).fit(X, y)
    assert head.components_.shape == (2, 10)
    np.testing.assert_allclose(
        head.components_ @ head.components_.T, np.eye(2), atol=1e-9
    )
    own = np.flatnonzero(np.arange(8) != 1)  # standardised over all rows
    V = head.coef_[:, own] * X.std(axis=0)[:, None]
    np.testing.assert_allclose(
        head.components_.T @ (head.components_ @ V), V, atol=1e-5
    )


def test_tasks_may_be_permuted_and_rescaled():
    X, y = shared(np.random.default_rng(0), 100, tasks=4)
    y[:40, 2] = np.nan
    order, unit = [2, 0, 3, 1], np.array([1e3, 1, 1e-2, 7])
    head = ReducedRankRidge(alpha=0.1, rank=2)
    a = clone(head).fit(X, y)
    b = clone(head).fit(X, (y * unit)[:, order])
    np.testing.assert_allclose(b.coef_ / unit[order], a.coef_[:, order], atol=1e-3)


def test_units_of_features_change_nothing():
    X, y = shared(np.random.default_rng(0), 100, tasks=4)
    y[:40, 2] = np.nan
    unit = np.logspace(-2, 2, 10).astype("f")
    head = ReducedRankRidge(alpha=0.1, rank=2)
    a, b = clone(head).fit(X, y), clone(head).fit(X * unit + 3, y)
    np.testing.assert_allclose(b.predict(X * unit + 3), a.predict(X), atol=5e-3)


def test_unlabelled_rows_change_nothing():
    X, y = shared(np.random.default_rng(0), 60, tasks=4)
    head = ReducedRankRidge(alpha=0.1, rank=2, calibrate=False)
    more = np.concatenate([X, 100 * X[:20]])
    padded = np.concatenate([y, np.full((20, 4), np.nan)])
    a, b = clone(head).fit(X, y), clone(head).fit(more, padded)
    np.testing.assert_allclose(b.coef_, a.coef_, atol=1e-5)


def test_constant_features_get_no_weight():
    X, y = shared(np.random.default_rng(0), 60, tasks=4)
    X[:40, 3] = 2.0
    y[40:, 1] = np.nan  # task 1 sees feature 3 constant, the others do not
    head = ReducedRankRidge(alpha=0.1, rank=2).fit(X, y)
    np.testing.assert_array_equal(head.coef_[3] == 0, [False, True, False, False])


def test_weights_are_repetitions():
    X, y = shared(np.random.default_rng(0), 60, tasks=4)
    y[:20, 2] = np.nan
    weight = np.random.default_rng(1).integers(0, 4, 60)
    head = ReducedRankRidge(alpha=0.1, rank=2, calibrate=False)
    weighted = clone(head).fit(X, y, sample_weight=weight)
    repeated = clone(head).fit(np.repeat(X, weight, 0), np.repeat(y, weight, 0))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-3)


def test_pieces_give_what_the_whole_gives():
    X, y = shared(np.random.default_rng(0), 120)
    y[:50, 3] = np.nan  # the first piece lacks it
    head = ReducedRankRidge(alpha=0.1, rank=2, calibrate=False)
    whole = clone(head).fit(X, y)
    for part in np.split(np.arange(120), 3):
        head.partial_fit(X[part], y[part])
    np.testing.assert_allclose(head.coef_, whole.coef_, atol=1e-3)
    assert head.rank_ == whole.rank_ == 2


def test_a_piece_before_most_scores_are_known():
    X, y = shared(np.random.default_rng(0), 60, tasks=4)
    few = y.copy()
    few[:, 1:] = np.nan
    head = ReducedRankRidge(alpha=0.1, rank=2, calibrate=False).partial_fit(X, few)
    alone = JointRidge(alpha=0.1, calibrate=False).partial_fit(X, few)
    np.testing.assert_array_equal(head.coef_, alone.coef_)
    assert head.rank_ == 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_rows(n):
    X, y = shared(np.random.default_rng(0), 10)
    assert np.isfinite(ReducedRankRidge().fit(X[:n], y[:n]).coef_).all()


# -- choosing -----------------------------------------------------------------


def test_a_shared_layer_is_found_and_gains():
    gains, ranks = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, y = shared(rng, 260, d=30, tasks=16, noise=0.7)
        some = np.where(rng.random(y.shape) < 0.7, y, np.nan)
        some[:, :8] = y[:, :8]
        some[60:] = np.nan
        head = ReducedRankRidge(alpha=0.1).fit(X, some)
        alone = JointRidge(alpha=0.1).fit(X, some)
        errors = [((h.predict(X[60:]) - y[60:]) ** 2).mean() for h in (alone, head)]
        gains.append(errors[0] - errors[1])
        ranks.append(head.rank_)
    assert np.median(ranks) == 2
    assert np.min(gains) > 0.1


def test_tasks_that_share_nothing_are_left_alone():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 8)).astype(np.float32)
    Y = X[:, :6] + rng.normal(0, 0.3, (200, 6))
    head = ReducedRankRidge().fit(X, Y)
    assert head.rank_ == 6
    np.testing.assert_array_equal(head.coef_, JointRidge().fit(X, Y).coef_)


def test_of_equal_ranks_the_full_one():
    """Four scores of rank 2: ranks 2 and 4 differ by rounding."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 8)).astype(np.float32)
    two = X[:, :2] + rng.normal(0, 1, (100, 2)).astype("f")
    Y = np.column_stack([two, two])
    head = ReducedRankRidge(alpha=0.1, rank=[2, 4], columns=[ColumnGroup("real", 4)])
    assert head.fit(X, Y).rank_ == 4


def test_one_score_has_nothing_to_share():
    X, y = shared(np.random.default_rng(0), 60, tasks=1)
    head = ReducedRankRidge(alpha=0.1).fit(X, y[:, 0])
    assert head.rank_ == 1
    np.testing.assert_array_equal(
        head.coef_, JointRidge(alpha=0.1).fit(X, y[:, 0]).coef_
    )


@pytest.mark.parametrize(
    ("n", "ranks"), [(1, [1]), (5, [5, 4, 2, 1]), (8, [8, 4, 2, 1])]
)
def test_ranks_that_cv_compares(n, ranks):
    head = ReducedRankRidge()
    head.n_features_in_ = 100
    assert head._strengths(n) == ranks


def test_in_a_grid_search():
    X, y = shared(np.random.default_rng(0), 60, d=30, tasks=16, noise=0.5)
    grid = {"rank": [1, 2, 16]}
    search = GridSearchCV(ReducedRankRidge(alpha=0.1), grid, scoring="r2").fit(X, y)
    assert search.best_params_ == {"rank": 2}


def test_in_the_segmenter():
    X, Y = toy_images(4)
    model = MultiTaskSegmenter(head=ReducedRankRidge(), random_state=0, n_pixels=100)
    assert model.fit(X, Y).score(X, Y) > 0.8


# -- errors -------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, -1, 1.5, "full", [], [1, 0], None, True])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_bad_rank_is_named(method, rank):
    X, y = shared(np.random.default_rng(0), 20)
    head = ReducedRankRidge(alpha=1.0, rank=1, calibrate=False)
    learn = getattr(head, method)
    head.rank = rank
    with pytest.raises(InvalidParameterError, match="`rank` of ReducedRankRidge must"):
        learn(X, y)


@pytest.mark.parametrize(
    "params", [{"rank": "cv"}, {"alpha": [1]}, {"calibrate": True}]
)
def test_partial_fit_is_absent_where_rows_are_needed(params):
    head = ReducedRankRidge(alpha=1, rank=1, calibrate=False).set_params(**params)
    with pytest.raises(AttributeError, match="no attribute 'partial_fit'") as caught:
        head.partial_fit  # noqa: B018
    message = (
        "ReducedRankRidge needs a number as `alpha` and `rank`, and calibrate=False"
    )
    assert message in str(caught.value.__cause__)
