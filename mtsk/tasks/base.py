"""Base classes of tasks: codecs between user-supplied targets and columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from scipy.special import entr, expit, softmax
from sklearn.base import BaseEstimator

from mtsk.data.label_maps import CategoricalMap
from mtsk.exceptions import TargetError
from mtsk.tasks.arrays import as_array
from mtsk.tasks.columns import ColumnGroup, Kind, score_slices

__all__ = ["ImageTask", "PixelTask", "Task"]


class Task(BaseEstimator, ABC):
    """A codec: encodes targets into groups of columns, decodes scores back.

    A subclass sets ``granularity`` and ``metrics``, and defines ``_learn``,
    ``encode`` and ``decode``. Heads never see tasks, only columns.

    Attributes
    ----------
    groups_ : tuple of ColumnGroup
        Kinds and numbers of scores, set by ``fit``. Columns and scores of the groups
        are concatenated in this order.
    """

    granularity: ClassVar[Literal["pixel", "image"]]
    metrics: ClassVar[tuple[str, ...]]
    """Names of the metrics that apply; the first is the default."""

    groups_: tuple[ColumnGroup, ...]

    @property
    def is_of_pixels(self) -> bool:
        """Whether there is a target at every pixel, not one per image."""
        return self.granularity == "pixel"

    @property
    def group_(self) -> ColumnGroup:
        """The group of a task that has only one.

        Raises
        ------
        AttributeError
            Where there are several, or before ``fit``.
        """
        if len(self.groups_) != 1:
            raise AttributeError(
                f"{type(self).__name__} has {len(self.groups_)} groups of columns; "
                "see `groups_`"
            )
        return self.groups_[0]

    @property
    def n_columns_(self) -> int:
        """Number of columns of all groups."""
        return sum(group.n_columns for group in self.groups_)

    @property
    def n_scores_(self) -> int:
        """Number of scores of all groups."""
        return sum(group.size for group in self.groups_)

    def fit(self, targets: Sequence[Any]) -> Self:
        """Learn what decoding needs, such as the classes.

        Parameters
        ----------
        targets : sequence
            The entries that are given (no None among them).

        Returns
        -------
        self

        Raises
        ------
        TargetError
            Where an entry has an invalid form; the message gives its index in
            ``targets``.
        """
        self._check()
        learnt = self._learn(targets)
        self.groups_ = (learnt,) if isinstance(learnt, ColumnGroup) else tuple(learnt)
        return self

    def _check(self) -> None:
        """Check the parameters; the base has none."""

    @abstractmethod
    def _learn(self, targets: Sequence[Any]) -> ColumnGroup | Sequence[ColumnGroup]:
        """Set fitted attributes and return the column group, or several."""

    @abstractmethod
    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        """Return the columns of one entry.

        Parameters
        ----------
        target : object
            One entry, not None.
        shape : (int, int)
            Height and width of its image, in pixels.
        unseen : bool, default=False
            Whether a class that ``fit`` did not see gets the code ``size`` of its group
            (so that metrics count it as missed) or raises.

        Returns
        -------
        ndarray of float32, shape (H, W, n_columns) or (n_columns,)
            NaN where unlabelled.
        """

    def unseen_labels(self, target: Any) -> set[Any]:
        """Return the labels of an entry that ``fit`` did not see.

        Metrics count each of them as a class that is never predicted.

        Parameters
        ----------
        target : object
            One entry, not None.

        Returns
        -------
        set
            Empty for tasks without classes.
        """
        return set()

    @abstractmethod
    def decode(self, scores: np.ndarray) -> Any:
        """Return scores, (..., n_scores), in the form that targets have."""

    def values(self, scores: np.ndarray) -> np.ndarray:
        """Return columns or scores of numbers in the units of the targets.

        Parameters
        ----------
        scores : ndarray of shape (..., n_scores)

        Returns
        -------
        ndarray of the same shape
        """
        return scores

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return probabilities of the same shape (real columns: the scores).

        Parameters
        ----------
        scores : ndarray of shape (..., n_scores)

        Returns
        -------
        ndarray of shape (..., n_scores)
        """
        parts = [
            _squash(group.kind, scores[..., part])
            for group, part in zip(
                self.groups_, score_slices(self.groups_), strict=True
            )
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def normalized_entropy(self, scores: np.ndarray) -> np.ndarray:
        """Return the normalised entropy of scores: entropy over its maximum.

        Parameters
        ----------
        scores : ndarray of shape (..., n_scores)

        Returns
        -------
        ndarray of shape (...)
            In [0, 1]; averaged over labels. Numbers have no entropy: NaN where a task
            has nothing else.
        """
        shares = self.probabilities(scores)
        found = []
        for group, part in zip(self.groups_, score_slices(self.groups_), strict=True):
            share = shares[..., part]
            if group.kind == "nominal":
                found.append(entr(share).sum(axis=-1) / np.log(max(group.size, 2)))
            elif group.kind == "binary":
                both = entr(share) + entr(1 - share)
                found.append(both.mean(axis=-1) / np.log(2))
        if not found:
            return np.full(scores.shape[:-1], np.nan)
        return np.mean(found, axis=0)


def _squash(kind: Kind, scores: np.ndarray) -> np.ndarray:
    if kind == "nominal":
        return softmax(scores, axis=-1)
    return expit(scores) if kind == "binary" else scores


class PixelTask(Task):
    """A task with a target at every pixel."""

    granularity = "pixel"

    @property
    def decode_radius(self) -> int | None:
        """Radius in pixels that ``decode`` depends on, by which tiles must overlap.

        0: each pixel separately. None, unless a subclass overrides it: the whole image,
        which therefore cannot be predicted in tiles.
        """
        return None

    def transform_columns(self, columns: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Transform columns with an image that is rotated, mirrored or enlarged.

        Only the values are transformed, where they have a direction or a length; pixels
        are not moved. By default values have neither.

        Parameters
        ----------
        columns : ndarray of float32, shape (..., n_columns)
            As ``encode`` gives them, NaN missing.
        matrix : ndarray of shape (2, 2)
            Images of a step down and a step across, in pixels: mirroring is
            ``[[1, 0], [0, -1]]``.

        Returns
        -------
        ndarray of float32, of the same shape
        """
        return columns


class ImageTask(Task):
    """A task with one target per image."""

    granularity = "image"


def as_map(target: Any, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Return a dense target as an array, checked to lie on its image.

    Parameters
    ----------
    target : array-like of shape (H, W) or (H, W, L)
    shape : (int, int), optional
        Height and width of the image.

    Returns
    -------
    ndarray

    Raises
    ------
    TargetError
        Where it is not two-dimensional, has no pixels, or another size.
    """
    array = as_array(target)
    if array.ndim not in (2, 3):
        raise TargetError(f"a map must have shape (H, W), got {array.shape}")
    if array.size == 0:
        raise TargetError(f"a map of shape {array.shape} has no pixels")
    if shape is not None and array.shape[:2] != tuple(shape):
        raise TargetError(
            f"a map of shape {array.shape[:2]} does not fit an image of {tuple(shape)}"
        )
    return array


def as_flat_map(
    target: Any, shape: tuple[int, int] | None = None, *, entry: int | None = None
) -> Any:
    """Return a dense target of one value per pixel, (H, W); see `as_map`.

    A `CategoricalMap` is returned as it is.
    """
    if isinstance(target, CategoricalMap):
        as_map(target.codes, shape)
        return target
    try:
        array = as_map(target, shape)
    except TargetError as error:
        raise error.at(image=entry) from None
    if array.ndim != 2:
        raise TargetError(
            f"a map of one value a pixel must be (H, W), got {array.shape}", image=entry
        )
    return array
