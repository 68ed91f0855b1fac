"""TIFF files by their axes: images of channels, and stacks of images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import TiffFile

from mtsk.data.limits import check_n_pixels
from mtsk.exceptions import ImageError

__all__ = ["TIFF", "ImagePath", "TiffImage", "check_axes", "read_tiff", "tiff_images"]

TIFF = (".tif", ".tiff")
_OF_STACKS = "TZ"
"""Axes along which a file holds images: time and depth."""
_CHANNELS = "CS"
"""Axes of channels: separate ones, and the samples of a pixel."""
_LETTERS = {
    "Y": "height",
    "X": "width",
    "C": "channels",
    "S": "samples",
    "Z": "depth",
    "T": "time",
}


@dataclass(frozen=True)
class TiffImage(os.PathLike):
    """A TIFF file whose axes are said, or one image of the stack in it.

    Attributes
    ----------
    path : Path
    axes : str or None
        As of `check_axes`; for files of as many axes that do not say what they are.
    index : int or None
        Of the image in the stack; None where the file is no stack.
    """

    path: Path
    axes: str | None = None
    index: int | None = None

    @property
    def stem(self) -> str:
        """The file's name without suffix, and the index in the stack."""
        stem = self.path.stem.removesuffix(".ome")
        return stem + ("" if self.index is None else f"_{self.index:04d}")

    @property
    def suffix(self) -> str:
        """The file's suffix."""
        return self.path.suffix

    @property
    def name(self) -> str:
        """The stem with the suffix."""
        return self.stem + self.suffix

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        place = "" if self.index is None else f", image {self.index} of the stack"
        return f"{self.path}{place}"


ImagePath = Path | TiffImage


def check_axes(axes: str | None) -> str | None:
    """Return axes in capitals, checked.

    Parameters
    ----------
    axes : str or None
        A letter for each axis: Y and X once each, C or S channels, Z depth, T time.

    Returns
    -------
    str or None

    Raises
    ------
    ImageError
    """
    if axes is None:
        return None
    upper = axes.upper() if isinstance(axes, str) else ""
    if len(set(upper)) < len(upper) or not {"Y", "X"} <= set(upper) <= set(_LETTERS):
        known = ", ".join(f"{letter} {word}" for letter, word in _LETTERS.items())
        raise ImageError(
            f"axes must name each axis once, Y and X among them ({known}), such as "
            f"'ZYX', got {axes!r}"
        )
    return upper


def tiff_images(path: Path, axes: str | None) -> list[Path] | list[TiffImage]:
    """Return a file's images: itself, or those of its stack.

    Parameters
    ----------
    path : Path
    axes : str or None
        As of `TiffImage`.

    Returns
    -------
    list of Path or TiffImage
        One, too, where the file cannot be read: that is for who reads it to say.

    Raises
    ------
    ImageError
        Where the file does not tell its axes.
    """
    is_plain = axes is None and not path.stem.endswith(".ome")
    whole = [path] if is_plain else [TiffImage(path, axes)]
    try:
        with TiffFile(path) as file:
            shape, letters = _axes(file, axes)
    except Exception:  # decoders raise arbitrary exceptions
        return whole
    _check_known(path, shape, letters, axes)
    n = _product(dict(zip(letters, shape, strict=True)), _OF_STACKS)
    if n < 2:
        return whole
    return [TiffImage(path, axes, i) for i in range(n)]


def read_tiff(path: str | os.PathLike) -> np.ndarray:
    """Read an image by what the file says of its axes (ImageJ, OME, shaped).

    Parameters
    ----------
    path : str, path-like or TiffImage
        The first series of the file is read.

    Returns
    -------
    ndarray of shape (H, W) or (H, W, C)
        Axes of length 1 are left out; all channels are the last axis.

    Raises
    ------
    ImageError
        Where the file does not tell its axes, or holds a stack.
    """
    image = path if isinstance(path, TiffImage) else TiffImage(Path(path))
    if image.index is not None:
        stat = os.stat(image.path)
        key = (str(image.path), stat.st_mtime_ns, stat.st_size)
        return _image(_stack(*key, image.axes)[image.index])
    stack = _read(str(image.path), image.axes)
    if len(stack) > 1:
        raise ImageError(
            f"{str(path)!r} is a stack of {len(stack)} images: "
            "mtsk.ImageFolder([path]) gives them one by one"
        )
    return _image(stack[0])


@lru_cache(maxsize=1)  # the slices of one stack are asked for one after another
def _stack(path: str, modified: int, size: int, axes: str | None) -> np.ndarray:
    return _read(path, axes)


def _image(array: np.ndarray) -> np.ndarray:
    """Return (H, W, C) as an array of its own, (H, W) where C is 1."""
    return np.array(array[..., 0] if array.shape[2] == 1 else array)


def _read(path: str, axes: str | None) -> np.ndarray:
    """Return the images of a file, (n, H, W, C)."""
    with TiffFile(path) as file:
        shape, letters = _axes(file, axes)
        _check_known(path, shape, letters, axes)
        sizes = dict(zip(letters, shape, strict=True))
        check_n_pixels(path, sizes["Y"], sizes["X"])
        array = file.series[0].asarray().reshape(shape)
    for axis in reversed(range(len(shape))):
        if letters[axis] not in "YX" + _OF_STACKS + _CHANNELS:  # of length 1
            array = array.take(0, axis=axis)
    left = [a for a in letters if a in "YX" + _OF_STACKS + _CHANNELS]
    order = [*"TZ", "Y", "X", "C", "S"]
    array = array.transpose([left.index(a) for a in order if a in left])
    return array.reshape(-1, sizes["Y"], sizes["X"], _product(sizes, _CHANNELS))


def _product(sizes: dict[str, int], letters: str) -> int:
    return int(np.prod([sizes.get(letter, 1) for letter in letters]))


def _axes(file: TiffFile, axes: str | None) -> tuple[tuple[int, ...], str]:
    """Return the shape and the letters of the axes of a file's first series."""
    series = file.series[0]
    shape, letters = tuple(series.shape), str(series.axes)
    if axes is not None and len(axes) == len(shape) and _unknown(shape, letters):
        return shape, axes
    return shape, letters


def _check_known(
    path: Any, shape: tuple[int, ...], letters: str, axes: str | None
) -> None:
    """Refuse a file that does not tell what its axes are."""
    unknown = _unknown(shape, letters)
    if unknown and axes is not None and len(axes) != len(shape):
        raise ImageError(
            f"{str(path)!r} has {len(shape)} axes, of shape {shape}, and axes={axes!r} "
            f"names {len(axes)}"
        )
    if unknown:
        raise ImageError(
            f"{str(path)!r} has the shape {shape} and does not tell what the axes of "
            f"length {unknown} are: say it, such as ImageFolder(folder, axes="
            f"{_example(shape, letters, 'Z')!r}) for a stack of images, "
            f"{_example(shape, letters, 'C')!r} for channels (the command: --axes)"
        )


def _unknown(shape: tuple[int, ...], letters: str) -> list[int]:
    """Return the lengths of axes of which it is not known what they are."""
    lengths = [s for s, a in zip(shape, letters, strict=True) if a not in _LETTERS]
    twice = len(set(letters) & set(_LETTERS)) < sum(a in _LETTERS for a in letters)
    missing = not {"Y", "X"} <= set(letters)
    return list(shape) if twice or missing else [n for n in lengths if n > 1]


def _example(shape: tuple[int, ...], letters: str, unknown: str) -> str:
    """Return what axes could be said to be."""
    if not {"Y", "X"} <= set(letters):
        return (unknown + "YX")[-len(shape) :]
    named = [a if a in _LETTERS else unknown for a in letters]
    return "".join(dict.fromkeys(named))
