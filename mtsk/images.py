"""Any image source becomes float32 pictures of three channels, one at a time.

A source is an array, a list of arrays of differing sizes, a list of paths, or any
lazy sequence with ``len`` and integer indexing. Nothing is opened before it is
asked for, so a source may be larger than memory.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mtsk._validation import check_image, parameter_error
from mtsk.exceptions import ImageError, SkippedImageWarning

__all__ = ["ImageFolder", "Images", "as_views", "image_weights", "read_image"]

Channels = Sequence[int] | Sequence[Sequence[int]] | None

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read one image file with scikit-image.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    ndarray
        The pixels as stored: dtype and number of channels are the file's own. They are
        not turned as EXIF data may ask; where these ask for it, a warning says so (but
        for TIFF).

    Raises
    ------
    ImageError
        Where the file is missing or cannot be decoded; the message names it.
    """
    from skimage.io import imread

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of harmless metadata
            if os.fspath(path).lower().endswith((".tif", ".tiff")):
                return np.asarray(imread(os.fspath(path)))
            with open(path, "rb") as file:  # decoders leave broken files open
                pixels = np.asarray(imread(file))
            turned = _is_to_be_turned(path)
    except Exception as error:  # decoders raise what they like
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


def _is_to_be_turned(path: str | os.PathLike) -> bool:
    """Tell whether an image file that can be read says that it is not upright."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except (OSError, ValueError, SyntaxError):  # a kind that only imread knows
        return False


_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, 0 is not in the standard


class ImageFolder(Sequence):
    """The image files of a folder, in order of name, read when indexed.

    Indexing by an integer reads one image; by a slice, an index array or a boolean
    array it gives a smaller ``ImageFolder``, so that ``train_test_split`` and
    ``GridSearchCV`` never read a file they do not use.

    Parameters
    ----------
    folder : str or path-like, or sequence of paths
        A folder, or the files themselves.

    Attributes
    ----------
    paths : list of pathlib.Path
        The files.

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

    def __init__(self, folder: str | os.PathLike | Sequence[Any]) -> None:
        if not isinstance(folder, str | os.PathLike):
            try:
                self.paths = [Path(p) for p in folder]
            except TypeError:
                raise ImageError(
                    f"ImageFolder takes a folder or a sequence of paths, got {folder!r}"
                ) from None
            return
        if not Path(folder).is_dir():
            what = "it is a file" if Path(folder).exists() else "no such folder"
            raise ImageError(f"{what}: {str(folder)!r}")
        self.paths = sorted(
            p for p in Path(folder).iterdir() if p.suffix.lower() in SUFFIXES
        )
        if not self.paths:
            raise ImageError(
                f"folder {str(folder)!r} holds no image ({', '.join(SUFFIXES)})"
            )

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
        return ImageFolder([self.paths[i] for i in chosen])

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} images)"


class Images:
    """A checked, lazy view of an image source.

    Parameters
    ----------
    X : array of shape (n, H, W) or (n, H, W, C), or sequence of length n
        Arrays of shape (H, W) or (H, W, C), paths, or anything that gives such
        arrays when indexed by an integer.
    channels : sequence of three int, sequence of such triples, or None
        Which channels make the network's three. Needed where C is not 1 or 3. With
        several triples, one view is made for each.
    on_error : {"raise", "skip"}, default="raise"
        What to do with an image that cannot be used.

    Attributes
    ----------
    first : int
        Index of the first image: 0 but for a `part`.
    skipped : dict of int to str
        Index and reason of each image left out so far.
    """

    def __init__(
        self,
        X: Any,
        channels: Channels = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.source = _as_sequence(X)
        self.first = 0
        self.channels = _channel_triples(channels)
        self.on_error = on_error
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return image ``index`` as (views, H, W, 3), float32 in [0, 1]."""
        item = self.source[index - self.first]
        where = f"image {index}"
        if isinstance(item, str | os.PathLike):
            where += f" ({os.fspath(item)})"
            try:
                item = read_image(item)
            except ImageError as error:
                raise ImageError(f"{where}: {error}") from error
        return _views(check_image(item, where), where, self.channels)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index, views) of every usable image, in order."""
        for index in range(self.first, self.first + len(self)):
            try:
                views = self[index]
            except (ImageError, OSError) as error:
                if self.on_error == "raise":
                    raise
                self.skipped[index] = str(error)
                continue
            yield index, views

    def part(self, start: int, stop: int) -> Images:
        """Return images start … stop − 1, which keep their indices.

        It refers to no other image where the source can be cut.
        """
        other = copy.copy(self)
        cut = isinstance(self.source, np.ndarray | list | tuple | ImageFolder)
        first = start - self.first
        last = stop - self.first
        other.source = (
            self.source[first:last] if cut else _Chosen(self.source, range(first, last))
        )
        other.first, other.skipped = start, {}
        return other

    def some(self, indices: Sequence[int]) -> Images:
        """Return a few of the images, still unopened, counted anew from 0."""
        other = copy.copy(self)
        other.source = _Chosen(self.source, [i - self.first for i in indices])
        other.first, other.skipped = 0, {}
        return other

    def warn_of_skipped(self) -> None:
        """Warn once, naming what was left out."""
        if not self.skipped:
            return
        shown = "; ".join(list(self.skipped.values())[:5])
        more = f"; and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
        warnings.warn(
            f"{len(self.skipped)} of {len(self)} images were skipped: {shown}{more}",
            SkippedImageWarning,
            stacklevel=3,
        )


def as_views(image: Any, where: str, channels: Channels) -> np.ndarray:
    """Return one image as `Images` gives it.

    Parameters
    ----------
    image : array of shape (H, W) or (H, W, C)
    where : str
        How messages call it.
    channels
        As of `Images`.

    Returns
    -------
    ndarray of float32, shape (views, H, W, 3)

    Raises
    ------
    ImageError
    """
    return _views(check_image(image, where), where, _channel_triples(channels))


def _views(
    image: np.ndarray, where: str, triples: list[tuple[int, ...]] | None
) -> np.ndarray:
    count = image.shape[2]
    if triples is None:
        if count == 1:
            return np.repeat(image, 3, axis=2)[None]
        if count == 3:
            return image[None]
        raise ImageError(f"{where} has {count} channels; {_remedy(count)}")
    used = max(max(triple) for triple in triples)
    if used >= count:
        raise ImageError(
            f"{where} has {count} channels, but `channels` asks for channel {used}"
        )
    return np.stack([image[:, :, list(triple)] for triple in triples])


class _Chosen(Sequence):
    """Items of a sequence that may know no slices, opened when they are asked for."""

    def __init__(self, source: Any, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.source[self.indices[index]]


def image_weights(sample_weight: Any, n_images: int) -> np.ndarray:
    """Return the weight of each image, checked; None is 1 for all.

    Parameters
    ----------
    sample_weight : array-like of shape (n_images,), or None
    n_images : int

    Returns
    -------
    ndarray of float64, shape (n_images,)

    Raises
    ------
    ValueError
    """
    if sample_weight is None:
        return np.ones(n_images)
    try:
        weight = np.asarray(sample_weight, float)
    except (TypeError, ValueError):
        raise ValueError(
            f"sample_weight must hold {n_images} numbers, got {sample_weight!r:.80}"
        ) from None
    if weight.shape != (n_images,):
        raise ValueError(
            f"sample_weight must hold {n_images} numbers, one an image, got shape "
            f"{weight.shape}"
        )
    if not (weight >= 0).all() or not np.isfinite(weight).all() or not weight.any():
        raise ValueError(
            "sample_weight must be finite, >= 0 and not 0 everywhere, got values from "
            f"{weight.min()} to {weight.max()}"
        )
    return weight


def _remedy(count: int) -> str:
    if count == 2:
        return (
            "if the second is alpha, drop it: image[..., 0] (or channels=(0, 0, 0)); "
            "otherwise choose three with channels=, such as channels=(0, 1, 0)"
        )
    if count == 4:
        return (
            "if the fourth is alpha, drop it: image[..., :3] (or channels=(0, 1, 2)); "
            "otherwise choose three with channels="
        )
    return "choose three with channels=, such as channels=(0, 1, 0)"


def _as_sequence(X: Any) -> Any:
    if isinstance(X, str | os.PathLike):
        raise ImageError(
            "X must be a sequence of images, got one path; for a folder use "
            f"mtsk.ImageFolder({os.fspath(X)!r})"
        )
    if hasattr(X, "columns"):
        raise ImageError("X must be one column of images or paths, got a DataFrame")
    if hasattr(X, "iloc"):  # a pandas Series of paths indexes by label, not place
        X = X.tolist()
    if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")) or isinstance(X, dict):
        raise ImageError(
            "X must be an array (n, H, W[, C]), a list of images or paths, or a "
            f"sequence with len() and integer indexing, got {type(X).__name__}"
        )
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OUS" and X.ndim not in (3, 4):
        raise ImageError(
            "X must have shape (n, H, W) or (n, H, W, C), "
            f"got dtype {X.dtype}, shape {X.shape}; one image alone is X[None]"
        )
    if len(X) == 0:
        raise ImageError("X holds no image")
    return X


def _channel_triples(channels: Channels) -> list[tuple[int, ...]] | None:
    if channels is None:
        return None
    try:
        triples = np.array(channels)
        triples = triples[None] if triples.ndim == 1 else triples
        good = (
            triples.ndim == 2 and triples.shape[1] == 3 and triples.dtype.kind in "iu"
        )
    except ValueError:  # ragged
        good = False
    if not good or triples.min() < 0:
        allowed = "three channel indices >= 0, or a sequence of such triples, or None"
        raise parameter_error("channels", "DeepFeatures", allowed, channels)
    return [tuple(int(c) for c in triple) for triple in triples]
