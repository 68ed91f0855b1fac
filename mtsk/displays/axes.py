"""Axes to draw on. Importing the displays does not load matplotlib; ``plot`` does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mtsk.data.files import read_image

__all__ = [
    "as_image",
    "check_segmenter",
    "draw_scale",
    "matplotlib_for",
    "new_axes",
    "new_row",
]


def matplotlib_for(owner: object) -> Any:
    """Return ``matplotlib.pyplot``.

    Raises
    ------
    ImportError
        Where it is not installed, with the remedy.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{type(owner).__name__}.plot needs matplotlib: "
            'python -m pip install "mtsk[plot]"'
        ) from error
    return plt


def new_axes(ax: Any, owner: object) -> Any:
    """Return axes to draw on, new ones for None."""
    plt = matplotlib_for(owner)
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def new_row(
    owner: object, axes: Any, names: Sequence[str], shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return axes side by side for pictures of a shape, titled, by name.

    Raises
    ------
    ValueError
        Where ``axes`` are given, and are not as many.
    """
    plt = matplotlib_for(owner)
    if axes is None:
        size = 3.2 * len(names), min(3.2 * shape[0] / shape[1], 6) + 0.9
        _, grid = plt.subplots(
            1, len(names), figsize=size, layout="constrained", squeeze=False
        )
        axes = grid[0]
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != len(names) or not all(hasattr(ax, "imshow") for ax in axes):
        raise ValueError(f"`axes` must be {len(names)}, {list(names)}, got {len(axes)}")
    for name, ax in zip(names, axes, strict=True):
        ax.set_title(name)
        ax.set_axis_off()
    return dict(zip(names, axes, strict=True))


def check_segmenter(estimator: Any, owner: str) -> None:
    """Raise on anything but a fitted segmenter.

    Raises
    ------
    TypeError, NotFittedError
    """
    check_is_fitted(estimator)
    if not hasattr(estimator, "tasks_"):
        raise TypeError(
            f"{owner} needs a MultiTaskSegmenter, got a {type(estimator).__name__}; of "
            "a search, give its best_estimator_"
        )


def as_image(image: Any) -> np.ndarray:
    """Return an image as an array, read from its file where it is a path.

    Raises
    ------
    ImageError
        Where the file cannot be read.
    ValueError
        On an array of another shape than (H, W) or (H, W, C), and on several images.
    """
    if isinstance(image, str | os.PathLike):
        image = read_image(image)
    try:
        shape = np.shape(image)
    except ValueError:  # images of different sizes
        shape = (len(image), None)
    if len(shape) not in (2, 3) or 0 in shape or None in shape:
        several = len(shape) == 4 or None in shape
        hint = f"; of {shape[0]} images draw one at a time, images[0]" * several
        raise ValueError(f"image must be (H, W) or (H, W, C), got {shape}{hint}")
    return np.asarray(image)


def draw_scale(image: Any) -> None:
    """Draw the scale of an image's colours below it."""
    image.axes.figure.colorbar(
        image, ax=image.axes, orientation="horizontal", shrink=0.8, pad=0.02
    )
