"""Superpixels: over-segmentation, and the graph of neighbouring regions as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy import sparse
from skimage.measure import label
from skimage.segmentation import felzenszwalb
from skimage.segmentation import slic as skimage_slic
from torch import nn

from mtsk._validation import parameter_error

__all__ = [
    "SUPERPIXELS",
    "Segmentation",
    "Superpixels",
    "best_labelling",
    "neighbours",
    "over_segment",
    "region_means",
    "relabel",
    "slic",
    "to_lab",
]

Segmentation = Callable[[np.ndarray], np.ndarray]
SUPERPIXELS = ("slic", "skimage_slic", "felzenszwalb")
"""Methods with a name."""

_REGION = 170  # pixels: 1,000 regions in 360 x 480, 400 in 213 x 320

# sRGB to XYZ over the D65 white point (IEC 61966-2-1), then CIE 1976 L*a*b*. Both
# curves are looked up: powers would take as long as the clustering.
_STEPS = 4096
_GRID = torch.linspace(0, 1, _STEPS)
_LINEAR = torch.where(_GRID > 0.04045, ((_GRID + 0.055) / 1.055) ** 2.4, _GRID / 12.92)
_CURVE = torch.where(_GRID > 0.008856, _GRID ** (1 / 3), 7.787 * _GRID + 16 / 116)
_XYZ = torch.tensor(
    [
        [0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047],
        [0.212671, 0.715160, 0.072169],
        [0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883],
    ]
)
_LAB = torch.tensor([[0.0, 116, 0], [500, -500, 0], [0, 200, -200]])


def over_segment(
    image: np.ndarray,
    method: str | Segmentation = "slic",
    n_segments: int | None = None,
) -> np.ndarray:
    """Return a map of connected regions.

    Parameters
    ----------
    image : ndarray of float, shape (H, W, 3)
        Values in [0, 1].
    method : {"slic", "skimage_slic", "felzenszwalb"} or callable, default="slic"
        ``"slic"`` is this module's. A callable gets the image and returns an integer
        map of shape (H, W); its labels may be any, and need not be connected.
    n_segments : int, default=None
        Approximate number; None: regions of about 170 pixels. Felzenszwalb's regions
        have at least a quarter of the pixels that this gives to each.

    Returns
    -------
    ndarray of intp, shape (H, W)
        Regions 0 … R − 1.

    Raises
    ------
    InvalidParameterError
        On an unknown method.
    ValueError
        Where a callable returns no integer map of the image's size.
    """
    _check_image(image)
    if n_segments is None:
        n_segments = max(1, image[..., 0].size // _REGION)
    _check_count("n_segments", n_segments, 1)
    if callable(method):
        segments = np.asarray(method(image))
        if segments.shape != image.shape[:2] or segments.dtype.kind not in "iu":
            raise ValueError(
                f"a segmentation must be an integer map of shape {image.shape[:2]}, "
                f"got dtype {segments.dtype}, shape {segments.shape}"
            )
        return relabel(segments)
    if method == "slic":
        return slic(image, n_segments)
    if method == "skimage_slic":
        return relabel(skimage_slic(image, n_segments, compactness=10, start_label=0))
    if method == "felzenszwalb":
        least = max(1, image[..., 0].size // n_segments // 4)
        return relabel(felzenszwalb(image, scale=50, sigma=0.5, min_size=least))
    allowed = "'slic', 'skimage_slic', 'felzenszwalb' or a callable"
    raise parameter_error("superpixels", "over_segment", allowed, method)


@dataclass(frozen=True)
class Superpixels:
    """A way to cut images into regions.

    Attributes
    ----------
    method, n_segments
        As of `over_segment`.
    """

    method: str | Segmentation = "slic"
    n_segments: int | None = None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the regions of an image, as `over_segment` does."""
        try:
            return over_segment(image, self.method, self.n_segments)
        except ValueError as error:
            raise ValueError(f"`superpixels`: {error}") from error


def relabel(segments: np.ndarray) -> np.ndarray:
    """Return connected regions numbered 0 … R − 1, row by row.

    Parts of one label that do not touch (sides count, corners do not) become regions
    of their own.

    Parameters
    ----------
    segments : ndarray of int, shape (H, W)

    Returns
    -------
    ndarray of intp, shape (H, W)
    """
    _check_segments(segments)
    return label(segments, background=-(2**31), connectivity=1).astype(np.intp) - 1


@torch.inference_mode()
def slic(
    image: np.ndarray | torch.Tensor,
    n_segments: int = 1000,
    *,
    compactness: float = 10.0,
    n_iter: int = 2,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Cluster pixels by colour and place: simple linear iterative clustering.

    k-means in (L*, a*, b*, place), each pixel compared with the nine nearest grid
    cells' centres (Achanta et al., *PAMI* 34, 2012; the fixed neighbourhood is that of
    gSLICr, Ren et al. 2015). Centres are found from some 25 pixels a cell, then all
    pixels are assigned, and fragments join the neighbour they share most border with.

    Parameters
    ----------
    image : ndarray or tensor of float, shape (H, W, 3) or (n, H, W, 3)
        sRGB in [0, 1]. Several images of one size are clustered at once.
    n_segments : int, default=1000
        Approximate number in each image.
    compactness : float, default=10.0
        Colour difference, in units of L*, that weighs as much as a cell's width.
    n_iter : int, default=2
        Rounds of k-means. From the grid's means, more than two change little
        (benchmarks/superpixels.py).
    device : str or torch.device, default=None
        None is that of a tensor, the CPU for an array.

    Returns
    -------
    ndarray of intp, shape (H, W) or (n, H, W)
        Connected regions 0 … R − 1 of each image.

    Raises
    ------
    ValueError
        On an image of another shape or range, parameters out of range, and a device
        that cannot be used.
    """
    _check_image(image)
    _check_count("n_segments", n_segments, 1)
    _check_count("n_iter", n_iter, 0)
    if not compactness > 0:
        raise ValueError(f"compactness must be > 0, got {compactness}")
    try:
        pixels = torch.as_tensor(image, device=device).float()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device={device!r} cannot be used: {reason}") from error
    batch = pixels if pixels.ndim == 4 else pixels[None]
    n, height, width, _ = batch.shape
    side = max(1, round((height * width / max(1, n_segments)) ** 0.5))
    down, across = -(-height // side), -(-width // side)
    blocks, weights = _blocks(_lab(batch) / compactness, side, down, across)
    coarse = slice(None, None, max(1, side // 4))
    some = blocks[..., coarse, coarse].flatten(3)
    some_weights = weights[..., coarse, coarse].flatten(2)
    centres = _means(some, some_weights)
    around = _around(n, down, across, batch.device)
    for _ in range(n_iter):
        choice = _nearest(some, centres, around)
        centres = _new_centres(some, some_weights, choice, around, centres)
    choice = _nearest(blocks.flatten(3), centres, around)
    cells = around[torch.arange(choice.shape[1], device=choice.device)[:, None], choice]
    grid = cells.reshape(n, down, across, side, side).transpose(2, 3)
    clusters = grid.reshape(n, down * side, across * side)[:, :height, :width]
    found = [_connected(c) for c in clusters.cpu().numpy()]
    return np.stack(found) if pixels.ndim == 4 else found[0]


def neighbours(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which regions touch, and along how many pixel sides.

    Parameters
    ----------
    segments : ndarray of int, shape (H, W)
        Regions 0 … R − 1.

    Returns
    -------
    edges : ndarray of intp, shape (m, 2)
        Smaller region first, sorted.
    lengths : ndarray of intp, shape (m,)
    """
    pairs = _touching(segments)
    n = int(segments.max(initial=-1)) + 1
    codes, lengths = np.unique(
        pairs.min(axis=1) * n + pairs.max(axis=1), return_counts=True
    )
    return np.stack(np.divmod(codes, max(n, 1)), axis=1), lengths


def region_means(segments: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean of a map over each region.

    Parameters
    ----------
    segments : ndarray of int, shape (H, W)
        Regions 0 … R − 1, each with a pixel.
    values : ndarray of float, shape (H, W), (H · W,) or (H, W, C)

    Returns
    -------
    ndarray of float64, shape (R,) or (R, C)
    """
    flat = segments.ravel()
    sizes = np.bincount(flat)
    if values.ndim < 3:
        return np.bincount(flat, values.ravel()) / sizes
    # Pixels are the columns in order, so this is already the matrix in CSC form.
    operator = sparse.csc_array(
        (np.ones(flat.size, np.float32), flat, np.arange(flat.size + 1)),
        shape=(len(sizes), flat.size),
    )
    return (operator @ values.reshape(flat.size, -1)) / sizes[:, None]


def to_lab(image: np.ndarray) -> np.ndarray:
    """Return an image in CIE L*a*b*, by tables: to about 0.05 of L*.

    Parameters
    ----------
    image : ndarray of float, shape (H, W, 3)
        sRGB in [0, 1].

    Returns
    -------
    ndarray of float32, shape (H, W, 3)
    """
    _check_image(image)
    lab = _lab(torch.from_numpy(np.ascontiguousarray(image, np.float32)))
    lab[..., 0] -= 16
    return lab.numpy()


def best_labelling(segments: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the best labelling of the regions (the oracle).

    Each region gets the label that most of its labelled pixels have. Its score is an
    upper bound for every method that gives a region one label; where it is low, the
    regions are too coarse.

    Parameters
    ----------
    segments : ndarray of int, shape (H, W)
    truth : ndarray of int, shape (H, W)
        Labels >= 0; negative is unlabelled.

    Returns
    -------
    ndarray of int, shape (H, W)
        −1 in regions without a labelled pixel.
    """
    _check_segments(segments, truth.shape)
    if truth.dtype.kind not in "iu":
        raise ValueError(f"truth must hold integers, got dtype {truth.dtype}")
    known = truth >= 0
    if not known.any():
        return np.full(truth.shape, -1)
    n, k = int(segments.max()) + 1, int(truth.max()) + 1
    codes = segments[known].astype(np.intp) * k + truth[known]
    votes = np.bincount(codes, minlength=n * k).reshape(n, k)
    winner = np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
    return winner[segments]


def _lab(rgb: torch.Tensor) -> torch.Tensor:
    """Convert sRGB in [0, 1], (..., 3), to L*a*b* (but for the constant of L*)."""
    linear = _look_up(_LINEAR, rgb)
    curve = _look_up(_CURVE, linear @ _XYZ.to(rgb.device).T)
    return curve @ _LAB.to(rgb.device).T


def _check_image(image: Any) -> None:
    shape = tuple(np.shape(image))
    if len(shape) not in (3, 4) or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"image must be (H, W, 3), none of them 0, got {shape}")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # NaN too
        raise ValueError(
            f"image must hold sRGB in [0, 1], got values from {low:g} to {high:g}"
        )


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an int >= {least}, got {value!r}")


def _check_segments(segments: np.ndarray, shape: tuple[int, ...] | None = None) -> None:
    if segments.ndim != 2 or segments.dtype.kind not in "iu":
        raise ValueError(
            f"segments must be an integer map, got dtype {segments.dtype}, shape "
            f"{segments.shape}"
        )
    if shape is not None and segments.shape != shape:
        raise ValueError(f"segments have shape {segments.shape}, the other map {shape}")


def _look_up(curve: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return a curve over [0, 1] at some values."""
    steps = (values * (_STEPS - 1) + 0.5).clamp_(0, _STEPS - 1).int()
    return curve.to(values.device).index_select(0, steps.view(-1)).view(values.shape)


def _blocks(
    colours: torch.Tensor, side: int, down: int, across: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut images (n, H, W, 3) into cells: (n, cells, 5, side, side) and weights.

    The last two of the five are the place in units of a cell. Beyond the image's border
    pixels repeat with weight 0.
    """
    n, height, width, _ = colours.shape
    below, right = down * side - height, across * side - width
    padded = nn.functional.pad(
        colours.permute(0, 3, 1, 2), (0, right, 0, below), mode="replicate"
    )
    y = torch.arange(down * side, device=colours.device).float()
    x = torch.arange(across * side, device=colours.device).float()
    place = torch.stack(torch.meshgrid(y / side, x / side, indexing="ij"))
    inside = ((y < height)[:, None] & (x < width)).float()
    both = torch.cat([padded, place.expand(n, -1, -1, -1)], dim=1)
    cells = both.reshape(n, 5, down, side, across, side).permute(0, 2, 4, 1, 3, 5)
    weights = inside.reshape(down, side, across, side).permute(0, 2, 1, 3)
    return (
        cells.reshape(n, down * across, 5, side, side),
        weights.reshape(1, down * across, side, side),
    )


def _means(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean of each cell's pixels, (n, cells, 5)."""
    total = (values @ weights[..., None])[..., 0]
    return total / weights.sum(dim=2)[..., None].clamp(min=1e-6)


def _around(n: int, down: int, across: int, device: torch.device | str) -> torch.Tensor:
    """Return the nine cells around each cell, (cells, 9); at borders some repeat."""
    rows = torch.arange(down, device=device)[:, None] + torch.arange(
        -1, 2, device=device
    )
    cols = torch.arange(across, device=device)[:, None] + torch.arange(
        -1, 2, device=device
    )
    rows, cols = rows.clamp(0, down - 1), cols.clamp(0, across - 1)
    around = rows[:, None, :, None] * across + cols[None, :, None, :]
    return around.reshape(down * across, 9)


def _nearest(
    values: torch.Tensor, centres: torch.Tensor, around: torch.Tensor
) -> torch.Tensor:
    """Return which of the nine centres around it is nearest to each pixel."""
    near = centres[:, around]  # (n, cells, 9, 5)
    # |v − c|² without |v|², which all nine share.
    bias = (near**2).sum(dim=-1)[..., None]
    distances = (near @ values).mul_(-2).add_(bias).unbind(dim=2)
    best, least = torch.zeros_like(distances[0], dtype=torch.long), distances[0]
    for i, distance in enumerate(distances[1:], 1):  # argmin across planes is slow
        best.masked_fill_(distance < least, i)
        least = torch.minimum(least, distance)
    return best


def _new_centres(
    values: torch.Tensor,
    weights: torch.Tensor,
    choice: torch.Tensor,
    around: torch.Tensor,
    old: torch.Tensor,
) -> torch.Tensor:
    """Return the mean of the pixels assigned to each centre."""
    n, n_cells = choice.shape[:2]
    nine = torch.arange(9, device=choice.device)
    votes = (choice[:, :, None] == nine[:, None]) * weights[:, :, None]
    ones = torch.ones_like(values[:, :, :1])
    sums = votes @ torch.cat([values, ones], dim=2).transpose(2, 3)
    total = torch.zeros(n, n_cells, 6, device=values.device)
    index = around.reshape(-1)
    total.index_add_(1, index, sums.reshape(n, n_cells * 9, 6))
    mass = total[..., 5:]
    return torch.where(mass > 0, total[..., :5] / mass.clamp(min=1e-6), old)


def _connected(clusters: np.ndarray) -> np.ndarray:
    """Return connected regions: a cluster's largest part, with fragments taken in."""
    parts = relabel(clusters)
    flat = parts.ravel()
    sizes = np.bincount(flat)
    cluster = np.zeros(len(sizes), np.intp)
    cluster[flat] = clusters.ravel()
    largest = np.zeros(int(clusters.max()) + 1, np.intp)
    order = np.argsort(sizes, kind="stable")
    largest[cluster[order]] = order  # the last written is the largest
    home = np.full(len(sizes), -1)
    home[largest[cluster]] = largest[cluster]
    pairs = _touching(parts)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    while (home < 0).any():
        open_pairs = pairs[(home[pairs[:, 0]] < 0) & (home[pairs[:, 1]] >= 0)]
        codes, shared = np.unique(
            open_pairs[:, 0] * len(sizes) + home[open_pairs[:, 1]], return_counts=True
        )
        fragment, target = np.divmod(codes, len(sizes))
        order = np.argsort(shared, kind="stable")
        home[fragment[order]] = target[order]
    _, numbers = np.unique(home, return_inverse=True)
    return numbers[parts]


def _touching(segments: np.ndarray) -> np.ndarray:
    """Return the regions on both sides of every pixel side between two, (p, 2)."""
    beside = segments[:, :-1] != segments[:, 1:]
    below = segments[:-1] != segments[1:]
    return np.concatenate(
        [
            np.stack([segments[:, :-1][beside], segments[:, 1:][beside]], axis=1),
            np.stack([segments[:-1][below], segments[1:][below]], axis=1),
        ]
    ).astype(np.intp)
