"""Whether fitted arrays are what compiled code expects, which does not check them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.neighbors import BallTree, KDTree
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import BaseDecisionTree

from mtsk.exceptions import ModelFileError

__all__ = ["TREES", "check_compiled"]

_TREE = "sklearn.tree._tree.Tree"
TREES = (
    _TREE,
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""Import paths of decision trees."""


_LIBSVM = (SVC, NuSVC, SVR, NuSVR, OneClassSVM)


def check_compiled(model: Any, name: str) -> None:
    """Refuse arrays that scikit-learn's compiled code would follow out of bounds.

    It follows the branches of decision trees, and the support vectors of libsvm,
    unchecked. Trees of neighbours are grown anew from the points.

    Parameters
    ----------
    model : object
    name : str
        How messages call the file.

    Raises
    ------
    ModelFileError
    """
    for part, n_features in _parts(model, set()):
        if _type_path(part) in TREES:
            check = _is_sound if _type_path(part) == _TREE else _is_sound_boosted
            if not check(part, n_features):
                raise ModelFileError(f"{name} holds a decision tree that is none")
        elif isinstance(part, _LIBSVM):
            fitted = hasattr(part, "support_")
            if fitted and not _is_sound_libsvm(part):
                raise ModelFileError(f"{name} holds support vectors that are none")
        else:
            _regrow(part, name)


def _is_sound(tree: Any, n_features: int) -> bool:
    leaf = (tree.children_left == -1) & (tree.children_right == -1)
    return (
        _lead_on(leaf, tree.children_left, tree.children_right)
        and _are_within(tree.feature[~leaf], n_features)
        and tree.value.shape[0] == tree.node_count
    )


def _is_sound_boosted(tree: Any, n_features: int) -> bool:
    nodes = tree.nodes
    leaf = nodes["is_leaf"].astype(bool)
    by_category = nodes[~leaf & nodes["is_categorical"].astype(bool)]
    sets = min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets))
    return (
        _lead_on(leaf, nodes["left"].astype(int), nodes["right"].astype(int))
        and _are_within(nodes["feature_idx"][~leaf], n_features)
        and _are_within(by_category["bitset_idx"].astype(int), sets)
    )


def _lead_on(leaf: np.ndarray, left: np.ndarray, right: np.ndarray) -> bool:
    """Tell whether all that is no leaf leads to nodes further on, and so to an end."""
    places = np.arange(len(leaf))
    ahead = (left > places) & (left < len(leaf)) & (right > places)
    return bool(len(leaf) and (leaf | (ahead & (right < len(leaf)))).all())


def _are_within(numbers: np.ndarray, end: int) -> bool:
    return bool(((numbers >= 0) & (numbers < end)).all())


def _parts(
    value: Any, seen: set[int], n_features: int = 0
) -> Iterator[tuple[Any, int]]:
    """Yield every tree, machine or searcher of neighbours in an object.

    With each, of how many features it is shown rows.
    """
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Any = ()
    if _type_path(value) in TREES:
        yield value, n_features
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple | set):
        parts = value
    elif isinstance(value, np.ndarray):
        parts = value.ravel() if value.dtype == object else ()
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        if isinstance(value, _LIBSVM) or _grown_tree(value) is not None:
            yield value, n_features
        parts = vars(value).values()
        own = vars(value).get("n_features_in_")
        if isinstance(own, int | np.integer):
            # an ensemble shows its trees what it was shown itself
            inside = isinstance(value, BaseDecisionTree) and n_features
            n_features = min(int(own), n_features) if inside else int(own)
    for part in parts:
        yield from _parts(part, seen, n_features)


def _type_path(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_sound_libsvm(model: Any) -> bool:
    """Tell whether the arrays of a support vector machine fit together."""
    vectors, dual = np.asarray(model.support_vectors_), np.asarray(model._dual_coef_)
    counts = np.asarray(model._n_support)
    one_class = model._impl in ("one_class", "epsilon_svr", "nu_svr")
    n_classes = 2 if one_class else len(getattr(model, "classes_", ()))
    n_pairs = n_classes * (n_classes - 1) // 2
    n = len(vectors)
    probabilities = [np.asarray(getattr(model, k)) for k in ("_probA", "_probB")]
    return bool(
        not model._sparse
        and n_classes >= 2
        and all(a.dtype == np.float64 for a in (vectors, dual))
        and vectors.ndim == dual.ndim == 2
        and counts.dtype == np.int32
        and (counts >= 0).all()
        and len(counts) == (2 if one_class else n_classes)
        and (counts[0] if one_class else counts.sum(dtype=np.int64)) == n
        and dual.shape == (n_classes - 1, n)
        and np.shape(model.support_) == (n,)
        and np.asarray(model.support_).dtype == np.int32
        and np.shape(model._intercept_) == (n_pairs,)
        and all(p.shape in ((0,), (n_pairs,)) for p in probabilities)
        and len({p.shape for p in probabilities}) == 1
        and vectors.shape[1] in (model.n_features_in_, 0)
        and model.shape_fit_[1] == model.n_features_in_
    )


def _grown_tree(model: Any) -> Any:
    """Return the tree of a searcher of neighbours, None where it has none."""
    tree = getattr(model, "_tree", None)
    return tree if isinstance(tree, KDTree | BallTree) else None


def _regrow(model: Any, name: str) -> None:
    """Grow the tree of a searcher of neighbours anew from its points."""
    points = np.asarray(model._fit_X, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != model.n_features_in_:
        raise ModelFileError(f"{name} holds a tree of neighbours that is none")
    model._tree = type(model._tree)(
        points,
        model.leaf_size,
        metric=model.effective_metric_,
        **model.effective_metric_params_,
    )
