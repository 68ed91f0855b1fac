"""Bilinear interpolation between a tap's cells and an image's pixels, both ways.

Cell i of stride s is centred on pixel s·i + (s − 1)/2 from where the tap starts; beyond
the outermost centres the border is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import frexp
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import nn

__all__ = [
    "Bags",
    "Grid",
    "axis_means",
    "bags",
    "interpolate_at",
    "neighbours",
    "pool_operator",
    "upsample",
]

Grid = tuple[int, int, float, float, float, float]  # cells, strides, starts


def _corners(
    place: np.ndarray, size: int, stride: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two cells beside a pixel coordinate and the second one's weight."""
    cell = np.clip((place + 0.5) / stride - 0.5, 0, size - 1)
    low = np.minimum(cell.astype(np.intp), size - 1)
    return low, np.minimum(low + 1, size - 1), cell - low


def neighbours(
    y: np.ndarray, x: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Return the four cells around each place (n, 4) and their bilinear weights."""
    h, w, sy, sx, top, left = grid
    (y0, y1, fy), (x0, x1, fx) = _corners(y - top, h, sy), _corners(x - left, w, sx)
    cells = (y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1)
    weights = ((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx)
    return np.stack(cells, 1), np.stack(weights, 1, dtype=np.float32)


def axis_means(ends: np.ndarray, size: int, stride: float, start: float) -> np.ndarray:
    """Return the mean interpolation weight of each cell over runs of pixels.

    Parameters
    ----------
    ends : ndarray of int, shape (n + 1,)
        Where the runs along one axis begin, and the last one ends.
    size : int
        Cells along the axis.
    stride, start : float
        Of the grid along the axis.

    Returns
    -------
    ndarray of float32, shape (n, size)
    """
    place = np.arange(ends[0], ends[-1])
    run = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    low, high, share = _corners(place - start, size, stride)
    out = np.zeros((len(ends) - 1, size))
    np.add.at(out, (run, low), 1 - share)
    np.add.at(out, (run, high), share)
    return (out / np.diff(ends)[:, None]).astype(np.float32)


def upsample(
    cells: Mapping[Grid, torch.Tensor], shape: tuple[int, int]
) -> torch.Tensor:
    """Interpolate numbers on several grids to an image's pixels, and sum them.

    First along rows, which leaves every grid its few rows, then down, over all grids at
    once: what is as large as the image is made once, and not for every grid.

    Parameters
    ----------
    cells : mapping of Grid to Tensor of float32, shape (h, w, K)
    shape : (int, int)
        Height and width of the image.

    Returns
    -------
    Tensor of float32, shape (H, W, K)
    """
    height, width = shape
    some = next(iter(cells.values()))
    device, n_numbers = some.device, some.shape[2]
    most = _STRIP if device.type == "cpu" else _STRIP_ON_GPU
    step = max(_LEAST_ROWS, most // max(1, width * n_numbers))
    corners = [_corners(np.arange(height) - g[4], g[0], g[2]) for g in cells]
    out = torch.empty((height, width, n_numbers), dtype=torch.float32, device=device)
    for y in range(0, height if n_numbers else 0, step):
        strip = slice(y, min(y + step, height))
        tables, places, weights, n = [], [], [], 0
        for (grid, own), (low, high, share) in zip(cells.items(), corners, strict=True):
            first, last = low[strip][0], high[strip][-1] + 1
            tables.append(_widened(own[first:last], width, grid).flatten(1))
            places += [low[strip] - first + n, high[strip] - first + n]
            weights += [1 - share[strip], share[strip]]
            n += last - first
        rows = nn.functional.embedding_bag(
            torch.from_numpy(np.stack(places, 1)).to(device),
            torch.cat(tables),
            per_sample_weights=torch.from_numpy(
                np.stack(weights, 1, dtype=np.float32)
            ).to(device),
            mode="sum",
        )
        out[strip] = rows.view(-1, width, n_numbers)
    return out


_STRIP, _STRIP_ON_GPU = 2**20, 2**26  # numbers made at once: what a cache nearly holds
_LEAST_ROWS = 16  # at once: a grid's rows at the rims of strips are made twice


def _widened(cells: torch.Tensor, width: int, grid: Grid) -> torch.Tensor:
    """Interpolate (h, w, K) along rows, to (h, width, K).

    The operator behind ``F.interpolate`` takes size and scale at once, which the
    function does not: a tap's last cell may reach beyond the image. It knows no taps
    that start elsewhere than the image or (with CUDA) end before it, copies where there
    are as many cells as pixels, and finds its place in single precision, which is exact
    for powers of two alone.
    """
    h, w = cells.shape[:2]
    stride, start = grid[3], grid[5]
    if (w, stride, start) == (width, 1, 0):
        return cells
    short = w * stride < width
    if start or short or w == width or frexp(stride)[0] != 0.5:
        low, high, share = (
            torch.from_numpy(a).to(cells.device)
            for a in _corners(np.arange(width) - start, w, stride)
        )
        of_high = share.float()[:, None]
        return torch.lerp(cells[:, low], cells[:, high], of_high)
    planes = cells.reshape(1, h, w, -1).permute(0, 3, 1, 2)  # in memory as they lie
    wide = torch.ops.aten.upsample_bilinear2d(planes, (h, width), False, 1.0, stride)
    return wide[0].permute(1, 2, 0)


class Bags(NamedTuple):
    """The cells of regions, one region after another, in runs of bounded length.

    Attributes
    ----------
    cells, weights : Tensor of shape (m,)
        The weight is the sum over the region's pixels of what the cell is to each.
    runs : Tensor of shape (n_runs,)
        Where each run of cells begins. None has cells of two regions, or many.
    regions : Tensor of shape (n_regions,)
        Where each region's runs begin.
    """

    cells: torch.Tensor
    weights: torch.Tensor
    runs: torch.Tensor
    regions: torch.Tensor

    def sums(self, table: torch.Tensor) -> torch.Tensor:
        """Return each region's weighted sum of a table's rows, (n_regions, C).

        Runs are summed side by side, in single precision, which their length bounds;
        the sums of runs in double.
        """
        of_runs = nn.functional.embedding_bag(
            self.cells, table, self.runs, mode="sum", per_sample_weights=self.weights
        )
        every = torch.arange(len(of_runs), device=table.device)
        sums = nn.functional.embedding_bag(
            every, of_runs.double(), self.regions, mode="sum"
        )
        return sums.float()


def bags(regions: torch.Tensor, grid: Grid, n_regions: int) -> Bags:
    """Return every region's cells.

    Parameters
    ----------
    regions : Tensor of int64, shape (H, W)
        Region of each pixel, 0 … n_regions − 1; negative pixels belong to none.
    grid : Grid
    n_regions : int
    """
    h, w, sy, sx, top, left = grid
    y0, y1, fy = _corners(np.arange(regions.shape[0]) - top, h, sy)
    x0, x1, fx = _corners(np.arange(regions.shape[1]) - left, w, sx)
    cells, weights = [], []
    for y, of_y in ((y0, 1 - fy), (y1, fy)):
        for x, of_x in ((x0, 1 - fx), (x1, fx)):
            row, column, of_row, of_column = (
                torch.from_numpy(a).to(regions.device) for a in (y * w, x, of_y, of_x)
            )
            cells.append(row[:, None] + column)
            weights.append(of_row[:, None] * of_column)
    places = [regions.expand(4, *regions.shape), torch.stack(cells)]
    inside = (regions >= 0).flatten().repeat(4)
    operator = torch.sparse_coo_tensor(
        torch.stack(places).flatten(1)[:, inside],
        torch.stack(weights).flatten()[inside],
        (n_regions, h * w),
        check_invariants=False,
    ).coalesce()
    of, merged = (row.contiguous() for row in operator.indices())
    every = torch.arange(n_regions, device=regions.device)
    starts = torch.searchsorted(of, every)
    place = torch.arange(len(of), device=regions.device) - starts[of]
    runs = torch.nonzero(place % _RUN == 0).flatten()
    return Bags(
        merged, operator.values().float(), runs, torch.searchsorted(of[runs], every)
    )


_RUN = 256  # cells that are summed one after another


def pool_operator(
    region: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    grid: Grid,
    n_regions: int,
) -> sparse.csr_array:
    """Return the (regions × cells) sums of interpolation weights, double precision.

    A region's numbers are added one after another: in single precision, a million of
    about one value lose three digits.
    """
    cells, weights = neighbours(rows, cols, grid)
    return sparse.csr_array(
        (weights.ravel().astype(np.float64), (np.repeat(region, 4), cells.ravel())),
        shape=(n_regions, grid[0] * grid[1]),
    )


def interpolate_at(
    maps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Interpolate maps at places of a grid, by operations that a trace records.

    Parameters
    ----------
    maps : Tensor of shape (n, C, h, w)
    rows, columns : Tensor of shape (H,), (W,)
        In cells; beyond the border its values are repeated.

    Returns
    -------
    Tensor of shape (n, C, H, W)
    """
    for axis, places in ((3, columns), (2, rows)):
        last = torch._shape_as_tensor(maps)[axis] - 1
        places = places.clamp(min=0).minimum(last.float())
        low = places.floor()
        high = (low + 1).minimum(last.float())
        share = places - low
        share = share if axis == 3 else share[:, None]
        first = maps.index_select(axis, low.long())
        second = maps.index_select(axis, high.long())
        maps = first + (second - first) * share
    return maps
