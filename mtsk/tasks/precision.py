"""Checks that numeric targets can be represented in single precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from mtsk.exceptions import TargetError

__all__ = ["as_float32", "check_resolution"]

_GREATEST = 1e30  # its square is far from double-precision overflow
_STEP = float(np.finfo(np.float32).eps)  # relative spacing of float32 numbers
_STEPS = 1000  # minimum, from the least target to the greatest


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return numbers in single precision; NaN is unlabelled.

    Raises
    ------
    TargetError
        On infinite and on extremely large numbers.
    """
    greatest = float(np.fmax.reduce(np.abs(values), axis=None, initial=0))
    if np.isinf(greatest):
        raise TargetError("numbers must not be infinite (NaN is unlabelled)")
    if greatest > _GREATEST:
        raise TargetError(
            f"numbers must lie within ±{_GREATEST:g}, got one of size {greatest:g}; "
            "give them in a larger unit"
        )
    return values.astype(np.float32)


def check_resolution(targets: Sequence[np.ndarray]) -> None:
    """Raise on numbers whose differences single precision would lose.

    Parameters
    ----------
    targets : sequence of ndarray of shape (n, L)
        NaN is unlabelled; other types than numbers are not checked.

    Raises
    ------
    TargetError
    """
    numbers = [t for t in targets if t.dtype.kind in "iuf" and len(t)]
    if not numbers:
        return
    lows = reduce(np.fmin, (np.fmin.reduce(t) for t in numbers)).astype(float)
    highs = reduce(np.fmax, (np.fmax.reduce(t) for t in numbers)).astype(float)
    for low, high in zip(lows, highs, strict=True):
        size = max(abs(low), abs(high))
        if np.isfinite(size) and 0 < high - low < _STEPS * _STEP * size:
            raise TargetError(
                f"numbers from {low:.10g} to {high:.10g} differ by too little, for "
                "their size, to be told apart in single precision: take off what they "
                f"have in common first, such as {low:.10g}"
            )
