"""Image files, and folders of them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mtsk.data.limits import RAISE_LIMIT, check_n_pixels
from mtsk.data.tiff import (
    TIFF,
    ImagePath,
    TiffImage,
    check_axes,
    read_tiff,
    tiff_images,
)
from mtsk.exceptions import ImageError

__all__ = [
    "SUFFIXES",
    "ImageFolder",
    "folder_or_given",
    "read_image",
    "read_image_ahead",
]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read one image file, with scikit-image and tifffile.

    Parameters
    ----------
    path : str, path-like or TiffImage
        The file, or one image of a stack.

    Returns
    -------
    ndarray
        The pixels as stored, (H, W) or (H, W, C): dtype and number of channels are the
        file's own, whatever the order of a TIFF's axes. EXIF
        orientation is not applied; a warning is issued where it is set (except for
        TIFF).

    Raises
    ------
    ImageError
        Where the file is missing or cannot be decoded, does not tell its axes, or holds
        several images; the message names it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of harmless metadata
            pixels, turned = _decoded(path)
    except ImageError:
        raise
    except Exception as error:  # decoders raise arbitrary exceptions
        reason = "no such file"
        if os.path.exists(path):
            reason = "it is not an image of a known kind, or damaged"
        raise ImageError(f"cannot read image file {str(path)!r}: {reason}") from error
    if turned:
        warnings.warn(
            f"{str(path)!r} is stored turned or mirrored (EXIF orientation) and taken "
            "as stored, as scikit-image does, while most viewers turn it: labels must "
            "lie as the stored pixels do. To save it upright, PIL has "
            "ImageOps.exif_transpose",
            UserWarning,
            stacklevel=2,
        )
    return pixels


def read_image_ahead(path: str | os.PathLike) -> np.ndarray:
    """Read one plain image file in a thread.

    scikit-image silences warnings while it reads, which changes the filters of the
    whole process and is not thread-safe. This calls the underlying library, and raises
    any exception where the file cannot be read, is not upright or of another kind: then
    the caller's thread reads it, with `read_image`. Decoders' warnings (damaged EXIF
    data, very large images) are shown.
    """
    from imageio.v3 import imread

    if not os.fspath(path).lower().endswith(_PLAIN):
        raise ImageError("for the caller's thread")
    with Image.open(path) as image:
        # Palettes with transparency cause warnings.
        if image.mode == "P" or _says_turned(image):
            raise ImageError("for the caller's thread")
    with open(path, "rb") as file:
        pixels = np.asarray(imread(file, plugin="pillow"))
    if pixels.ndim > 2 and pixels.shape[2:] not in ((3,), (4,)):
        raise ImageError("for the caller's thread")
    return pixels if pixels.flags.writeable else pixels.copy()


_PLAIN = (".png", ".jpg", ".jpeg", ".bmp")


def _decoded(path: str | os.PathLike) -> tuple[np.ndarray, bool]:
    """Return pixels as stored, and whether the file marks them as not upright."""
    from skimage.io import imread

    if os.fspath(path).lower().endswith(TIFF):
        return read_tiff(path), False
    _check_size(path)
    with open(path, "rb") as file:  # decoders leave broken files open
        pixels = np.asarray(imread(file))
    return pixels, _is_to_be_turned(path)


def _check_size(path: str | os.PathLike) -> None:
    """Refuse a file of more pixels than Pillow's limit, before they are decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the same limit
            with Image.open(path) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:  # twice the limit
        raise ImageError(f"{str(path)!r}: {error}; {RAISE_LIMIT}") from error
    except (OSError, ValueError, SyntaxError):  # a kind that only imread reads
        return
    check_n_pixels(path, height, width)


def _is_to_be_turned(path: str | os.PathLike) -> bool:
    """Return whether a readable image file is marked as not upright."""
    try:
        with Image.open(path) as image:
            return _says_turned(image)
    except (OSError, ValueError, SyntaxError):  # a kind that only imread reads
        return False


def _says_turned(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) not in (0, 1)


_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, 0 is not in the standard


def _natural_order(path: Path) -> tuple[list[Any], str]:
    """Return a key by which numbers in names count by value: 2 comes before 10."""
    parts = re.split(r"(\d+)", path.stem)
    numbers = [int(p) if i % 2 else p for i, p in enumerate(parts)]
    return numbers, path.name


class ImageFolder(Sequence):
    """The image files of a folder, in order of name, read when indexed.

    Numbers in names count by value, and hidden files, such as ``._x.png`` of macOS, are
    left out. Where images and targets are folders, files are paired by name.
    Indexing by an integer reads one image; by a slice, an index array or a boolean
    array it gives a smaller ``ImageFolder``, so that ``train_test_split`` and
    ``GridSearchCV`` never read a file they do not use.

    Parameters
    ----------
    folder : str or path-like, or sequence of paths
        A folder, or the files themselves.
    colours : mapping of str to label, default=None
        Where the folder holds targets in colours: what each colour means, such as
        ``{"#ff0000": "lesion", "#000000": "skin"}``. None calls classes by their
        colours; see `mtsk.data.read_label_maps`.
    axes : str, default=None
        What the axes of TIFF files are, a letter each: Y and X, C or S for channels, Z
        for depth, T for time, such as ``"ZYX"``. It counts for files of as many axes
        that do not say themselves what they are (ImageJ, OME, shaped); without it, such
        a file is refused where it has more than Y and X.

    Attributes
    ----------
    paths : list of pathlib.Path or TiffImage
        The files; of a TIFF that is a stack, each of its images.

    Raises
    ------
    ImageError
        Where the folder does not exist or holds no image.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> from skimage.io import imsave
    >>> from mtsk import ImageFolder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pixels = np.zeros((16, 20, 3), np.uint8)
    ...     imsave(Path(folder) / "a.png", pixels, check_contrast=False)
    ...     images = ImageFolder(folder)
    ...     print(len(images), images[0].shape)
    1 (16, 20, 3)
    """

    def __init__(
        self,
        folder: str | os.PathLike | Sequence[Any],
        *,
        colours: Mapping[str, Any] | None = None,
        axes: str | None = None,
    ) -> None:
        self.colours = colours
        axes = check_axes(axes)
        self.paths: list[ImagePath]
        if not isinstance(folder, str | os.PathLike):
            try:
                self.paths = _images_of(list(folder), axes)
            except TypeError:
                raise ImageError(
                    f"ImageFolder takes a folder or a sequence of paths, got {folder!r}"
                ) from None
            return
        if not Path(folder).is_dir():
            what = "it is a file" if Path(folder).exists() else "no such folder"
            raise ImageError(f"{what}: {str(folder)!r}")
        files = sorted(
            (
                p
                for p in Path(folder).iterdir()
                if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
            ),
            key=_natural_order,
        )
        self.paths = _images_of(files, axes)
        if not self.paths:
            raise ImageError(
                f"folder {str(folder)!r} holds no image ({', '.join(SUFFIXES)})"
            )

    @property
    def stems(self) -> list[str]:
        """The files' names without their suffixes."""
        return [path.stem for path in self.paths]

    @property
    def shape(self) -> tuple[int]:
        """``(n,)``, by which scikit-learn indexes it as one array."""
        return (len(self.paths),)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):  # scikit-learn writes array[key, ...]
            key = key[0]
        if isinstance(key, int | np.integer):
            return read_image(self.paths[key])
        chosen = np.arange(len(self))[key]
        return ImageFolder([self.paths[i] for i in chosen], colours=self.colours)

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} images)"


def folder_or_given(source: Any) -> Any:
    """Return an `ImageFolder` of a path of a folder, anything else as it is."""
    if isinstance(source, str | os.PathLike) and os.path.isdir(source):
        return ImageFolder(source)
    return source


def _images_of(files: Sequence[Any], axes: str | None) -> list[ImagePath]:
    """Return files, and of TIFF files that are stacks each image."""
    found: list[ImagePath] = []
    for file in files:
        if isinstance(file, TiffImage):
            found.append(file)
        elif str(file).lower().endswith(TIFF):
            found += tiff_images(Path(file), axes)
        else:
            found.append(Path(file))
    return found
