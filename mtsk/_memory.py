"""Keep freed memory for the next layer instead of handing it back.

A network frees and asks for tens of megabytes at every layer. glibc's malloc gets
such blocks from the system anew each time, and on the machine of
benchmarks/forward.py faulting their pages in took as long as the arithmetic.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from <malloc.h>
_DEFAULT_MMAP_MAX = 65536
_MODEST_TRIM = 64 * 2**20
_depth = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """While open, memory freed by this process stays with it (glibc only)."""
    global _depth
    libc = _glibc()
    if libc is None:
        yield
        return
    if _depth == 0:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            libc.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
            libc.mallopt(_M_TRIM_THRESHOLD, _MODEST_TRIM)
            libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
