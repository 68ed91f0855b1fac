"""Model selection over MultiTaskSegmenter: searches, folds, scorers, the cache."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    learning_curve,
    train_test_split,
)
from toy_segmenters import many_targets, segmenter

from mtsk import (
    DeepFeatures,
    JointLogistic,
    MultiTaskSegmenter,
    Targets,
    make_task_scorer,
)
from mtsk.exceptions import TargetError
from mtsk.features import MemoryCache
from mtsk.heads import Moments
from mtsk.tasks import BinaryMask, Classification
from mtsk.testing import toy_images


@pytest.fixture(scope="module")
def toys():
    return toy_images(8)


def test_nested_parameters_of_default_parts():
    model = MultiTaskSegmenter({"m": BinaryMask()})
    assert model.get_params()["head__alpha"] == JointLogistic().alpha
    assert model.get_params()["features__scales"] == DeepFeatures().scales
    model.set_params(head__alpha=3.0, features__scales=[1], tasks__m__threshold=0.7)
    assert model.head.alpha == 3.0
    assert model.features.scales == [1]
    assert model.tasks["m"].threshold == 0.7
    bare = MultiTaskSegmenter(BinaryMask()).set_params(tasks__threshold=0.2)
    assert bare.tasks.threshold == 0.2
    assert "tasks__threshold" in bare.get_params()
    with pytest.raises(ValueError, match="no_such"):
        model.set_params(head__no_such=1)
    with pytest.raises(ValueError, match="tasks__n__threshold"):
        model.set_params(tasks__n__threshold=0.1)
    with pytest.raises(ValueError, match=r"tasks__n__threshold.*names \[\]"):
        MultiTaskSegmenter().set_params(tasks__n__threshold=0.1)


def test_grid_search_with_ragged_images_and_a_scorer(toys):
    X, Y = toys
    images = [*X[:6], X[6][:36], X[7][:, :40]]
    targets = Targets(
        semantic=[*Y[:6], Y[6][:36], Y[7][:, :40]],
        name=["big", None, "small", "big", "small", None, "big", "small"],
    )
    grid = {"head__alpha": [0.01, 10.0], "features__scales": [[1]]}
    search = GridSearchCV(
        segmenter(), grid, scoring=make_task_scorer("semantic", "accuracy"), cv=2
    ).fit(images, targets)
    assert search.best_params_["head__alpha"] == 0.01
    assert search.best_score_ > 0.9
    many = GridSearchCV(
        segmenter(),
        {"head__alpha": [0.01]},
        scoring={"a": make_task_scorer("semantic"), "b": make_task_scorer("name")},
        refit="a",
        cv=2,
    ).fit(images, targets)
    assert np.isfinite(many.cv_results_["mean_test_b"]).all()


def test_scoring_some_pixels_estimates_scoring_all(toys):
    X, Y = toys
    targets = Targets(
        semantic=Y, bright=[y == Y.max() for y in Y], name=list("abababab")
    )
    model = segmenter().fit(X[:4], targets[:4])
    whole = model.score_tasks(X, targets)
    some = model.score_tasks(X, targets, max_pixels_per_image=300)
    every = model.score_tasks(X, targets, max_pixels_per_image=10**6)
    assert some["semantic"] == pytest.approx(whole["semantic"], abs=0.05)
    assert some["semantic"] != whole["semantic"]
    assert every == pytest.approx(whole, abs=1e-3)  # equal but for rounding at ties
    masked = Y.copy()
    masked[:, ::2] = -1
    scribbles = Targets(semantic=masked)
    assert model.score_tasks(X, scribbles, max_pixels_per_image=10**6) == pytest.approx(
        model.score_tasks(X, scribbles), abs=1e-3
    )


def test_scoring_some_pixels_refuses_boundaries_and_nonsense(toys):
    X, Y = toys
    model = segmenter().fit(X[:4], Y[:4])
    with pytest.raises(ValueError, match="task 'target' needs whole maps"):
        model.score_tasks(
            X, Y, metrics={"target": "boundary_f1"}, max_pixels_per_image=9
        )
    for wrong in (0, 1.5, "many"):
        with pytest.raises(ValueError, match="max_pixels_per_image"):
            model.score_tasks(X, Y, max_pixels_per_image=wrong)


@pytest.mark.parametrize("head", ["logistic", "ridge"])
def test_what_the_cache_keeps_of_a_table_changes_nothing(toys, head, monkeypatch):
    X, Y = toys
    cache = MemoryCache()
    features = DeepFeatures(scales=[1], cache=cache)
    model = segmenter(features=features, head=head)
    made = []
    of = Moments.of.__func__

    def counted(cls, table, *rest):
        if table.shape[1] > 100:  # not the small tables of calibration
            made.append(1)
        return of(cls, table, *rest)

    monkeypatch.setattr(Moments, "of", classmethod(counted))
    model.fit(X, Y)
    first = len(made)
    for alpha in (0.3, 0.7):
        for images in (X, X[:6]):
            cached = model.set_params(head__alpha=alpha).fit(images, Y[: len(images)])
            fresh = segmenter(features=DeepFeatures(scales=[1]), head=head)
            fresh.set_params(head__alpha=alpha)
            before = len(made)
            again = cached.pixel_head_.coef_.copy()
            assert np.array_equal(
                again, fresh.fit(images, Y[: len(images)]).pixel_head_.coef_
            )
            del made[before:]
    assert first <= len(made) <= 2 * first  # once for X, once for X[:6]


def test_the_network_sees_each_image_once_in_a_grid_search(toys):
    from tests_support import Counting

    network = Counting()
    features = DeepFeatures(
        network, taps=["first", "second"], scales=[1], cache=MemoryCache()
    )
    X, Y = toys
    search = GridSearchCV(
        segmenter(features=features), {"head__alpha": [0.01, 0.1, 1]}, cv=2
    )
    search.fit(X, Y)
    assert network.images == len(X)


def test_other_model_selection(toys):
    X, Y = toys
    targets = many_targets(Y).subset(["semantic", "area"])
    assert np.isfinite(cross_val_score(segmenter(), X, targets, cv=2)).all()
    _, train, test = learning_curve(
        segmenter(), list(X), targets, train_sizes=[2, 4], cv=2
    )
    assert test.shape == (2, 2)
    assert np.isfinite(train).all()
    X_a, X_b, Y_a, Y_b = train_test_split(list(X), targets, random_state=0)
    assert np.isfinite(segmenter().fit(X_a, Y_a).score(X_b, Y_b))


def _bright_or_dark():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 120, (18, 48, 48, 3), dtype=np.uint8)
    y = np.array(["dark", "light", "middle"] * 6)
    X[y == "light"] += 120
    X[y == "middle"] += 50
    return X, y


def test_one_classification_is_a_classifier_to_scikit_learn():
    X, y = _bright_or_dark()
    model = MultiTaskSegmenter(
        Classification(), features=DeepFeatures(scales=(0.5,)), random_state=0
    )
    assert is_classifier(model)
    assert not is_classifier(MultiTaskSegmenter())
    for scoring in ("accuracy", "f1_macro", "roc_auc_ovr", "neg_log_loss"):
        found = cross_val_score(model, X, y, cv=3, scoring=scoring)
        assert np.isfinite(found).all()
    assert cross_val_score(model, X, y, cv=3, scoring="accuracy").mean() > 0.8
    proba = cross_val_predict(model, X, y, cv=3, method="predict_proba")
    assert proba.shape == (18, 3)
    fitted = MultiTaskSegmenter(features=DeepFeatures(scales=(0.5,))).fit(X, y)
    assert is_classifier(fitted)
    assert fitted.classes_.tolist() == ["dark", "light", "middle"]
    two = (y != "dark").astype(int)
    for scoring in ("average_precision", "roc_auc"):
        scorer = get_scorer(scoring)
        binary = clone(model).fit(X, two)
        assert 0.9 < scorer(binary, X, two) <= 1
    voting = VotingClassifier([("a", model), ("b", clone(model))], voting="soft")
    assert voting.fit(X, y).score(X, y) > 0.8
    calibrated = CalibratedClassifierCV(model, cv=2).fit(X, y)
    assert calibrated.predict_proba(X).shape == (18, 3)


def test_other_models_are_no_classifiers():
    X, y = _bright_or_dark()
    features = DeepFeatures(scales=(0.5,))
    named = MultiTaskSegmenter(features=features).fit(X, {"kind": y})
    assert not is_classifier(named)
    with pytest.raises(AttributeError, match="tasks_"):
        named.classes_  # noqa: B018
    assert not hasattr(MultiTaskSegmenter(Classification()), "classes_")


def test_folds_and_splits_by_a_task():
    X, y = _bright_or_dark()
    kinds = [None if i in (0, 4, 8) else label for i, label in enumerate(y)]
    Y = Targets(kind=kinds, n=[1.5] * 18)
    folds = StratifiedKFold(3).split(X, Y.strata("kind"))
    for _, test in folds:
        assert len({Y["kind"][i] for i in test} - {None}) == 3
    train_test_split(X, Y, stratify=Y.strata("kind") > 1, random_state=0)
    for wrong in (lambda: list(StratifiedKFold(3).split(X, Y)), lambda: np.asarray(Y)):
        with pytest.raises(TypeError, match=r"Y\.strata\(name\)"):
            wrong()
    with pytest.raises(TargetError, match="one label an image"):
        Y.strata("n")
