"""What a head sees of a task: a group of columns of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["nominal", "binary", "real"]

__all__ = ["ColumnGroup", "Kind"]


@dataclass(frozen=True)
class ColumnGroup:
    """A run of columns that one head output explains.

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
    return _slices([g.n_columns for g in groups])


def score_slices(groups: Sequence[ColumnGroup]) -> list[slice]:
    """Return where each group's scores lie in the table of scores."""
    return _slices([g.size for g in groups])


def joined_slices(owners: Sequence[Sequence[ColumnGroup]]) -> list[slice]:
    """Return where the columns of each owner of several groups lie."""
    return _slices([sum(g.n_columns for g in groups) for groups in owners])


def joined_score_slices(owners: Sequence[Sequence[ColumnGroup]]) -> list[slice]:
    """Return where the scores of each owner of several groups lie."""
    return _slices([sum(g.size for g in groups) for groups in owners])


def _slices(widths: list[int]) -> list[slice]:
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
