"""What libraries in one process take from one another: memory and cores.

A network frees and asks for tens of megabytes at every layer. glibc's malloc gets
such blocks from the system anew each time, and on the machine of
benchmarks/forward.py faulting their pages in took as long as the arithmetic.

The threads of numpy's BLAS spin for a while after each product, waiting for the next.
On two cores that halves the speed of what torch does meanwhile.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = [
    "available_memory",
    "explain_memory",
    "fast_bfloat16",
    "fast_int8",
    "keep_freed_memory",
    "one_blas_thread",
    "release_freed_memory",
]

_M_TRIM_THRESHOLD, _M_TOP_PAD = -1, -2  # from <malloc.h>
_M_MMAP_THRESHOLD, _M_MMAP_MAX = -3, -4
_DEFAULT_MMAP_THRESHOLD = _DEFAULT_TOP_PAD = 128 * 2**10
_DEFAULT_MMAP_MAX = 65536
_HEAP = 64 * 2**20  # of threads other than the first, on 64 bits; then comes a new one
_KEPT = 512 * 2**20
_depth = 0


@contextmanager
def keep_freed_memory(largest: int | None = None) -> Iterator[None]:
    """While open, memory freed by this process stays with it (glibc only).

    Half a gigabyte may stay afterwards: images that come one by one, each with a call
    of its own, are then as fast as many at once.

    Parameters
    ----------
    largest : int, default=None
        Bytes, at most 2**25. Larger blocks go back to the system at once, and leave no
        gaps between those kept: for work that holds a few of them for long. None keeps
        all. What contexts inside this one say does not count.
    """
    global _depth
    libc = _glibc()
    if libc is None:
        yield
        return
    if _depth == 0:
        if largest is None:
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TOP_PAD, _HEAP)  # else a heap goes once nothing is in it
        else:
            libc.mallopt(_M_MMAP_THRESHOLD, largest)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            libc.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
            libc.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_MMAP_THRESHOLD)
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
            libc.mallopt(_M_TOP_PAD, _DEFAULT_TOP_PAD)
            if _free_in_arenas(libc) > _KEPT:
                libc.malloc_trim(0)


def release_freed_memory() -> None:
    """Give back what `keep_freed_memory` kept, for now (glibc only).

    Blocks of ever new sizes leave gaps that are never filled again.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


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


class _Mallinfo2(ctypes.Structure):
    """What <malloc.h> calls so; of interest is what is free in malloc's arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def _free_in_arenas(libc: ctypes.CDLL) -> float:
    if not hasattr(libc, "mallinfo2"):  # before glibc 2.33
        return float("inf")
    libc.mallinfo2.restype = _Mallinfo2
    return float(libc.mallinfo2().fordblks)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
