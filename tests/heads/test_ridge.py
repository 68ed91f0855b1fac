"""JointRidge: against scikit-learn, and the laws of DESIGN 5."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from mtsk._validation import InvalidParameterError
from mtsk.heads import JointLogistic, JointRidge
from mtsk.tasks.columns import ColumnGroup

GROUPS = [ColumnGroup("nominal", 3), ColumnGroup("binary", 2), ColumnGroup("real", 2)]
PARTS = [slice(0, 1), slice(1, 3), slice(3, 5)]
SCORES = [slice(0, 3), slice(3, 5), slice(5, 7)]
WEIGHTS = [None, "sqrt", "balanced"]
POWER = {None: 0, "sqrt": 0.5, "balanced": 1}
PLAIN = JointRidge(alpha=1e-2, calibrate=False, columns=GROUPS)


def mixed(seed=0, n=150, missing=0.3):
    """A table of three groups in which entries are missing."""
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(3), random.choice(3, n - 3, p=(0.6, 0.3, 0.1))])
    centres = np.random.default_rng(7).normal(size=(3, 5))
    X = (centres[y] + random.normal(size=(n, 5))) * np.logspace(-1, 2, 5) + 5
    z = StandardScaler().fit_transform(X)
    binary = (z[:, :2] + random.normal(size=(n, 2)) > 0.3) * 1.0
    real = z @ random.normal(size=(5, 2)) + random.normal(size=(n, 2)) * 0.1
    Y = np.column_stack([y, binary, real]).astype(np.float32)
    Y[random.random(Y.shape) < missing] = np.nan
    return X.astype(np.float32), Y


def scores_of(head, X, Y, **extra):
    return clone(head).fit(X, Y, **extra).decision_function(X)


def oracle(X, t, weight, alpha):
    """Ridge with its penalty on standardised features, relative to total weight."""
    weight = weight / weight.sum()
    scaler = StandardScaler().fit(X, sample_weight=weight)
    Z = scaler.transform(X)
    model = Ridge(alpha=alpha, solver="cholesky").fit(Z, t, sample_weight=weight)
    return lambda new: model.predict(scaler.transform(new))


# -- oracles ------------------------------------------------------------------


@given(st.integers(0, 1000), st.sampled_from([1e-3, 0.1, 1.0]))
@settings(max_examples=15, deadline=None)
def test_numbers_equal_ridge_with_sample_weights(seed, alpha):
    X, Y = mixed(seed, missing=0)
    weight = np.random.default_rng(seed).uniform(0.1, 3, len(X))
    t = Y[:, 3:].astype(float)
    head = JointRidge(alpha=alpha).fit(X, t, sample_weight=weight)
    expected = oracle(X.astype(float), t, weight, alpha)(X.astype(float))
    np.testing.assert_allclose(head.predict(X), expected, atol=2e-3)


@pytest.mark.parametrize("class_weight", WEIGHTS)
@pytest.mark.parametrize("alpha", [1e-3, 0.1])
def test_classes_equal_ridge_on_indicators(alpha, class_weight):
    X, Y = mixed(missing=0)
    y = Y[:, 0].astype(int)
    head = JointRidge(alpha=alpha, class_weight=class_weight, calibrate=False).fit(X, y)
    share = np.bincount(y) / len(y)
    weight = share[y] ** -POWER[class_weight]
    expected = oracle(X.astype(float), np.eye(3)[y], weight, alpha)(X.astype(float))
    np.testing.assert_allclose(head.decision_function(X), expected, atol=1e-3)


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_labels_equal_ridge_on_their_labelled_rows(class_weight):
    X, Y = mixed()
    head = JointRidge(
        alpha=0.01, class_weight=class_weight, calibrate=False, columns=GROUPS
    ).fit(X, Y)
    scores = head.decision_function(X)
    for j in (1, 2):
        known = ~np.isnan(Y[:, j])
        y = Y[known, j].astype(int)
        weight = (np.bincount(y) / len(y))[y] ** -POWER[class_weight]
        expected = oracle(X[known].astype(float), y, weight, 0.01)(X.astype(float))
        np.testing.assert_allclose(
            scores[:, SCORES[1].start + j - 1], expected, atol=1e-3
        )


def test_alpha_is_the_one_with_the_least_held_out_error():
    """Brute force: refit without each fold, as the sums claim to."""
    X, Y = mixed(missing=0)
    t, alphas = Y[:, 3:].astype(float), [1e-4, 1e-2, 1.0, 100.0]
    t += np.random.default_rng(0).normal(size=t.shape) * 4
    head = JointRidge(alpha=alphas, n_folds=3, columns=[ColumnGroup("real", 2)]).fit(
        X, t
    )
    fold = np.arange(len(X)) % 3
    errors = [
        sum(
            (
                (
                    t[fold == k]
                    - oracle(X[fold != k], t[fold != k], np.ones((fold != k).sum()), a)(
                        X[fold == k]
                    )
                )
                ** 2
            ).sum()
            for k in range(3)
        )
        for a in alphas
    ]
    assert head.alpha_ == [alphas[int(np.argmin(errors))]]


def test_each_group_chooses_its_own_alpha():
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 20)).astype(np.float32)
    easy, noise = X[:, 0], random.normal(size=60)
    head = JointRidge(columns=[ColumnGroup("real", 1)] * 2)
    head.fit(X, np.column_stack([easy, noise]))
    assert head.alpha_[0] < head.alpha_[1]


def test_calibrated_scores_are_logits():
    """Of probabilities that match frequencies, unlike raw indicator scores."""
    X, Y = mixed(n=600, missing=0)
    head = JointRidge(alpha=1e-2, class_weight=None, columns=GROUPS).fit(X, Y)
    p = head.predict_proba(X)
    np.testing.assert_allclose(p[:, :3].sum(axis=1), 1, rtol=1e-5)
    share = np.bincount(Y[:, 0].astype(int)) / len(Y)
    np.testing.assert_allclose(p[:, :3].mean(axis=0), share, atol=0.03)
    np.testing.assert_allclose(
        p[:, 3:5].mean(axis=0), Y[:, 1:3].mean(axis=0), atol=0.03
    )
    truth = Y[:, 0].astype(int)
    loss = -np.log(p[np.arange(len(Y)), truth]).mean()
    prior = -np.log(share[truth]).mean()
    assert loss < 0.9 * prior


def test_calibration_leaves_numbers_alone():
    X, Y = mixed()
    raw = scores_of(PLAIN, X, Y)
    calibrated = scores_of(clone(PLAIN).set_params(calibrate=True), X, Y)
    np.testing.assert_allclose(calibrated[:, 5:], raw[:, 5:], atol=1e-3)
    assert np.abs(calibrated[:, :5] - raw[:, :5]).max() > 0.1


def test_labels_of_one_image_are_folded_by_rows():
    """The first of the penalties, taken for want of a choice, would overfit."""
    random = np.random.default_rng(0)
    X = random.normal(size=(120, 60))
    y = np.full((120, 2), np.nan)
    y[:40, 0] = X[:40, 0] + random.normal(size=40)  # all on image 0
    y[:, 1] = X[:, 1] + random.normal(size=120)
    images = np.repeat([0, 1, 2], 40)
    head = JointRidge([1e-6, 1e-1, 10]).fit(X, y, groups=images)
    alone = JointRidge([1e-6, 1e-1, 10]).fit(X[:40], y[:40, 0])
    assert head.alpha_[0] == alone.alpha_[0] > 1e-6
    others = JointRidge([1e-6, 1e-1, 10]).fit(X, y[:, 1], groups=images)
    assert head.alpha_[1] == others.alpha_[0]
    np.testing.assert_allclose(head.coef_[:, [0]], alone.coef_, atol=1e-5)
    np.testing.assert_allclose(head.coef_[:, [1]], others.coef_, atol=1e-5)


def test_groups_stay_in_one_fold():
    """Rows that are copies of one another must not vouch for each other."""
    random = np.random.default_rng(0)
    X = np.repeat(random.normal(size=(12, 40)), 10, axis=0).astype(np.float32)
    t = np.repeat(random.normal(size=12), 10)
    image = np.repeat(np.arange(12), 10)
    by_row = JointRidge().fit(X, t).alpha_[0]
    by_image = JointRidge().fit(X, t, groups=image).alpha_[0]
    assert by_row < by_image, "noise looks learnable where copies leak"


# -- laws ---------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", WEIGHTS)
@given(st.integers(0, 1000), st.integers(2, 5))
@settings(max_examples=10, deadline=None)
def test_pieces_in_any_order_equal_one_fit(class_weight, seed, n_pieces):
    X, Y = mixed(seed)
    random = np.random.default_rng(seed)
    weight = random.uniform(0.2, 2, len(X))
    head = clone(PLAIN).set_params(class_weight=class_weight)
    whole = clone(head).fit(X, Y, sample_weight=weight)
    shard = random.permutation(np.arange(len(X)) % n_pieces)
    for s in random.permutation(n_pieces):
        rows = shard == s
        head.partial_fit(X[rows], Y[rows], sample_weight=weight[rows])
    np.testing.assert_allclose(
        head.decision_function(X), whole.decision_function(X), atol=1e-3
    )


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_a_piece_may_lack_a_group_a_label_or_a_class(class_weight):
    """Shards in which a task is labelled on no image are the usual case."""
    X, Y = mixed(missing=0)
    order = np.argsort(Y[:, 0], kind="stable")  # a class a piece
    X, Y = X[order], Y[order]
    Y[:50, 3:] = np.nan
    Y[50:100, 1] = np.nan
    Y[100:, 0] = np.nan
    head = clone(PLAIN).set_params(class_weight=class_weight)
    whole = clone(head).fit(X, Y)
    for start in (50, 0, 100):
        head.partial_fit(X[start : start + 50], Y[start : start + 50])
    np.testing.assert_allclose(
        head.decision_function(X), whole.decision_function(X), atol=1e-3
    )


def test_the_first_piece_may_lack_a_group():
    X, Y = mixed(missing=0)
    Y[:50, 3:] = np.nan
    head = clone(PLAIN)
    head.partial_fit(X[:50], Y[:50])
    head.partial_fit(X[50:], Y[50:])
    np.testing.assert_allclose(
        head.decision_function(X), scores_of(PLAIN, X, Y), atol=1e-3
    )


def test_partial_fit_goes_on_from_a_fit_and_fit_forgets():
    """Law 4: fit(A).partial_fit(B) = fit(A + B)."""
    X, Y = mixed()
    head = clone(PLAIN).fit(X[:100], Y[:100])
    head.partial_fit(X[100:], Y[100:])
    np.testing.assert_allclose(
        head.decision_function(X), scores_of(PLAIN, X, Y), atol=1e-3
    )
    head.fit(X[:100], Y[:100])
    np.testing.assert_array_equal(
        head.decision_function(X[:100]), scores_of(PLAIN, X[:100], Y[:100])
    )


def test_a_fit_without_sums_cannot_be_gone_on_from():
    """Law 4: what is not the whole is refused; so are sums that would be large."""
    X, Y = mixed()
    chosen = JointRidge(columns=GROUPS).fit(X, Y)
    chosen.set_params(alpha=1e-2, calibrate=False)
    wide = np.random.default_rng(0).normal(size=(20, 1500)).astype(np.float32)
    many = [ColumnGroup("real", 1)] * 61  # 61 · 1500² numbers
    large = JointRidge(1.0, calibrate=False, columns=many).fit(wide, np.eye(20, 61))
    for head, rows, table in ((chosen, X, Y), (large, wide, np.eye(20, 61))):
        for fitted in (head, pickle.loads(pickle.dumps(head))):
            with pytest.raises(ValueError, match="JointRidge cannot go on from its"):
                fitted.partial_fit(rows, table)
            with pytest.raises(ValueError, match="cannot go on from its `fit`"):
                clone(PLAIN).merge(fitted)
            with pytest.raises(ValueError, match="cannot go on from its `fit`"):
                fitted.merge(clone(PLAIN).add_rows(X, Y))


def test_a_first_piece_without_labels_is_gone_on_from():
    X, Y = mixed()
    head = clone(PLAIN).partial_fit(X, np.full_like(Y, np.nan)).partial_fit(X, Y)
    np.testing.assert_allclose(
        head.decision_function(X), scores_of(PLAIN, X, Y), atol=1e-3
    )


def test_pieces_whose_classes_weigh_and_do_not_weigh_are_not_mixed():
    X, Y = mixed()
    head = clone(PLAIN).set_params(class_weight=None).partial_fit(X[:75], Y[:75])
    with pytest.raises(ValueError, match="`class_weight` of JointRidge was None when"):
        head.set_params(class_weight="sqrt").partial_fit(X[75:], Y[75:])
    head = clone(PLAIN).set_params(class_weight="sqrt").partial_fit(X[:75], Y[:75])
    with pytest.raises(ValueError, match="was not None when the first"):
        head.set_params(class_weight=None).partial_fit(X[75:], Y[75:])


def test_partial_fit_goes_on_after_pickling():
    X, Y = mixed()
    head = pickle.loads(pickle.dumps(clone(PLAIN).partial_fit(X[:75], Y[:75])))
    head.partial_fit(X[75:], Y[75:])
    np.testing.assert_allclose(
        head.decision_function(X), scores_of(PLAIN, X, Y), atol=1e-3
    )


@pytest.mark.parametrize("class_weight", WEIGHTS)
@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("alpha", [1e-2, "cv"])
def test_joint_fit_equals_separate_fits(alpha, calibrate, class_weight):
    X, Y = mixed()
    head = JointRidge(alpha, calibrate=calibrate, class_weight=class_weight)
    joint = scores_of(clone(head).set_params(columns=GROUPS), X, Y)
    for group, part, scores in zip(GROUPS, PARTS, SCORES, strict=True):
        alone = clone(head).set_params(columns=[group])
        np.testing.assert_allclose(
            joint[:, scores], scores_of(alone, X, Y[:, part]), atol=1e-3
        )


def test_a_vector_of_numbers_equals_its_numbers_apart():
    X, Y = mixed()
    joint = scores_of(PLAIN, X, Y)
    for j in (3, 4):
        alone = clone(PLAIN).set_params(columns=[ColumnGroup("real", 1)])
        np.testing.assert_allclose(
            joint[:, [j + 2]], scores_of(alone, X, Y[:, [j]]), atol=1e-3
        )


@pytest.mark.parametrize("calibrate", [False, True])
def test_unlabelled_rows_change_nothing(calibrate):
    X, Y = mixed(missing=0)
    random = np.random.default_rng(3)
    more = np.concatenate([X, random.normal(size=(40, 5)).astype(np.float32) * 100])
    for group, part in zip(GROUPS, PARTS, strict=True):
        head = clone(PLAIN).set_params(columns=[group], calibrate=calibrate)
        padded = np.full((len(more), group.n_columns), np.nan, np.float32)
        padded[: len(X)] = Y[:, part]
        among = clone(head).fit(more, padded)
        np.testing.assert_allclose(
            among.decision_function(X), scores_of(head, X, Y[:, part]), atol=1e-3
        )


@pytest.mark.parametrize("class_weight", WEIGHTS)
def test_duplicating_every_row_changes_nothing(class_weight):
    X, Y = mixed()
    head = clone(PLAIN).set_params(class_weight=class_weight)
    twice = clone(head).fit(np.tile(X, (2, 1)), np.tile(Y, (2, 1)))
    np.testing.assert_allclose(
        twice.decision_function(X), scores_of(head, X, Y), atol=1e-3
    )


@pytest.mark.parametrize("class_weight", ["sqrt", "balanced"])
def test_duplicating_every_row_of_an_image_changes_nothing(class_weight):
    """With folds by image, alpha and calibration stay too."""
    X, Y = mixed()
    image = np.repeat(np.arange(15), 10)
    head = JointRidge(class_weight=class_weight, columns=GROUPS)
    once = clone(head).fit(X, Y, groups=image)
    twice = clone(head).fit(
        np.tile(X, (2, 1)), np.tile(Y, (2, 1)), groups=np.tile(image, 2)
    )
    assert twice.alpha_ == once.alpha_
    np.testing.assert_allclose(
        twice.decision_function(X), once.decision_function(X), atol=1e-2
    )


@given(st.integers(0, 100), st.sampled_from(WEIGHTS))
@settings(max_examples=15, deadline=None)
def test_weights_are_repetitions(seed, class_weight):
    X, Y = mixed(seed)
    weight = np.random.default_rng(seed).integers(0, 4, len(X))
    head = clone(PLAIN).set_params(class_weight=class_weight)
    weighted = clone(head).fit(X, Y, sample_weight=weight)
    repeated = clone(head).fit(np.repeat(X, weight, 0), np.repeat(Y, weight, 0))
    np.testing.assert_allclose(
        weighted.decision_function(X), repeated.decision_function(X), atol=1e-3
    )


def test_units_of_features_change_nothing():
    X, Y = mixed()
    scale, shift = np.array([1e3, 1e-2, 7, 1, 50.0]), np.array([3.0, 0, -9, 1, 2])
    moved = (X * scale + shift).astype(np.float32)
    np.testing.assert_allclose(
        scores_of(PLAIN, moved, Y), scores_of(PLAIN, X, Y), atol=5e-3
    )


# -- hard tables --------------------------------------------------------------


def test_more_features_than_rows():
    random = np.random.default_rng(0)
    X = random.normal(size=(30, 80)).astype(np.float32)
    t = X[:, 0].astype(float)
    head = JointRidge(alpha=0.1).fit(X, t)
    expected = oracle(X.astype(float), t, np.ones(30), 0.1)(X.astype(float))
    np.testing.assert_allclose(head.predict(X), expected, atol=2e-3)
    assert np.isfinite(JointRidge().fit(X, t > 0).coef_).all()


def test_constant_features_get_no_weight():
    X, Y = mixed()
    padded = np.column_stack([X, np.full(len(X), 3.7), np.zeros(len(X))]).astype("f")
    head = clone(PLAIN).fit(padded, Y)
    np.testing.assert_array_equal(head.coef_[-2:], 0)
    np.testing.assert_allclose(
        head.decision_function(padded), scores_of(PLAIN, X, Y), atol=1e-3
    )


@pytest.mark.parametrize("calibrate", [False, True])
def test_a_class_that_never_occurs_is_never_predicted(calibrate):
    X, Y = mixed(missing=0)
    y = (Y[:, :1] > 0) * 1.0
    head = JointRidge(calibrate=calibrate, columns=[ColumnGroup("nominal", 4)]).fit(
        X, y
    )
    assert head.coef_.shape == (5, 4)
    assert set(head.predict(X)[:, 0]) == {0.0, 1.0}


def test_a_class_on_one_fold_only():
    X, Y = mixed(missing=0)
    Y[:, 0] = 0
    Y[3, 0] = 1
    assert np.isfinite(scores_of(JointRidge(columns=GROUPS), X, Y)).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_rows(n):
    X, Y = mixed(n=10, missing=0)
    scores = JointRidge(columns=GROUPS).fit(X[:n], Y[:n]).decision_function(X)
    assert np.isfinite(scores).all()


def test_all_rows_of_one_image():
    X, Y = mixed()
    head = JointRidge(columns=GROUPS).fit(X, Y, groups=np.zeros(len(X)))
    assert np.isfinite(head.decision_function(X)).all()


# -- the estimator ------------------------------------------------------------


def test_clone_pickle_and_params():
    X, Y = mixed()
    head = JointRidge([1e-3, 1], class_weight="balanced", n_folds=3, columns=GROUPS)
    expected = scores_of(head, X, Y)
    again = pickle.loads(pickle.dumps(clone(head).fit(X, Y)))
    np.testing.assert_array_equal(again.decision_function(X), expected)
    other = JointRidge().set_params(**head.get_params())
    np.testing.assert_array_equal(scores_of(other, X, Y), expected)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 0}, r"`alpha` of JointRidge must be .*got 0"),
        ({"alpha": []}, r"`alpha` of JointRidge.*got \[\]"),
        ({"alpha": [1, -1]}, r"`alpha` of JointRidge.*got \[1, -1\]"),
        ({"alpha": "auto"}, "`alpha` of JointRidge.*'cv'.*got 'auto'"),
        ({"class_weight": "equal"}, "`class_weight` of JointRidge.*got 'equal'"),
        ({"calibrate": "yes"}, "`calibrate` of JointRidge.*got 'yes'"),
        ({"n_folds": 1}, "`n_folds` of JointRidge.*got 1"),
        ({"columns": "nominal"}, "`columns` of JointRidge.*got 'nominal'"),
    ],
)
def test_wrong_parameters(params, message):
    X, Y = mixed()
    with pytest.raises(InvalidParameterError, match=message):
        JointRidge(**params).fit(X, Y)


@pytest.mark.parametrize(
    "params", [{"alpha": "cv"}, {"calibrate": True}, {"alpha": [1, 2]}]
)
def test_partial_fit_is_absent_where_rows_are_needed(params):
    head = clone(PLAIN).set_params(**params)
    assert not hasattr(head, "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        head.partial_fit  # noqa: B018
    assert hasattr(PLAIN, "partial_fit")


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_a_column_without_a_label_is_named(column):
    X, Y = mixed()
    Y[:, column] = np.nan
    with pytest.raises(ValueError, match="no labelled row of positive weight: columns"):
        JointRidge(columns=GROUPS).fit(X, Y)


def test_groups_of_another_length():
    X, Y = mixed()
    with pytest.raises(ValueError, match=r"groups has shape \(3,\), X has 150 rows"):
        JointRidge(columns=GROUPS).fit(X, Y, groups=[0, 1, 2])
    for unknown in (np.nan, None):
        with pytest.raises(ValueError, match="name every group, got None or NaN"):
            JointRidge(columns=GROUPS).fit(X, Y, groups=[unknown, "a", "b"] * 50)


def test_labels_that_the_first_piece_did_not_have():
    X, Y = mixed(missing=0)
    y = Y[:, 0].astype(int)
    head = JointRidge(alpha=1, calibrate=False).partial_fit(X[y < 2], y[y < 2])
    with pytest.raises(ValueError, match="labels that the first call did not have"):
        head.partial_fit(X, y)


@pytest.mark.parametrize(
    ("group", "value"),
    [
        (ColumnGroup("nominal", 3), 3),
        (ColumnGroup("nominal", 3), -1),
        (ColumnGroup("nominal", 3), 0.5),
        (ColumnGroup("binary", 1), 2),
        (ColumnGroup("binary", 1), -1),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_codes_that_are_none_of_the_group(method, group, value):
    X, Y = mixed(missing=0)
    y = (Y[:, :1] > 0) * 1.0
    y[17] = value
    head = JointRidge(alpha=1.0, calibrate=False, columns=[group])
    with pytest.raises(ValueError, match=rf"\by\b.*{value}"):
        getattr(head, method)(X, y)


def test_a_single_class_is_predicted_for_sure():
    X = np.random.default_rng(0).normal(size=(20, 2))
    columns = [ColumnGroup("nominal", 1), ColumnGroup("nominal", 2)]
    y = np.stack([np.zeros(20), np.arange(20) % 2], axis=1)
    for head in (JointRidge(columns=columns), JointLogistic(columns=columns)):
        assert (head.fit(X, y).predict_proba(X)[:, 0] == 1).all()
