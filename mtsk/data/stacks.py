"""Stacks of images, such as z-stacks and time series, as their slices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from mtsk.data.files import ImageFolder, read_image
from mtsk.exceptions import ImageError, TargetError

__all__ = ["ImageStacks", "join_slices"]


class ImageStacks(Sequence):
    """The slices of stacks, one after another, as images to `fit` and `predict`.

    Parameters
    ----------
    stacks : array of shape (n, Z, H, W) or (n, Z, H, W, C), or sequence of length n
        Arrays of shape (Z, H, W) or (Z, H, W, C), of differing sizes, or paths of TIFF
        files, whose slices are read when they are needed.
    axes : str, default=None
        As of `ImageFolder`, for TIFF files that do not tell their axes.

    Attributes
    ----------
    groups : ndarray of int64, shape (n_slices,)
        The stack that each slice is of: ``groups=`` of `GridSearchCV`,
        `cross_val_score` and `compare_sharing` with a `GroupKFold`, since neighbouring
        slices are alike, and scores would be too good where they are torn apart.

    Raises
    ------
    ImageError
        Where these are no stacks.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.data import ImageStacks
    >>> stacks = ImageStacks(np.zeros((2, 5, 32, 40), np.uint8))
    >>> len(stacks), stacks[0].shape, stacks.groups.tolist()
    (10, (32, 40), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    >>> labels = stacks.split([np.zeros((5, 32, 40), int), None])
    >>> [label is None for label in labels]
    [False, False, False, False, False, True, True, True, True, True]
    >>> [stack.shape for stack in stacks.join(list(stacks))]
    [(5, 32, 40), (5, 32, 40)]
    """

    def __init__(self, stacks: Any, *, axes: str | None = None) -> None:
        if isinstance(stacks, str | os.PathLike):
            raise ImageError(
                "ImageStacks takes a sequence of stacks; one file alone is [path]"
            )
        if not (hasattr(stacks, "__len__") and hasattr(stacks, "__iter__")):
            raise ImageError(
                f"ImageStacks takes a sequence of stacks, got {type(stacks).__name__}"
            )
        if isinstance(stacks, np.ndarray) and stacks.ndim not in (4, 5):
            raise ImageError(
                "stacks must have shape (n, Z, H, W) or (n, Z, H, W, C), got "
                f"{stacks.shape}; one stack alone is [stack]"
            )
        self._slices: list[Any] = []
        lengths = []
        for i, stack in enumerate(stacks):
            own = _slices_of(stack, f"stack {i}", axes)
            self._slices += own
            lengths.append(len(own))
        if not self._slices:
            raise ImageError("stacks hold no image")
        self._ends = np.cumsum([0, *lengths])
        self.groups = np.repeat(np.arange(len(lengths)), lengths)

    @property
    def shape(self) -> tuple[int]:
        """``(n_slices,)``, by which scikit-learn indexes it as one array."""
        return (len(self),)

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):  # scikit-learn writes array[key, ...]
            key = key[0]
        if isinstance(key, int | np.integer):
            found = self._slices[key]
            return found if isinstance(found, np.ndarray) else read_image(found)
        chosen = np.arange(len(self))[key]
        return [self._slices[i] for i in chosen]

    def __repr__(self) -> str:
        return f"ImageStacks({len(self._ends) - 1} stacks, {len(self)} slices)"

    def split(self, labels: Sequence[Any]) -> list[Any]:
        """Return labels of stacks as labels of slices.

        Parameters
        ----------
        labels : sequence of length n
            For each stack an array or a sequence with an entry for each slice, which
            may be None, or None where nothing of the stack is labelled.

        Returns
        -------
        list of length n_slices

        Raises
        ------
        TargetError
            Where a stack has another number of slices than its labels.
        """
        lengths = np.diff(self._ends)
        if not isinstance(labels, list | tuple | np.ndarray):
            raise TargetError(
                "labels must be a list with an entry for each stack, got "
                f"{type(labels).__name__}"
            )
        if len(labels) != len(lengths):
            raise TargetError(
                f"there are {len(lengths)} stacks, and labels of {len(labels)}"
            )
        out: list[Any] = []
        for i, (own, n) in enumerate(zip(labels, lengths, strict=True)):
            if own is not None and np.ndim(own) == 0 and not hasattr(own, "__len__"):
                raise TargetError(f"labels of stack {i} must have {n} slices: {own!r}")
            if own is not None and len(own) != n:
                raise TargetError(f"stack {i} has {n} slices, its labels {len(own)}")
            out += [None] * n if own is None else list(own)
        return out

    def join(self, slices: Sequence[Any]) -> list[np.ndarray]:
        """Return what there is of each slice, such as predictions, as stacks.

        Parameters
        ----------
        slices : sequence of length n_slices

        Returns
        -------
        list of ndarray, each with the slices of a stack along its first axis

        Raises
        ------
        ValueError
            On another number of slices, or slices of differing sizes in a stack.
        """
        if not isinstance(slices, list | tuple | np.ndarray):
            raise ValueError(
                "slices must be a list with an entry for each slice, such as the "
                f"predictions of one task, got {type(slices).__name__}"
            )
        if len(slices) != len(self):
            raise ValueError(f"there are {len(self)} slices, got {len(slices)}")
        for i, (start, stop) in enumerate(pairwise(self._ends)):
            if len({np.shape(own) for own in slices[start:stop]}) > 1:
                raise ValueError(f"slices of stack {i} have differing sizes")
        return [
            np.stack([np.asarray(s) for s in slices[start:stop]])
            for start, stop in pairwise(self._ends)
        ]


def _slices_of(stack: Any, where: str, axes: str | None) -> list[Any]:
    if isinstance(stack, str | os.PathLike):
        if not os.path.isfile(stack):
            raise ImageError(f"{where}: no such file: {os.fspath(stack)!r}")
        return list(ImageFolder([stack], axes=axes).paths)
    try:
        array = np.asanyarray(stack)
    except ValueError:  # ragged
        raise ImageError(f"{where} has slices of differing sizes") from None
    if array.ndim not in (3, 4) or array.dtype.kind == "O":
        raise ImageError(
            f"{where} must have shape (Z, H, W) or (Z, H, W, C), or be a file, got "
            f"dtype {array.dtype}, shape {array.shape}"
        )
    if 0 in array.shape:
        raise ImageError(f"{where} is empty: its shape is {array.shape}")
    if array.ndim == 3 and array.shape[2] in (3, 4):
        raise ImageError(
            f"{where} has the shape {array.shape}, with a last axis as of channels: a "
            "stack of pictures is (Z, H, W, C), and one alone is [stack]"
        )
    return list(array)


def join_slices(ids: Any, *, min_iou: float = 0.25) -> np.ndarray:
    """Give objects found slice by slice the same id where they overlap.

    An object goes on in the next slice as the one that it shares most with, one to
    one: the assignment of the largest sum of IoU (Kuhn, *Naval Research Logistics
    Quarterly* 2, 1955) among pairs of at least ``min_iou``.

    Parameters
    ----------
    ids : array of int, shape (Z, H, W)
        Ids of each slice's own objects; 0 is none.
    min_iou : float in (0, 1], default=0.25

    Returns
    -------
    ndarray of int64, shape (Z, H, W)
        Ids 1 … n, in the order in which objects first appear.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.data import join_slices
    >>> first = np.array([[1, 1, 0, 2, 2]])
    >>> join_slices([first, first[:, ::-1]]).tolist()
    [[[1, 1, 0, 2, 2]], [[1, 1, 0, 2, 2]]]
    """
    try:
        ids = np.asarray(ids)
    except ValueError:  # ragged
        raise ValueError("ids must have slices of one size, (Z, H, W)") from None
    if ids.ndim != 3 or ids.dtype.kind not in "iu" or (ids.size and ids.min() < 0):
        raise ValueError(
            "ids must be integers >= 0 of shape (Z, H, W), got dtype "
            f"{ids.dtype}, shape {ids.shape}"
        )
    if not isinstance(min_iou, Real) or not 0 < min_iou <= 1:
        raise ValueError(f"min_iou must lie in (0, 1], got {min_iou!r}")
    names, places = np.unique(ids, return_inverse=True)  # int64 cannot hold all of them
    ids = places.reshape(ids.shape) + int(len(names) > 0 and names[0] != 0)
    out = np.zeros(ids.shape, np.int64)
    n = 0
    for z, own in enumerate(ids):
        names, places = np.unique(own, return_inverse=True)
        new = np.zeros(len(names), np.int64)
        if z:
            before, after = _partners(out[z - 1], own, min_iou)
            new[np.searchsorted(names, after)] = before
        fresh = (names > 0) & (new == 0)
        new[fresh] = n + 1 + np.arange(fresh.sum())
        n += int(fresh.sum())
        out[z] = new[places].reshape(own.shape)
    return out


def _partners(
    a: np.ndarray, b: np.ndarray, min_iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids of two slices that are the same object, one to one."""
    both = (a > 0) & (b > 0)
    pairs, shared = np.unique(np.stack([a[both], b[both]]), axis=1, return_counts=True)
    of_a, rows = np.unique(pairs[0], return_inverse=True)
    of_b, columns = np.unique(pairs[1], return_inverse=True)
    area = [
        dict(zip(*np.unique(ids, return_counts=True), strict=True)) for ids in (a, b)
    ]
    union = np.array([area[0][p] + area[1][q] for p, q in pairs.T]) - shared
    iou = np.zeros((len(of_a), len(of_b)))
    iou[rows, columns] = shared / union
    iou[iou < min_iou] = 0
    chosen = linear_sum_assignment(iou, maximize=True)
    kept = iou[chosen] > 0
    return of_a[chosen[0][kept]], of_b[chosen[1][kept]]
