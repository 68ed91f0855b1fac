"""Conversion of image sources to float32 images of three channels, one at a time.

A source is an array, a list of arrays of differing sizes, a list of paths, or any
lazy sequence with ``len`` and integer indexing. Images are opened only when requested,
so a source may be larger than memory.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from mtsk._validation import check_image
from mtsk.data.channels import Channels, ViewMaker, view_maker
from mtsk.data.files import (
    ImageFolder,
    folder_or_given,
    read_image,
    read_image_ahead,
)
from mtsk.data.tiff import TiffImage
from mtsk.exceptions import ImageError, SkippedImageWarning

__all__ = ["Images", "image_weights"]

T = TypeVar("T")


class Images:
    """A checked, lazy view of an image source.

    Parameters
    ----------
    X : array of shape (n, H, W) or (n, H, W, C), or sequence of length n
        Arrays of shape (H, W) or (H, W, C), paths, or anything that gives such
        arrays when indexed by an integer. The path of a folder is an `ImageFolder`.
    channels : three int, sequence of such triples, "each", None, or ViewMaker
        Channels used as the network's three. Needed where C is not 1 or 3. With several
        triples, one view is made for each; with ``"each"`` one of each channel, grey.
    on_error : {"raise", "skip"}, default="raise"
        What to do with an image that cannot be used.

    Attributes
    ----------
    first : int
        Index of the first image: 0 except for a `part`.
    stems : list of str or None
        Names of the files of an `ImageFolder`.
    skipped : dict of int to str
        Index and reason of each image left out so far.
    """

    def __init__(
        self,
        X: Any,
        channels: Channels | ViewMaker = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        X = folder_or_given(X)
        self.source = _as_sequence(X)
        self.stems = X.stems if isinstance(X, ImageFolder) else None
        self.first = 0
        self.views_of = view_maker(channels)
        self.on_error = on_error
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return image ``index`` as (views, H, W, 3), float32 in [0, 1]."""
        return self._read(index, read_image)

    def _read(self, index: int, read_file: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Read an image by a function for files; return its views."""
        item = self.source[index - self.first]
        where = f"image {index}"
        if isinstance(item, str | os.PathLike):
            where += f" ({item})"
            try:
                item = read_file(item)
            except ImageError as error:
                raise ImageError(f"{where}: {error}") from error
        return self.views_of(check_image(item, where), where)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index, views) of every usable image, in order."""
        return self.each(lambda index, views: (index, views))

    def each(
        self, prepare: Callable[[int, np.ndarray], T], n_threads: int = 0
    ) -> Iterator[T]:
        """Yield the result for every usable image, in order.

        Parameters
        ----------
        prepare : callable
            Takes an index and views.
        n_threads : int, default=0
            Threads that read and prepare images ahead, one image each. 0 reads on
            demand, in the caller's thread; so are custom sequences and types, which may
            not be thread-safe, and files other than plain PNG, JPEG or BMP.

        Yields
        ------
        object
        """
        for index, result in self._results(prepare, n_threads):
            try:
                made = result()
            except (ImageError, OSError) as error:
                if self.on_error == "raise":
                    raise
                self.skipped[index] = str(error)
                continue
            yield made

    def _results(
        self, prepare: Callable[[int, np.ndarray], T], n_threads: int
    ) -> Iterator[tuple[int, Callable[[], T]]]:
        """Yield every index, and a function that returns or raises its result.

        The first image is read in the caller's thread, so that one-time initialisation
        of libraries that read files happens there.
        """

        def here(index: int) -> T:
            return prepare(index, self[index])

        def ahead(index: int) -> T:
            return prepare(index, self._read(index, read_image_ahead))

        def result_or_retry(index: int, future: Future[T]) -> T:
            try:
                return future.result()
            except Exception:
                return here(index)

        n_threads = n_threads if n_threads and self._is_thread_safe() else 0
        indices = range(self.first, self.first + len(self))
        n_here = 1 if n_threads else len(indices)
        for index in indices[:n_here]:
            yield index, partial(here, index)
        if n_here == len(indices):
            return
        with closing(_Pool(n_threads)) as pool:
            for index, future in pool.map(ahead, indices[n_here:]):
                yield index, partial(result_or_retry, index, future)

    def _is_thread_safe(self) -> bool:
        """Return whether images can be read by several threads at once."""
        if type(self.source) in _ARRAYS and self.source.dtype.kind != "O":
            return True
        known = {str, type(Path()), TiffImage, *_ARRAYS}
        held = type(self.source) in (list, tuple, np.ndarray)
        return held and {type(item) for item in self.source} <= known

    def part(self, start: int, stop: int) -> Images:
        """Return images start … stop − 1, which keep their indices.

        It holds no other image where the source can be sliced.
        """
        other = copy.copy(self)
        cut = isinstance(self.source, np.ndarray | list | tuple)
        first = start - self.first
        last = stop - self.first
        other.source = (
            self.source[first:last] if cut else _Chosen(self.source, range(first, last))
        )
        other.first, other.skipped = start, {}
        return other

    def viewed(self, views_of: Channels | ViewMaker) -> Images:
        """Return the same images, seen by other channels."""
        other = copy.copy(self)
        other.views_of, other.skipped = view_maker(views_of), {}
        return other

    def some(self, indices: Sequence[int]) -> Images:
        """Return a lazy subset of the images, indexed from 0."""
        other = copy.copy(self)
        other.source = _Chosen(self.source, [i - self.first for i in indices])
        other.first, other.skipped = 0, {}
        return other

    def warn_of_skipped(self) -> None:
        """Warn once, listing the images left out."""
        if not self.skipped:
            return
        shown = "; ".join(list(self.skipped.values())[:5])
        more = f"; and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
        warnings.warn(
            f"{len(self.skipped)} of {len(self)} images were skipped: {shown}{more}",
            SkippedImageWarning,
            stacklevel=3,
        )


_ARRAYS = (np.ndarray, np.memmap)


class _Pool:
    """Threads that read ahead by at most one item each."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.threads = ThreadPoolExecutor(n_threads, "mtsk-read")

    def map(
        self, work: Callable[[int], T], items: Sequence[int]
    ) -> Iterator[tuple[int, Future[T]]]:
        """Yield items, in order, with the futures of their results."""
        waiting: deque[tuple[int, Future[T]]] = deque()
        for item in items:
            waiting.append((item, self.threads.submit(work, item)))
            if len(waiting) > self.n_threads:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()

    def close(self) -> None:
        """Finish running items and start no more."""
        self.threads.shutdown(cancel_futures=True)


class _Chosen(Sequence):
    """Lazy subset of a sequence that may not support slices."""

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


def _as_sequence(X: Any) -> Any:
    if isinstance(X, str | os.PathLike):
        raise ImageError(
            f"X must be a sequence of images or a folder of them, and {os.fspath(X)!r} "
            "is neither; one image file alone is [path]"
        )
    if type(X) is ImageFolder:
        X = X.paths
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
