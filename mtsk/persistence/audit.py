"""What may be in a model's file: looked at as text, before anything is made of it."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Collection, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import skops.io
from sklearn import metrics, model_selection
from sklearn.tree import BaseDecisionTree

from mtsk.exceptions import ModelFileError

__all__ = ["audit", "check_trees", "is_ours"]

# Packages whose classes hold numbers and settings, and those of their modules that name
# places on a disk, which are not among them.
_PACKAGES = (
    "mtsk.backbones",
    "mtsk.crf",
    "mtsk.data",
    "mtsk.decoders",
    "mtsk.features",
    "mtsk.heads",
    "mtsk.inspection",
    "mtsk.links",
    "mtsk.metrics",
    "mtsk.segmenter",
    "mtsk.structure",
    "mtsk.tasks",
)
_EXCLUDED = ("mtsk.data.files", "mtsk.data.images", "mtsk.features.cache")
_SCORERS = {"_MultimetricScorer", "_PassthroughScorer", "_Scorer"}
_LOADERS = {  # of skops; those that call what the file names are not among them
    "BytesNode",
    "CachedNode",
    "DTypeNode",
    "DefaultDictNode",
    "DictNode",
    "FunctionNode",
    "JsonNode",
    "ListNode",
    "LossNode",
    "MaskedArrayNode",
    "NdArrayNode",
    "ObjectNode",
    "RandomGeneratorNode",
    "RandomStateNode",
    "ReduceNode",
    "SetNode",
    "SliceNode",
    "SparseMatrixNode",
    "TreeNode",
    "TupleNode",
    "TypeNode",
}
_TREE = "sklearn.tree._tree.Tree"
_TREES = (  # check_trees looks where their branches lead
    _TREE,
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
_SAFE = {
    "numpy.dtype",  # made of an empty array, and so of a checked header
    *_TREES,
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
}
_DEEPEST = 200


def audit(data: bytes, allow: Collection[str], name: str) -> list[str]:
    """Look through an object stored by skops; return the types it may be made of.

    Parameters
    ----------
    data : bytes
        Of skops.
    allow : collection of str
        Import paths of types that the caller trusts.
    name : str
        How messages call the file.

    Returns
    -------
    list of str
        Of mtsk and of the caller; skops knows scikit-learn's and numpy's.

    Raises
    ------
    ModelFileError
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ModelFileError(f"{name}: {entry.filename!r} is compressed")
            if entry.filename.endswith(".npy"):
                _check_array(archive, entry, name)
        schema = json.loads(archive.read("schema.json"))
    for node in _nodes(schema, name):
        loader = node.get("__loader__")
        if loader not in _LOADERS and not _is_allowed(node, allow):
            raise ModelFileError(
                f"{name} holds {_path(node)!r}, to be loaded as {loader!r}, which is "
                "no part of a model"
            )
    unknown = skops.io.get_untrusted_types(data=data)
    foreign = [path for path in unknown if not is_ours(path) and path not in allow]
    if foreign:
        raise ModelFileError(
            f"{name} holds objects of types that mtsk does not know: {foreign}. If you "
            f"trust whoever made the file, load it with allow={foreign}"
        )
    return unknown


def is_ours(path: str) -> bool:
    """Tell whether a file may hold what an import path names, unasked.

    Parameters
    ----------
    path : str
        Of what skops does not trust by itself.

    Returns
    -------
    bool
    """
    module, _, name = path.rpartition(".")
    if path in _SAFE or _is_of_a_search(path):
        return True
    if not any(module.startswith(f"{package}.") for package in _PACKAGES):
        return False
    if module in _EXCLUDED:
        return False
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__ == module


def _is_of_a_search(path: str) -> bool:
    """Tell whether a search holds such a thing: a splitter, a scorer, a metric."""
    module, _, name = path.rpartition(".")
    return (
        (module == "sklearn.model_selection._split" and name in model_selection.__all__)
        or (module == "sklearn.metrics._scorer" and name in _SCORERS)
        or (module.startswith("sklearn.metrics._") and name in metrics.__all__)
    )


def check_trees(model: Any, name: str) -> None:
    """Refuse decision trees whose branches lead nowhere.

    scikit-learn follows them unchecked, in compiled code.

    Parameters
    ----------
    model : object
    name : str
        How messages call the file.

    Raises
    ------
    ModelFileError
    """
    for tree, n_features in _trees(model, set()):
        check = _is_sound if _type_path(tree) == _TREE else _is_sound_boosted
        if not check(tree, n_features):
            raise ModelFileError(f"{name} holds a decision tree that is none")


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


def _nodes(node: Any, name: str, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield every object of a schema."""
    if depth > _DEEPEST:
        raise ModelFileError(f"{name} is nested deeper than any model")
    if isinstance(node, dict):
        if "__loader__" in node:
            yield node
        parts: Collection[Any] = node.values()
    else:
        parts = node if isinstance(node, list) else ()
    for part in parts:
        yield from _nodes(part, name, depth + 1)


def _path(node: dict[str, Any]) -> str:
    return f"{node.get('__module__')}.{node.get('__class__')}"


def _type_path(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_allowed(node: dict[str, Any], allow: Collection[str]) -> bool:
    return _path(node) in allow


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> None:
    """Compare the size that an array states with the size that it has."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        there = entry.file_size - file.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != there:
        raise ModelFileError(f"{name}: array {entry.filename!r} is not what it says")


def _trees(
    value: Any, seen: set[int], n_features: int = 0
) -> Iterator[tuple[Any, int]]:
    """Yield every tree in an object, and of how many features it is shown rows."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Any = ()
    if _type_path(value) in _TREES:
        yield value, n_features
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple | set):
        parts = value
    elif isinstance(value, np.ndarray):
        parts = value.ravel() if value.dtype == object else ()
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        parts = vars(value).values()
        own = vars(value).get("n_features_in_")
        if isinstance(own, int | np.integer):
            # an ensemble shows its trees what it was shown itself
            inside = isinstance(value, BaseDecisionTree) and n_features
            n_features = min(int(own), n_features) if inside else int(own)
    for part in parts:
        yield from _trees(part, seen, n_features)
