"""Images of many channels as one picture of three: their principal components."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mtsk.data.channels import ChannelMixture
from mtsk.exceptions import ImageError
from mtsk.features.pca import leading_components
from mtsk.heads.statistics import Moments

__all__ = ["learn_mixture"]

_PIXELS = 4096  # of an image
_WIDTH = 3.0  # standard deviations on either side that fill the network's range


def learn_mixture(images: Iterable[tuple[int, np.ndarray]]) -> ChannelMixture:
    """Find the three mixtures of channels that hold most of the pixels' variance.

    The principal components of Pearson (*Philosophical Magazine* 2, 1901) of the
    pixels, each scaled by the same factor, which brings three standard deviations of
    the first to the ends of [0, 1]. Where there are fewer than three components, the
    rest of the three are constant.

    Parameters
    ----------
    images : iterable of (int, ndarray of float32, shape (H, W, C))
        Indices are used in messages.

    Returns
    -------
    ChannelMixture

    Raises
    ------
    ImageError
        Where images differ in their number of channels.
    ValueError
        Where there is no image.
    """
    moments: Moments | None = None
    for index, image in images:
        pixels = image.reshape(-1, image.shape[2])
        if len(pixels) > _PIXELS:
            random = np.random.default_rng(index)
            pixels = pixels[random.choice(len(pixels), _PIXELS, replace=False)]
        n = len(pixels)
        more = Moments.of(pixels, np.empty((n, 0)), np.ones(n))
        if moments is not None and len(moments.centre) != image.shape[2]:
            raise ImageError(
                f"image {index} has {image.shape[2]} channels, others have "
                f"{len(moments.centre)}"
            )
        moments = more if moments is None else moments + more
    if moments is None:
        raise ValueError("channels='pca' needs images to find mixtures in")
    vectors = leading_components(moments, 3)
    matrix = np.zeros((len(vectors), 3))
    matrix[:, : vectors.shape[1]] = vectors
    largest = np.sqrt(matrix[:, 0] @ moments.covariance() @ matrix[:, 0])
    matrix /= 2 * _WIDTH * max(largest, 1e-6)
    offset = 0.5 - moments.x_mean @ matrix
    return ChannelMixture(matrix.astype(np.float32), offset.astype(np.float32))
