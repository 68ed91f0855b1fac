"""Post-processing of predictions: named steps and the functions they use.

A step takes one map and returns one; `Steps` runs several in a row. They have
scikit-learn parameters: ``tasks__cells__postprocess__min_size`` can be searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from scipy import ndimage
from skimage import measure, morphology
from sklearn.base import BaseEstimator

from mtsk._validation import Interval, check_parameters, parameter_error

__all__ = [
    "ConnectedComponents",
    "FillHoles",
    "LargestComponent",
    "RemoveSmall",
    "SmoothOutline",
    "Step",
    "Steps",
    "suppress_boxes",
    "thin_ridges",
]


class Step(BaseEstimator):
    """A step of post-processing. A subclass defines ``_mask`` or ``__call__``.

    Maps of classes, and of ids, are processed label by label; pixels that a label loses
    get the label of the nearest kept pixel, pixels that it gains are taken from others.
    """

    _constraints: dict[str, list] = {}

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` on an invalid parameter."""
        check_parameters(self, self._constraints)

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Return a map with the step done.

        Parameters
        ----------
        labels : ndarray of bool, int or str, shape (H, W)

        Returns
        -------
        ndarray of the same shape and dtype

        Raises
        ------
        InvalidParameterError
        ValueError
            Where ``labels`` is no map.
        """
        self.check_parameters()
        labels = _as_labels(labels)
        if labels.dtype == bool:
            return self._mask(labels)
        return self._classes(labels)

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        out = labels.copy()
        lost = np.zeros(labels.shape, bool)
        for label in np.unique(labels):
            before = labels == label
            after = self._mask(before)
            lost |= before & ~after
            out[after & ~before] = label
        return _nearest_kept(out, lost)


class RemoveSmall(Step):
    """Remove connected parts of fewer than ``min_size`` pixels.

    Parameters
    ----------
    min_size : int, default=64
        Pixels of the smallest part that is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks.postprocess import RemoveSmall
    >>> mask = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool)
    >>> RemoveSmall(2)(mask).astype(int)
    array([[1, 1, 0, 0],
           [1, 0, 0, 0]])
    """

    _constraints = {"min_size": [Interval(Integral, 1, None, closed="left")]}

    def __init__(self, min_size: int = 64) -> None:
        self.min_size = min_size

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        parts = measure.label(mask, connectivity=1)
        return (np.bincount(parts.ravel()) >= self.min_size)[parts] & mask


class FillHoles(Step):
    """Fill holes of fewer than ``max_size`` pixels, or of any size.

    Parameters
    ----------
    max_size : int, default=None
        None is any size.
    background : label, default=0
        In a map of classes or ids, the label of holes, whose own holes are not filled:
        other labels inside a label are kept.
    """

    _constraints = {"max_size": [Interval(Integral, 1, None, closed="left"), None]}

    def __init__(self, max_size: int | None = None, background: Any = 0) -> None:
        self.max_size = max_size
        self.background = background

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        out = labels.copy()
        ground = np.isin(labels, [self.background])
        for label in np.unique(labels[~ground]):
            out[self._mask(labels == label) & ground] = label
        return out

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        filled = ndimage.binary_fill_holes(mask)
        if self.max_size is None:
            return filled
        holes = measure.label(filled & ~mask, connectivity=1)
        return mask | (
            (holes > 0) & (np.bincount(holes.ravel()) < self.max_size)[holes]
        )


class LargestComponent(Step):
    """Keep the largest connected part only (the first of ties)."""

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        parts = measure.label(mask, connectivity=1)
        if not parts.any():
            return mask.copy()
        return parts == np.bincount(parts.ravel())[1:].argmax() + 1


class SmoothOutline(Step):
    """Smooth outlines by an opening and a closing with a disc.

    By `skimage.morphology.isotropic_opening` and ``isotropic_closing``.

    Parameters
    ----------
    radius : float >= 0, default=1
        Radius of the disc, in pixels.
    """

    _constraints = {"radius": [Interval(Real, 0, None, closed="left")]}

    def __init__(self, radius: float = 1) -> None:
        self.radius = radius

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        margin = int(np.ceil(self.radius)) + 1
        wide = np.pad(mask, margin, mode="edge")
        opened = morphology.isotropic_opening(wide, self.radius)
        closed = morphology.isotropic_closing(opened, self.radius)
        return closed[margin:-margin, margin:-margin]


class ConnectedComponents(Step):
    """Give every connected part of a mask an id, 1 … n; the rest is 0.

    By `skimage.measure.label`. In a map of classes, every class's parts get their own
    ids, except 0, the background.

    Parameters
    ----------
    connectivity : {1, 2}, default=1
        Whether neighbours share a side (1) or a side or a corner (2).
    """

    _constraints = {"connectivity": [Interval(Integral, 1, 2, closed="both")]}

    def __init__(self, connectivity: int = 1) -> None:
        self.connectivity = connectivity

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        return self._classes(mask)

    def _classes(self, labels: np.ndarray) -> np.ndarray:
        if labels.dtype.kind == "U":
            raise ValueError("ConnectedComponents takes bool or int, got a map of str")
        parts = measure.label(labels, background=0, connectivity=self.connectivity)
        return parts.astype(np.int32)


class Steps(BaseEstimator):
    """Several steps, one after another.

    Parameters
    ----------
    steps : list of (str, Step)
        Names, by which parameters are reached (``fill__max_size``), and steps.

    Examples
    --------
    >>> from mtsk.tasks.postprocess import FillHoles, RemoveSmall, Steps
    >>> clean = Steps([("fill", FillHoles()), ("small", RemoveSmall(20))])
    >>> clean.set_params(small__min_size=5).get_params()["small__min_size"]
    5
    """

    def __init__(self, steps: Sequence[tuple[str, Any]]) -> None:
        self.steps = steps

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with ``deep`` also the steps and theirs."""
        params: dict[str, Any] = {"steps": self.steps}
        if deep and isinstance(self.steps, list | tuple):
            for name, step in self._named().items():
                params[name] = step
                nested = step.get_params()
                params |= {f"{name}__{key}": value for key, value in nested.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set ``steps``, a step by its name, or a step's parameter by both."""
        if "steps" in params:
            self.steps = params.pop("steps")
        for key, value in params.items():
            name, _, rest = key.partition("__")
            if name not in self._named():
                raise ValueError(
                    f"Invalid parameter {key!r}; the steps are {list(self._named())}"
                )
            if rest:
                self._named()[name].set_params(**{rest: value})
            else:
                self.steps = [
                    (n, value if n == name else s) for n, s in self._named().items()
                ]
        return self

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` where these are no named steps."""
        allowed = "a list of (name, Step) with different names"
        try:
            pairs = [(str(name), step) for name, step in self.steps]
        except (TypeError, ValueError):
            raise parameter_error("steps", self, allowed, self.steps) from None
        if len(dict(pairs)) != len(pairs):
            raise parameter_error("steps", self, allowed, self.steps)
        for _, step in pairs:
            check_step("steps", self, step)
            step.check_parameters()

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Return a map with all steps done.

        Parameters
        ----------
        labels : ndarray of shape (H, W)

        Returns
        -------
        ndarray of shape (H, W)
        """
        self.check_parameters()
        for _, step in self.steps:
            labels = step(labels)
        return labels

    def _named(self) -> dict[str, Any]:
        return dict(self.steps)


def check_step(name: str, owner: object, step: Any) -> None:
    """Raise ``InvalidParameterError`` where a parameter is not a step of any kind."""
    if not isinstance(step, Step | Steps):
        raise parameter_error(name, owner, "a Step, Steps or None", step)


def suppress_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    overlap: float = 0.5,
    mode: Literal["hard", "soft"] | str = "hard",
) -> tuple[np.ndarray, np.ndarray]:
    """Suppress boxes that overlap better ones of the same label.

    ``"hard"`` is `torchvision.ops.batched_nms`; ``"soft"`` multiplies a box's score by
    1 − IoU with each better one that overlaps it by more than ``overlap`` (Bodla et
    al., "Soft-NMS", ICCV 2017, equation 2).

    Parameters
    ----------
    boxes : ndarray of shape (n, 4)
        Left, top, right, bottom.
    scores : ndarray of shape (n,)
    labels : ndarray of int or str, shape (n,), optional
        Boxes of different labels do not suppress one another. None is one label.
    overlap : float in [0, 1], default=0.5
        IoU.
    mode : {"hard", "soft"}, default="hard"

    Returns
    -------
    indices : ndarray of int, shape (m,)
        Indices of the boxes kept, best first.
    scores : ndarray of float, shape (m,)
        Scores of these boxes.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks.postprocess import suppress_boxes
    >>> boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]])
    >>> suppress_boxes(boxes, np.array([0.9, 0.8, 0.7]))[0]
    array([0, 2])
    """
    import torch
    from torchvision import ops

    try:
        boxes, scores = np.asarray(boxes, float), np.asarray(scores, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes and scores must be numbers: {error}") from None
    if np.isnan(scores).any():
        raise ValueError("scores of boxes must not be NaN")
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(
            f"boxes must be finite and of shape (n, 4), got shape {boxes.shape}"
        )
    if not isinstance(overlap, Real) or not 0 <= overlap <= 1:
        allowed = "a float in [0, 1]"
        raise parameter_error("overlap", "suppress_boxes", allowed, overlap)
    codes = np.zeros(len(boxes), int)
    if labels is not None:
        names = np.asarray(labels)
        codes = np.unique(names, return_inverse=True)[1].reshape(names.shape)
    if scores.shape != (len(boxes),) or codes.shape != (len(boxes),):
        raise ValueError(
            f"{len(boxes)} boxes need as many scores and labels, got shapes "
            f"{scores.shape} and {codes.shape}"
        )
    if mode not in ("hard", "soft"):
        raise parameter_error("mode", "suppress_boxes", "'hard' or 'soft'", mode)
    if not len(boxes):
        return np.empty(0, np.intp), scores
    if mode == "hard":
        kept = ops.batched_nms(
            *(
                torch.from_numpy(np.ascontiguousarray(a))
                for a in (boxes, scores, codes)
            ),
            overlap,
        ).numpy()
        return kept, scores[kept]
    iou = ops.box_iou(*(torch.from_numpy(boxes),) * 2).numpy()
    iou *= codes[:, None] == codes
    return _softened(iou, scores, overlap)


def _softened(
    iou: np.ndarray, scores: np.ndarray, overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    out, left = scores.copy(), np.ones(len(scores), bool)
    order = []
    while left.any():
        best = int(np.where(left, out, -np.inf).argmax())
        order.append(best)
        left[best] = False
        out[left & (iou[best] > overlap)] *= 1 - iou[best][left & (iou[best] > overlap)]
    return np.array(order), out[order]


def thin_ridges(
    strength: np.ndarray, *, sigma: float = 1.0, least_bend: float | None = None
) -> np.ndarray:
    """Keep the maxima across ridges; set the rest to 0.

    Non-maximum suppression as in Canny (PAMI 1986), along the direction of the smoothed
    map's most negative curvature: the eigenvector of its Hessian (Steger, PAMI 1998).

    Parameters
    ----------
    strength : ndarray of float, shape (H, W)
        At least 0, such as probabilities of a boundary.
    sigma : float > 0, default=1.0
        Standard deviation of the smoothing before directions are found, in pixels.
    least_bend : float, default=None
        Minimum curvature of a ridge, per pixel². None is a thousandth of the greatest
        strength.

    Returns
    -------
    ndarray of float, shape (H, W)

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks.postprocess import thin_ridges
    >>> wide = np.tile([0, 0, 0.5, 1, 0.5, 0, 0], (7, 1))
    >>> thin_ridges(wide)[3]
    array([0., 0., 0., 1., 0., 0., 0.])
    """
    strength = np.asarray(strength, float)
    if strength.ndim != 2 or not strength.size:
        raise ValueError(f"a map must have shape (H, W), got {strength.shape}")
    if not np.isfinite(strength).all():
        raise ValueError("a map of ridges must be finite; set what is unknown to 0")
    if not sigma > 0:
        raise parameter_error("sigma", "thin_ridges", "a float > 0", sigma)
    smooth, rr, rc, cc = (
        ndimage.gaussian_filter(strength, sigma, order, mode="nearest")
        for order in ((0, 0), (2, 0), (1, 1), (0, 2))
    )
    bend = (rr + cc) / 2 - np.hypot((rr - cc) / 2, rc)  # the smaller eigenvalue
    angle = 0.5 * np.arctan2(2 * rc, rr - cc)  # of the larger eigenvalue
    normal = np.stack([-np.sin(angle), np.cos(angle)])  # of the smaller one
    places = np.indices(strength.shape)
    ahead, behind = (
        ndimage.map_coordinates(smooth, places + s * normal, order=1, mode="nearest")
        for s in (1, -1)
    )
    least = _FLAT * strength.max() if least_bend is None else least_bend
    crest = (smooth >= ahead) & (smooth > behind) & (bend < -least)
    return np.where(crest, strength, 0.0)


_FLAT = 1e-3
THIN_REACH = 8  # radius of `thin_ridges` in pixels, smoothing included


def _as_labels(labels: Any) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "biuU":
        raise ValueError(
            "a step takes a map (H, W) of bool, int or str, got "
            f"{labels.dtype} {labels.shape}"
        )
    return labels


def _nearest_kept(labels: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Give lost pixels the label of the nearest one that is kept."""
    if not lost.any() or lost.all():
        return labels
    rows, cols = ndimage.distance_transform_edt(
        lost, return_distances=False, return_indices=True
    )
    return labels[rows, cols]
