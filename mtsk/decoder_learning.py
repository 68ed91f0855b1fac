"""From images and targets of named tasks to a fitted decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from mtsk.decoders import Lessons, SharedDecoder
from mtsk.features import DeepFeatures
from mtsk.images import Images
from mtsk.tables import encode_entry
from mtsk.targets import Targets
from mtsk.tasks import PixelTask, Task
from mtsk.tasks.columns import joined_slices

__all__ = ["decoder_order", "fit_decoder"]


def decoder_order(tasks: Mapping[str, Task]) -> list[str]:
    """Return the tasks' names as a decoder has them: those of pixels first."""
    return sorted(tasks, key=lambda name: tasks[name].granularity == "image")


def fit_decoder(
    head: SharedDecoder,
    images: Images,
    targets: Targets,
    tasks: Mapping[str, Task],
    features: DeepFeatures,
    weight: np.ndarray,
) -> SharedDecoder:
    """Teach a decoder all tasks.

    Parameters
    ----------
    head : SharedDecoder
        Fitted in place.
    images : Images
    targets : Targets
    tasks : mapping of str to Task
        Fitted.
    features : DeepFeatures
        Fitted.
    weight : ndarray of shape (n_images,)

    Returns
    -------
    SharedDecoder

    Raises
    ------
    TargetError
        Where a task is labelled nowhere, or an entry does not fit its image.
    """
    names = decoder_order(tasks)
    pixel = [name for name in names if tasks[name].granularity == "pixel"]
    image = [name for name in names if tasks[name].granularity == "image"]
    columns = {name: targets[name] for name in names}

    def encoded(index: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            [
                encode_entry(name, tasks[name], columns[name][index], index, shape)
                for name in some
            ]
            for some in (pixel, image)
        ]
        maps, labels = (
            np.concatenate(part, axis=-1) if part else np.empty((*empty, 0), np.float32)
            for part, empty in zip(parts, (shape, ()), strict=True)
        )
        return maps, labels

    def moved(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        slices = joined_slices([tasks[name].groups_ for name in pixel])
        parts = [
            cast(PixelTask, tasks[name]).move(pixels[..., part], matrix)
            for name, part in zip(pixel, slices, strict=True)
        ]
        return np.concatenate(parts, axis=-1) if parts else pixels

    lessons = Lessons(
        images,
        encoded,
        [group for name in pixel for group in tasks[name].groups_],
        [group for name in image for group in tasks[name].groups_],
        [name for name in names for _ in tasks[name].groups_],
        weight,
        moved,
    )
    return head.fit(lessons, features)
