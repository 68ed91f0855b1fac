"""Targets as arrays, or a clear refusal."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtsk.exceptions import TargetError

__all__ = ["as_array", "as_numbers"]


def as_array(target: Any) -> np.ndarray:
    """Return a target as an array.

    Raises
    ------
    TargetError
        Where numpy makes none of it, such as lists of unequal length.
    """
    try:
        return np.asarray(target)
    except (TypeError, ValueError):  # UnicodeDecodeError is one
        raise TargetError(f"cannot be made an array: {target!r}"[:200]) from None


def as_numbers(target: Any, form: str) -> np.ndarray:
    """Return a target as an array of float64.

    Parameters
    ----------
    target : array-like of int or float
    form : str
        What it must be, for messages, such as "points must be numbers of shape (n, 2)".

    Raises
    ------
    TargetError
        Where it holds anything else: words that look like numbers, complex numbers.
    """
    try:
        array = np.asarray(target)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.size and array.dtype.kind not in "iuf":
        raise TargetError(f"{form}, got {target!r}"[:200])
    return array.astype(float) if array.size else np.empty(array.shape)
