"""What libraries in one process take from one another: memory and cores.

The threads of numpy's BLAS spin for a while after each product, waiting for the next.
On two cores that halves the speed of what torch does meanwhile.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = [
    "available_memory",
    "call_and_release",
    "explain_memory",
    "fast_bfloat16",
    "fast_int8",
    "one_blas_thread",
    "release_freed_memory",
]


T = TypeVar("T")


def release_freed_memory() -> None:
    """Give back to the system what malloc keeps of freed blocks (glibc only).

    Blocks of ever new sizes leave gaps that are never filled again.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def call_and_release(work: Callable[..., T], *arguments: Any) -> T:
    """Return what a function gives, and give back the memory that it freed.

    For workers: joblib's loky replaces a worker whose memory has grown by 300 MB.

    Parameters
    ----------
    work : callable
    *arguments : object

    Returns
    -------
    object
    """
    try:
        return work(*arguments)
    finally:
        release_freed_memory()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Return a context in which numpy's and scipy's BLAS use one thread."""
    return _controller().limit(limits=1, user_api="blas")


def available_memory() -> int | None:
    """Return the bytes that may still be taken, of the machine and of the container.

    Linux only; elsewhere None.
    """
    found = []
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            most = int(file.read())
        with open("/sys/fs/cgroup/memory.current") as file:
            found.append(most - int(file.read()))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return min(found, default=None)


@cache
def fast_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 matrices faster than float32 ones.

    Linux only, where the processor names its features; elsewhere False.
    """
    return _cpu_has("amx_bf16", "avx512_bf16")


@cache
def fast_int8() -> bool:
    """Tell whether this CPU multiplies integers of 8 bits faster than float32 (VNNI).

    Linux only, as `fast_bfloat16`.
    """
    return _cpu_has("amx_int8", "avx512_vnni", "avx_vnni")


def _cpu_has(*features: str) -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            flags = set(file.read().split())
    except OSError:
        return False
    return any(feature in flags for feature in features)


def explain_memory(error: BaseException, shape: tuple[int, ...]) -> BaseException:
    """Return a MemoryError that names the knobs, or the error itself.

    Parameters
    ----------
    error : BaseException
        That a pass through the network ended with.
    shape : tuple of int
        Of the images: (n, views, H, W, 3).
    """
    text = str(error).lower()
    if not isinstance(error, MemoryError) and "memory" not in text:
        return error
    n, _, height, width, _ = shape
    return MemoryError(
        f"not enough memory for the features of {n} image(s) of {height} x {width}; "
        "lower `batch_size`, drop the largest of `scales`, or make the images smaller"
    )


@cache
def _controller() -> ThreadpoolController:  # finding the libraries takes milliseconds
    return ThreadpoolController()


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
