"""What is found out once about a machine, and kept for later processes."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from mtsk._atomic import atomic_write

__all__ = [
    "CACHE_VARIABLE",
    "cache_folder",
    "cpu_name",
    "known_answers",
    "recall_or_find",
]

CACHE_VARIABLE = "MTSK_CACHE"
_LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE",
)
known_answers: dict[str, str] = {}
"""Of this process."""


@cache
def cpu_name() -> str:
    """Return the CPU's name, and the environment variables that limit its use."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = (line.partition(":") for line in file)
            name = next(v.strip() for k, _, v in lines if k.strip() == "model name")
    except (OSError, StopIteration, UnicodeError):
        pass
    limits = [f"{key}={os.environ[key]}" for key in _LIMITS if key in os.environ]
    return " ".join([name, *limits])


def cache_folder() -> Path:
    """Return the folder where findings are kept.

    That of the environment variable ``MTSK_CACHE``, else one of the user's cache, as
    the operating system has it.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.path.expanduser(base)) / "mtsk"


def recall_or_find(
    question: str, answers: Collection[str], find: Callable[[], str]
) -> str:
    """Return the answer to a question, found once by whoever asks first.

    Processes that ask at the same time get the same answer: that of the first to write
    it. Where the folder cannot be written, each process finds its own; a file that does
    not hold an answer is replaced.

    Parameters
    ----------
    question : str
        All that the answer depends on, in one line.
    answers : collection of str
        The possible answers.
    find : callable
        Returns one of them.

    Returns
    -------
    str
    """
    if question not in known_answers:
        name = hashlib.sha256(question.encode()).hexdigest()[:16]
        file = cache_folder() / f"{name}.txt"
        kept = _read(file, question, answers)
        known_answers[question] = kept or _keep(file, question, answers, find())
    return known_answers[question]


def _read(file: Path, question: str, answers: Collection[str]) -> str | None:
    """Return the answer that a file holds; None where it holds none."""
    try:
        asked, _, answer = file.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeError):
        return None
    return answer.strip() if asked == question and answer.strip() in answers else None


def _keep(file: Path, question: str, answers: Collection[str], answer: str) -> str:
    """Write an answer unless there is one by now; return the one that counts."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        meanwhile = _read(file, question, answers)
        if meanwhile is not None:
            return meanwhile
        with atomic_write(file, durable=False) as opened:
            opened.write(f"{question}\n{answer}\n".encode())
    except OSError:
        pass
    return answer
