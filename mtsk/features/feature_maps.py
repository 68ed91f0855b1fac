"""FeatureMaps: one image's taps at their own strides, and the ways out of them.

Where a tap's cell lies: cell i of a tap of stride s is centred on pixel
s·i + (s − 1)/2, the half-pixel convention (``align_corners=False``). Every way out
interpolates bilinearly on those centres and repeats the border beyond them, so that
``at``, ``region_means`` and ``scores`` agree to rounding.

Taps may be tensors that stay on a GPU, as `DeepFeatures` leaves them with CUDA: every
way out computes where they are, and only rows, regions or score maps travel. A pixel's
hypercolumn is thousands of numbers, its scores a few.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from operator import index
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from mtsk.features.interpolation import (
    Grid,
    axis_means,
    bags,
    neighbours,
    pool_operator,
    upsample,
)

__all__ = ["POSITION_NAMES", "FeatureMaps", "position_columns"]

POSITION_NAMES = (
    "y",
    "x",
    "y^2",
    "x^2",
    "xy",
    "sin(pi y)",
    "cos(pi y)",
    "sin(pi x)",
    "cos(pi x)",
)


def position_columns(
    y: np.ndarray, x: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return nine functions of the place in the image.

    Parameters
    ----------
    y, x : ndarray of one shape (...)
        Pixel coordinates.
    shape : (int, int)
        Height and width of the image, which span [−1, 1].

    Returns
    -------
    ndarray of float32, shape (..., 9)
        As named in ``POSITION_NAMES``.
    """
    y = (np.asarray(y, np.float32) + 0.5) * (2 / shape[0]) - 1
    x = (np.asarray(x, np.float32) + 0.5) * (2 / shape[1]) - 1
    waves = [f(np.pi * c) for c in (y, x) for f in (np.sin, np.cos)]
    return np.stack([y, x, y * y, x * x, x * y, *waves], axis=-1).astype(np.float32)


def _take_warning_of_read_only_arrays() -> None:
    """Take torch's warning, given once a process, of arrays that may not be written to.

    The tensors that are made of such arrays here are never written to.
    """
    array = np.zeros(1, np.float32)
    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.from_numpy(array)


_take_warning_of_read_only_arrays()


@dataclass(eq=False)
class FeatureMaps:
    """The hypercolumns of one image, never built at full resolution.

    Parameters
    ----------
    taps : list of ndarray or Tensor, shape (h, w, C)
        Outputs of the tapped layers, half precision or single. Tensors are all on one
        device, where all that follows from them is computed.
    strides : list of (float, float)
        Image pixels per cell, down and across, of each tap. Not whole where an
        image was resized.
    shape : (int, int)
        Height and width of the image in pixels.
    position : bool, default=False
        Whether the nine columns of position follow the taps' channels.
    digest : str, default=""
        Hash of the image, which tells it from others.
    starts : list of (float, float), default=None
        Of a window of a larger image: where each tap begins, down and across, in
        pixels of the window; below 0 where its first cell begins before it. None is
        (0, 0) for all.
    place : (int, int, int, int), default=None
        Of a window: its top and left in the whole, and the whole's height and width.

    Raises
    ------
    ValueError
        Where taps, strides, starts and shape are none, or do not belong together.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.features import FeatureMaps
    >>> maps = FeatureMaps([np.arange(4.0).reshape(2, 2, 1)], [(4, 4)], (8, 8))
    >>> maps.at([[0, 0], [3.5, 3.5], [7, 7]])
    array([[0. ], [1.5], [3. ]], dtype=float32)
    """

    taps: Sequence[np.ndarray | torch.Tensor]
    strides: list[tuple[float, float]]
    shape: tuple[int, int]
    position: bool = False
    digest: str = ""
    starts: list[tuple[float, float]] | None = None
    place: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        self.shape = _checked_shape(self.shape)
        _check_taps(self.taps)
        _check_pairs("strides", self.strides, len(self.taps))
        if not all(0 < s < np.inf for pair in self.strides for s in pair):
            raise ValueError(f"strides must be above 0, got {self.strides}")
        if self.starts is not None:
            _check_pairs("starts", self.starts, len(self.taps))

    @property
    def n_features(self) -> int:
        """Length of a hypercolumn."""
        return sum(t.shape[2] for t in self.taps) + len(POSITION_NAMES) * self.position

    @property
    def nbytes(self) -> int:
        """Bytes that the taps hold."""
        return sum(tap.nbytes for tap in self.taps)

    @property
    def device(self) -> torch.device:
        """Where the taps are: the CPU, for arrays."""
        tap = self.taps[0]
        return tap.device if isinstance(tap, torch.Tensor) else torch.device("cpu")

    @property
    def _in_tensors(self) -> bool:
        return isinstance(self.taps[0], torch.Tensor)

    def tap(self, i: int) -> torch.Tensor:
        """Return a tap as a tensor (h, w, C), where it is.

        It shares the memory of a tap that may be written to, and is a copy of one that
        may not, such as one in a cache.
        """
        tap = self.taps[i]
        is_shared = isinstance(tap, torch.Tensor) or tap.flags.writeable
        return self._tensor(i) if is_shared else self._tensor(i).clone()

    def _tensor(self, i: int) -> torch.Tensor:
        """Return a tap as a tensor that nobody writes to."""
        tap = self.taps[i]
        if isinstance(tap, torch.Tensor):
            return tap.detach()
        return torch.from_numpy(np.require(tap, requirements="C"))

    def read_only(self) -> FeatureMaps:
        """Return the same maps; from now on their arrays cannot be written to.

        For caches: what one caller gets of them, others get too.
        """
        for tap in self.taps:
            if isinstance(tap, np.ndarray):
                tap.setflags(write=False)
        twin = copy.copy(self)
        twin.taps = tuple(self.taps)
        return twin

    def to_host(self) -> FeatureMaps:
        """Return the same maps with taps in arrays; themselves where they are so.

        What numpy does not know, bfloat16, becomes single precision.
        """
        if not self._in_tensors:
            return self
        here = [self._tensor(i).cpu() for i in range(len(self.taps))]
        known = [t.float() if t.dtype == torch.bfloat16 else t for t in here]
        return replace(self, taps=[tap.numpy() for tap in known])

    def in_single_precision(self) -> FeatureMaps:
        """Return the same maps with taps in single precision, where they are.

        All that is made of half precision is made of numbers turned to single; several
        results of one image take less time where that is done once.
        """
        taps = [self._tensor(i).float() for i in range(len(self.taps))]
        return replace(
            self, taps=taps if self._in_tensors else [tap.numpy() for tap in taps]
        )

    def __float__(self) -> float:
        # What numpy asks of the members of a table, in a Pipeline for instance.
        raise TypeError(
            "FeatureMaps are maps, not rows of a table: where rows are needed, take "
            'DeepFeatures(output="vector") or, for pixels, their `at`'
        )

    @cached_property
    def _columns(self) -> list[slice]:
        ends = np.cumsum([0, *(tap.shape[2] for tap in self.taps)]).tolist()
        return [slice(a, b) for a, b in pairwise(ends)]

    @cached_property
    def _grids(self) -> dict[Grid, list[int]]:
        """Taps by grid: those on one grid are interpolated together."""
        starts = self.starts or [(0.0, 0.0)] * len(self.taps)
        grids: dict[Grid, list[int]] = {}
        for i, tap in enumerate(self.taps):
            grid = (*tap.shape[:2], *self.strides[i], *starts[i])
            grids.setdefault(grid, []).append(i)
        return grids

    @property
    def _frame(self) -> tuple[int, int, int, int]:
        return self.place or (0, 0, *self.shape)

    @torch.inference_mode()
    def at(self, points: np.ndarray) -> np.ndarray:
        """Return hypercolumns at points, bilinearly interpolated.

        Parameters
        ----------
        points : array-like of shape (n, 2)
            Rows and columns of pixels, whole or not. Beyond the image, the border is
            repeated.

        Returns
        -------
        ndarray of float32, shape (n, n_features)
        """
        points = np.asarray(points, float)
        if points.size == 0:
            points = points.reshape(0, 2)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"points must have shape (n, 2), got {points.shape}")
        if not np.isfinite(points).all():
            raise ValueError("points must be finite numbers")
        device = self.device
        size = len(points), self.n_features
        out = torch.empty(size, dtype=torch.float32, device=device)
        for grid, members in self._grids.items():
            near, share = neighbours(points[:, 0], points[:, 1], grid)
            used = None
            if near.size * _DENSE < grid[0] * grid[1]:  # few of many cells
                distinct, places = np.unique(near, return_inverse=True)
                near = places.reshape(near.shape)
                used = torch.from_numpy(distinct).to(device)
            cells, weights = (torch.from_numpy(a).to(device) for a in (near, share))
            for i in members:
                out[:, self._columns[i]] = nn.functional.embedding_bag(
                    cells, self._flat(i, used), per_sample_weights=weights, mode="sum"
                )
        rows = out.cpu().numpy()
        if self.position:
            rows[:, -len(POSITION_NAMES) :] = self._position(points[:, 0], points[:, 1])
        return rows

    def _flat(self, i: int, cells: torch.Tensor | None = None) -> torch.Tensor:
        """Return a tap's cells, all or some, one after another, single precision."""
        flat = self._tensor(i).flatten(0, 1)
        return (flat if cells is None else flat[cells]).float()

    def _position(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        top, left, height, width = self._frame
        return position_columns(y + top, x + left, (height, width))

    def scores(
        self, coef: np.ndarray, intercept: np.ndarray | None = None
    ) -> np.ndarray:
        """Return a linear head's score maps, made at each grid and then summed.

        Equal to ``at(every pixel) @ coef + intercept``: interpolation and the head
        are both linear, so their order does not matter.

        Parameters
        ----------
        coef : array-like of shape (n_features, K)
        intercept : array-like of shape (K,), or one number, default=None

        Returns
        -------
        ndarray of float32, shape (H, W, K)
        """
        coef = _real("coef", coef)
        if coef.ndim != 2 or coef.shape[0] != self.n_features:
            raise ValueError(
                f"coef must have shape (n_features, K), here ({self.n_features}, K), "
                f"got {coef.shape}"
            )
        start = _real("intercept", 0 if intercept is None else intercept)
        if start.shape not in ((), coef.shape[1:]):
            raise ValueError(
                f"intercept must be one number or {coef.shape[1]}, one a column of "
                f"coef, got shape {start.shape}"
            )
        return self._sum_of_grids(coef, np.broadcast_to(start, coef.shape[1:]).copy())

    @torch.inference_mode()
    def _sum_of_grids(self, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
        weights = torch.from_numpy(coef).to(self.device)
        start = torch.from_numpy(intercept).to(weights)
        grids: dict[Grid, torch.Tensor] = {}
        for grid, members in self._grids.items():
            h, w = grid[:2]
            scores = start.repeat(h * w, 1)
            for i in members:
                scores.addmm_(self._flat(i), weights[self._columns[i]])
            grids[grid] = scores.view(h, w, -1)
            start = torch.zeros_like(start)  # one grid's cells have the intercept
        out = upsample(grids, self.shape)
        if self.position:
            of_place = weights[-len(POSITION_NAMES) :]
            out += _position_scores(of_place, self.shape, self._frame)
        return out.cpu().numpy()

    def region_means(self, segments: np.ndarray) -> np.ndarray:
        """Return the mean hypercolumn of each region.

        One sparse operator a grid (sum over pixels ∘ interpolate) is applied to
        the taps, so the cost is that of the coarse maps.

        Parameters
        ----------
        segments : ndarray of int, shape (H, W)
            Region of each pixel, 0 … R − 1; negative pixels belong to none.

        Returns
        -------
        ndarray of float32, shape (R, n_features)
            NaN for a number that no pixel has.

        Raises
        ------
        ValueError
            On another shape or dtype, and numbers larger than there are pixels.
        """
        segments = np.asarray(segments)
        if segments.shape != self.shape or segments.dtype.kind not in "iu":
            raise ValueError(
                f"segments must be an integer map of shape {self.shape}, got "
                f"dtype {segments.dtype}, shape {segments.shape}"
            )
        if segments.max() >= segments.size:
            raise ValueError(
                f"segments has regions up to {segments.max()}, and {segments.size} "
                "pixels: number them from 0 (skimage.segmentation.relabel_sequential)"
            )
        rows, cols = np.nonzero(segments >= 0)
        region = segments[rows, cols].astype(np.intp)
        n_regions = int(region.max(initial=-1)) + 1
        sizes = np.bincount(region, minlength=n_regions).astype(float)
        share = 1 / np.where(sizes > 0, sizes, np.nan)
        out = np.empty((n_regions, self.n_features), np.float32)
        if self._in_tensors:
            sums = self._sums_of_tensors(segments, n_regions)
        else:
            sums = self._sums_of_arrays(region, rows, cols, n_regions)
        out[:, : sums.shape[1]] = sums * share[:, None]
        if self.position:
            columns = self._position(rows, cols)
            ones = sparse.csr_array(
                (np.ones(len(region)), (region, np.arange(len(region)))),
                shape=(n_regions, len(region)),
            )
            out[:, -columns.shape[1] :] = (ones @ columns) * share[:, None]
        return out

    def _sums_of_arrays(
        self, region: np.ndarray, rows: np.ndarray, cols: np.ndarray, n_regions: int
    ) -> np.ndarray:
        """Return each region's sum of hypercolumns, without those of position."""
        out = np.empty((n_regions, self._columns[-1].stop), np.float32)
        for grid, members in self._grids.items():
            operator = pool_operator(region, rows, cols, grid, n_regions)
            for i in members:
                out[:, self._columns[i]] = operator @ self._flat(i).numpy()
        return out

    @torch.inference_mode()
    def _sums_of_tensors(self, segments: np.ndarray, n_regions: int) -> np.ndarray:
        """Return what `_sums_of_arrays` does, made where the taps are.

        Only the map of regions goes there, and only the sums come back.
        """
        device = self.device
        regions = torch.from_numpy(segments.astype(np.int64)).to(device)
        size = n_regions, self._columns[-1].stop
        out = torch.empty(size, dtype=torch.float32, device=device)
        for grid, members in self._grids.items():
            own = bags(regions, grid, n_regions)
            for i in members:
                out[:, self._columns[i]] = own.sums(self._flat(i))
        return out.cpu().numpy()

    def block_means(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the mean hypercolumn of each block of a grid of rectangles.

        Equal to `region_means` of them, and much faster: interpolation and means are
        both products of a part along rows and a part along columns.

        Parameters
        ----------
        rows, columns : array-like of int, shape (m + 1,) and (n + 1,)
            Where the blocks begin and the last one ends: 0 < … < H, 0 < … < W.

        Returns
        -------
        ndarray of float32, shape (m · n, n_features)
            Row by row.
        """
        down, across = (np.asarray(ends) for ends in (rows, columns))
        means = []
        for grid, members in self._grids.items():
            h, w, sy, sx, top, left = grid
            along_y = axis_means(down, h, sy, top)
            along_x = axis_means(across, w, sx, left)
            of_grid = {}
            for i in members:
                tap = self._tensor(i).float().cpu().numpy()
                wide = along_y @ tap.reshape(h, -1)
                some = wide.reshape(len(along_y), w, -1)
                of_grid[i] = (along_x @ some).reshape(-1, some.shape[2])
            means.append(of_grid)
        every = {i: found for of_grid in means for i, found in of_grid.items()}
        parts = [every[i] for i in range(len(self.taps))]
        if self.position:
            y, x = np.indices(self.shape)
            columns_of = self._position(y.ravel(), x.ravel()).reshape(*self.shape, -1)
            sums = np.add.reduceat(
                np.add.reduceat(columns_of, down[:-1], axis=0), across[:-1], axis=1
            )
            sizes = np.diff(down)[:, None] * np.diff(across)
            parts.append((sums / sizes[..., None]).reshape(-1, sums.shape[2]))
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def global_mean(self) -> np.ndarray:
        """Return the mean of each channel over its tap, for tasks of whole images.

        Returns
        -------
        ndarray of float32, shape (n_channels,)
            Without the columns of position.
        """
        return self._vector.copy()

    @cached_property
    def _vector(self) -> np.ndarray:  # kept, so that a cached image is averaged once
        # Row by row: one sum in float32 over a million cells loses digits.
        if self._in_tensors:
            taps = (self._tensor(i) for i in range(len(self.taps)))
            rows = [tap.mean(dim=1, dtype=torch.float32) for tap in taps]
            return torch.cat([row.mean(dim=0) for row in rows]).cpu().numpy()
        arrays = map(np.asarray, self.taps)
        return np.concatenate(
            [tap.mean(axis=1, dtype=np.float32).mean(axis=0) for tap in arrays]
        )


def _checked_shape(shape: Any) -> tuple[int, int]:
    try:
        height, width = (index(side) for side in shape)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"shape must be two integers above 0, got {shape!r}")
    return height, width


def _check_taps(taps: Any) -> None:
    listed = isinstance(taps, Sequence)
    kinds = {isinstance(tap, torch.Tensor) for tap in taps} if listed else set()
    if len(kinds) != 1:
        raise ValueError("taps must be one or more arrays, or one or more tensors")
    if kinds == {True}:
        good = [tap.is_floating_point() for tap in taps]
    else:
        good = [isinstance(tap, np.ndarray) and tap.dtype in _FLOATS for tap in taps]
    if not all(good) or any(tap.ndim != 3 or 0 in tap.shape for tap in taps):
        facts = [(getattr(t, "dtype", type(t)), getattr(t, "shape", "")) for t in taps]
        raise ValueError(
            "taps must have shape (h, w, channels), none of them 0, and real floating "
            f"point numbers in the machine's order of bytes, got {facts}"
        )
    if len({tap.device for tap in taps if isinstance(tap, torch.Tensor)}) > 1:
        raise ValueError("taps must be on one device")


_DENSE = 2  # cells asked for, as a share of a grid's, above which all are converted
_FLOATS = tuple(map(np.dtype, (np.float16, np.float32, np.float64)))


def _check_pairs(name: str, pairs: Any, n: int) -> None:
    try:
        good = [len(pair) == 2 for pair in pairs]
        finite = bool(np.isfinite(np.array(list(pairs), float)).all())
    except (TypeError, ValueError):
        good, finite = [], False
    if len(good) != n or not all(good) or not finite:
        raise ValueError(
            f"{name} must be {n} pairs of numbers, one a tap, got {pairs!r}"
        )


def _real(name: str, values: Any) -> np.ndarray:
    """Return numbers as a contiguous array of float32."""
    given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, got dtype {given.dtype}")
    with np.errstate(over="ignore"):
        found = np.array(given, np.float32, order="C")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite, and below 3e38")
    return found


def _position_scores(
    coef: torch.Tensor, shape: tuple[int, int], frame: tuple[int, int, int, int]
) -> torch.Tensor:
    """Return (H, W, K): all but x·y is a sum of a column and a row."""
    top, left, *whole = frame
    rows, cols = np.arange(shape[0]) + top, np.arange(shape[1]) + left
    y, x = (
        torch.from_numpy(position_columns(*places, (whole[0], whole[1]))).to(coef)
        for places in ((rows, 0 * rows), (0 * cols, cols))
    )
    of_y, of_x, product = [0, 2, 5, 6], [1, 3, 7, 8], 4
    column, row = y[:, of_y] @ coef[of_y], x[:, of_x] @ coef[of_x]
    twist = y[:, :1] * coef[product]
    return column[:, None] + row[None] + twist[:, None] * x[None, :, 1:2]
