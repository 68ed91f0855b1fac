"""Files that are whole, or not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_write"]


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes a path's place once it is whole.

    It is written beside its place, under a name that begins with a dot, and renamed
    into it, which no reader sees half done. Where anything fails, what was there stays.

    Parameters
    ----------
    path : Path
    durable : bool, default=True
        Whether it is on disk before it is renamed, so that a power cut leaves either
        the old file or the new one.

    Yields
    ------
    file
        Open for writing bytes.

    Raises
    ------
    OSError
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(part, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
