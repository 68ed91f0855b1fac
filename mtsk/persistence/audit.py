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

from mtsk.exceptions import ModelFileError
from mtsk.persistence.soundness import TREES

__all__ = ["audit", "is_ours"]

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
    "TreeNode",
    "TupleNode",
    "TypeNode",
}
_SAFE = {
    "numpy.dtype",  # made of an empty array, and so of a checked header
    *TREES,
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
}
_OF_ARRAYS = {"NdArrayNode", "MaskedArrayNode", "DTypeNode"}
_DEEPEST = 200
_MOST_OBJECTS = 10**6  # in a model, those that are referred to counted each time


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
    if _expanded_size(schema, name, {}) > _MOST_OBJECTS:
        raise ModelFileError(f"{name} holds more objects than any model")
    for node in _nodes(schema, name):
        loader = node.get("__loader__")
        if loader not in _LOADERS and not _is_allowed(node, allow):
            raise ModelFileError(
                f"{name} holds {_path(node)!r}, to be loaded as {loader!r}, which is "
                "no part of a model"
            )
        file = str(node.get("file", ""))
        if loader in _OF_ARRAYS and file and not file.endswith(".npy"):
            raise ModelFileError(f"{name}: {file!r} stands for an array and is none")
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


def _expanded_size(node: Any, name: str, sizes: dict[Any, int], depth: int = 0) -> int:
    """Return how many objects a schema stands for, with references followed.

    Who loads a schema follows each reference anew, so that a few levels of references
    to references can stand for billions.
    """
    if depth > _DEEPEST:
        raise ModelFileError(f"{name} is nested deeper than any model")
    if not isinstance(node, dict | list):
        return 0
    if isinstance(node, list):
        return sum(_expanded_size(part, name, sizes, depth + 1) for part in node)
    key = node.get("__id__")
    if isinstance(key, int | str) and key in sizes:
        return sizes[key]
    parts = node.values()
    size = 1 + sum(_expanded_size(part, name, sizes, depth + 1) for part in parts)
    if isinstance(key, int | str):
        sizes[key] = size
    return size


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
