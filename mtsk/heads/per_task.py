"""PerTaskHead: any scikit-learn classifier or regressor, one per task."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from sklearn import get_config
from sklearn.base import (
    BaseEstimator,
    MetaEstimatorMixin,
    clone,
    is_classifier,
    is_regressor,
)
from sklearn.multioutput import (
    ClassifierChain,
    MultiOutputClassifier,
    MultiOutputRegressor,
    RegressorChain,
)
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import (
    check_array,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from mtsk.heads.base import check_codes
from mtsk.heads.capabilities import Capabilities, capabilities_of
from mtsk.heads.class_weights import check_entry_weights
from mtsk.tasks.columns import ColumnGroup, labelled_columns

__all__ = ["PerTaskHead"]

_CHAINS = (ClassifierChain, RegressorChain)
_COLUMN_BY_COLUMN = (MultiOutputClassifier, MultiOutputRegressor)
_LEAST = 1e-6  # lower bound of probabilities before the logarithm


class PerTaskHead(MetaEstimatorMixin, BaseEstimator):
    """Fit scikit-learn estimators to column groups, each on its labelled rows.

    A nominal column gets one classifier; every binary column a classifier of its
    own; every real column a regressor. `MultiOutputClassifier` is fitted to one column
    at a time too, as it does internally; chains (`ClassifierChain`, `RegressorChain`)
    get a group's columns at once, on the rows where all are labelled. Fits run in
    parallel with joblib.

    Parameters
    ----------
    estimator : estimator or list of estimators
        One for all groups (cloned), or one per group.
    columns : list of ColumnGroup
        What the columns of ``y`` are: codes, 0/1, numbers; NaN is missing.
    n_jobs : int, default=None
        Number of parallel fits.

    Attributes
    ----------
    models_ : list of list of estimators
        For each group, its fitted estimators.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from mtsk.heads import PerTaskHead
    >>> from mtsk.tasks import ColumnGroup
    >>> head = PerTaskHead(DecisionTreeClassifier(), [ColumnGroup("nominal", 2)])
    >>> head = head.fit([[0.0], [1.0], [2.0]], [[0], [1], [np.nan]])
    >>> head.decision_function([[1.0]]).argmax(axis=1)
    array([1])
    """

    def __init__(
        self,
        estimator: Any,
        columns: Sequence[ColumnGroup],
        *,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.columns = columns
        self.n_jobs = n_jobs

    @property
    def capabilities(self) -> Capabilities:
        """What the head can do."""
        several = isinstance(self.estimator, list | tuple)
        heads = self.estimator if several else [self.estimator]
        return Capabilities(
            takes_groups=True, takes_entry_weights=all(map(_takes_weights, heads))
        )

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Fit every group's estimators.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples, n_columns)
        sample_weight : array-like of shape (n_samples,) or as ``y``, default=None
            Entries of weight 0 are left out. Other weights are passed to the
            estimators, in a pipeline to its last step.
        groups : array-like of shape (n_samples,), default=None
            Passed to the joint heads that take it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Where a group's kind does not suit its estimator, or weights differ and an
            estimator takes none.
        """
        X = validate_data(self, X, dtype=np.float32)
        Y = check_array(y, dtype=np.float32, ensure_all_finite="allow-nan")
        self.groups_ = list(self.columns)
        width = sum(group.n_columns for group in self.groups_)
        if Y.shape[1] != width:
            raise ValueError(f"y has {Y.shape[1]} columns, `columns` name {width}")
        check_codes(self.groups_, Y)
        if sample_weight is not None:
            sample_weight = check_entry_weights(sample_weight, X, width)
        several = isinstance(self.estimator, list | tuple)
        chosen = self.estimator if several else [self.estimator] * len(self.groups_)
        if len(chosen) != len(self.groups_):
            raise ValueError(
                f"`estimator` of PerTaskHead has {len(chosen)} estimators, `columns` "
                f"{len(self.groups_)} groups"
            )
        jobs: list[tuple[int, Any]] = []
        for g, (group, columns, _) in enumerate(labelled_columns(self.groups_)):
            _check_suits(chosen[g], group)
            jobs += [(g, cols) for cols in _column_sets(chosen[g], columns)]
        fitted = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_one)(
                chosen[g],
                self.groups_[g],
                X,
                Y[:, cols],
                None if sample_weight is None else sample_weight[:, cols],
                groups,
            )
            for g, cols in jobs
        )
        self.models_: list[list[Any]] = [[] for _ in self.groups_]
        for (g, _), model in zip(jobs, fitted, strict=True):
            self.models_[g].append(model)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return logits (of classes and labels) and numbers, side by side.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of float32, shape (n_samples, n_scores)
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float32)
        parts = [
            _scores(model, group, X)
            for group, models in zip(self.groups_, self.models_, strict=True)
            for model in models
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)

    @property
    def prior_corrections(self) -> np.ndarray:
        """What is added to scores before they become probabilities, (n_scores,).

        That of our own heads; scikit-learn's estimators give what they give.
        """
        return np.concatenate(
            [
                np.zeros(group.size) + getattr(models[0], "prior_corrections", 0.0)
                for group, models in zip(self.groups_, self.models_, strict=True)
            ]
        )


def _last(estimator: Any) -> Any:
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def _is_joint(estimator: Any) -> bool:
    able = capabilities_of(estimator)
    return able is not None and able.is_joint


def _is_chain(estimator: Any) -> bool:
    return isinstance(_last(estimator), _CHAINS)


def _check_suits(estimator: Any, group: ColumnGroup) -> None:
    if _is_joint(estimator):
        return
    wanted, suits = (
        ("regressor", is_regressor)
        if group.kind == "real"
        else ("classifier", is_classifier)
    )
    last = _last(estimator)
    inner = getattr(last, "estimator", None)
    if not (suits(estimator) or (inner is not None and suits(inner))):
        raise ValueError(
            f"`head`: a {group.kind} task needs a {wanted}, got {estimator!r}; "
            'give each task its own: head={"sky": LinearSVC(), "depth": Ridge()}'
        )
    if group.kind == "nominal" and isinstance(last, ClassifierChain):
        raise ValueError(
            "a ClassifierChain takes several labels, got a nominal task; give it "
            "another head"
        )


def _column_sets(estimator: Any, columns: slice) -> list[list[int]]:
    every = list(range(columns.start, columns.stop))
    if _is_joint(estimator) or _is_chain(estimator):
        return [every]
    return [[column] for column in every]


def _fit_one(
    estimator: Any,
    group: ColumnGroup,
    X: np.ndarray,
    Y: np.ndarray,
    sample_weight: Any,
    image: Any,
) -> Any:
    model = clone(estimator)
    if _is_joint(model):
        able = capabilities_of(model)
        if sample_weight is not None and able and not able.takes_entry_weights:
            sample_weight = sample_weight[:, 0]
        extra = {"sample_weight": sample_weight, "groups": image}
        extra = {k: v for k, v in extra.items() if has_fit_parameter(model, k)}
        return model.set_params(columns=[group]).fit(X, Y, **extra)
    counts = ~np.isnan(Y).any(axis=1)
    if sample_weight is not None:
        counts &= (sample_weight != 0).all(axis=1)
    rows = np.flatnonzero(counts)
    if not len(rows):
        raise ValueError(f"a {group.kind} column group has no labelled row")
    extra = {} if sample_weight is None else _weights(model, sample_weight[rows, 0])
    y = Y[rows] if group.kind == "real" else Y[rows].astype(np.int64)
    if not _is_chain(model):
        y = y[:, 0]
    elif group.kind != "real" and (y == y[0]).all(axis=0).any():
        raise ValueError(
            f"{type(_last(estimator)).__name__} got a column with a single class among "
            "its labelled rows; give that task another head"
        )
    if group.kind != "real" and y.ndim == 1 and len(np.unique(y)) == 1:
        warnings.warn(
            f"{type(_last(estimator)).__name__} got a column with a single class among "
            "its labelled rows and will always predict it",
            UserWarning,
            stacklevel=2,
        )
        return _Constant(int(y[0]))
    if isinstance(_last(model), _COLUMN_BY_COLUMN):
        y = y[:, None]
    return model.fit(X[rows], y, **extra)


def _takes_weights(estimator: Any) -> bool:
    return has_fit_parameter(_last(estimator), "sample_weight")


def _weights(model: Any, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arguments that pass weights to an estimator."""
    last = _last(model)
    if _takes_weights(model):
        if last is model or get_config()["enable_metadata_routing"]:
            return {"sample_weight": weight}
        return {f"{model.steps[-1][0]}__sample_weight": weight}
    if (weight == weight[0]).all():
        return {}
    raise ValueError(
        f"{type(last).__name__} takes no sample_weight: give weights of 0 and 1 alone "
        "(0 leaves out), or another head"
    )


def _scores(model: Any, group: ColumnGroup, X: np.ndarray) -> np.ndarray:
    if _is_joint(model):
        return model.decision_function(X)
    if group.kind == "real":
        return np.asarray(model.predict(X)).reshape(len(X), -1)
    if _is_chain(model):  # it gives P(yes) of each label
        yes = np.clip(model.predict_proba(X), _LEAST, 1 - _LEAST)
        return np.log(yes / (1 - yes))
    if isinstance(_last(model), MultiOutputClassifier):
        X = X if model is _last(model) else model[:-1].transform(X)
        model = _last(model).estimators_[0]
    return _place(_log_scores(model, X), model.classes_, group)


def _log_scores(model: Any, X: np.ndarray) -> np.ndarray:
    """Return a score for each class of the model."""
    if hasattr(model, "predict_proba"):
        return np.log(np.clip(model.predict_proba(X), _LEAST, 1))
    if hasattr(model, "decision_function"):
        score = model.decision_function(X)
        return np.stack([-score / 2, score / 2], axis=1) if score.ndim == 1 else score
    return np.log(np.clip(model.predict(X)[:, None] == model.classes_, _LEAST, 1))


def _place(scores: np.ndarray, classes: np.ndarray, group: ColumnGroup) -> np.ndarray:
    """Order scores by the group's classes; unseen classes get the lowest score."""
    size = group.size if group.kind == "nominal" else 2
    out = np.full((len(scores), size), scores.min(initial=0) + np.log(_LEAST))
    out[:, np.asarray(classes, int)] = scores
    return out if group.kind == "nominal" else out[:, [1]] - out[:, [0]]


class _Constant:
    """Constant classifier, for labelled rows of a single class."""

    def __init__(self, code: int) -> None:
        self.classes_ = np.array([code])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.ones((len(X), 1))
