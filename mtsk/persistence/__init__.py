"""Models on disk: one file, no pickle, nothing in it that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from math import isfinite
from numbers import Real
from typing import Any

from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from mtsk._validation import parameter_error
from mtsk.backbones import Backbone
from mtsk.exceptions import ModelFileError, MtskError

try:
    import skops.io
except ImportError as error:
    raise ImportError(
        "saving and loading models needs skops: pip install 'mtsk[io]'"
    ) from error

from mtsk.persistence.audit import audit, is_ours
from mtsk.persistence.card import ModelCard, card_of
from mtsk.persistence.container import MANIFEST, read_container, write_container
from mtsk.persistence.networks import (
    check_networks,
    extract_networks,
    restore_networks,
)
from mtsk.persistence.soundness import check_compiled

__all__ = ["ModelCard", "describe", "load", "save"]

_MODEL = "model.skops"


def save(
    model: Any,
    path: str | os.PathLike,
    *,
    scores: Mapping[str, float] | None = None,
    description: str = "",
) -> None:
    """Write a fitted model to one file.

    The file is a zip archive of a card (JSON), the model (skops) and the weights of
    networks that have no name by which others can get them (safetensors): fine-tuned
    ones, your own modules, those of a file of weights. Caches are left out. It appears
    whole or not at all.

    Parameters
    ----------
    model : estimator
        Fitted: a `MultiTaskSegmenter`, a search over one, a head, features.
    path : path
        By convention it ends in ``.mtsk``.
    scores : mapping of str to float, optional
        By task, for the card: what ``score_tasks`` gave on images that ``fit`` did not
        see.
    description : str, default=""
        For the card.

    Raises
    ------
    ModelFileError
        Where the model holds what cannot be written, such as a lambda, or the file
        cannot be written.
    NotFittedError, TypeError
        Where the model is not fitted, or no estimator.
    InvalidParameterError
        On a path, scores or a description that are none.

    Examples
    --------
    >>> import os, tempfile
    >>> import mtsk
    >>> from mtsk.testing import toy_images
    >>> X, Y = toy_images()
    >>> model = mtsk.MultiTaskSegmenter(random_state=0).fit(X, Y)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.mtsk")
    >>> mtsk.save(model, path)
    >>> bool((mtsk.load(path).predict(X[:1])[0] == model.predict(X[:1])[0]).all())
    True
    """
    if not isinstance(model, BaseEstimator):
        raise TypeError(f"save needs an estimator, got {type(model).__name__}")
    check_is_fitted(model)
    if not isinstance(path, str | os.PathLike):
        raise parameter_error("path", "save", "a path", path)
    if os.path.isdir(path):
        raise ModelFileError(f"{os.fspath(path)!r} is a folder; name a file")
    scores = _checked_scores(scores)
    if not isinstance(description, str):
        raise parameter_error("description", "save", "a str", description)
    portable, about, networks = extract_networks(model)
    try:
        data = skops.io.dumps(portable)
        types = skops.io.get_untrusted_types(data=data)
    except Exception as error:  # of skops, json, and of what the model holds
        raise ModelFileError(
            f"{type(model).__name__} holds what a file cannot ({error})"
        ) from error
    members = {_MODEL: data}
    for i, network in enumerate(networks):
        state = network.network.state_dict()
        members[_network(i)] = write_tensors(
            {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
        )
    foreign = [path for path in types if not is_ours(path)]
    nameless = [path for path in foreign if "<" in path]
    if nameless:
        raise ModelFileError(
            f"{type(model).__name__} holds {nameless}, which no other process can "
            "find: what is your own must have a name in a module (no lambdas)"
        )
    audit(data, foreign, "the model")  # refuses what could not be loaded
    manifest = {
        "card": card_of(model, scores, description),
        "networks": about,
        "foreign": foreign,
    }
    write_container(path, manifest, members)


def load(
    path: str | os.PathLike,
    *,
    allow: Collection[str | type] = (),
    backbone: Any = None,
) -> Any:
    """Return the model that a file holds.

    Nothing in the file is run: types of mtsk, scikit-learn and numpy are made from
    numbers and settings, and a file that holds others is refused unless the caller
    allows them by name.

    Parameters
    ----------
    path : path
    allow : collection of str or type
        Types of your own that the model holds, such as tasks, as
        ``"package.module.Class"``. Importing them runs their modules.
    backbone : torch.nn.Module or Backbone, optional
        The network of your own that the model was made with. A copy gets the weights
        of the file.

    Returns
    -------
    estimator
        As it was saved, without caches.

    Raises
    ------
    ModelFileError
        Where the file is missing, cut short, altered, of a later format, or holds what
        is not allowed; the message names the file.
    WeightsError
        Where the network that the model names has other weights here.
    """
    name = f"{os.fspath(path)!r}"
    if isinstance(allow, str | type) or not isinstance(allow, Collection):
        raise parameter_error("allow", "load", "a list of names or types", allow)
    if not isinstance(backbone, nn.Module | Backbone | None):
        allowed = "a torch.nn.Module, a Backbone, or None"
        raise parameter_error("backbone", "load", allowed, backbone)
    trusted = [_import_path(t) for t in allow]
    members = read_container(path)
    try:
        manifest = json.loads(members[MANIFEST])
        about = manifest["networks"]
        types = audit(members[_MODEL], trusted, name)
        model = skops.io.loads(members[_MODEL], trusted=types)
        if not isinstance(model, BaseEstimator):
            raise ModelFileError(f"{name} holds no estimator")
        check_compiled(model, name)
        states = [read_tensors(members[_network(i)]) for i in range(len(about))]
        model = restore_networks(model, about, states, trusted, backbone, name)
        check_networks(model, name)
    except MtskError:
        raise
    except Exception as error:  # a file made by hand can go wrong in any way
        raise ModelFileError(
            f"{name} is no model that mtsk.save wrote ({type(error).__name__}: {error})"
        ) from error
    return model


def describe(path: str | os.PathLike) -> ModelCard:
    """Return the card of a saved model, without making the model.

    Parameters
    ----------
    path : path

    Returns
    -------
    ModelCard
        A dict that prints as a page: tasks and classes, backbone and licence of its
        weights, how much it learnt from, scores, versions, and types of your own that
        ``load`` must be allowed.

    Raises
    ------
    ModelFileError
        Where the file is missing, cut short or altered.
    """
    content = read_container(path, only=MANIFEST)[MANIFEST]
    try:
        manifest = json.loads(content)
        card = ModelCard(manifest["card"], types=manifest["foreign"])
        str(card)  # one made by hand may lack what it prints
        return card
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{os.fspath(path)!r} has no card: {error}") from error


def _checked_scores(scores: Any) -> dict[str, float]:
    if scores is None:
        return {}
    if isinstance(scores, Mapping):
        values = scores.values()
        numbers = all(isinstance(v, Real) and isfinite(v) for v in values)
        if numbers and all(isinstance(name, str) for name in scores):
            return dict(scores)
    allowed = "a mapping of task names to finite numbers, or None"
    raise parameter_error("scores", "save", allowed, scores)


def _network(number: int) -> str:
    return f"network{number}.safetensors"


def _import_path(given: str | type) -> str:
    if isinstance(given, type):
        return f"{given.__module__}.{given.__qualname__}"
    return str(given)
