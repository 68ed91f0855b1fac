"""PerTaskHead: any scikit-learn estimator, fitted on a group's labelled rows."""

import pickle

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import (
    ClassifierChain,
    MultiOutputClassifier,
    MultiOutputRegressor,
    RegressorChain,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from mtsk.heads import JointLogistic, JointRidge, PerTaskHead
from mtsk.tasks.columns import ColumnGroup

NOMINAL, BINARY, REAL = (
    ColumnGroup("nominal", 3),
    ColumnGroup("binary", 2),
    ColumnGroup("real", 2),
)


def table(seed=0, n=90, missing=0.0):
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(3), random.integers(0, 3, n - 3)])
    X = np.random.default_rng(7).normal(size=(3, 4))[y] * 2 + random.normal(size=(n, 4))
    binary = (X[:, :2] > 0) * 1.0
    Y = np.column_stack([y, binary, X @ random.normal(size=(4, 2))]).astype(np.float32)
    Y[random.random(Y.shape) < missing] = np.nan
    return X.astype(np.float32), Y


def labels_of(Y):
    """Columns of the nominal group, the binary group, the real group."""
    return {NOMINAL: Y[:, :1], BINARY: Y[:, 1:3], REAL: Y[:, 3:]}


CLASSIFIERS = [
    LogisticRegression(),
    LinearSVC(),
    SVC(),
    RandomForestClassifier(5, random_state=0),
    KNeighborsClassifier(3),
    RidgeClassifier(),
    OneVsRestClassifier(LogisticRegression()),
    OneVsRestClassifier(LinearSVC()),
    make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
    make_pipeline(SelectKBest(k=3), LogisticRegression()),
    GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 4]}, cv=2),
    JointLogistic(),
    JointRidge(),
]
WHOLE = [
    MultiOutputClassifier(LogisticRegression()),
    MultiOutputClassifier(RandomForestClassifier(5, random_state=0)),
    ClassifierChain(LogisticRegression()),
    make_pipeline(PCA(3), MultiOutputClassifier(LogisticRegression())),
]
REGRESSORS = [
    Ridge(),
    make_pipeline(StandardScaler(), Ridge(1e-3)),
    RandomForestRegressor(10, random_state=0),
    MultiOutputRegressor(Ridge()),
    RegressorChain(Ridge()),
    JointRidge(),
]


def named(estimators):
    return [repr(e).replace("\n", "")[:50] for e in estimators]


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=named(CLASSIFIERS))
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_classes(estimator, missing):
    X, Y = table(missing=missing)
    y = labels_of(Y)[NOMINAL]
    scores = PerTaskHead(estimator, [NOMINAL]).fit(X, y).decision_function(X)
    assert scores.shape == (90, 3)
    assert scores.dtype == np.float32
    truth = labels_of(table()[1])[NOMINAL][:, 0]
    assert (scores.argmax(axis=1) == truth).mean() > 0.75


@pytest.mark.parametrize(
    "estimator", CLASSIFIERS + WHOLE, ids=named(CLASSIFIERS + WHOLE)
)
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_labels(estimator, missing):
    X, Y = table(missing=missing)
    scores = PerTaskHead(estimator, [BINARY]).fit(X, Y[:, 1:3]).decision_function(X)
    assert scores.shape == (90, 2)
    truth = labels_of(table()[1])[BINARY]
    assert ((scores > 0) == truth).mean() > 0.75


@pytest.mark.parametrize("estimator", REGRESSORS, ids=named(REGRESSORS))
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_numbers(estimator, missing):
    X, Y = table(missing=missing)
    truth = labels_of(table()[1])[REAL]
    scores = PerTaskHead(estimator, [REAL]).fit(X, Y[:, 3:]).decision_function(X)
    assert scores.shape == (90, 2)
    assert ((scores - truth) ** 2).mean() < 0.25 * truth.var()


def test_class_scores_are_the_estimators_own():
    X, Y = table(missing=0.3)
    known = ~np.isnan(Y[:, 0])
    model = LogisticRegression().fit(X[known], Y[known, 0])
    scores = PerTaskHead(LogisticRegression(), [NOMINAL]).fit(X, Y[:, :1])
    np.testing.assert_allclose(
        scores.decision_function(X),
        np.log(model.predict_proba(X).clip(1e-6)),
        atol=1e-4,
    )


def test_label_scores_are_logits():
    X, Y = table()
    scores = PerTaskHead(LogisticRegression(), [BINARY]).fit(X, Y[:, 1:3])
    logit = LogisticRegression().fit(X, Y[:, 2]).decision_function(X)
    inside = np.abs(logit) < 10  # beyond, probabilities are clipped
    np.testing.assert_allclose(
        scores.decision_function(X)[inside, 1], logit[inside], rtol=1e-2, atol=1e-3
    )


def test_margins_of_a_classifier_without_probabilities():
    X, Y = table()
    scores = PerTaskHead(LinearSVC(), [BINARY]).fit(X, Y[:, 1:3]).decision_function(X)
    np.testing.assert_allclose(
        scores[:, 0], LinearSVC().fit(X, Y[:, 1]).decision_function(X), rtol=1e-4
    )


def test_number_scores_are_predictions():
    X, Y = table()
    scores = PerTaskHead(Ridge(), [REAL]).fit(X, Y[:, 3:]).decision_function(X)
    np.testing.assert_allclose(scores, Ridge().fit(X, Y[:, 3:]).predict(X), atol=1e-4)


def test_multi_output_sees_rows_where_all_labels_are_known():
    X, Y = table(missing=0.3)
    known = ~np.isnan(Y[:, 1:3]).any(axis=1)
    oracle = ClassifierChain(LogisticRegression()).fit(X[known], Y[known, 1:3])
    head = PerTaskHead(ClassifierChain(LogisticRegression()), [BINARY]).fit(
        X, Y[:, 1:3]
    )
    p = oracle.predict_proba(X).clip(1e-6, 1 - 1e-6)
    np.testing.assert_allclose(
        head.decision_function(X), np.log(p / (1 - p)), atol=1e-2
    )


def test_one_estimator_a_group():
    X, Y = table(missing=0.2)
    estimators = [LinearSVC(), LogisticRegression(), Ridge()]
    head = PerTaskHead(estimators, [NOMINAL, BINARY, REAL]).fit(X, Y)
    scores = head.decision_function(X)
    parts = [scores[:, :3], scores[:, 3:5], scores[:, 5:]]
    for estimator, (group, columns), part in zip(
        estimators, labels_of(Y).items(), parts, strict=True
    ):
        alone = PerTaskHead(estimator, [group]).fit(X, columns)
        np.testing.assert_array_equal(part, alone.decision_function(X))
    assert [len(models) for models in head.models_] == [1, 2, 2]


def test_unlabelled_rows_change_nothing():
    X, Y = table()
    more = np.concatenate([X, np.full((20, 4), 50, np.float32)])
    padded = np.concatenate([Y[:, :1], np.full((20, 1), np.nan)])
    head = PerTaskHead(LogisticRegression(), [NOMINAL])
    np.testing.assert_array_equal(
        clone(head).fit(more, padded).decision_function(X),
        clone(head).fit(X, Y[:, :1]).decision_function(X),
    )


def test_n_jobs_changes_nothing():
    X, Y = table(missing=0.2)
    estimators = [
        RandomForestClassifier(3, random_state=0),
        LogisticRegression(),
        Ridge(),
    ]
    one, two = (
        PerTaskHead(estimators, [NOMINAL, BINARY, REAL], n_jobs=n)
        .fit(X, Y)
        .decision_function(X)
        for n in (1, 2)
    )
    np.testing.assert_array_equal(one, two)


def test_estimators_given_are_cloned():
    X, Y = table()
    estimator = LogisticRegression()
    PerTaskHead(estimator, [BINARY]).fit(X, Y[:, 1:3])
    assert not hasattr(estimator, "coef_")


@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearSVC(), SVC()])
def test_a_class_missing_from_the_fold_scores_lowest(estimator):
    X, Y = table()
    rows = Y[:, 0] != 1
    head = PerTaskHead(estimator, [NOMINAL]).fit(X[rows], Y[rows, :1])
    scores = head.decision_function(X)
    assert scores.shape == (90, 3)
    assert np.isfinite(scores).all()
    assert (scores[:, 1] < scores[:, [0, 2]].min(axis=1)).all()
    assert (scores.argmax(axis=1)[rows] == Y[rows, 0]).mean() > 0.75


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("estimator", [LogisticRegression(), DecisionTreeClassifier()])
def test_a_single_class_is_always_predicted_and_said(estimator, value):
    X, Y = table()
    Y[:, 1] = value
    head = PerTaskHead(estimator, [BINARY], n_jobs=1)
    with pytest.warns(
        UserWarning, match=f"{type(estimator).__name__} got .*single class"
    ):
        head.fit(X, Y[:, 1:3])
    scores = head.decision_function(X)
    assert ((scores[:, 0] > 0) == value).all()
    assert ((scores[:, 1] > 0) == Y[:, 2]).mean() > 0.75


def test_a_single_class_among_all_labels_of_a_multi_output_classifier():
    X, _ = table()
    head = PerTaskHead(MultiOutputClassifier(LogisticRegression()), [BINARY], n_jobs=1)
    with pytest.warns(UserWarning, match="MultiOutputClassifier got .*single class"):
        head.fit(X, np.zeros((len(X), 2)))
    scores = head.decision_function(X)
    assert scores.shape == (90, 2)
    assert (scores < 0).all()


@pytest.mark.parametrize(
    "estimator",
    [
        MultiOutputClassifier(LogisticRegression()),
        ClassifierChain(LogisticRegression()),
    ],
)
def test_whole_table_wrappers_on_one_nominal_column(estimator):
    """Either it works, or it says that it cannot; never a shape error from inside."""
    X, Y = table()
    try:
        scores = PerTaskHead(estimator, [NOMINAL]).fit(X, Y[:, :1]).decision_function(X)
    except ValueError as error:
        assert "nominal" in str(error)  # noqa: PT017
    else:
        assert (scores.argmax(axis=1) == Y[:, 0]).mean() > 0.75


def test_multi_output_of_a_classifier_without_probabilities():
    X, Y = table()
    head = PerTaskHead(MultiOutputClassifier(LinearSVC()), [BINARY]).fit(X, Y[:, 1:3])
    assert ((head.decision_function(X) > 0) == Y[:, 1:3]).mean() > 0.75


def test_sample_weights_reach_those_that_take_them():
    X, Y = table()
    weight = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    head = PerTaskHead(Ridge(), [REAL]).fit(X, Y[:, 3:], sample_weight=weight)
    oracle = Ridge().fit(X, Y[:, 3:], sample_weight=weight)
    np.testing.assert_allclose(head.decision_function(X), oracle.predict(X), atol=1e-3)


@pytest.mark.parametrize("routing", [False, True])
def test_sample_weights_reach_the_last_step_of_a_pipeline(routing):
    X, Y = table()
    weight = np.random.default_rng(0).uniform(0.1, 2, len(X))
    with config_context(enable_metadata_routing=routing):
        scaler, last = StandardScaler(), Ridge()
        if routing:
            scaler.set_fit_request(sample_weight=False)
            last.set_fit_request(sample_weight=True)
        head = PerTaskHead(make_pipeline(scaler, last), [REAL])
        head.fit(X, Y[:, 3:], sample_weight=weight)
    scaled = StandardScaler().fit_transform(X)
    oracle = Ridge().fit(scaled, Y[:, 3:], sample_weight=weight)
    np.testing.assert_allclose(
        head.decision_function(X), oracle.predict(scaled), atol=1e-3
    )


@pytest.mark.parametrize(
    "estimator",
    [KNeighborsClassifier(), make_pipeline(StandardScaler(), KNeighborsClassifier())],
)
def test_rows_of_weight_0_are_left_out_by_all(estimator):
    X, Y = table()
    wrong = np.arange(len(X)) % 3 == 0
    shuffled = np.where(wrong, (Y[:, 0] + 1) % 3, Y[:, 0])[:, None]
    head = PerTaskHead(estimator, [NOMINAL])
    weighted = clone(head).fit(X, shuffled, sample_weight=np.where(wrong, 0, 2.0))
    alone = clone(head).fit(X[~wrong], shuffled[~wrong])
    np.testing.assert_array_equal(
        weighted.decision_function(X), alone.decision_function(X)
    )
    with pytest.raises(ValueError, match="KNeighborsClassifier takes no sample_weight"):
        head.fit(X, Y[:, :1], sample_weight=np.arange(len(X)))
    with pytest.raises(ValueError, match="at least one non-zero"):
        head.fit(X, Y[:, :1], sample_weight=np.zeros(len(X)))


def test_sample_weights_follow_the_labelled_rows():
    X, Y = table(missing=0.3)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    known = ~np.isnan(Y[:, 0])
    head = PerTaskHead(LogisticRegression(), [NOMINAL]).fit(
        X, Y[:, :1], sample_weight=weight
    )
    alone = PerTaskHead(LogisticRegression(), [NOMINAL]).fit(
        X[known], Y[known, :1], sample_weight=weight[known]
    )
    np.testing.assert_array_equal(head.decision_function(X), alone.decision_function(X))


def test_groups_reach_a_joint_head():
    X, Y = table()
    image = np.repeat(np.arange(9), 10)
    head = PerTaskHead(JointRidge(), [NOMINAL]).fit(X, Y[:, :1], groups=image)
    alone = JointRidge(columns=[NOMINAL]).fit(X, Y[:, :1], groups=image)
    np.testing.assert_allclose(
        head.decision_function(X), alone.decision_function(X), atol=1e-5
    )


@pytest.mark.parametrize(
    ("estimator", "group", "message"),
    [
        (Ridge(), NOMINAL, r"a nominal task needs a classifier, got Ridge\(\)"),
        (Ridge(), BINARY, "a binary task needs a classifier, got Ridge"),
        (LogisticRegression(), REAL, "a real task needs a regressor, got LogisticReg"),
        (PCA(), NOMINAL, "a nominal task needs a classifier, got PCA"),
        (make_pipeline(PCA(), Ridge()), BINARY, "needs a classifier, got Pipeline"),
        (MultiOutputRegressor(Ridge()), BINARY, "needs a classifier"),
        (MultiOutputClassifier(LinearSVC()), REAL, "needs a regressor"),
    ],
)
def test_wrong_kind_of_estimator(estimator, group, message):
    X, Y = table()
    with pytest.raises(ValueError, match=message):
        PerTaskHead(estimator, [group]).fit(X, labels_of(Y)[group])


@pytest.mark.parametrize("group", [NOMINAL, BINARY, REAL])
def test_a_group_without_labels(group):
    X, Y = table()
    columns = np.full_like(labels_of(Y)[group], np.nan)
    estimator = Ridge() if group.kind == "real" else LogisticRegression()
    with pytest.raises(
        ValueError, match=f"a {group.kind} column group has no labelled"
    ):
        PerTaskHead(estimator, [group]).fit(X, columns)


@pytest.mark.parametrize("n_columns", [1, 3, 6])
def test_another_number_of_columns(n_columns):
    X, Y = table()
    Y = np.column_stack([Y, Y[:, 4]])[:, :n_columns]
    with pytest.raises(ValueError, match=rf"y has {n_columns} columns.*5"):
        PerTaskHead([LinearSVC(), LinearSVC(), Ridge()], [NOMINAL, BINARY, REAL]).fit(
            X, Y
        )


def test_another_number_of_estimators():
    X, Y = table()
    with pytest.raises(ValueError, match=r"`estimator`.*2.*3|`estimator`.*3.*2"):
        PerTaskHead([LinearSVC(), LinearSVC()], [NOMINAL, BINARY, REAL]).fit(X, Y)


def test_clone_pickle_and_params():
    X, Y = table(missing=0.2)
    head = PerTaskHead(RandomForestClassifier(3, random_state=0), [NOMINAL, BINARY])
    expected = clone(head).fit(X, Y[:, :3]).decision_function(X)
    again = pickle.loads(pickle.dumps(clone(head).fit(X, Y[:, :3])))
    np.testing.assert_array_equal(again.decision_function(X), expected)
    other = clone(head).set_params(estimator__n_estimators=7)
    assert other.estimator.n_estimators == 7
    assert other.fit(X, Y[:, :3]).models_[0][0].n_estimators == 7
