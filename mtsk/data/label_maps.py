"""Label maps from image files: by number, or by colour."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtsk.data.files import read_image
from mtsk.data.limits import check_n_pixels
from mtsk.data.tiff import ImagePath, TiffImage
from mtsk.exceptions import ImageError, TargetError

__all__ = ["CategoricalMap", "read_label_maps"]

MOST_COLOURS = 256
"""A picture of more colours is not a label map."""


@dataclass(frozen=True, eq=False)
class CategoricalMap:
    """A label map whose labels are words, held as codes.

    ``numpy.asarray`` gives the words.

    Attributes
    ----------
    codes : ndarray of uint8 or uint16, shape (H, W)
        Indices of labels.
    labels : ndarray of int or str, shape (n_labels,)
    """

    codes: np.ndarray
    labels: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """``(H, W)``."""
        return self.codes.shape

    @property
    def ndim(self) -> int:
        """2."""
        return self.codes.ndim

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the labels."""
        return self.labels.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self.labels[self.codes]
        return found if dtype is None else found.astype(dtype)


@dataclass(frozen=True)
class _Stored:
    """What a file holds: numbers, or indices of colours (packed as 0xRRGGBB)."""

    path: ImagePath
    values: np.ndarray
    colours: np.ndarray | None = None
    is_palette: bool = False
    is_rgb: bool = False  # three channels, if equal ones


def read_label_maps(
    paths: Sequence[ImagePath],
    colours: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Return the label maps in files that belong together.

    Grey values are labels as they are. Where any file is in colours, the colours of
    all are labels: words such as ``"#ff0000"``, or what ``colours`` says. A palette's
    indices are labels where all files have the same palette; where palettes differ, as
    those of many annotation tools do, or where other files are in colours, only the
    colours mean the same in all files, so they are the labels.

    Parameters
    ----------
    paths : sequence of Path or TiffImage
    colours : mapping of str to label, default=None
        Label of each colour, ``{"#ff0000": "lesion"}``: all colours of all files.

    Returns
    -------
    list of ndarray or CategoricalMap
        Images of more than 256 colours, which are no label maps, as they are,
        (H, W, 3).

    Raises
    ------
    ImageError
        Where a file cannot be read.
    TargetError
        Where one file has indices of a palette and another has grey values, a label
        map is partly transparent, or a colour is not in ``colours``.
    """
    files = [_read(path) for path in paths]
    _warn_of_lossy(files)
    by_colour = [f for f in files if f.colours is not None and not f.is_palette]
    palettes = [f for f in files if f.is_palette]
    plain = [f for f in files if f.colours is None]
    pictures = [f for f in plain if f.values.ndim == 3]
    if pictures:
        if colours is not None or palettes:
            raise TargetError(
                f"{str(pictures[0].path)!r} has more than {MOST_COLOURS} colours: it "
                "is no label map, or was saved as JPEG or resampled; save label maps "
                "as PNG, resampled by the nearest neighbour"
            )
        return [_as_array(f) for f in files]
    if colours is None and not by_colour and _one_palette(palettes):
        if palettes and plain:
            raise TargetError(
                f"{str(palettes[0].path)!r} holds indices of a palette, "
                f"{str(plain[0].path)!r} grey values: whether they mean the same "
                "cannot be told; save all in one way"
            )
        _check_one_scale(files)
        return [f.values for f in files]
    table = None if colours is None else _labels_of_colours(colours)
    if table is None:
        _check_grey_ones([f for f in plain if not f.is_rgb], by_colour + palettes)
    return [_by_colour(f, table) for f in files]


def _read(path: ImagePath) -> _Stored:
    palette = None if isinstance(path, TiffImage) else _palette_image(path)
    if palette is not None:
        return palette
    pixels = read_image(path)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        if (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
            raise _transparent_error(path)
        pixels = pixels[..., :-1]
    is_rgb = pixels.ndim == 3
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        return _Stored(path, pixels, is_rgb=is_rgb)
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        return _Stored(path, pixels)
    packed = _packed(pixels)
    found, codes = np.unique(packed, return_inverse=True)
    if len(found) > MOST_COLOURS:
        return _Stored(path, pixels)
    return _Stored(path, codes.reshape(packed.shape).astype(np.uint8), found)


def _palette_image(path: Path) -> _Stored | None:
    """Return an image with a palette; None of any other."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes: the reader refuses them
            file = Image.open(path)
        with file:
            if file.mode != "P":
                return None
            check_n_pixels(path, file.height, file.width)
            if getattr(file, "n_frames", 1) > 1:
                raise ImageError(f"{str(path)!r} has several frames: a map has one")
            values = np.asarray(file)
            entries = np.array(file.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
            transparency = file.info.get("transparency")
    except (OSError, Image.DecompressionBombError):  # for the reader of all images
        return None
    if set(np.unique(values).tolist()) & _transparent(transparency):
        raise _transparent_error(path)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(entries)] = entries
    return _Stored(path, values, _packed(colours), True)


def _transparent(transparency: int | bytes | None) -> set[int]:
    """Return which indices of a palette are not opaque, as Pillow tells of it."""
    if isinstance(transparency, bytes):
        return {index for index, alpha in enumerate(transparency) if alpha < 255}
    return set() if transparency is None else {transparency}


def _transparent_error(path: ImagePath) -> TargetError:
    return TargetError(
        f"label map {str(path)!r} is partly transparent, or in CMYK: save it with one "
        "number, or red, green and blue, a pixel"
    )


def _packed(colours: np.ndarray) -> np.ndarray:
    """Return colours, (..., 3), as numbers 0xRRGGBB."""
    red, green, blue = np.moveaxis(colours.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue


def _one_palette(files: Sequence[_Stored]) -> bool:
    """Return whether an index is of the same colour in all files that use it."""
    known: dict[int, int] = {}
    for file in files:
        assert file.colours is not None
        for index in np.unique(file.values).tolist():
            colour = int(file.colours[index])
            if known.setdefault(index, colour) != colour:
                return False
    return True


def _check_grey_ones(grey: Sequence[_Stored], coloured: Sequence[_Stored]) -> None:
    """Refuse grey files whose values are no colours of the others: perhaps indices."""
    used = [f.colours[np.unique(f.values)] for f in coloured if f.colours is not None]
    known = {0, *np.concatenate(used).tolist()} if used else {0}
    for file in grey:
        white = 255 if file.values.dtype == bool else 1
        own = {int(v) * white * 0x010101 for v in np.unique(file.values).tolist()}
        if not own <= known:
            raise TargetError(
                f"label map {str(file.path)!r} is in grey, "
                f"{str(coloured[0].path)!r} in colours, and its values are no colours "
                "of the others: whether they mean the same cannot be told; save all in "
                "one way"
            )


def _check_one_scale(files: Sequence[_Stored]) -> None:
    """Refuse masks of 0 and 1 among masks of 0 and 255."""
    of: dict[int, Path | TiffImage] = {}
    for file in files:
        if file.values.dtype != np.uint8:
            return
        values = set(np.unique(file.values).tolist())
        if not values <= {0, 1} and not values <= {0, 255}:
            return
        of |= dict.fromkeys(values - {0}, file.path)
    if {1, 255} <= of.keys():
        raise TargetError(
            f"label map {str(of[1])!r} holds 0 and 1, {str(of[255])!r} 0 and 255: save "
            "all in one way"
        )


def _labels_of_colours(colours: Mapping[str, Any]) -> dict[int, Any]:
    table = {}
    for colour, label in colours.items():
        text = str(colour).strip().lower().removeprefix("#")
        if len(text) != 6 or not set(text) <= set("0123456789abcdef"):
            raise TargetError(f"a colour is written '#rrggbb', got {colour!r}")
        table[int(text, 16)] = label
    if len({isinstance(label, str) for label in table.values()}) > 1:
        raise TargetError("labels of colours mix numbers and words")
    return table


def _by_colour(file: _Stored, table: Mapping[int, Any] | None) -> CategoricalMap:
    """Return a map whose labels are colours, or what the table calls them."""
    values, colours = file.values, file.colours
    if colours is None:  # grey
        grey, codes = np.unique(values, return_inverse=True)
        if values.dtype == bool:
            grey = grey * np.uint8(255)
        elif values.dtype != np.uint8:
            raise TargetError(
                f"{str(file.path)!r} holds {values.dtype} numbers, other label maps "
                "colours"
            )
        values = codes.reshape(values.shape)
        colours = _packed(np.repeat(grey[:, None], 3, axis=1))
    used, codes = np.unique(values, return_inverse=True)
    own = colours[used]
    distinct, place = np.unique(own, return_inverse=True)
    if table is None:
        labels = np.array([f"#{colour:06x}" for colour in distinct.tolist()])
    else:
        strange = [colour for colour in distinct.tolist() if colour not in table]
        if strange:
            raise TargetError(
                f"label map {str(file.path)!r} has the colour #{strange[0]:06x}, which "
                f"`colours` does not name; they are {_written(table)}"
            )
        labels = np.array([table[colour] for colour in distinct.tolist()])
    codes = place[codes].reshape(values.shape).astype(np.uint8)
    return CategoricalMap(codes, labels)


def _written(table: Mapping[int, Any]) -> list[str]:
    return [f"#{colour:06x}" for colour in table]


def _as_array(file: _Stored) -> np.ndarray:
    """Return a picture as it is stored."""
    if file.colours is None:
        return file.values
    packed = file.colours[file.values]
    parts = [(packed >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)]
    return np.stack(parts, axis=-1)


def _warn_of_lossy(files: Sequence[_Stored]) -> None:
    """Warn of label maps in files whose kind changes values when they are written."""
    lossy = [f for f in files if f.path.suffix.lower() in _LOSSY and f.values.ndim == 2]
    if lossy:
        n_values = len(np.unique(lossy[0].values))
        warnings.warn(
            f"{len(lossy)} label maps, such as {str(lossy[0].path)!r} of {n_values} "
            "values, are files of a kind that changes values when it is written "
            f"({', '.join(_LOSSY)}): save them as PNG from the original; of a mask in "
            "black and white, mask > 127 is what it was",
            UserWarning,
            stacklevel=4,
        )


_LOSSY = (".jpg", ".jpeg", ".webp")
