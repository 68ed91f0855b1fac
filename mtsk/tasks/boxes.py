"""Object detection: boxes with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.special import expit

from mtsk._validation import (
    Interval,
    StrOptions,
    check_parameters,
    parameter_error,
)
from mtsk.exceptions import TargetError
from mtsk.tasks.arrays import as_array, as_numbers
from mtsk.tasks.base import PixelTask
from mtsk.tasks.columns import ColumnGroup
from mtsk.tasks.labels import (
    as_label_array,
    as_list,
    codes_of,
    learn_classes,
    missing_labels,
    unseen_labels,
)
from mtsk.tasks.postprocess import suppress_boxes

__all__ = ["Detection", "as_boxes", "boxes_of_instances", "check_inside"]


class Detection(PixelTask):
    """Boxes around objects, each with a label.

    A target is a mapping with ``"boxes"``, numbers of shape (n, 4), and ``"labels"``,
    (n,) of int or str, as torchvision has it; or the boxes alone, where all objects are
    of one kind. ``"ignore"``, boxes (m, 4), may mark regions excluded from training and
    metrics. No boxes, shape (0, 4), means that the image has none. ``predict`` gives
    mappings with ``"boxes"`` (float32, in the format that targets have), ``"labels"``
    and ``"scores"``, best first.

    Coordinates are in pixels, with (0, 0) the outer corner of the first pixel, so that
    the box of pixels 3 to 7 reaches from 3 to 8: scikit-image's half-open ``bbox`` and
    torchvision's boxes.

    Pixels in the middle of a box (within ``core`` of its sides) predict its label (one
    binary column per label), the logarithms of its height and width, and the offset of
    its centre in units of these (four real columns), as in FCOS with centre sampling
    (Tian et al., ICCV 2019); pixels between that and the box's rim are unlabelled for
    its label. Where middles overlap, the smaller box has the pixel. Boxes are the peaks
    of probability × nearness to the centre that the pixel itself predicts, and suppress
    others.

    Parameters
    ----------
    format : {"xyxy", "xywh", "yxyx"}, default="xyxy"
        Meaning of the four numbers of a box: left, top, right, bottom (torchvision);
        left, top, width, height (COCO); top, left, bottom, right (scikit-image).
    threshold : float in [0, 1], default=0.3
        Boxes with smaller scores are left out.
    overlap : float in [0, 1], default=0.5
        A box is suppressed by a better one of its label where their IoU exceeds it.
    suppression : {"hard", "soft"}, default="hard"
        ``"soft"`` lowers scores by overlap instead (Bodla et al., ICCV 2017).
    max_boxes : int, default=100
        Maximum number of boxes per image.
    core : float in (0, 1], default=0.5
        Share of a box's height and width that its middle covers.
    void : label or sequence of labels, default=()
        Boxes with these labels, or with −1, are regions to ignore.
    classes : sequence of labels, default=None
        All labels. None takes those that occur.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import Detection
    >>> target = {"boxes": np.array([[2, 3, 12, 9]]), "labels": np.array(["cat"])}
    >>> task = Detection().fit([target])
    >>> task.encode(target, (16, 16)).shape
    (16, 16, 5)
    """

    metrics = ("box_ap50", "box_ap75", "box_ap")

    def __init__(
        self,
        format: str = "xyxy",
        *,
        threshold: float = 0.3,
        overlap: float = 0.5,
        suppression: str = "hard",
        max_boxes: int = 100,
        core: float = 0.5,
        void: Any = (),
        classes: Sequence[Any] | None = None,
    ) -> None:
        self.format = format
        self.threshold = threshold
        self.overlap = overlap
        self.suppression = suppression
        self.max_boxes = max_boxes
        self.core = core
        self.void = void
        self.classes = classes

    def _check(self) -> None:
        check_parameters(self, _CONSTRAINTS)
        given = self.classes
        if given is not None and (
            isinstance(given, str) or len(set(given)) != len(given)
        ):
            raise parameter_error("classes", self, "different labels, or None", given)

    def _learn(self, targets: Sequence[Any]) -> list[ColumnGroup]:
        labels = []
        for i, target in enumerate(targets):
            try:
                _, own, _ = self._read(target)
            except TargetError as error:
                raise error.at(image=i) from None
            labels.append(own)
        labels = [own for own in labels if len(own)]
        if not labels:
            raise TargetError("no entry has a box: there is nothing to learn")
        self.classes_ = learn_classes(labels, as_list(self.void), self.classes)
        return [ColumnGroup("binary", len(self.classes_)), ColumnGroup("real", 4)]

    def _read(self, target: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes (left, top, right, bottom), labels, and boxes to ignore."""
        if not isinstance(target, Mapping):
            boxes = as_boxes(target, self.format)
            return boxes, np.ones(len(boxes), np.int64), np.empty((0, 4))
        if "boxes" not in target:
            raise TargetError(
                f"a mapping of boxes needs the key 'boxes', got {sorted(target)}"
            )
        strange = set(target) - {"boxes", "labels", "scores", "ignore"}
        if strange:
            raise TargetError(
                "a mapping of boxes may have the keys 'boxes', 'labels' and 'ignore', "
                f"got {sorted(map(str, strange))}"
            )
        boxes = as_boxes(target["boxes"], self.format)
        labels = as_array(target.get("labels", np.ones(len(boxes), np.int64)))
        labels = as_label_array(labels) if labels.size else np.empty(0, np.int64)
        if labels.shape != (len(boxes),):
            raise TargetError(
                f"{len(boxes)} boxes need {len(boxes)} labels, got shape {labels.shape}"
            )
        ignore = as_boxes(target.get("ignore", np.empty((0, 4))), self.format)
        if len(labels):
            is_void = missing_labels(labels, as_list(self.void))
            ignore = np.concatenate([ignore, boxes[is_void]])
            boxes, labels = boxes[~is_void], labels[~is_void]
        return boxes, labels, ignore

    def canonical(
        self, target: Any, shape: tuple[int, int] | None = None
    ) -> dict[str, np.ndarray]:
        """Return a target in canonical form.

        Parameters
        ----------
        target : mapping or array-like of shape (n, 4)
        shape : (int, int), optional
            The image's height and width, which no box may reach beyond.

        Returns
        -------
        dict
            ``"boxes"``: (n, 4) left, top, right, bottom; ``"codes"``: (n,), indices of
            the labels in ``classes_``, and ``len(classes_)`` for labels unknown to it;
            ``"ignore"``: (m, 4).

        Raises
        ------
        TargetError
        """
        boxes, labels, ignore = self._read(target)
        if shape is not None:
            check_inside(boxes, shape)
        codes = (
            codes_of(labels, self.classes_, (), unseen=True)
            if len(labels)
            else np.empty(0)
        )
        return {"boxes": boxes, "codes": codes.astype(np.intp), "ignore": ignore}

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        boxes, labels, ignore = self._read(target)
        check_inside(boxes, shape)
        n_classes = len(self.classes_)
        columns = np.zeros((*shape, n_classes + 4), np.float32)
        columns[..., n_classes:] = np.nan
        for box in ignore:
            columns[_pixels(box, shape)] = np.nan
        if not len(boxes):
            return columns
        codes = codes_of(labels, self.classes_, (), unseen=unseen).astype(int)
        sides = boxes[:, 2:] - boxes[:, :2]
        order = np.argsort(-sides.prod(axis=1), kind="stable")
        for i in order:
            if codes[i] < n_classes:
                rim = (*_pixels(boxes[i], shape), codes[i])
                columns[rim] = np.where(columns[rim] == 1, 1, np.nan)
        for i in order:
            self._draw_middle(columns, boxes[i], codes[i])
        return columns

    def unseen_labels(self, target: Any) -> set[Any]:
        _, labels, _ = self._read(target)
        return unseen_labels(labels, self.classes_, ()) if len(labels) else set()

    def _draw_middle(self, columns: np.ndarray, box: np.ndarray, code: int) -> None:
        n_classes = len(self.classes_)
        centre, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        half = self.core * sides / 2
        middle = np.concatenate([centre - half, centre + half])
        rows, cols = _pixels(middle, columns.shape[:2])
        if code < n_classes:
            columns[rows, cols, :n_classes] = np.arange(n_classes) == code
        numbers = columns[rows, cols, n_classes:]
        y, x = np.ogrid[rows, cols]
        numbers[..., :2] = np.log(sides[::-1])
        numbers[..., 2] = (centre[1] - y - 0.5) / sides[1]
        numbers[..., 3] = (centre[0] - x - 0.5) / sides[0]

    def transform_columns(self, columns: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        # A rotated box becomes the bounding box of its rotated inscribed ellipse.
        k = columns.shape[-1] - 4
        out = columns.copy()
        sides = np.exp(columns[..., k : k + 2])
        away = (columns[..., k + 2 :] * sides) @ matrix.T
        turned = np.sqrt(sides**2 @ (matrix.T**2))
        out[..., k : k + 2] = np.log(turned)
        out[..., k + 2 :] = away / turned
        return out.astype(columns.dtype)

    def decode(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        return self.as_target(self.detect(scores))

    def as_target(self, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what `detect` found in the form that ``predict`` gives."""
        return {
            "boxes": _in_format(found["boxes"], self.format).astype(np.float32),
            "labels": self.classes_[found["codes"]],
            "scores": found["scores"],
        }

    def corners(self, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what ``predict`` gives with boxes as left, top, right, bottom.

        Parameters
        ----------
        found : mapping
            In ``format``.

        Returns
        -------
        dict
        """
        boxes = np.asarray(found["boxes"], float).reshape(-1, 4)
        return {**found, "boxes": _corners(boxes, self.format)}

    def detect(
        self, scores: np.ndarray, threshold: float | None = None
    ) -> dict[str, np.ndarray]:
        """Return the boxes predicted by score maps, best first.

        Parameters
        ----------
        scores : ndarray of shape (H, W, n_classes + 4)
        threshold : float, optional
            Minimum score. None takes the task's own.

        Returns
        -------
        dict
            ``"boxes"``: float (n, 4), left, top, right, bottom; ``"codes"``: int (n,),
            indices into ``classes_``; ``"scores"``: float (n,).
        """
        least = self.threshold if threshold is None else threshold
        k = len(self.classes_)
        near = _nearness(scores[..., k:], self.core)
        probability = expit(scores[..., :k]) * near[..., None]
        peaks = probability == ndimage.maximum_filter(probability, (3, 3, 1))
        y, x, codes = np.nonzero(peaks & (probability > least))
        strength = probability[y, x, codes]
        best = np.argsort(-strength, kind="stable")[:_MOST_PEAKS]
        y, x, codes, strength = y[best], x[best], codes[best], strength[best]
        boxes = _boxes_at(y, x, scores[y, x, k:], scores.shape[:2])
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # at least in part
        boxes, codes, strength = boxes[inside], codes[inside], strength[inside]
        kept, strength = suppress_boxes(
            boxes, strength, codes, overlap=self.overlap, mode=self.suppression
        )
        kept, strength = (
            a[strength > least][: self.max_boxes] for a in (kept, strength)
        )
        return {"boxes": boxes[kept], "codes": codes[kept], "scores": strength}


def boxes_of_instances(
    ids: np.ndarray, format: str = "xyxy"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes around the objects of a map of ids.

    Parameters
    ----------
    ids : ndarray of int, shape (H, W)
        0 the background, negative unlabelled.
    format : {"xyxy", "xywh", "yxyx"}, default="xyxy"
        See `Detection`.

    Returns
    -------
    boxes : ndarray of float, shape (n, 4)
    ids : ndarray of int, shape (n,)
        Ids of the objects, ascending.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import boxes_of_instances
    >>> ids = np.zeros((5, 6), int)
    >>> ids[1:3, 2:6] = 7
    >>> boxes_of_instances(ids)
    (array([[2., 1., 6., 3.]]), array([7]))
    """
    ids = np.asarray(ids)
    if format not in ("xyxy", "xywh", "yxyx"):
        allowed = "'xyxy', 'xywh' or 'yxyx'"
        raise parameter_error("format", "boxes_of_instances", allowed, format)
    if ids.ndim != 2 or not ids.size or ids.dtype.kind not in "iu":
        raise TargetError(
            f"ids must be an integer map (H, W), got {ids.dtype} {ids.shape}"
        )
    known, dense = np.unique(ids.clip(min=0), return_inverse=True)
    places = ndimage.find_objects(dense.reshape(ids.shape) + (known[0] != 0))
    found = [p for p, label in zip(places, known[known > 0], strict=True) if label > 0]
    boxes = [[c.start, r.start, c.stop, r.stop] for r, c in found]
    return _in_format(np.array(boxes, float).reshape(-1, 4), format), known[known > 0]


_MOST_PEAKS = 1000
_SLACK = 1e-3  # pixels that float32 may put a box beyond its image
_LOG_SIDE = (-2.0, 10.0)
_CONSTRAINTS: dict[str, list] = {
    "format": [StrOptions({"xyxy", "xywh", "yxyx"})],
    "threshold": [Interval(Real, 0, 1, closed="both")],
    "overlap": [Interval(Real, 0, 1, closed="both")],
    "suppression": [StrOptions({"hard", "soft"})],
    "max_boxes": [Interval(Integral, 1, None, closed="left")],
    "core": [Interval(Real, 0, 1, closed="right")],
    "classes": ["array-like", range, None],
}


def as_boxes(boxes: Any, format: str = "xyxy") -> np.ndarray:
    """Return boxes as left, top, right, bottom; raise on invalid boxes."""
    array = as_numbers(boxes, "boxes must be numbers of shape (n, 4)")
    if array.size == 0:
        return np.empty((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise TargetError(f"boxes must have shape (n, 4), got {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise TargetError(f"box {bad} is not finite: {array[bad].tolist()}")
    out = _corners(array, format)
    empty = (out[:, 2:] <= out[:, :2]).any(axis=1)
    if empty.any():
        bad = int(np.flatnonzero(empty)[0])
        raise TargetError(
            f"box {bad} has no area: {array[bad].tolist()} in format {format!r}"
        )
    return out


def _corners(boxes: np.ndarray, format: str) -> np.ndarray:
    """Return boxes as left, top, right, bottom."""
    if format == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if format == "xywh":
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return boxes


def _in_format(boxes: np.ndarray, format: str) -> np.ndarray:
    """Return boxes of left, top, right, bottom in a format."""
    if format == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if format == "xywh":
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return boxes


def check_inside(boxes: np.ndarray, shape: tuple[int, int]) -> None:
    """Raise TargetError where a box, (left, top, right, bottom), leaves its image."""
    low, high = boxes[:, :2], boxes[:, 2:] - shape[::-1]
    outside = (low < -_SLACK).any(axis=1) | (high > _SLACK).any(axis=1)
    if outside.any():
        bad = int(np.flatnonzero(outside)[0])
        raise TargetError(
            f"box {bad} (left, top, right, bottom = {boxes[bad].tolist()}) reaches "
            f"beyond an image of height {shape[0]} and width {shape[1]}; clip it"
        )


def _pixels(box: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the pixels whose centres lie in a box, at least the one in its middle."""
    out = []
    for low, high, n in ((box[1], box[3], shape[0]), (box[0], box[2], shape[1])):
        first, last = int(np.ceil(low - 0.5)), int(np.ceil(high - 0.5))
        if last <= first:
            first = int(np.floor((low + high) / 2))
            last = first + 1
        first = min(max(first, 0), n - 1)
        out.append(slice(first, min(max(last, first + 1), n)))
    return out[0], out[1]


def _nearness(numbers: np.ndarray, core: float) -> np.ndarray:
    """Return 1 at the centre that a pixel predicts, 0.5 at the rim of the middle."""
    half_pixel = 0.5 / np.exp(numbers[..., :2].astype(float).clip(*_LOG_SIDE))
    away = (np.abs(numbers[..., 2:]) - half_pixel).clip(min=0).max(axis=-1)
    return 1 / (1 + (2 * away / core) ** 2)


def _boxes_at(
    y: np.ndarray, x: np.ndarray, numbers: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return the boxes that pixels predict, clipped to the image."""
    sides = np.exp(numbers[:, :2].astype(float).clip(*_LOG_SIDE))
    centre = np.stack([y, x], axis=1) + 0.5 + numbers[:, 2:].clip(-1, 1) * sides
    low, high = centre - sides / 2, centre + sides / 2
    low, high = low.clip(0, shape), high.clip(0, shape)
    return np.concatenate([low[:, ::-1], high[:, ::-1]], axis=1)
