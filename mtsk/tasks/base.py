"""The contract of a task: a codec between what a person gives and columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator

from mtsk.exceptions import TargetError
from mtsk.tasks.columns import ColumnGroup

__all__ = ["ImageTask", "PixelTask", "Task"]


class Task(BaseEstimator, ABC):
    """A codec: encodes targets into one group of columns, decodes scores back.

    A subclass sets ``granularity`` and ``metrics``, and defines ``_learn``,
    ``encode`` and ``decode``. Heads never see tasks, only columns.

    Attributes
    ----------
    group_ : ColumnGroup
        Kind and number of scores, known after ``fit``.
    """

    granularity: ClassVar[Literal["pixel", "image"]]
    metrics: ClassVar[tuple[str, ...]]
    """Names of the metrics that apply; the first is the default."""

    group_: ColumnGroup

    def fit(self, targets: Sequence[Any]) -> Self:
        """Learn what there is to decode, such as the classes.

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
            Where an entry is not what the task takes; the message names its place
            in ``targets``.
        """
        self._check()
        self.group_ = self._learn(targets)
        return self

    def _check(self) -> None:
        """Check the parameters; the base has none."""

    @abstractmethod
    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        """Set fitted attributes and return the column group."""

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
            Whether a class that ``fit`` did not see gets the code ``group_.size``
            (so that metrics count it as missed) or raises.

        Returns
        -------
        ndarray of float32, shape (H, W, n_columns) or (n_columns,)
            NaN where unlabelled.
        """

    @abstractmethod
    def decode(self, scores: np.ndarray) -> Any:
        """Return scores, (..., size), in the form that targets have."""

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return probabilities of the same shape (real columns: the scores).

        Parameters
        ----------
        scores : ndarray of shape (..., size)

        Returns
        -------
        ndarray of shape (..., size)
        """
        if self.group_.kind == "nominal":
            return softmax(scores, axis=-1)
        return expit(scores) if self.group_.kind == "binary" else scores


class PixelTask(Task):
    """A task with a target at every pixel."""

    granularity = "pixel"


class ImageTask(Task):
    """A task with one target an image."""

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
        Where it is not two-dimensional or has another size.
    """
    array = np.asarray(target)
    if array.ndim not in (2, 3):
        raise TargetError(f"a map must have shape (H, W), got {array.shape}")
    if shape is not None and array.shape[:2] != tuple(shape):
        raise TargetError(
            f"a map of shape {array.shape[:2]} does not fit an image of {tuple(shape)}"
        )
    return array


def as_flat_map(
    target: Any, shape: tuple[int, int] | None = None, *, entry: int | None = None
) -> np.ndarray:
    """Return a dense target of one value a pixel, (H, W); see `as_map`."""
    where = "" if entry is None else f"entry {entry}: "
    try:
        array = as_map(target, shape)
    except TargetError as error:
        raise TargetError(f"{where}{error}") from None
    if array.ndim != 2:
        raise TargetError(
            f"{where}a map of one value a pixel must be (H, W), got {array.shape}"
        )
    return array
