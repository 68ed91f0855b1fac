"""TaskRelatedness: what the four measures must say where the answer is known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from mtsk import JointRidge
from mtsk.heads import RelatedRidge
from mtsk.inspection import TaskRelatedness
from mtsk.inspection.relatedness.methods import joint_correlation
from mtsk.inspection.relatedness.sample import deal, leading_axes
from mtsk.tasks import ColumnGroup

METHODS = ["weights", "transfer", "covariance", "residual"]
REAL, LABEL = ColumnGroup("real", 1), ColumnGroup("binary", 1)


def images(seed, n_images=40, rows=5, d=6):
    """Features of pixels, some a group, and the image of each."""
    rng = np.random.default_rng(seed)
    return rng, rng.normal(size=(n_images * rows, d)), np.repeat(range(n_images), rows)


def related(method="weights", **keywords):
    keywords.setdefault("n_bootstrap", 0)
    keywords.setdefault("random_state", 0)
    keywords.setdefault("alpha", 0.01)
    return TaskRelatedness(method, **keywords)


@parametrize_with_checks([TaskRelatedness(m, n_bootstrap=3) for m in METHODS])
def test_conforms(estimator, check):
    check(estimator)


# -- what is known ------------------------------------------------------------


@pytest.mark.parametrize("method", ["weights", "residual"])
def test_identical_tasks_are_1_and_negated_labels_minus_1(method):
    rng, X, groups = images(0)
    label = (X[:, 0] + rng.normal(size=len(X)) > 0).astype(float)
    Y = np.c_[label, label, 1 - label]
    found = related(method, columns=[LABEL] * 3, n_bootstrap=10).fit(X, Y, groups)
    signs = np.array([[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    np.testing.assert_allclose(found.relatedness_, signs, atol=1e-4)
    np.testing.assert_allclose(found.lower_, signs, atol=1e-4)
    np.testing.assert_allclose(found.upper_, signs, atol=1e-4)


def test_the_covariance_tells_sign_and_strangers():
    rng, X, groups = images(0, 80)
    y = X[:, 0] + 0.1 * rng.normal(size=len(X))
    stranger = X[:, 1] + 0.1 * rng.normal(size=len(X))
    found = related("covariance", n_bootstrap=10).fit(X, np.c_[y, -y, stranger], groups)
    assert found.relatedness_[0, 1] < -0.9
    assert abs(found.relatedness_[0, 2]) < 0.3
    assert found.upper_[0, 1] < -0.8


@pytest.mark.parametrize("share", [0.0, 2.0])
def test_the_covariance_is_that_of_related_ridge(share):
    rng, X, groups = images(1)
    Y = X[:, :3] + X[:, 1:4] + rng.normal(size=(len(X), 3))
    found = related("covariance", alpha=0.1, share=share).fit(X, Y, groups)
    omega = RelatedRidge(0.1, share=share, calibrate=False).fit(X, Y).covariance_
    std = np.sqrt(np.diag(omega))
    np.testing.assert_allclose(found.relatedness_, omega / np.outer(std, std))


def test_weights_are_correlations_of_what_is_read_out():
    rng, X, groups = images(2)
    X = X @ rng.normal(size=(6, 6))  # correlated features
    Y = X[:, :3] + rng.normal(size=(len(X), 3))
    found = related().fit(X, Y, groups).relatedness_
    read = JointRidge(0.01, calibrate=False).fit(X, Y).predict(X)
    np.testing.assert_allclose(found, np.corrcoef(read.T), atol=1e-4)


def test_several_scores_are_the_root_of_rv():
    rng, X, groups = images(3)
    Y = X[:, :5] + rng.normal(size=(len(X), 5))
    columns = [ColumnGroup("real", 2), ColumnGroup("real", 3)]
    found = related(columns=columns).fit(X, Y, groups).relatedness_
    coef = JointRidge(0.01, calibrate=False).fit(X, Y).coef_
    S = coef.T @ np.cov(X.T) @ coef
    norm = np.linalg.norm
    rv = norm(S[:2, 2:]) / np.sqrt(norm(S[:2, :2]) * norm(S[2:, 2:]))
    assert found[0, 1] == pytest.approx(rv, abs=1e-4)


def test_residuals_are_correlated_where_noise_is_shared():
    rng, X, groups = images(4, 100)
    noise = rng.normal(size=len(X))
    Y = X[:, :3] + np.c_[noise, 0.6 * noise + 0.8 * rng.normal(size=len(X)), -noise]
    found = related("residual", n_bootstrap=30).fit(X, Y, groups)
    assert found.relatedness_[0, 1] == pytest.approx(0.6, abs=0.1)
    assert found.relatedness_[0, 2] == pytest.approx(-1, abs=0.05)
    assert found.lower_[0, 1] < 0.6 < found.upper_[0, 1]
    # The features that they read are unrelated.
    weights = related(n_bootstrap=0).fit(X, Y, groups).relatedness_
    assert np.abs(weights[0, 1:]).max() < 0.35


def test_residuals_of_tasks_never_labelled_together_are_nan():
    rng, X, groups = images(5)
    Y = X[:, :3] + rng.normal(size=(len(X), 3))
    Y[groups < 20, 0] = np.nan
    Y[groups >= 20, 1] = np.nan
    found = related("residual", n_bootstrap=5).fit(X, Y, groups)
    lost = np.zeros((3, 3), bool)
    lost[0, 1] = lost[1, 0] = True
    for matrix in (found.relatedness_, found.lower_, found.upper_):
        np.testing.assert_array_equal(np.isnan(matrix), lost)


def test_transfer_goes_from_the_task_with_labels_to_the_one_without():
    gains = []
    for seed in range(3):
        rng, X, groups = images(seed, 80, 10, d=24)
        w = rng.normal(size=24) / np.sqrt(24)
        Y = (X @ w)[:, None] + 0.5 * rng.normal(size=(len(X), 3))
        Y[:, 2] = rng.normal(size=len(X))  # noise
        Y[groups % 20 > 0, 1] = np.nan  # labelled on 4 images of 80
        gains.append(related("transfer", alpha="cv").fit(X, Y, groups).relatedness_)
    gain = np.mean(gains, axis=0)
    assert gain[0, 1] > 0.1
    assert abs(gain[1, 0]) < 0.02
    assert np.abs(gain[2, :2]).max() < 0.1
    np.testing.assert_array_equal(np.diag(gain), 0)


def test_transfer_sees_no_label_of_the_fold_it_is_judged_on():
    # Two columns of one noise that no feature tells of: only a leak could help.
    rng, X, groups = images(0, 60, 4, d=30)
    noise = rng.normal(size=len(X))
    found = related("transfer", alpha=1e-4).fit(X, np.c_[noise, noise], groups)
    assert found.relatedness_[0, 1] < 0.01


def test_transfer_of_nothing_is_below_0_where_it_hurts():
    rng, X, groups = images(1, 12, 1, d=2)
    Y = np.c_[rng.normal(size=(12, 1)), X[:, :1]]
    found = related("transfer", n_bootstrap=20).fit(X, Y, groups)
    assert found.relatedness_[0, 1] < 0
    assert found.lower_[0, 1] <= found.relatedness_[0, 1] <= found.upper_[0, 1]


@pytest.mark.parametrize("method", METHODS)
def test_classes_labels_and_numbers_together(method):
    _, X, groups = images(6, 60)
    code = X[:, :3].argmax(axis=1)
    Y = np.c_[code, X[:, 0] > 0.5, X[:, 3] > 0, X[:, 4:6]].astype(float)
    columns = [
        ColumnGroup("nominal", 3),
        ColumnGroup("binary", 2),
        ColumnGroup("real", 2),
    ]
    Y[:40, 1] = np.nan  # one label of two
    found = related(method, columns=columns, n_bootstrap=4).fit(X, Y, groups)
    assert found.relatedness_.shape == (3, 3)
    assert np.isfinite(found.lower_).all()
    assert (found.lower_ <= found.upper_).all()
    if method in ("weights", "covariance"):
        assert found.relatedness_[0, 1] > 2 * found.relatedness_[0, 2]


def test_two_classes_are_one_score_with_a_sign():
    rng, X, groups = images(7)
    word = np.where(X[:, 0] + 0.3 * rng.normal(size=len(X)) > 0, "yes", "no")
    other = np.where(word == "yes", "a", "b")
    found = related().fit(X, np.c_[word, other], groups)
    assert found.relatedness_[0, 1] == pytest.approx(-1, abs=1e-4)


def test_the_second_of_two_classes_is_the_one_that_counts():
    _, X, groups = images(7)
    Y = np.c_[X[:, 0] > 0, X[:, 0]].astype(float)
    columns = [ColumnGroup("nominal", 2), REAL]
    for method in ("weights", "covariance"):
        found = related(method, columns=columns).fit(X, Y, groups)
        assert found.relatedness_[0, 1] > 0.7


def test_residuals_are_weighed_and_centred_on_the_joint_rows():
    rng = np.random.default_rng(0)
    a, b = rng.normal(5, 1, (2, 50, 1)) + rng.normal(size=(50, 1))
    a[3], b[4] = np.nan, np.nan
    weight = rng.integers(0, 3, 50)
    both = np.repeat(np.c_[a, b], weight, axis=0)
    both = both[~np.isnan(both).any(axis=1)]
    found = joint_correlation(a, b, weight.astype(float))
    assert found == pytest.approx(np.corrcoef(both.T)[0, 1])


def test_a_task_that_does_not_vary_is_nan():
    _, X, groups = images(8)
    Y = np.c_[X[:, :2], np.full(len(X), 3.0)]
    with pytest.warns(UserWarning, match="'task 2' does not vary in the 200 rows"):
        found = related(n_bootstrap=4).fit(X, Y, groups)
    assert np.isnan(found.relatedness_[2]).all()
    assert np.isnan(found.upper_[:, 2]).all()
    assert np.isfinite(found.relatedness_[:2, :2]).all()


# -- invariances --------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_scale_and_origin_of_features_and_numbers_change_nothing(method):
    rng, X, groups = images(9)
    Y = X[:, :3] + X[:, 1:4] + rng.normal(size=(len(X), 3))
    one = related(method).fit(X, Y, groups).relatedness_
    moved = X * [1, 100, 1e-3, 1, 1, 5] + [0, 3, 0, 100, 0, 0]
    two = related(method).fit(moved, Y * [1, 50, 1] + [0, 0, 9], groups).relatedness_
    np.testing.assert_allclose(one, two, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_tasks_in_another_order_permute_the_matrix(method):
    rng, X, groups = images(10)
    Y = X[:, :4] + X[:, 1:5] + rng.normal(size=(len(X), 4))
    Y[groups < 9, 2] = np.nan
    order = [2, 0, 3, 1]
    one, two = (
        related(method, n_bootstrap=3).fit(X, y, groups) for y in (Y, Y[:, order])
    )
    for name in ("relatedness_", "lower_", "upper_"):
        a, b = getattr(one, name), getattr(two, name)
        np.testing.assert_allclose(a[np.ix_(order, order)], b, atol=2e-3)


def test_rows_without_a_label_change_nothing():
    rng, X, groups = images(11)
    Y = X[:, :2] + rng.normal(size=(len(X), 2))
    more = np.r_[X, rng.normal(size=(7, 6))]
    empty = np.r_[Y, np.full((7, 2), np.nan)]
    one = related().fit(X, Y, groups)
    two = related().fit(more, empty, np.r_[groups, np.arange(7) + 100])
    assert one.n_rows_ == two.n_rows_
    np.testing.assert_allclose(one.relatedness_, two.relatedness_, atol=1e-6)


# -- intervals ----------------------------------------------------------------


def intervals_of_strangers(method, columns, n=12, **keywords):
    """How often the interval of two unrelated tasks covers 0."""
    covered = 0
    for seed in range(n):
        rng, X, groups = images(seed, 40, 4, d=10)
        w = rng.normal(size=(10, 2)) * (np.arange(10)[:, None] % 2 == [0, 1])
        read = X @ w + rng.normal(size=(len(X), 2))
        Y = read if columns is None else np.digitize(read, [-1, 1]).astype(float)
        found = related(method, columns=columns, n_bootstrap=60, **keywords)
        found.fit(X, Y, groups)
        covered += found.lower_[0, 1] <= 0 <= found.upper_[0, 1]
    return covered / n


@pytest.mark.parametrize("columns", [None, [ColumnGroup("nominal", 3)] * 2])
@pytest.mark.parametrize("method", ["weights", "residual"])
def test_the_interval_of_strangers_covers_0(method, columns):
    assert intervals_of_strangers(method, columns) >= 0.75


def test_more_images_narrow_the_interval():
    def width(n_images):
        rng, X, groups = images(12, n_images)
        y = X[:, :1] + X[:, 1:3] + rng.normal(size=(len(X), 2))
        found = related(n_bootstrap=40).fit(X, y, groups)
        return found.upper_[0, 1] - found.lower_[0, 1]

    assert width(320) < 0.6 * width(20)


def test_weights_are_fitted_anew_to_each_draw():
    def width(noise):
        rng, X, groups = images(12)
        y = X[:, :2] + noise * rng.normal(size=(len(X), 2))
        found = related(n_bootstrap=40).fit(X, y, groups)
        return found.upper_[0, 1] - found.lower_[0, 1]

    assert width(5) > 2 * width(0.1)


def test_images_are_drawn_not_rows():
    rng, X, groups = images(13, 10, 1)
    X, groups = np.repeat(X, 30, axis=0), np.repeat(groups, 30)
    Y = X[:, :2] + np.repeat(rng.normal(size=(10, 2)), 30, axis=0)
    by_image = related("residual", n_bootstrap=40).fit(X, Y, groups)
    by_row = related("residual", n_bootstrap=40).fit(X, Y)
    width = [f.upper_[0, 1] - f.lower_[0, 1] for f in (by_image, by_row)]
    assert width[1] < 0.5 * width[0]


def test_a_lower_confidence_is_narrower_and_no_draws_leave_nan():
    rng, X, groups = images(14)
    Y = X[:, :2] + rng.normal(size=(len(X), 2))
    wide, narrow = (
        related(n_bootstrap=40, confidence=c).fit(X, Y, groups) for c in (0.95, 0.5)
    )
    assert wide.lower_[0, 1] < narrow.lower_[0, 1] < narrow.upper_[0, 1]
    assert narrow.upper_[0, 1] < wide.upper_[0, 1]
    assert np.isnan(related().fit(X, Y, groups).lower_).all()


@pytest.mark.parametrize("method", METHODS)
def test_random_state_repeats_all_of_it(method):
    rng, X, groups = images(15)
    Y = X[:, :2] + rng.normal(size=(len(X), 2))
    model = related(method, n_bootstrap=5, max_rows=100, alpha="cv")
    one, two = model.fit(X, Y, groups), clone(model).fit(X, Y, groups)
    three = clone(model).set_params(random_state=1).fit(X, Y, groups)
    np.testing.assert_array_equal(one.lower_, two.lower_)
    np.testing.assert_array_equal(one.relatedness_, two.relatedness_)
    assert not np.array_equal(one.lower_, three.lower_)


def test_few_labels_are_never_drawn_away():
    rng, X, groups = images(16)
    Y = X[:, :2] + rng.normal(size=(len(X), 2))
    Y[groups > 1, 1] = np.nan  # 2 images of 40: one draw in seven misses both
    found = related(n_bootstrap=60).fit(X, Y, groups)
    assert np.isfinite(found.lower_).all()


# -- rows, axes, folds --------------------------------------------------------


def test_max_rows_keeps_the_rows_of_a_rare_task():
    rng, X, groups = images(17)
    Y = X[:, :2] + rng.normal(size=(len(X), 2))
    Y[10:, 1] = np.nan
    found = related(max_rows=30).fit(X, Y, groups)
    assert 30 <= found.n_rows_ <= 40
    assert related(max_rows=None).fit(X, Y, groups).n_rows_ == len(X)


def test_tasks_that_do_not_vary_in_the_rows_used_are_named():
    _, X, _ = images(18)
    with pytest.warns(UserWarning, match=r"'task .' .* 1 rows used \(max_rows=1\)"):
        found = related(max_rows=1, n_bootstrap=0).fit(X, X[:, :2])
    assert np.isnan(found.relatedness_).all()


def test_features_that_do_not_vary_relate_nothing():
    _, X, groups = images(18)
    found = related().fit(np.ones_like(X), X[:, :2], groups)
    assert np.isnan(found.relatedness_).all()


def test_leading_axes_keep_distances_and_have_one_variance():
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(300, 4)) @ rng.normal(size=(4, 12)) + 1000).astype(np.float32)
    Z = leading_axes(X, 4)
    assert Z.shape == (300, 4)
    np.testing.assert_allclose(Z.var(axis=0), 3.0, rtol=1e-3)  # 12 shared by 4
    scaled = (X - X.mean(0)) / X.std(0)
    np.testing.assert_allclose(Z @ Z.T, scaled @ scaled.T, atol=0.02)
    assert leading_axes(X, None) is X
    assert leading_axes(X, 16) is X


def test_ridge_on_leading_axes_is_ridge_on_the_features():
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(200, 8)) * np.arange(1, 9) @ rng.normal(size=(8, 20))).astype(
        np.float32
    )
    y = X[:, :2] + rng.normal(size=(200, 2))
    axes = leading_axes(X, 8)
    one = JointRidge(0.5, calibrate=False).fit(X, y).decision_function(X)
    two = JointRidge(0.5 / (20 / 8), calibrate=False).fit(axes, y)
    np.testing.assert_allclose(two.decision_function(axes), one, atol=5e-3)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_components_hardly_change_what_lies_in_them(method):
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(300, 8))
    X = hidden @ rng.normal(size=(8, 40)) + 0.01 * rng.normal(size=(300, 40))
    Y = hidden[:, :3] + hidden[:, 1:4] + 0.5 * rng.normal(size=(300, 3))
    groups = np.arange(300) // 5
    few = related(method, n_components=8).fit(X, Y, groups).relatedness_
    full = related(method, n_components=None).fit(X, Y, groups).relatedness_
    np.testing.assert_allclose(few, full, atol=0.1)


def test_rare_labels_are_spread_over_the_folds():
    labelled = np.ones((40, 2), bool)
    labelled[[0, 5, 10, 15], 1] = True
    labelled[np.setdiff1d(range(40), [0, 5, 10, 15]), 1] = False
    fold = deal(labelled, 4, np.random.RandomState(0))
    assert sorted(fold[labelled[:, 1]]) == [0, 1, 2, 3]
    assert np.bincount(fold).tolist() == [10] * 4


# -- names and bad input ------------------------------------------------------


def test_names():
    rng, X, _ = images(18)
    Y = X[:, :2] + rng.normal(size=(len(X), 2))
    frame = pd.DataFrame(Y, columns=["depth", "height"])
    assert related().fit(X, Y).task_names_ == ["task 0", "task 1"]
    assert related().fit(X, frame).task_names_ == ["depth", "height"]
    named = related(task_names=["a", "b"]).fit(X, frame)
    assert named.task_names_ == ["a", "b"]


BAD = [
    ({"method": "cosine"}, "`method` of TaskRelatedness must be"),
    ({"columns": "real"}, "`columns`"),
    ({"columns": [REAL]}, "y has 2 columns, `columns` name 1"),
    ({"task_names": ["a"]}, "2 different names, one a task, got \\['a'\\]"),
    ({"task_names": ["a", "a"]}, "2 different names"),
    ({"task_names": "ab"}, "`task_names`"),
    ({"alpha": 0}, "`alpha`"),
    ({"alpha": []}, "`alpha`"),
    ({"share": -1}, "`share`"),
    ({"class_weight": "some"}, "`class_weight`"),
    ({"n_bootstrap": -1}, "`n_bootstrap`"),
    ({"n_bootstrap": 2.5}, "`n_bootstrap`"),
    ({"confidence": 95}, "`confidence`"),
    ({"confidence": 1}, "`confidence`"),
    ({"max_rows": 0}, "`max_rows`"),
    ({"n_components": 100}, "`n_components` .* a power of 2, or None, got 100"),
    ({"n_components": 0}, "`n_components`"),
    ({"n_folds": 1}, "`n_folds`"),
    ({"random_state": "x"}, "`random_state`"),
]


@pytest.mark.parametrize(("parameters", "message"), BAD)
def test_bad_parameters(parameters, message):
    _, X, groups = images(19)
    with pytest.raises(ValueError, match=message):
        related(**parameters).fit(X, X[:, :2], groups)


def only(rows, column=1):
    _, X, groups = images(20)
    Y = X[:, :2].copy()
    Y[~np.isin(groups, rows), column] = np.nan
    return X, Y, groups


@pytest.mark.parametrize(
    ("method", "n_bootstrap", "data", "message"),
    [
        ("weights", 0, only([]), "'task 1' has a column without any label"),
        ("weights", 5, only([3]), "'task 1' is labelled in 1 group.*n_bootstrap=0"),
        ("residual", 0, only([3]), "'task 1' in at least 2 folds, it has 1"),
        ("transfer", 0, only([3, 4]), "'task 1' in at least 3 folds, it has 2"),
        ("weights", 0, (*only([3])[:2], [1, 2]), r"groups has shape \(2,\), X has 200"),
        ("weights", 0, (*only([3])[:2], [None, "a"] * 100), "every group, got None or"),
        (
            "weights",
            0,
            (*only([3])[:2], [np.nan, 1.0] * 100),
            "every group, got None or",
        ),
        ("weights", 5, (*only([3])[:2], [0] * 200), "at least 2 groups.*got 1"),
        ("residual", 0, (*only([3])[:2], [0] * 200), "at least 2 groups.*got 1"),
        ("weights", 0, (only([3])[0], None, None), "requires y"),
        ("weights", 0, (only([3])[0][:9], only([3])[1], None), "inconsistent numbers"),
        ("weights", 0, (only([3])[0] * np.nan, only([3])[1], None), "X contains NaN"),
    ],
)
def test_bad_data(method, n_bootstrap, data, message):
    with pytest.raises(ValueError, match=message):
        related(method, n_bootstrap=n_bootstrap).fit(*data)


def test_one_labelled_image_is_enough_without_intervals():
    found = related(n_bootstrap=0).fit(*only([3]))
    assert np.isfinite(found.relatedness_).all()


def test_a_progress_bar_is_shown_when_asked_for(capsys):
    _, X, groups = images(21)
    related(n_bootstrap=2, verbose=1).fit(X, X[:, :2], groups)
    assert "weights" in capsys.readouterr().err
    related(n_bootstrap=2).fit(X, X[:, :2], groups)
    assert not capsys.readouterr().err
