"""Augmentation: joint random transforms of an image and its targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch.nn import functional

from mtsk._validation import Interval, SequenceOf, check_parameters, parameter_error

__all__ = ["Augmentation"]


class Augmentation(BaseEstimator):
    """Random views of an image, with its targets at the same places.

    Flip, crop, zoom and rotation are combined into one coordinate map, so that nothing
    is interpolated twice. Images are interpolated bilinearly, and repeat their border
    beyond it. Targets are those of the nearest pixel, and missing (NaN) beyond the
    border; so classes stay valid, and a number such as a depth does not change with the
    zoom. Targets of the whole image are unchanged.

    Parameters
    ----------
    flip : float in [0, 1], default=0.5
        Probability of a left-right flip.
    vertical_flip : float in [0, 1], default=0.0
        Probability of an up-down flip. Suits microscopy, not street scenes.
    zoom : (float, float), default=(0.75, 1.5)
        Least and greatest magnification; sampled log-uniformly.
    rotate : float in [0, 180], default=0.0
        Maximum angle in degrees, in either direction.
    crop : (int, int), default=None
        Height and width of a view. None is those of the image.
    brightness, contrast, saturation : float in [0, 1), default=0.2
        Each is multiplied by a factor in [1 − value, 1 + value].
    hue : float in [0, 0.5], default=0.0
        Maximum rotation of the hue circle.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.decoders import Augmentation
    >>> views = np.zeros((1, 40, 60, 3), np.float32)  # one image, as (1, H, W, 3)
    >>> columns = np.zeros((40, 60, 1))  # coded targets
    >>> augment = Augmentation(crop=(32, 32))
    >>> views, columns = augment(views, columns, np.random.default_rng(0))
    >>> views.shape, columns.shape
    ((1, 32, 32, 3), (32, 32, 1))
    """

    def __init__(
        self,
        *,
        flip: float = 0.5,
        vertical_flip: float = 0.0,
        zoom: Sequence[float] = (0.75, 1.5),
        rotate: float = 0.0,
        crop: Sequence[int] | None = None,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.0,
    ) -> None:
        self.flip = flip
        self.vertical_flip = vertical_flip
        self.zoom = zoom
        self.rotate = rotate
        self.crop = crop
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` on an invalid parameter."""
        check_parameters(self, _CONSTRAINTS)
        if len(self.zoom) != 2 or self.zoom[0] > self.zoom[1]:
            allowed = "two floats > 0, the least and the most"
            raise parameter_error("zoom", self, allowed, self.zoom)
        if self.crop is not None and len(self.crop) != 2:
            raise parameter_error("crop", self, "(height, width) or None", self.crop)

    def __call__(
        self,
        views: np.ndarray,
        columns: np.ndarray,
        rng: np.random.Generator,
        move: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return one random view.

        Parameters
        ----------
        views : ndarray of float32, shape (n_views, H, W, 3)
            In [0, 1].
        columns : ndarray of float, shape (H, W, n_columns)
            Coded targets, NaN missing.
        rng : numpy.random.Generator
        move : callable, optional
            Takes columns and the (2, 2) matrix of where steps down and across go;
            returns columns with directions and lengths transformed, as
            `mtsk.tasks.PixelTask.transform_columns` does.

        Returns
        -------
        views : ndarray of float32, shape (n_views, h, w, 3)
        columns : ndarray of float32, shape (h, w, n_columns)

        Raises
        ------
        InvalidParameterError, ValueError, TypeError
        """
        self.check_parameters()
        views, columns = np.asarray(views), np.asarray(columns)
        if views.ndim != 4 or views.shape[3] != 3 or views.dtype != np.float32:
            raise ValueError(
                "views must be float32 of shape (n_views, H, W, 3), got dtype "
                f"{views.dtype}, shape {views.shape}"
            )
        if columns.ndim != 3 or columns.shape[:2] != views.shape[1:3]:
            raise ValueError(
                f"columns must have shape (H, W, n_columns) with (H, W) = "
                f"{views.shape[1:3]}, got {columns.shape}"
            )
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}")
        places, back = self._places(views.shape[1:3], rng)
        seen = _nearest(columns, places)
        if move is not None:
            seen = move(seen, np.linalg.inv(back))
        return self._adjust_colours(_images_at(views, places), rng), seen

    def _places(
        self, shape: Sequence[int], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the image coordinates of a view's pixels, (2, h, w), and its steps.

        The steps, (2, 2): where a step down and a step across the view go in the image.
        """
        size = np.array(self.crop if self.crop is not None else shape)
        zoom = float(np.exp(rng.uniform(*np.log(np.asarray(self.zoom, float)))))
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        mirror = 1 - 2 * (rng.random(2) < (self.vertical_flip, self.flip))
        room = np.array(shape) - size / zoom  # range of the view's position
        middle = (np.array(shape) - 1) / 2
        centre = middle + rng.uniform(-0.5, 0.5, 2) * room.clip(min=0)
        if zoom == 1 and angle == 0:  # pixels of the view are pixels of the image
            centre = np.floor(centre - (size - 1) / 2) + (size - 1) / 2
        turn = np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        back = turn / zoom * mirror
        rows, cols = (np.arange(n) - (n - 1) / 2 for n in size)
        places = (
            back[:, 0, None, None] * rows[:, None]
            + back[:, 1, None, None] * cols
            + centre[:, None, None]
        )
        return places, back

    def _adjust_colours(
        self, views: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        from torchvision.transforms.v2 import functional as adjust

        planes = torch.from_numpy(views).permute(0, 3, 1, 2)
        for name in ("brightness", "contrast", "saturation"):
            most = getattr(self, name)
            factor = float(rng.uniform(1 - most, 1 + most))
            if most:
                planes = getattr(adjust, f"adjust_{name}")(planes, factor)
        turn = float(rng.uniform(-self.hue, self.hue))
        if self.hue:
            planes = adjust.adjust_hue(planes, turn)
        return np.ascontiguousarray(planes.permute(0, 2, 3, 1).numpy())


_SHARE = Interval(Real, 0, 1, closed="both")
_BELOW_ONE = Interval(Real, 0, 1, closed="left")
_CONSTRAINTS: dict[str, list] = {
    "flip": [_SHARE],
    "vertical_flip": [_SHARE],
    "zoom": [SequenceOf(Interval(Real, 0, None, closed="neither"))],
    "rotate": [Interval(Real, 0, 180, closed="both")],
    "crop": [SequenceOf(Interval(Integral, 1, None, closed="left")), None],
    "brightness": [_BELOW_ONE],
    "contrast": [_BELOW_ONE],
    "saturation": [_BELOW_ONE],
    "hue": [Interval(Real, 0, 0.5, closed="both")],
}


def _images_at(views: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Interpolate images at places; the border is repeated beyond it."""
    height, width = views.shape[1:3]
    near = np.rint(places)
    if np.abs(places - near).max() < 1e-6:  # nothing lies between pixels
        rows, cols = near.astype(np.intp)
        return views[:, rows.clip(0, height - 1), cols.clip(0, width - 1)]
    x = (places[1] + 0.5) * (2 / width) - 1
    y = (places[0] + 0.5) * (2 / height) - 1
    grid = torch.from_numpy(np.stack([x, y], axis=-1, dtype=np.float32))
    planes = torch.from_numpy(np.ascontiguousarray(views)).permute(0, 3, 1, 2)
    seen = functional.grid_sample(
        planes,
        grid.expand(len(planes), *grid.shape),
        padding_mode="border",
        align_corners=False,
    )
    return seen.permute(0, 2, 3, 1).numpy()


def _nearest(columns: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the columns of the nearest pixels, NaN beyond the border."""
    height, width = columns.shape[:2]
    rows, cols = np.floor(places + 0.5).astype(np.intp)
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    flat = np.where(inside, rows * width + cols, 0)
    out = columns.reshape(height * width, -1).astype(np.float32)[flat]
    out[~inside] = np.nan
    return out
