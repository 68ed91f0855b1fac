"""FeatureMaps: one image's taps at their own strides, and the ways out of them.

Where a tap's cell lies: cell i of a tap of stride s is centred on pixel
s·i + (s − 1)/2, the half-pixel convention (``align_corners=False``). Every way out
interpolates bilinearly on those centres and repeats the border beyond them, so that
``at``, ``pool`` and ``scores`` agree to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import nn

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


@dataclass
class FeatureMaps:
    """The hypercolumns of one image, never built at full resolution.

    Parameters
    ----------
    taps : list of ndarray of shape (h, w, C)
        Outputs of the tapped layers, half precision or single.
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

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import FeatureMaps
    >>> maps = FeatureMaps([np.arange(4.0).reshape(2, 2, 1)], [(4, 4)], (8, 8))
    >>> maps.at([[0, 0], [3.5, 3.5], [7, 7]])
    array([[0. ], [1.5], [3. ]], dtype=float32)
    """

    taps: list[np.ndarray]
    strides: list[tuple[float, float]]
    shape: tuple[int, int]
    position: bool = False
    digest: str = ""
    starts: list[tuple[float, float]] | None = None
    place: tuple[int, int, int, int] | None = None

    @property
    def n_features(self) -> int:
        """Length of a hypercolumn."""
        return sum(t.shape[2] for t in self.taps) + len(POSITION_NAMES) * self.position

    @property
    def nbytes(self) -> int:
        """Bytes that the taps hold."""
        return sum(tap.nbytes for tap in self.taps)

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
    def _grids(self) -> dict[tuple, list[int]]:
        """Taps by grid: those on one grid are interpolated together."""
        starts = self.starts or [(0.0, 0.0)] * len(self.taps)
        grids: dict[tuple, list[int]] = {}
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
        out = np.empty((len(points), self.n_features), np.float32)
        for grid, members in self._grids.items():
            cells, weights = (
                torch.from_numpy(a)
                for a in _neighbours(points[:, 0], points[:, 1], grid)
            )
            for i in members:
                flat = torch.from_numpy(self.taps[i]).flatten(0, 1).float()
                blend = nn.functional.embedding_bag(
                    cells, flat, per_sample_weights=weights, mode="sum"
                )
                out[:, self._columns[i]] = blend.numpy()
        if self.position:
            out[:, -len(POSITION_NAMES) :] = self._position(points[:, 0], points[:, 1])
        return out

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
        coef : ndarray of shape (n_features, K)
        intercept : ndarray of shape (K,), optional

        Returns
        -------
        ndarray of float32, shape (H, W, K)
        """
        if coef.shape[0] != self.n_features:
            raise ValueError(
                f"coef has {coef.shape[0]} rows, a hypercolumn {self.n_features}"
            )
        return self._sum_of_grids(np.ascontiguousarray(coef, np.float32), intercept)

    @torch.inference_mode()
    def _sum_of_grids(
        self, coef: np.ndarray, intercept: np.ndarray | None
    ) -> np.ndarray:
        weights = torch.from_numpy(coef)
        total: torch.Tensor | None = None
        for (h, w, *spacing), members in self._grids.items():
            scores = torch.zeros(h * w, coef.shape[1])
            for i in members:
                tap = torch.from_numpy(self.taps[i].reshape(h * w, -1)).float()
                scores.addmm_(tap, weights[self._columns[i]])
            # (1, K, h, w) with the channels last in memory, as they already lie
            planes = scores.reshape(1, h, w, -1).permute(0, 3, 1, 2)
            if (h, w) != self.shape or spacing != [1, 1, 0, 0]:
                planes = _upsample(planes, self.shape, *spacing)
            total = planes if total is None else total.add_(planes)
        assert total is not None
        out = total[0].permute(1, 2, 0)
        if self.position:
            of_place = weights[-len(POSITION_NAMES) :]
            out += _position_scores(of_place, self.shape, self._frame)
        if intercept is not None:
            out += torch.from_numpy(np.asarray(intercept, np.float32))
        return out.numpy()

    def pool(self, segments: np.ndarray) -> np.ndarray:
        """Return the mean hypercolumn of each region.

        One sparse operator a grid (average over pixels ∘ interpolate) is applied to
        the taps, so the cost is that of the coarse maps.

        Parameters
        ----------
        segments : ndarray of int, shape (H, W)
            Region of each pixel, 0 … R − 1; negative pixels belong to none.

        Returns
        -------
        ndarray of float32, shape (R, n_features)
            NaN for a number that no pixel has.
        """
        segments = np.asarray(segments)
        if segments.shape != self.shape or segments.dtype.kind not in "iu":
            raise ValueError(
                f"segments must be an integer map of shape {self.shape}, got "
                f"dtype {segments.dtype}, shape {segments.shape}"
            )
        rows, cols = np.nonzero(segments >= 0)
        region = segments[rows, cols].astype(np.intp)
        n_regions = int(region.max(initial=-1)) + 1
        sizes = np.bincount(region, minlength=n_regions).astype(float)
        share = 1 / np.where(sizes > 0, sizes, np.nan)
        out = np.empty((n_regions, self.n_features), np.float32)
        for grid, members in self._grids.items():
            operator = _pool_operator(region, rows, cols, grid, n_regions)
            for i in members:
                flat = self.taps[i].reshape(grid[0] * grid[1], -1).astype(np.float32)
                out[:, self._columns[i]] = (operator @ flat) * share[:, None]
        if self.position:
            columns = self._position(rows, cols)
            ones = sparse.csr_array(
                (np.ones(len(region)), (region, np.arange(len(region)))),
                shape=(n_regions, len(region)),
            )
            out[:, -columns.shape[1] :] = (ones @ columns) * share[:, None]
        return out

    def vector(self) -> np.ndarray:
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
        return np.concatenate(
            [tap.mean(axis=1, dtype=np.float32).mean(axis=0) for tap in self.taps]
        )


def _corners(
    place: np.ndarray, size: int, stride: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two cells beside a pixel coordinate and the second one's weight."""
    cell = np.clip((place + 0.5) / stride - 0.5, 0, size - 1)
    low = np.minimum(cell.astype(np.intp), size - 1)
    return low, np.minimum(low + 1, size - 1), cell - low


Grid = tuple[int, int, float, float, float, float]  # cells, strides, starts


def _neighbours(
    y: np.ndarray, x: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Return the four cells around each place (n, 4) and their bilinear weights."""
    h, w, sy, sx, top, left = grid
    (y0, y1, fy), (x0, x1, fx) = _corners(y - top, h, sy), _corners(x - left, w, sx)
    cells = (y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1)
    weights = ((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx)
    return np.stack(cells, 1), np.stack(weights, 1, dtype=np.float32)


def _upsample(
    planes: torch.Tensor,
    shape: tuple[int, int],
    sy: float,
    sx: float,
    top: float,
    left: float,
) -> torch.Tensor:
    """Interpolate (1, K, h, w) to the image, with the taps' true strides.

    The operator behind ``F.interpolate`` takes size and scale at once, which the
    function does not: a tap's last cell may reach beyond the image. It knows no taps
    that start elsewhere than the image; these take a product for each axis.
    """
    if top == left == 0:
        return torch.ops.aten.upsample_bilinear2d(planes, shape, False, sy, sx)
    h, w = planes.shape[2:]
    down = _interpolation(shape[0], h, sy, top)
    across = _interpolation(shape[1], w, sx, left)
    return torch.einsum("yh,nkhw,xw->nkyx", down, planes, across).contiguous(
        memory_format=torch.channels_last
    )


def _interpolation(n: int, size: int, stride: float, start: float) -> torch.Tensor:
    """Return the (pixels × cells) weights of linear interpolation along an axis."""
    low, high, share = _corners(np.arange(n) - start, size, stride)
    weights = torch.zeros(n, size)
    pixel = torch.arange(n)
    weights[pixel, torch.from_numpy(low)] += torch.from_numpy(1 - share).float()
    weights[pixel, torch.from_numpy(high)] += torch.from_numpy(share).float()
    return weights


def _position_scores(
    coef: torch.Tensor, shape: tuple[int, int], frame: tuple[int, int, int, int]
) -> torch.Tensor:
    """Return (H, W, K): all but x·y is a sum of a column and a row."""
    top, left, *whole = frame
    rows, cols = np.arange(shape[0]) + top, np.arange(shape[1]) + left
    y, x = (
        torch.from_numpy(position_columns(*places, (whole[0], whole[1])))
        for places in ((rows, 0 * rows), (0 * cols, cols))
    )
    of_y, of_x, product = [0, 2, 5, 6], [1, 3, 7, 8], 4
    column, row = y[:, of_y] @ coef[of_y], x[:, of_x] @ coef[of_x]
    twist = y[:, :1] * coef[product]
    return column[:, None] + row[None] + twist[:, None] * x[None, :, 1:2]


def _pool_operator(
    region: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    grid: Grid,
    n_regions: int,
) -> sparse.csr_array:
    """Return the (regions × cells) sums of interpolation weights."""
    cells, weights = _neighbours(rows, cols, grid)
    return sparse.csr_array(
        (weights.ravel(), (np.repeat(region, 4), cells.ravel())),
        shape=(n_regions, grid[0] * grid[1]),
    )
