"""Training set of a decoder: images and their coded targets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from mtsk.data import Images, Targets
from mtsk.tasks import PixelTask
from mtsk.tasks.columns import ColumnGroup
from mtsk.tasks.task_set import GRANULARITIES, Granularity, TaskSet

__all__ = ["TrainingSet"]


@dataclass(frozen=True)
class TrainingSet:
    """Images and targets of some tasks.

    Attributes
    ----------
    images : Images
    targets : Targets
    tasks : TaskSet
    weights : ndarray of shape (n_images,)
        Weights of the images, >= 0.
    """

    images: Images
    targets: Targets
    tasks: TaskSet
    weights: np.ndarray

    @property
    def pixel_groups(self) -> list[ColumnGroup]:
        """Column groups of pixel tasks."""
        return list(self.tasks.layout("pixel").groups)

    @property
    def image_groups(self) -> list[ColumnGroup]:
        """Column groups of image tasks."""
        return list(self.tasks.layout("image").groups)

    @property
    def owners(self) -> list[str]:
        """The task of each group of columns, those of pixels first."""
        return [n for kind in GRANULARITIES for n in self.tasks.layout(kind).owners]

    def encode(
        self, index: int, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return an image's coded targets.

        Parameters
        ----------
        index : int
        shape : (int, int)
            Its height and width.

        Returns
        -------
        pixels : ndarray of float32, shape (H, W, pixel columns)
            NaN missing.
        whole : ndarray of float32, shape (image columns,)

        Raises
        ------
        TargetError
            Where an entry does not fit the image.
        """
        return self._encode("pixel", index, shape), self._encode("image", index, shape)

    def _encode(
        self, kind: Granularity, index: int, shape: tuple[int, int]
    ) -> np.ndarray:
        parts = [
            self.tasks.encode(name, self._columns[name][index], index, shape)
            for name in self.tasks.names(kind)
        ]
        front = shape if kind == "pixel" else ()
        return np.concatenate([np.empty((*front, 0), np.float32), *parts], axis=-1)

    @cached_property
    def _columns(self) -> dict[str, list]:
        return {name: self.targets[name] for name in self.tasks}

    def transform_columns(self, pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Transform columns with an image that is rotated, mirrored or enlarged.

        Parameters
        ----------
        pixels : ndarray of float32, shape (..., pixel columns)
        matrix : ndarray of shape (2, 2)
            As of `mtsk.tasks.PixelTask.transform_columns`.

        Returns
        -------
        ndarray of float32, of the same shape
        """
        parts = [
            cast(PixelTask, self.tasks[name]).transform_columns(
                pixels[..., own], matrix
            )
            for name, own in self.tasks.layout("pixel").columns.items()
        ]
        return np.concatenate(parts, axis=-1) if parts else pixels
