"""Progress of long work: a bar for a person, lines for a log."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm.auto import tqdm

__all__ = ["progress_bar"]

_SECONDS = 5.0  # between two lines
_LINE = "{desc}: {n_fmt} of {total_fmt} [{elapsed} gone, {remaining} to go]"


def progress_bar(*arguments: Any, disable: bool = False, **options: Any) -> tqdm:
    """Return a `tqdm` bar: on a terminal and in a notebook as usual.

    Elsewhere (a pipe, a log, a batch job) it writes a line to stderr every five
    seconds, and one at the start and the end.

    Parameters
    ----------
    *arguments : object
        Of tqdm.
    disable : bool, default=False
    **options : object
        Of tqdm.
    """
    if disable or sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(*arguments, disable=disable, **options)
    lines: Any = _Lines(sys.stderr)
    return tqdm(
        *arguments,
        file=lines,
        mininterval=_SECONDS,
        maxinterval=2 * _SECONDS,
        bar_format=_LINE,
        **options,
    )


class _Lines:
    """A stream on which every state of a bar is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line and line != self._last:
            self._stream.write(line + "\n")
            self._last = line

    def flush(self) -> None:
        self._stream.flush()
