"""Column groups, by which heads represent tasks: columns of one kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

Kind = Literal["nominal", "binary", "real"]

__all__ = [
    "ColumnGroup",
    "Kind",
    "column_slices",
    "labelled_columns",
    "score_slices",
    "slices_of",
]


@dataclass(frozen=True)
class ColumnGroup:
    """Consecutive columns predicted by one head output.

    Attributes
    ----------
    kind : {"nominal", "binary", "real"}
        ``"nominal"``: one column of class codes 0 … size − 1, exclusive classes.
        ``"binary"``: ``size`` columns of 0 or 1, independent labels.
        ``"real"``: ``size`` columns of numbers.
        NaN marks a missing entry in all three.
    size : int
        Number of classes, labels or numbers, which is the number of scores.
    """

    kind: Kind
    size: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {get_args(Kind)}, got {self.kind!r}")
        if self.size < 1:
            raise ValueError(f"size must be >= 1, got {self.size}")

    @property
    def n_columns(self) -> int:
        """Number of columns in the table of targets."""
        return 1 if self.kind == "nominal" else self.size


def column_slices(groups: Sequence[ColumnGroup]) -> list[slice]:
    """Return where each group's columns lie in the table of targets."""
    return slices_of(g.n_columns for g in groups)


def score_slices(groups: Sequence[ColumnGroup]) -> list[slice]:
    """Return where each group's scores lie in the table of scores."""
    return slices_of(g.size for g in groups)


def labelled_columns(
    groups: Sequence[ColumnGroup],
) -> list[tuple[ColumnGroup, slice, slice]]:
    """Return each group with its slice of columns and its slice of scores."""
    return list(zip(groups, column_slices(groups), score_slices(groups), strict=True))


def slices_of(widths: Iterable[int]) -> list[slice]:
    """Return the slices of consecutive runs of the given widths."""
    ends = np.cumsum(list(widths), dtype=int).tolist()
    return [slice(a, b) for a, b in pairwise([0, *ends])]
