"""How large an image file may be."""

from __future__ import annotations

import os

from PIL import Image

from mtsk.exceptions import ImageError

__all__ = ["RAISE_LIMIT", "check_n_pixels"]

RAISE_LIMIT = (
    "raise the limit by PIL.Image.MAX_IMAGE_PIXELS (the command: --max-megapixels), or "
    "predict it in tiles with predict_tiled"
)


def check_n_pixels(path: str | os.PathLike, *sizes: int) -> None:
    """Refuse a file of more pixels than Pillow's limit.

    A small file can claim any size, and decoding it would take the memory for that.

    Parameters
    ----------
    path : str or path-like
    *sizes : int
        Whose product is the number of pixels.

    Raises
    ------
    ImageError
    """
    n_pixels = 1
    for size in sizes:
        n_pixels *= size
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and n_pixels > most:
        raise ImageError(
            f"{str(path)!r} has {n_pixels / 1e6:.0f} megapixels, and the most is "
            f"{most / 1e6:.0f}; {RAISE_LIMIT}"
        )
