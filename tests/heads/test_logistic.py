"""JointLogistic: against scikit-learn, and the laws of DESIGN 5."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logsumexp, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from mtsk._validation import InvalidParameterError
from mtsk.heads import JointLogistic
from mtsk.heads.class_weights import class_weights
from mtsk.heads.glm import Basis, Objective
from mtsk.tasks.columns import ColumnGroup

GROUPS = [ColumnGroup("nominal", 3), ColumnGroup("binary", 2), ColumnGroup("real", 2)]
PARTS = [slice(0, 1), slice(1, 3), slice(3, 5)]
SCORES = [slice(0, 3), slice(3, 5), slice(5, 7)]
TIGHT = {"tol": 1e-6}
LOGITS = 1e-3  # what rounding, order and duplication may change: a fit has converged


def blobs(seed=0, n=150, d=5, k=3, shares=(0.6, 0.3, 0.1)):
    """Overlapping classes of unequal frequency; features of unequal scale."""
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(k), random.choice(k, n - k, p=shares[:k])])
    centres = np.random.default_rng(7).normal(size=(k, d))
    X = (centres[y] + random.normal(size=(n, d))) * np.logspace(-1, 2, d) + 5
    return X.astype(np.float32), y


def mixed(seed=0, n=120, missing=0.3):
    """A table of three groups in which entries are missing."""
    X, y = blobs(seed, n)
    random = np.random.default_rng(seed + 1)
    z = StandardScaler().fit_transform(X)
    binary = (z[:, :2] + random.normal(size=(n, 2)) > 0.3) * 1.0
    real = z @ random.normal(size=(z.shape[1], 2)) + random.normal(size=(n, 2)) * 0.1
    Y = np.column_stack([y, binary, real]).astype(np.float32)
    Y[random.random(Y.shape) < missing] = np.nan
    return X, Y


def weights_of(y, class_weight):
    """Return class weights written out by hand, of mean 1."""
    share = np.bincount(y) / len(y)
    weight = share[y] ** -{None: 0, "sqrt": 0.5, "balanced": 1}[class_weight]
    return weight / weight.mean()


# -- oracles ------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", [None, "sqrt", "balanced"])
@pytest.mark.parametrize("alpha", [1e-3, 0.1])
def test_equals_multinomial_logistic_regression(alpha, class_weight):
    X, y = blobs()
    head = JointLogistic(alpha, class_weight=class_weight, **TIGHT).fit(X, y)
    Z = StandardScaler().fit_transform(X)
    oracle = LogisticRegression(C=1 / (alpha * len(y)), tol=1e-8, max_iter=5000)
    oracle.fit(Z, y, sample_weight=weights_of(y, class_weight))
    found = softmax(head.decision_function(X), axis=1)  # at the weighted frequencies
    np.testing.assert_allclose(found, oracle.predict_proba(Z), atol=2e-3)
    coef = head.coef_ * X.std(axis=0, dtype=float)[:, None]
    np.testing.assert_allclose(
        coef - coef.mean(axis=1, keepdims=True),
        oracle.coef_.T,
        atol=2e-2 * np.abs(oracle.coef_).max(),
    )


def test_equals_binary_logistic_regression():
    X, y = blobs(k=2, shares=(0.7, 0.3))
    head = JointLogistic(
        0.01, class_weight="balanced", columns=[ColumnGroup("binary", 1)], **TIGHT
    ).fit(X, y[:, None])
    Z = StandardScaler().fit_transform(X)
    oracle = LogisticRegression(C=1 / (0.01 * len(y)), tol=1e-8, max_iter=5000)
    oracle.fit(Z, y, sample_weight=weights_of(y, "balanced"))
    found = expit(head.decision_function(X)[:, 0])
    np.testing.assert_allclose(found, oracle.predict_proba(Z)[:, 1], atol=2e-3)


def test_equals_ridge_on_real_columns():
    X, Y = mixed(missing=0)
    t = Y[:, 3:]
    head = JointLogistic(alpha_real=0.1, **TIGHT).fit(X, t)
    Z = StandardScaler().fit_transform(X)
    # the loss of standardised targets is halved, so the penalty weighs as in Ridge
    oracle = Ridge(alpha=0.1 * len(t)).fit(Z, t)
    np.testing.assert_allclose(head.predict(X), oracle.predict(Z), atol=5e-3)


@pytest.mark.parametrize("kind", ["nominal", "binary", "real"])
def test_the_direction_is_that_of_steepest_descent_in_the_metric_of_the_curvature(kind):
    """Against the slope of the objective written out, and its second derivative."""
    X, Y = mixed(n=39, missing=0)  # so few that the axes are those of all rows
    column, size = {"nominal": (0, 3), "binary": (1, 1), "real": (3, 1)}[kind]
    y = Y[:, column]
    mass = np.random.default_rng(0).uniform(0.5, 2, len(X))
    mass /= mass.sum()
    basis = Basis.of(X, mass)
    Z = (X - basis.mean) @ basis.axes
    objective = Objective(kind, size, y, mass, 0.05, basis)
    objective.residual()
    t = (y - mass @ y) / np.sqrt(mass @ (y - mass @ y) ** 2)

    def value(point):
        V, b = point[:-size].reshape(-1, size), point[-size:]
        scores = Z @ V + b
        if kind == "nominal":
            loss = logsumexp(scores, axis=1) - scores[np.arange(39), y.astype(int)]
        elif kind == "binary":
            loss = np.logaddexp(0, scores[:, 0]) - y * scores[:, 0]
        else:
            loss = (scores[:, 0] - t) ** 2 / 2
        return mass @ loss + 0.05 / 2 * (V**2).sum()

    steps = np.eye(objective.point.size) * 1e-4
    start = objective.point
    slope = np.array([(value(start + s) - value(start - s)) / 2e-4 for s in steps])
    objective.choose_direction(
        slope[:-size].reshape(-1, size), slope[-size:]
    )  # without the penalty, whose slope is 0 at the start
    curvature = [
        (value(start + s) + value(start - s) - 2 * value(start)) / 1e-8 for s in steps
    ]
    expected = -slope / curvature
    if kind == "nominal":
        table = expected.reshape(-1, 3)
        expected = (table - table.mean(axis=1, keepdims=True)).ravel()
    np.testing.assert_allclose(objective.direction, expected, rtol=5e-3, atol=1e-4)


def test_start_is_the_best_constant():
    """Where features say nothing, the prior remains."""
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 3)).astype(np.float32)
    y = np.repeat([0, 1, 2], [100, 60, 40])
    head = JointLogistic(1e6, class_weight=None).fit(X, y)
    np.testing.assert_allclose(
        head.predict_proba(X), np.tile([0.5, 0.3, 0.2], (200, 1)), atol=1e-3
    )


# -- laws ---------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_joint_fit_equals_separate_fits(missing):
    X, Y = mixed(missing=missing)
    joint = JointLogistic(columns=GROUPS).fit(X, Y).decision_function(X)
    for group, part, scores in zip(GROUPS, PARTS, SCORES, strict=True):
        alone = JointLogistic(columns=[group]).fit(X, Y[:, part])
        np.testing.assert_allclose(
            joint[:, scores], alone.decision_function(X), atol=2e-3
        )


def test_unlabelled_rows_change_nothing():
    X, Y = mixed(missing=0)
    random = np.random.default_rng(3)
    more = np.concatenate([X, random.normal(size=(40, 5)).astype(np.float32) * 100])
    for group, part in zip(GROUPS, PARTS, strict=True):
        padded = np.full((160, Y.shape[1]), np.nan, np.float32)
        padded[:120] = Y
        padded[120:, 0] = 1  # other groups know these rows, this one does not
        padded[120:, part] = np.nan
        alone = JointLogistic(columns=[group]).fit(X, Y[:, part])
        among = JointLogistic(columns=[group]).fit(more, padded[:, part])
        np.testing.assert_allclose(
            among.decision_function(X), alone.decision_function(X), atol=2e-3
        )


def test_a_row_unlabelled_for_one_group_still_serves_the_others():
    X, Y = mixed(missing=0)
    Y[:60, 0] = np.nan
    joint = JointLogistic(columns=GROUPS).fit(X, Y).decision_function(X)
    first = JointLogistic(columns=GROUPS[:1]).fit(X[60:], Y[60:, :1])
    second = JointLogistic(columns=GROUPS[1:]).fit(X, Y[:, 1:])
    np.testing.assert_allclose(joint[:, :3], first.decision_function(X), atol=2e-3)
    np.testing.assert_allclose(joint[:, 3:], second.decision_function(X), atol=2e-3)


@pytest.mark.parametrize("class_weight", [None, "sqrt", "balanced"])
def test_duplicating_every_row_changes_nothing(class_weight):
    X, Y = mixed()
    head = JointLogistic(class_weight=class_weight, columns=GROUPS)
    once = clone(head).fit(X, Y).decision_function(X)
    twice = clone(head).fit(np.tile(X, (2, 1)), np.tile(Y, (2, 1)))
    np.testing.assert_allclose(twice.decision_function(X), once, atol=LOGITS)


@given(st.integers(0, 1000), st.sampled_from([1e-3, 1e-2, 0.1]))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_changes_nothing(seed, alpha):
    X, Y = mixed(seed)
    order = np.random.default_rng(seed).permutation(len(X))
    head = JointLogistic(alpha, columns=GROUPS)
    one = clone(head).fit(X, Y).decision_function(X)
    other = clone(head).fit(X[order], Y[order]).decision_function(X)
    np.testing.assert_allclose(other, one, atol=LOGITS)


def test_a_label_that_never_varies_changes_no_other():
    """Law 10: nor does it stop the search for the others before they are done."""
    X, Y = mixed(missing=0)
    labels = np.column_stack([np.zeros(120), Y[:, 1], np.ones(120), Y[:, 2]])
    group = ColumnGroup("binary", 4)
    head = JointLogistic(1e-3, class_weight=None, columns=[group]).fit(X, labels)
    scores = head.decision_function(X)
    assert (scores[:, 0] < -10).all()
    assert (scores[:, 2] > 10).all()
    Z = StandardScaler().fit_transform(X)
    for score, label in zip(scores[:, 1::2].T, Y[:, 1:3].T, strict=True):
        oracle = LogisticRegression(C=1 / (1e-3 * 120), tol=1e-10, max_iter=5000)
        expected = oracle.fit(Z, label).decision_function(Z)
        np.testing.assert_allclose(score, expected, atol=2 * LOGITS)


def test_a_class_that_never_occurs_changes_no_other():
    X, y = blobs()
    three = JointLogistic(columns=[ColumnGroup("nominal", 3)]).fit(X, y[:, None])
    five = JointLogistic(columns=[ColumnGroup("nominal", 5)]).fit(X, y[:, None])
    np.testing.assert_allclose(
        five.predict_proba(X)[:, :3], three.predict_proba(X), atol=LOGITS
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(6))
def test_hardly_penalised_outliers_are_no_optimum_unless_they_are(seed):
    """What says that it converged is near the optimum, however bad the rows."""
    random = np.random.default_rng(seed)
    X = random.standard_t(1.1, size=(258, 1)).astype(np.float32)
    y = np.repeat([0, 1, 2, 3], [6, 66, 174, 12])
    head = JointLogistic(1e-7, class_weight=None).fit(X, y)
    Z = StandardScaler().fit_transform(X)

    def objective(probability, coef):
        loss = -np.log(probability[np.arange(258), y].clip(1e-300)).mean()
        return loss + 1e-7 / 2 * (coef**2).sum()

    oracle = LogisticRegression(C=1 / (1e-7 * 258), tol=1e-8, max_iter=5000).fit(Z, y)
    best = objective(oracle.predict_proba(Z), oracle.coef_)
    scale = X.astype(float).std()
    found = objective(head.predict_proba(X).astype(float), head.coef_ * scale)
    assert found < best + 1e-3


def test_too_few_steps_are_told_of():
    X, y = blobs()
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 steps before it conv"):
        JointLogistic(max_iter=2).fit(X, y)


@given(st.integers(0, 100), st.sampled_from([None, "sqrt", "balanced"]))
@settings(max_examples=10, deadline=None)
def test_weights_are_repetitions(seed, class_weight):
    X, Y = mixed(seed, n=80)
    weight = np.random.default_rng(seed).integers(0, 4, len(X))
    head = JointLogistic(class_weight=class_weight, columns=GROUPS, **TIGHT)
    weighted = clone(head).fit(X, Y, sample_weight=weight)
    repeated = clone(head).fit(np.repeat(X, weight, 0), np.repeat(Y, weight, 0))
    np.testing.assert_allclose(
        weighted.decision_function(X), repeated.decision_function(X), atol=2e-2
    )


def test_scaling_all_weights_changes_nothing():
    X, Y = mixed()
    head = JointLogistic(columns=GROUPS)
    one = clone(head).fit(X, Y).decision_function(X)
    ten = clone(head).fit(X, Y, sample_weight=np.full(len(X), 10.0))
    np.testing.assert_allclose(ten.decision_function(X), one, atol=2e-3)


def test_units_of_features_and_targets_change_nothing():
    X, Y = mixed(missing=0)
    head = JointLogistic(columns=GROUPS)
    one = clone(head).fit(X, Y).decision_function(X)
    scale, shift = np.array([1e3, 1e-2, 7, 1, 50.0]), np.array([3.0, 0, -9, 1, 2])
    moved = (X * scale + shift).astype(np.float32)
    Y2 = Y.copy()
    Y2[:, 3:] = Y2[:, 3:] * 100 + 5
    two = clone(head).fit(moved, Y2).decision_function(moved)
    np.testing.assert_allclose(two[:, :5], one[:, :5], atol=2e-2)
    np.testing.assert_allclose((two[:, 5:] - 5) / 100, one[:, 5:], atol=2e-2)


def test_relabelling_classes_permutes_the_probabilities():
    X, y = blobs()
    new = np.array([2, 0, 1])
    one = JointLogistic(**TIGHT).fit(X, y).predict_proba(X)
    two = JointLogistic(**TIGHT).fit(X, new[y]).predict_proba(X)
    np.testing.assert_allclose(two[:, new], one, atol=2e-3)


# -- hard tables --------------------------------------------------------------


def test_more_features_than_rows():
    random = np.random.default_rng(0)
    X = random.normal(size=(30, 80)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    head = JointLogistic(
        0.1, class_weight=None, columns=[ColumnGroup("binary", 1)], **TIGHT
    )
    head.fit(X, y[:, None])
    Z = StandardScaler().fit_transform(X)
    oracle = LogisticRegression(C=1 / (0.1 * 30), tol=1e-8, max_iter=5000).fit(Z, y)
    found = expit(head.decision_function(X)[:, 0])
    np.testing.assert_allclose(found, oracle.predict_proba(Z)[:, 1], atol=2e-3)


def test_constant_features_get_no_weight():
    X, y = blobs()
    padded = np.column_stack([X, np.full(len(X), 3.7), np.zeros(len(X))])
    head = JointLogistic().fit(padded.astype(np.float32), y)
    np.testing.assert_array_equal(head.coef_[-2:], 0)
    np.testing.assert_allclose(
        head.predict_proba(padded),
        JointLogistic().fit(X, y).predict_proba(X),
        atol=2e-3,
    )


def test_a_class_that_never_occurs_is_never_predicted():
    X, y = blobs(k=2, shares=(0.7, 0.3))
    head = JointLogistic(columns=[ColumnGroup("nominal", 4)]).fit(X, y[:, None])
    assert head.coef_.shape == (5, 4)
    assert set(head.predict(X)[:, 0]) == {0.0, 1.0}
    assert head.predict_proba(X)[:, 2:].max() < 1e-3


def test_a_single_class_is_always_predicted():
    X, _ = blobs()
    head = JointLogistic(columns=[ColumnGroup("nominal", 3)]).fit(
        X, np.ones((len(X), 1))
    )
    assert set(head.predict(X)[:, 0]) == {1.0}


def test_constant_numbers_are_predicted_exactly():
    X, _ = blobs()
    head = JointLogistic().fit(X, np.full(len(X), 4.25))
    np.testing.assert_allclose(head.predict(X), 4.25, atol=1e-4)


def test_one_labelled_row():
    X, Y = mixed(missing=0)
    Y[1:] = np.nan
    scores = JointLogistic(columns=GROUPS).fit(X, Y).decision_function(X)
    assert np.isfinite(scores).all()


def test_separable_classes_converge_to_something_finite():
    X = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    head = JointLogistic(1e-4).fit(X, (X[:, 0] > 0).astype(int))
    assert np.isfinite(head.coef_).all()
    assert (head.predict(X) == (X[:, 0] > 0)).all()


# -- the estimator ------------------------------------------------------------


@pytest.mark.parametrize(
    "labels", [[3, 7, 40], [-5, 0, 2], ["ant", "bee", "cow"], [10**9, 1, 2]]
)
def test_labels_come_back_as_given(labels):
    X, y = blobs()
    given = np.array(labels)[y]
    head = JointLogistic().fit(X, given)
    predicted = head.predict(X)
    assert predicted.dtype == given.dtype
    assert (predicted == given).mean() > 0.7


def test_bool_labels():
    X, y = blobs(k=2, shares=(0.5, 0.5))
    predicted = JointLogistic().fit(X, y == 1).predict(X)
    assert predicted.dtype == bool
    assert (predicted == (y == 1)).mean() > 0.7


def test_integer_columns_side_by_side():
    X, y = blobs()
    predicted = JointLogistic().fit(X, np.column_stack([y, 10 * y])).predict(X)
    np.testing.assert_array_equal(10 * predicted[:, 0], predicted[:, 1])


def test_probabilities_are_probabilities():
    X, Y = mixed()
    head = JointLogistic(columns=GROUPS).fit(X, Y)
    p = head.predict_proba(X)
    np.testing.assert_allclose(p[:, :3].sum(axis=1), 1, rtol=1e-5)
    assert (p[:, :5] >= 0).all()
    assert (p[:, :5] <= 1).all()
    np.testing.assert_array_equal(p[:, 5:], head.decision_function(X)[:, 5:])


def test_predict_gives_a_table_like_y():
    X, Y = mixed()
    head = JointLogistic(columns=GROUPS).fit(X, Y)
    table, scores = head.predict(X), head.decision_function(X)
    assert table.shape == Y.shape
    np.testing.assert_array_equal(table[:, 0], scores[:, :3].argmax(axis=1))
    np.testing.assert_array_equal(table[:, 1:3], scores[:, 3:5] > 0)
    np.testing.assert_array_equal(table[:, 3:], scores[:, 5:])


def test_clone_pickle_and_params():
    X, Y = mixed()
    head = JointLogistic(0.5, columns=GROUPS, class_weight="balanced").fit(X, Y)
    expected = head.decision_function(X)
    again = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(again.decision_function(X), expected)
    copy = clone(head)
    assert not hasattr(copy, "coef_")
    np.testing.assert_array_equal(copy.fit(X, Y).decision_function(X), expected)
    other = JointLogistic().set_params(**head.get_params())
    np.testing.assert_array_equal(other.fit(X, Y).decision_function(X), expected)


def test_fitted_attributes():
    X, Y = mixed()
    head = JointLogistic(columns=GROUPS).fit(X, Y)
    assert head.coef_.dtype == head.intercept_.dtype == np.float32
    assert head.coef_.shape == (5, 7)
    assert head.groups_ == GROUPS
    assert len(head.n_iter_) == 3
    assert max(head.n_iter_) <= head.max_iter
    exact = X.astype(float) @ head.coef_ + head.intercept_
    # A sum of d products in float32, in any order, is off by at most d roundings of
    # the sum of their sizes.
    sizes = np.abs(X) @ np.abs(head.coef_) + np.abs(head.intercept_)
    off = np.abs(head.decision_function(X) - exact)
    assert (off <= (X.shape[1] + 1) * np.finfo(np.float32).eps * sizes).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": 0}, r"`alpha` of JointLogistic must be .*\(0.*got 0"),
        ({"alpha": "cv"}, "`alpha` of JointLogistic.*got 'cv'"),
        ({"class_weight": "equal"}, "`class_weight` of JointLogistic.*got 'equal'"),
        ({"class_weight": {0: 1}}, "`class_weight` of JointLogistic"),
        ({"max_iter": 0}, "`max_iter` of JointLogistic.*got 0"),
        ({"tol": -1}, "`tol` of JointLogistic.*got -1"),
        ({"columns": "nominal"}, "`columns` of JointLogistic.*got 'nominal'"),
        ({"columns": [("nominal", 3)]}, "`columns` of JointLogistic.*got"),
    ],
)
def test_wrong_parameters(params, message):
    X, y = blobs()
    with pytest.raises(InvalidParameterError, match=message):
        JointLogistic(**params).fit(X, y[:, None])


@pytest.mark.parametrize(
    ("Y", "message"),
    [
        (np.zeros((150, 3)), "y has 3 columns, `columns` name 1"),
        (np.full((150, 1), np.nan), "no labelled row of positive weight"),
        (np.zeros((149, 1)), r"inconsistent numbers of samples: \[150, 149\]"),
        (np.full((150, 1), np.inf), "infinity"),
    ],
)
def test_wrong_tables(Y, message):
    X, _ = blobs()
    with pytest.raises(ValueError, match=message):
        JointLogistic(columns=[ColumnGroup("nominal", 3)]).fit(X, Y)


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
def test_codes_that_are_none_of_the_group(group, value):
    X, y = blobs(k=2, shares=(0.5, 0.5))
    Y = y[:, None].astype(float)
    Y[17] = value
    with pytest.raises(ValueError, match=rf"\by\b.*{value}"):
        JointLogistic(columns=[group]).fit(X, Y)


def test_zero_weights_everywhere():
    X, Y = mixed()
    with pytest.raises(ValueError, match=r"weight"):
        JointLogistic(columns=GROUPS).fit(X, Y, sample_weight=np.zeros(len(X)))


def test_y_is_required():
    with pytest.raises(ValueError, match="JointLogistic requires y to be passed"):
        JointLogistic().fit(blobs()[0], None)


# -- class weights ------------------------------------------------------------


@given(
    st.lists(st.sampled_from([0, 1, 2, np.nan]), min_size=1, max_size=30),
    st.sampled_from([None, "sqrt", "balanced"]),
)
@settings(max_examples=25, deadline=None)
def test_class_weights_have_mean_one_and_follow_frequency(codes, power):
    Y = np.array(codes, float)[:, None]
    known = ~np.isnan(Y[:, 0])
    w = class_weights(ColumnGroup("nominal", 3), Y, np.ones(Y.shape), power)[:, 0]
    assert (w[~known] == 0).all()
    if not known.any():
        return
    assert w[known].mean() == pytest.approx(1)
    exponent = {None: 0, "sqrt": 0.5, "balanced": 1}[power]
    mass = {c: (Y[:, 0] == c).sum() for c in set(Y[known, 0])}
    relative = {c: w[Y[:, 0] == c][0] * n**exponent for c, n in mass.items()}
    np.testing.assert_allclose(list(relative.values()), next(iter(relative.values())))


def test_balanced_gives_every_class_the_same_mass():
    Y = np.array([0, 0, 0, 1.0])[:, None]
    weight = np.array([1, 1, 2, 1.0])[:, None]
    w = class_weights(ColumnGroup("binary", 1), Y, weight, "balanced")
    assert w[:3].sum() == pytest.approx(w[3:].sum())
    assert w[2] == pytest.approx(2 * w[0])


def test_numbers_have_no_class_weight():
    Y = np.array([[1.0], [1.0], [9.0], [np.nan]])
    w = class_weights(ColumnGroup("real", 1), Y, np.ones(Y.shape), "balanced")
    np.testing.assert_array_equal(w[:, 0], [1, 1, 1, 0])


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("ordinal", 3, "kind must be one of .*got 'ordinal'"),
        ("nominal", 0, ">= 1, got 0"),
    ],
)
def test_column_group_errors(kind, size, message):
    with pytest.raises(ValueError, match=message):
        ColumnGroup(kind, size)


def test_column_group_widths():
    assert [g.n_columns for g in GROUPS] == [1, 2, 2]
