"""A cache of what was computed from an image, in memory or on disk.

Entries are keyed by the image's content and everything that shapes the result, so
that GridSearchCV finds the same image again in every fold and for every candidate.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import threading
import warnings
import zipfile
import zlib
from collections import OrderedDict
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mtsk._atomic import atomic_write
from mtsk._validation import parameter_error
from mtsk.features.feature_maps import FeatureMaps

__all__ = [
    "CachePart",
    "DiskCache",
    "FeatureCache",
    "MemoryCache",
    "content_digest",
    "open_cache",
]


class FeatureCache(Protocol):
    """What DeepFeatures needs of a cache, which holds taps in arrays."""

    def get(self, key: str) -> FeatureMaps | None:
        """Return an entry, or None."""

    def put(self, key: str, maps: FeatureMaps) -> None:
        """Keep an entry."""


class MemoryCache:
    """Least-recently-used entries up to a number of bytes.

    It takes whatever tells its size as ``nbytes``: features of images, and what heads
    derive from a table of them.

    Features come out read-only: writing into them would change what others get.
    Clones share it: ``clone`` and ``deepcopy`` hand back the same cache. A process
    of its own (joblib's) starts with an empty one.

    Parameters
    ----------
    max_bytes : int, default=None
        None takes half of the machine's memory.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        most: Any = _half_of_memory() if max_bytes is None else max_bytes
        if not isinstance(most, Integral) or most < 0:
            allowed = "an int >= 0, or None"
            raise parameter_error("max_bytes", "MemoryCache", allowed, max_bytes)
        self.max_bytes = int(most)
        self.n_bytes = 0
        self._entries: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __sklearn_clone__(self) -> MemoryCache:
        return self

    def __deepcopy__(self, memo: dict) -> MemoryCache:
        return self

    def __reduce__(self) -> tuple:
        return MemoryCache, (self.max_bytes,)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"MemoryCache({len(self)} entries, {self.n_bytes / 2**20:.0f} MiB)"

    def get(self, key: str) -> Any:
        """Return an entry, or None."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            entry = self._entries.get(key)
        return copy.copy(entry) if isinstance(entry, FeatureMaps) else entry

    def put(self, key: str, entry: Any) -> None:
        """Keep an entry; the least recently used make room for it."""
        if isinstance(entry, FeatureMaps):
            entry = entry.read_only()
        with self._lock:
            if key in self._entries or entry.nbytes > self.max_bytes:
                return
            while self.n_bytes + entry.nbytes > self.max_bytes:
                self.n_bytes -= self._entries.popitem(last=False)[1].nbytes
            self._entries[key] = entry
            self.n_bytes += entry.nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.n_bytes = 0


class CachePart:
    """The entries of a cache that are about one thing.

    Parameters
    ----------
    cache : MemoryCache
    name : str
        Of the thing; part of every key.
    """

    def __init__(self, cache: MemoryCache, name: str) -> None:
        self.cache = cache
        self.name = name

    def get(self, key: str) -> Any:
        """Return an entry, or None."""
        return self.cache.get(content_digest(self.name, key))

    def put(self, key: str, entry: Any) -> None:
        """Keep an entry."""
        self.cache.put(content_digest(self.name, key), entry)


class DiskCache:
    """One file an entry, written whole or not at all; processes may share it.

    Parameters
    ----------
    folder : str or path-like
        Made where it does not exist.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> FeatureMaps | None:
        """Return an entry, or None where there is none or its file is damaged."""
        try:
            with zipfile.ZipFile(self.folder / f"{key}.npz") as file:
                strides = _read(file, "strides")
                taps = [_read(file, f"tap{i}") for i in range(len(strides))]
                rest = [_read(file, name) for name in ("shape", "position", "digest")]
                if str(_read(file, "seal")) != content_digest(
                    key, *taps, strides, *rest
                ):
                    return None  # of another image, or by another program
        except _DAMAGE:
            return None  # not there, cut short or altered: made anew
        shape, position, digest = rest
        return FeatureMaps(
            taps,
            [(float(a), float(b)) for a, b in strides],
            (int(shape[0]), int(shape[1])),
            bool(position),
            str(digest),
        )

    def put(self, key: str, maps: FeatureMaps) -> None:
        """Keep an entry: written beside its place, then renamed into it.

        Warns
        -----
        UserWarning
            Where it cannot be written, as on a full disk: it is then not kept.
        """
        taps = [np.asarray(tap) for tap in maps.taps]
        rest: dict[str, Any] = {
            "strides": np.array(maps.strides, float),
            "shape": np.array(maps.shape),
            "position": np.array(maps.position),
            "digest": np.array(maps.digest),
        }
        arrays: dict[str, Any] = {f"tap{i}": tap for i, tap in enumerate(taps)}
        seal = np.array(content_digest(key, *taps, *rest.values()))
        path = Path(self.folder) / f"{key}.npz"
        try:
            with atomic_write(path, durable=False) as file:
                np.savez(file, seal=seal, **rest, **arrays)
        except OSError as error:
            warnings.warn(
                f"features could not be kept in the cache {str(self.folder)!r} "
                f"({error.strerror or error}); they are computed anew each time",
                UserWarning,
                stacklevel=2,
            )


_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array of an .npz file, read to its end so that its CRC is checked."""
    data = io.BytesIO(file.read(f"{name}.npy"))
    return np.lib.format.read_array(data, allow_pickle=False)


def open_cache(cache: Any) -> FeatureCache | None:
    """Return the cache that a parameter means.

    Parameters
    ----------
    cache : None, "memory", path, or object with ``get`` and ``put``
        ``"memory"`` is one cache shared by the whole process.

    Returns
    -------
    FeatureCache or None
    """
    if cache is None:
        return None
    if isinstance(cache, str) and cache == "memory":
        return _PROCESS_CACHE
    if not isinstance(cache, str | os.PathLike):
        return cache
    if not os.fspath(cache):  # the folder that happens to be the current one
        allowed = "None, 'memory', a cache or the name of a folder"
        raise parameter_error("cache", "DeepFeatures", allowed, cache)
    try:
        return DiskCache(cache)
    except OSError as error:
        allowed = f"None, 'memory', a cache or a folder that can be made ({error})"
        raise parameter_error("cache", "DeepFeatures", allowed, cache) from error


def content_digest(*parts: Any) -> str:
    """Return a hash of arrays and of the ``repr`` of everything else."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(repr((part.dtype.str, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def _half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # not on every system
        return 2**32


_PROCESS_CACHE = MemoryCache()
