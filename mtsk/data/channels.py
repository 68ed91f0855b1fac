"""The three channels of a network's input, from images of any number of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mtsk._validation import parameter_error
from mtsk.exceptions import ImageError

__all__ = [
    "ChannelMixture",
    "Channels",
    "ChosenChannels",
    "ViewMaker",
    "view_maker",
]

Channels = Sequence[int] | Sequence[Sequence[int]] | Literal["each", "pca"] | None
ViewMaker = Callable[[np.ndarray, str], np.ndarray]
"""Makes views (n_views, H, W, 3) of an image (H, W, C) with a name for messages."""


def view_maker(channels: Any) -> ViewMaker:
    """Return how images become views.

    Parameters
    ----------
    channels : three int, sequence of such triples, "each", None, or ViewMaker
        A `ChannelMixture` is returned as it is.

    Returns
    -------
    ViewMaker

    Raises
    ------
    InvalidParameterError
        Also for ``"pca"``: its mixture is learnt by `DeepFeatures.fit`.
    """
    if callable(channels):
        return channels
    if channels is None:
        return _grey_or_colour
    if isinstance(channels, str) and channels == "each":
        return _each
    try:
        triples = np.array(channels)
        triples = triples[None] if triples.ndim == 1 else triples
        good = (
            triples.ndim == 2 and triples.shape[1] == 3 and triples.dtype.kind in "iu"
        )
    except ValueError:  # ragged
        good = False
    if not good or triples.min() < 0:
        raise parameter_error("channels", "DeepFeatures", _ALLOWED, channels)
    return ChosenChannels([tuple(int(c) for c in triple) for triple in triples])


_ALLOWED = (
    "three channel indices >= 0, or a sequence of such triples, or 'each', or 'pca', "
    "or None"
)


@dataclass(frozen=True)
class ChosenChannels:
    """One view for each triple of channels.

    Attributes
    ----------
    triples : list of tuple of three int
    """

    triples: list[tuple[int, ...]]

    def __call__(self, image: np.ndarray, where: str) -> np.ndarray:
        """Return the views of an image; `ImageError` where it lacks a channel."""
        count = image.shape[2]
        used = max(max(triple) for triple in self.triples)
        if used >= count:
            raise ImageError(
                f"{where} has {count} channels, but `channels` asks for channel {used}"
            )
        return np.stack([image[:, :, list(triple)] for triple in self.triples])


@dataclass(frozen=True, eq=False)
class ChannelMixture:
    """One view, of three weighted sums of an image's channels.

    Attributes
    ----------
    matrix : ndarray of float32, shape (C, 3)
    offset : ndarray of float32, shape (3,)
        Added to the sums, which are then clipped to [0, 1].
    """

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, image: np.ndarray, where: str) -> np.ndarray:
        """Return the view; `ImageError` on another number of channels."""
        if image.shape[2] != len(self.matrix):
            raise ImageError(
                f"{where} has {image.shape[2]} channels, those of fit had "
                f"{len(self.matrix)}"
            )
        mixed = image @ self.matrix + self.offset
        return mixed.clip(0, 1, out=mixed)[None]


def _each(image: np.ndarray, where: str) -> np.ndarray:
    """Return one grey view of each channel."""
    return np.repeat(np.moveaxis(image, 2, 0)[..., None], 3, axis=3)


def _grey_or_colour(image: np.ndarray, where: str) -> np.ndarray:
    """Return the one view of an image of one or three channels."""
    count = image.shape[2]
    if count == 1:
        return np.repeat(image, 3, axis=2)[None]
    if count == 3:
        return image[None]
    raise ImageError(f"{where} has {count} channels; {_remedy(count)}")


def _remedy(count: int) -> str:
    if count == 2:
        return (
            "if the second is alpha, drop it: image[..., 0] (or channels=(0, 0, 0)); "
            "otherwise choose three with channels=, such as channels=(0, 1, 0), or all "
            "with channels='each'"
        )
    if count == 4:
        return (
            "if the fourth is alpha, drop it: image[..., :3] (or channels=(0, 1, 2)); "
            "if it is CMYK, convert it (PIL's Image.convert('RGB')); "
            "otherwise choose three with channels=, or all with channels='each'"
        )
    return (
        "choose three with channels=, such as channels=(0, 1, 0), mix them in one pass "
        f"with channels='pca', or see all with channels='each', in {count} passes"
    )
