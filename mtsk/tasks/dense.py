"""Tasks with numbers at every pixel: depth, normals, density, images."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from scipy import ndimage

from mtsk._validation import (
    Interval,
    StrOptions,
    check_parameters,
    parameter_error,
)
from mtsk.exceptions import TargetError
from mtsk.tasks.arrays import as_array, as_numbers
from mtsk.tasks.base import PixelTask, as_map
from mtsk.tasks.columns import ColumnGroup
from mtsk.tasks.labels import as_list
from mtsk.tasks.precision import as_float32, check_resolution

__all__ = ["DenseRegression", "DensityCount", "ImageToImage", "SurfaceNormals"]


class DenseRegression(PixelTask):
    """One number, or several, at every pixel, such as depth.

    A target is a float map of shape (H, W) or (H, W, L); NaN is unlabelled.
    ``predict`` gives float32 maps of the same shape.

    Parameters
    ----------
    scale : {"linear", "log"}, default="linear"
        ``"log"`` learns logarithms, so that errors are relative, as suits depth (Eigen,
        Puhrsch & Fergus, NeurIPS 2014). Targets must then be above 0.
    void : float or sequence of float, default=()
        Numbers that mean "unlabelled", such as 0 where a sensor saw nothing; of maps of
        several numbers, where all are this one.

    Attributes
    ----------
    n_values_ : int
        L.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import DenseRegression
    >>> depth = np.array([[1.0, 10.0], [np.nan, 100.0]])
    >>> task = DenseRegression(scale="log").fit([depth])
    >>> task.decode(task.encode(depth, (2, 2))).round(3)
    array([[  1.,  10.],
           [ nan, 100.]], dtype=float32)
    """

    metrics = ("r2", "rmse", "mae", "abs_rel", "delta1", "silog")

    def __init__(self, scale: str = "linear", void: Any = ()) -> None:
        self.scale = scale
        self.void = void

    def _check(self) -> None:
        check_parameters(self, {"scale": [StrOptions({"linear", "log"})]})
        _check_void(self)

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        if not len(targets):
            raise TargetError("no entry is given")
        arrays = [_without_void(as_map(t), self.void) for t in targets]
        self.flat_ = all(a.ndim == 2 for a in arrays)
        widths = {1 if a.ndim == 2 else a.shape[2] for a in arrays}
        if len(widths) > 1:
            raise TargetError(f"maps differ in number of values: {sorted(widths)}")
        self.n_values_ = widths.pop()
        check_resolution([a.reshape(-1, self.n_values_) for a in arrays])
        return ColumnGroup("real", self.n_values_)

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        known = _without_void(as_map(target, shape), self.void)
        columns = _numbers(known, shape, self.n_values_)
        if self.scale == "linear":
            return columns
        if (columns <= 0).any():  # False for NaN
            raise TargetError(
                "with scale='log' numbers must be above 0 (NaN is unlabelled), got "
                f"{np.nanmin(columns):g}"
            )
        return np.log(columns)

    def values(self, scores: np.ndarray) -> np.ndarray:
        return scores if self.scale == "linear" else np.exp(scores)

    @property
    def decode_radius(self) -> int | None:
        return 0

    def decode(self, scores: np.ndarray) -> np.ndarray:
        found = self.values(scores)
        return found[..., 0] if self.flat_ else found


class SurfaceNormals(PixelTask):
    """The direction that a surface faces, at every pixel.

    A target is a float map of shape (H, W, 3) of unit vectors: to the right, down, and
    towards the viewer (opposite axes, such as up, also work unless an `Augmentation`
    rotates images). NaN is unlabelled. ``predict`` gives float32 maps of unit vectors.

    Parameters
    ----------
    void : float or sequence of float, default=()
        Numbers that mean "unlabelled" where all three are this one, such as 0.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import SurfaceNormals
    >>> flat = np.tile([0.0, 0.0, 1.0], (4, 5, 1))
    >>> task = SurfaceNormals().fit([flat])
    >>> bool((task.decode(2 * task.encode(flat, (4, 5))) == flat).all())
    True
    """

    metrics = ("within_30", "angular_error")

    def __init__(self, void: Any = ()) -> None:
        self.void = void

    def _check(self) -> None:
        _check_void(self)

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        for i, target in enumerate(targets):
            if as_array(target).ndim != 3 or np.shape(target)[2] != 3:
                raise TargetError(
                    f"normals must have shape (H, W, 3), got {np.shape(target)}",
                    image=i,
                )
        return ColumnGroup("real", 3)

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        known = _without_void(as_map(target, shape), self.void)
        columns = _numbers(known, shape, 3)
        length = np.linalg.norm(columns, axis=-1)
        off = np.abs(length - 1) > _OFF_UNIT  # False for NaN
        if off.any():
            raise TargetError(
                "normals must be unit vectors, or NaN, got one of length "
                f"{length[off][0]:.3g}"
            )
        columns[np.isnan(length)] = np.nan
        return columns

    def transform_columns(self, columns: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        turn = matrix / np.sqrt(abs(np.linalg.det(matrix)))
        out = columns.copy()
        out[..., :2] = (columns[..., 1::-1] @ turn.T)[..., ::-1]
        return out.astype(columns.dtype)

    @property
    def decode_radius(self) -> int | None:
        return 0

    def decode(self, scores: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(scores, axis=-1, keepdims=True)
        towards = np.array([0, 0, 1], scores.dtype)  # for vectors of length 0
        return np.where(length > 0, scores / np.maximum(length, 1e-30), towards)


class DensityCount(PixelTask):
    """The number of objects, learnt from their positions.

    A target is an array (n, 2) of the objects' rows and columns, in pixels with (0, 0)
    the centre of the first pixel; (0, 2) where there are none. Columns are densities: a
    Gaussian of integral 1 for each object (Lempitsky & Zisserman, NeurIPS 2010).
    ``predict`` gives float32 maps (H, W) of density: the sum over any region is the
    number of objects in it.

    Parameters
    ----------
    sigma : float > 0, default=4.0
        Standard deviation of the Gaussian, in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import DensityCount
    >>> points = np.array([[3, 4], [10.5, 12]])
    >>> task = DensityCount().fit([points])
    >>> round(float(task.decode(task.encode(points, (20, 20))).sum()), 3)
    2.0
    """

    metrics = ("count_r2", "count_mae", "count_rmse")

    def __init__(self, sigma: float = 4.0) -> None:
        self.sigma = sigma

    def _check(self) -> None:
        positive = Interval(Real, 0, None, closed="neither")
        check_parameters(self, {"sigma": [positive]})

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        for i, target in enumerate(targets):
            try:
                self.canonical(target)
            except TargetError as error:
                raise error.at(image=i) from None
        return ColumnGroup("real", 1)

    def canonical(
        self, target: Any, shape: tuple[int, int] | None = None
    ) -> np.ndarray:
        """Return the points of a target, checked.

        Parameters
        ----------
        target : array-like of shape (n, 2)
        shape : (int, int), optional
            The image's height and width.

        Returns
        -------
        ndarray of float, shape (n, 2)

        Raises
        ------
        TargetError
        """
        points = as_numbers(target, "points must be numbers of shape (n, 2)")
        if points.size == 0:
            return np.empty((0, 2))
        if points.ndim != 2 or points.shape[1] != 2:
            raise TargetError(f"points must have shape (n, 2), got {points.shape}")
        most = np.inf if shape is None else np.array(shape) - 0.5
        inside = ((points >= -0.5) & (points <= most)).all(axis=1)  # False for NaN
        if not inside.all():
            bad = int(np.flatnonzero(~inside)[0])
            where = "" if shape is None else f" of {tuple(shape)}"
            raise TargetError(
                f"point {bad} at (row, column) = {points[bad].tolist()} is outside the "
                f"image{where}"
            )
        return points

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        points = self.canonical(target, shape)
        dots = np.zeros(shape, np.float64)
        places = np.rint(points).astype(np.intp).clip(0, np.array(shape) - 1)
        np.add.at(dots, tuple(places.T), 1)
        # "reflect" keeps the sum: mass beyond the border is reflected.
        spread = ndimage.gaussian_filter(dots, self.sigma, mode="reflect")
        return spread[..., None].astype(np.float32)

    def transform_columns(self, columns: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        return columns / np.float32(abs(np.linalg.det(matrix)))

    @property
    def decode_radius(self) -> int | None:
        return 0

    def decode(self, scores: np.ndarray) -> np.ndarray:
        return scores[..., 0].clip(min=0)


class ImageToImage(PixelTask):
    """Image-to-image regression: denoising, colourisation, filtering.

    A target is an image (H, W) or (H, W, C): uint8, uint16, or float in [0, 1] with NaN
    unlabelled. ``predict`` gives images of the dtype and the shape that targets have.

    Parameters
    ----------
    void : number or sequence of numbers, default=()
        Values that mean "unlabelled" where all channels have this one, such as 0.

    Attributes
    ----------
    dtype_ : dtype
    n_channels_ : int or None
        C; None for targets (H, W).

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import ImageToImage
    >>> picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    >>> task = ImageToImage().fit([picture])
    >>> bool((task.decode(task.encode(picture, (2, 2))) == picture).all())
    True
    """

    metrics = ("ssim", "psnr")

    def __init__(self, void: Any = ()) -> None:
        self.void = void

    def _check(self) -> None:
        _check_void(self)

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        arrays = [as_array(t) for t in targets]
        kinds = {(a.dtype, a.shape[2:]) for a in arrays}
        if len(kinds) != 1:
            seen = sorted(f"{dtype} with channels {shape}" for dtype, shape in kinds)
            raise TargetError(f"images must be of one kind, got {seen[:5]}")
        dtype, channels = next(iter(kinds))
        if dtype.kind != "f" and dtype not in _WHITE:
            raise TargetError(
                f"target images must be uint8, uint16 or float in [0, 1], got {dtype}"
            )
        self.dtype_ = dtype
        self.n_channels_ = channels[0] if channels else None
        return ColumnGroup("real", self.n_channels_ or 1)

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        array = as_array(target)
        if array.dtype != self.dtype_:
            raise TargetError(
                f"a target image of {array.dtype}, others are {self.dtype_}"
            )
        known = _without_void(as_map(array, shape), self.void)
        columns = _numbers(known, shape, self.n_channels_ or 1)
        columns = columns / np.float32(_WHITE.get(self.dtype_, 1))
        if (columns < 0).any() or (columns > 1).any():
            raise TargetError(
                "a float image must lie in [0, 1], got "
                f"[{np.nanmin(columns):g}, {np.nanmax(columns):g}]"
            )
        return columns

    @property
    def decode_radius(self) -> int | None:
        return 0

    def decode(self, scores: np.ndarray) -> np.ndarray:
        found = scores if self.n_channels_ is not None else scores[..., 0]
        white = _WHITE.get(self.dtype_)
        found = found.clip(0, 1)
        if white is None:
            return found.astype(self.dtype_)
        return np.rint(found * white).astype(self.dtype_)


_OFF_UNIT = 0.01  # tolerance of unit length
_WHITE = {np.dtype("uint8"): 255.0, np.dtype("uint16"): 65535.0}


def _check_void(task: DenseRegression | SurfaceNormals | ImageToImage) -> None:
    for value in as_list(task.void):
        if not isinstance(value, Real):
            raise parameter_error("void", task, "numbers", task.void)


def _without_void(array: np.ndarray, void: Any) -> np.ndarray:
    """Return a map of numbers with NaN where it is unlabelled."""
    if array.dtype.kind not in "fiu" or not as_list(void):
        return array
    missing = np.isin(array, as_list(void))
    if array.ndim == 3:
        missing = np.asarray(missing.all(axis=2, keepdims=True))
    exact = array if array.dtype.kind == "f" else array.astype(np.float64)
    return np.where(missing, np.nan, exact)


def _numbers(target: Any, shape: tuple[int, int], n_values: int) -> np.ndarray:
    """Return a map of numbers as float32 (H, W, L), checked."""
    array = as_map(target, shape)
    if array.dtype.kind not in "fiu":
        raise TargetError(f"a real map must be float, got dtype {array.dtype}")
    columns = as_float32(array).reshape(*array.shape[:2], -1)
    if columns.shape[2] != n_values:
        raise TargetError(f"a map of {columns.shape[2]} values, others have {n_values}")
    return columns
