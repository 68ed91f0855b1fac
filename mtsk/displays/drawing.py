"""Drawing of labels over an image: plain arrays, no figure."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy import ndimage
from skimage.draw import rectangle_perimeter
from skimage.segmentation import find_boundaries

__all__ = [
    "COLOURS",
    "KINDS",
    "WRONG",
    "Kind",
    "class_colours",
    "kind_of_task",
    "paint_boxes",
    "paint_classes",
    "paint_differences",
    "paint_ids",
    "paint_mask",
    "paint_values",
    "rgb",
    "shown",
]

Kind = Literal["classes", "mask", "ids", "values", "picture", "boxes"]
KINDS = ("classes", "mask", "ids", "values", "picture", "boxes")

# Okabe & Ito (2008): distinguishable with any kind of colour vision; in an order in
# which neighbours differ in lightness too.
COLOURS = (
    "#E69F00",
    "#0072B2",
    "#F0E442",
    "#D55E00",
    "#56B4E9",
    "#000000",
    "#CC79A7",
    "#009E73",
)
WRONG = "#D55E00"
_MASK, _RIM = COLOURS[0], COLOURS[2]
_FEW = 0.2  # share of labelled pixels below which they are drawn as strokes
_OF_TASK: dict[str, Kind] = {
    "SemanticSegmentation": "classes",
    "BinaryMask": "mask",
    "Boundary": "mask",
    "DenseRegression": "values",
    "DensityCount": "values",
    "InstanceSegmentation": "ids",
    "Detection": "boxes",
    "ImageToImage": "picture",
    "SurfaceNormals": "picture",
}


def kind_of_task(task: Any) -> Kind | None:
    """Return how a task is drawn; a custom task as its nearest known kind.

    None for a task of whole images.
    """
    if not task.is_of_pixels:
        return None
    for own in type(task).__mro__:
        if own.__name__ in _OF_TASK:
            return _OF_TASK[own.__name__]
    return "values"


def rgb(colour: str) -> tuple[float, float, float]:
    """Return a colour written ``#RRGGBB`` as three numbers in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def class_colours(n: int) -> np.ndarray:
    """Return colours of n classes, (n, 3): of more than eight, steps of lightness."""
    if n <= len(COLOURS):
        return np.array([rgb(colour) for colour in COLOURS[:n]]).reshape(n, 3)
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 1, n))[:, :3]


def shown(image: Any) -> np.ndarray:
    """Return an image as it is drawn: uint8 or [0, 1], one channel or three."""
    array = np.asarray(image)
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] < 3 else array[..., :3]
    if array.dtype == np.uint16:
        array = array / np.float32(65535)
    if array.dtype.kind == "f" and array.min(initial=0) < 0:  # unit vectors
        array = (array + 1) / 2
    return array.clip(0, 1) if array.dtype.kind == "f" else array


def paint_classes(image: Any, codes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return an image in grey under classes in colour.

    Few labelled pixels, strokes, are drawn a little wider and opaque.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, C)
    codes : ndarray of int, shape (H, W)
        Indices of the classes in ``colours``; −1 leaves the image unchanged.
    colours : ndarray of shape (n, 3)

    Returns
    -------
    ndarray of float, shape (H, W, 3), in [0, 1]
    """
    drawn = _grey(image)
    few = (codes >= 0).mean() < _FEW
    if few:
        codes = ndimage.grey_dilation(codes, size=3)
    known = codes >= 0
    share = 1.0 if few else 0.75
    drawn[known] = (1 - share) * drawn[known] + share * colours[codes[known]]
    return drawn


def paint_mask(image: Any, mask: Any) -> np.ndarray:
    """Return an image in grey under a mask, or its probabilities, in one colour."""
    share = np.nan_to_num(np.asarray(mask, float)).clip(0, 1)[..., None]
    return _grey(image) * (1 - share) * 0.7 + share * np.array(rgb(_MASK))


def paint_ids(image: Any, ids: Any) -> np.ndarray:
    """Return an image in grey with the rims of objects, each inside its own."""
    ids, drawn = np.asarray(ids).astype(np.int64), _grey(image)
    drawn[find_boundaries(ids.clip(0), mode="inner", background=0)] = rgb(_RIM)
    return drawn


def paint_values(values: Any) -> np.ndarray:
    """Return numbers from dark to light, the least to the greatest; NaN is white."""
    from matplotlib import colormaps

    values = np.asarray(values, float)
    known = np.isfinite(values)
    drawn = np.ones((*values.shape, 3))
    if known.any():
        low, high = values[known].min(), values[known].max()
        share = (values[known] - low) / max(high - low, np.finfo(float).tiny)
        drawn[known] = colormaps["viridis"](share)[:, :3]
    return drawn


def paint_boxes(image: Any, boxes: Any, labels: Any) -> np.ndarray:
    """Return an image in grey with frames, (x0, y0, x1, y1), coloured by label."""
    drawn = _grey(image)
    known = list(dict.fromkeys(np.asarray(labels).tolist()))
    last = np.array(drawn.shape[:2]) - 1
    for box, label in zip(np.asarray(boxes, float).reshape(-1, 4), labels, strict=True):
        left, top, right, bottom = box
        start = np.clip([round(top), round(left)], 0, last)
        end = np.clip([round(bottom) - 1, round(right) - 1], start, last)
        inside = np.minimum(start + 1, end), np.maximum(end - 1, start)
        rim = rectangle_perimeter(*inside, shape=drawn.shape, clip=True)
        place = known.index(np.asarray(label).item()) % len(COLOURS)
        drawn[rim] = rgb(COLOURS[place])
    return drawn


def paint_differences(image: Any, wrong: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return an image in pale grey, wrong pixels in red, unlabelled ones white."""
    drawn = _grey(image) * 0.5 + 0.5
    drawn[~known] = 1
    drawn[known & wrong] = rgb(WRONG)
    return drawn


def _grey(image: Any) -> np.ndarray:
    """Return an image in grey, (H, W, 3), in [0, 1]; a copy."""
    array = shown(image)
    grey = array.mean(axis=2) if array.ndim == 3 else array.astype(float)
    grey = grey / 255 if array.dtype == np.uint8 else grey
    return np.repeat(grey[..., None], 3, axis=2)
