"""Grouping of tasks for joint training, from the gains of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

__all__ = ["best_partition"]

_MOST_EXHAUSTIVE = 8  # tasks: 4,140 partitions


def best_partition(pairs: np.ndarray, every: np.ndarray) -> list[list[int]]:
    """Return the partition of tasks with the largest sum of gains.

    Parameters
    ----------
    pairs : ndarray of shape (T, T)
        Entry (i, j): gain of j when trained with i.
    every : ndarray of shape (T,)
        Gains of all trained together.

    Returns
    -------
    list of list of int
        Ties go to fewer groups.
    """
    n = len(pairs)

    def total(partition: Sequence[Sequence[int]]) -> float:
        return sum(_group_gain(part, pairs, every) for part in partition)

    if n <= _MOST_EXHAUSTIVE:
        ways = sorted(_partitions(list(range(n))), key=len)
        return max(ways, key=lambda way: round(total(way), 12))
    parts = [[i] for i in range(n)]
    while len(parts) > 1:
        merged = [
            [*(p for k, p in enumerate(parts) if k not in (a, b)), parts[a] + parts[b]]
            for a, b in combinations(range(len(parts)), 2)
        ]
        best = max(merged, key=total)
        if total(best) < total(parts):
            break
        parts = best
    return sorted(sorted(part) for part in parts)


def _group_gain(part: Sequence[int], pairs: np.ndarray, every: np.ndarray) -> float:
    """Return the sum of gains in a group, each the mean over its partners."""
    if len(part) == 1:
        return 0.0
    if len(part) == len(every):
        return float(every.sum())
    return float(pairs[np.ix_(part, part)].sum() / (len(part) - 1))  # diagonal is 0


def _partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """Yield every partition of some items into groups."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for smaller in _partitions(rest):
        yield [[first], *smaller]
        for i, part in enumerate(smaller):
            yield [[first, *part], *smaller[:i], *smaller[i + 1 :]]
