"""Tasks with a target at every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from skimage.segmentation import find_boundaries

from mtsk._validation import Interval, check_parameters
from mtsk.data.label_maps import CategoricalMap
from mtsk.exceptions import TargetError
from mtsk.tasks.base import PixelTask, as_flat_map
from mtsk.tasks.columns import ColumnGroup
from mtsk.tasks.labels import (
    UNLABELLED,
    as_label_array,
    as_list,
    codes_of,
    learn_classes,
    unseen_labels,
)
from mtsk.tasks.postprocess import THIN_REACH, Step, Steps, check_step, thin_ridges

__all__ = ["BinaryMask", "Boundary", "SemanticSegmentation"]


_SHARE = Interval(Real, 0, 1, closed="both")
_LENGTH = Interval(Real, 0, None, closed="left")
_LEAST_BEND = 1e-3  # of a probability, the same in a tile as in the whole image


class SemanticSegmentation(PixelTask):
    """One class at every pixel.

    A target is a label map of shape (H, W), integer or str; −1 and ``void`` mean
    unlabelled, so scribbles are label maps that are −1 nearly everywhere. Floats that
    are whole numbers count as integers, and NaN as −1.
    ``predict`` gives label maps with the labels as they were given.

    Parameters
    ----------
    void : label or sequence of labels, default=()
        Labels that mean "unlabelled", such as 255.
    classes : sequence of labels, default=None
        All classes. None takes those that occur.
    postprocess : Step or Steps, default=None
        Post-processing of predicted maps, also before scoring; see
        `mtsk.tasks.postprocess`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import SemanticSegmentation
    >>> mask = np.array([[3, 7], [255, 3]])
    >>> task = SemanticSegmentation(void=255).fit([mask])
    >>> task.classes_
    array([3, 7])
    >>> task.encode(mask, (2, 2))[..., 0]
    array([[ 0.,  1.],
           [nan,  0.]], dtype=float32)
    """

    metrics = ("miou", "accuracy", "class_accuracy", "boundary_f1")

    def __init__(
        self,
        void: Any = (),
        classes: Sequence[Any] | None = None,
        postprocess: Step | Steps | None = None,
    ) -> None:
        self.void = void
        self.classes = classes
        self.postprocess = postprocess

    @property
    def decode_radius(self) -> int | None:
        return 0 if self.postprocess is None else None

    def _check(self) -> None:
        _check_postprocess(self)

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        maps = [as_flat_map(t, entry=i) for i, t in enumerate(targets)]
        self.classes_ = learn_classes(maps, as_list(self.void), self.classes)
        return ColumnGroup("nominal", len(self.classes_))

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        labels = as_flat_map(target, shape)
        return codes_of(labels, self.classes_, as_list(self.void), unseen=unseen)[
            ..., None
        ]

    def unseen_labels(self, target: Any) -> set[Any]:
        return unseen_labels(as_flat_map(target), self.classes_, as_list(self.void))

    def codes(self, scores: np.ndarray) -> np.ndarray:
        """Return the indices in ``classes_`` of the predicted classes.

        Parameters
        ----------
        scores : ndarray of shape (H, W, n_classes)

        Returns
        -------
        ndarray of int, shape (H, W)
        """
        best = scores.argmax(axis=-1)
        if self.postprocess is None:
            return best
        labels = self.postprocess(self.classes_[best])
        strange = np.setdiff1d(labels, self.classes_)
        if len(strange):
            raise ValueError(
                "`postprocess` of SemanticSegmentation made labels "
                f"{strange[:5].tolist()} that are no classes; ids are for BinaryMask"
            )
        return np.searchsorted(self.classes_, labels)

    def decode(self, scores: np.ndarray) -> np.ndarray:
        return self.classes_[self.codes(scores)]


class BinaryMask(PixelTask):
    """Yes or no at every pixel.

    A target is a map of shape (H, W): bool, or integer with 0 for no, ``positive``
    for yes and −1 or ``void`` for unlabelled. ``predict`` gives maps of the dtype
    and values that the targets had.

    Parameters
    ----------
    positive : int, default=1
        The value that means yes in an integer map, such as 255.
    void : int or sequence of int, default=()
        Values that mean "unlabelled".
    threshold : float, default=0.5
        ``predict`` gives yes where the probability exceeds it.
    postprocess : Step or Steps, default=None
        Post-processing of predicted masks, also before scoring except for average
        precision; see `mtsk.tasks.postprocess`. With its `ConnectedComponents`
        ``predict`` gives ids.

    Attributes
    ----------
    dtype_ : dtype
        The dtype of the targets, which predictions have too.
    """

    metrics = ("iou", "average_precision", "accuracy", "boundary_f1")

    def __init__(
        self,
        positive: int = 1,
        void: Any = (),
        threshold: float = 0.5,
        postprocess: Step | Steps | None = None,
    ) -> None:
        self.positive = positive
        self.void = void
        self.threshold = threshold
        self.postprocess = postprocess

    @property
    def decode_radius(self) -> int | None:
        return 0 if self.postprocess is None else None

    def _check(self) -> None:
        _check_postprocess(self)
        check_parameters(self, {"threshold": [_SHARE], "positive": [Integral]})
        if self.positive == 0:
            raise TargetError("`positive` of BinaryMask must differ from 0")

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        if not len(targets):
            raise TargetError("no entry is given")
        seen = {as_label_array(t).dtype for t in targets}
        self.dtype_ = np.result_type(*seen)
        return ColumnGroup("binary", 1)

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        mask = as_label_array(as_flat_map(target, shape))
        if mask.dtype == bool:
            return mask.astype(np.float32)[..., None]
        yes, no = mask == self.positive, mask == 0
        if (yes | no).all():
            return yes.astype(np.float32)[..., None]
        missing = np.isin(mask, [*as_list(self.void), UNLABELLED])
        if not (yes | no | missing).all():
            strange = np.unique(mask[~(yes | no | missing)]).tolist()[:10]
            raise TargetError(
                f"a binary mask may hold 0, positive={self.positive} and "
                f"void={self.void}, got {strange}; for several classes use "
                "SemanticSegmentation"
            )
        columns = yes.astype(np.float32)
        columns[missing & ~yes & ~no] = np.nan
        return columns[..., None]

    def codes(self, scores: np.ndarray) -> np.ndarray:
        """Return the predicted mask, or the result of ``postprocess`` on it.

        Parameters
        ----------
        scores : ndarray of shape (H, W, 1)

        Returns
        -------
        ndarray of bool (or int), shape (H, W)
        """
        yes = self.probabilities(scores[..., 0:1])[..., 0] > self.threshold
        return yes if self.postprocess is None else self.postprocess(yes)

    def decode(self, scores: np.ndarray) -> np.ndarray:
        yes = self.codes(scores)
        if self.dtype_.kind == "b" or yes.dtype != bool:
            return yes
        return np.where(yes, self.positive, 0).astype(self.dtype_)


class Boundary(PixelTask):
    """Whether a pixel lies on a boundary.

    A target is a bool map of edges of shape (H, W), or an integer map of regions
    whose borders are found by `skimage.segmentation.find_boundaries`
    (``mode="thick"``). Pixels labelled −1 or ``void`` are unlabelled. ``predict``
    gives bool maps, ``predict_proba`` the probabilities.

    Parameters
    ----------
    void : int or sequence of int, default=()
        Labels of a region map that mean "unlabelled".
    tolerance : float, default=0.0075
        Distance tolerance of the metric ``"boundary_f1"``, as a fraction of the image
        diagonal.
    threshold : float, default=0.5
        ``predict`` gives edges where the probability exceeds it.
    thin : bool, default=True
        Whether ``predict`` thins edges to the most probable pixel across; see
        `mtsk.tasks.postprocess.thin_ridges`. The metrics ``"ods"`` and ``"ois"`` always
        do.
    """

    metrics = ("average_precision", "boundary_f1", "ods", "ois")

    def __init__(
        self,
        void: Any = (),
        tolerance: float = 0.0075,
        threshold: float = 0.5,
        thin: bool = True,
    ) -> None:
        self.void = void
        self.tolerance = tolerance
        self.threshold = threshold
        self.thin = thin

    @property
    def decode_radius(self) -> int | None:
        return THIN_REACH if self.thin else 0

    def _check(self) -> None:
        constraints: dict[str, list] = {
            "threshold": [_SHARE],
            "tolerance": [_LENGTH],
            "thin": ["boolean"],
        }
        check_parameters(self, constraints)

    def _learn(self, targets: Sequence[Any]) -> ColumnGroup:
        return ColumnGroup("binary", 1)

    def encode(
        self, target: Any, shape: tuple[int, int], *, unseen: bool = False
    ) -> np.ndarray:
        given = as_flat_map(target, shape)
        void = as_list(self.void)
        if isinstance(given, CategoricalMap):  # regions are told apart by colour
            regions = given.codes.astype(np.int64)
            regions[np.isin(given.labels, void)[given.codes]] = UNLABELLED
            void = []
        else:
            regions = as_label_array(given)
        if regions.dtype.kind == "U":
            raise TargetError("regions must be numbered, got a map of str")
        if regions.dtype == bool:
            return regions.astype(np.float32)[..., None]
        missing = np.isin(regions, [*void, UNLABELLED])
        columns = find_boundaries(regions, mode="thick").astype(np.float32)
        # The rim of an unlabelled area is not a labelled boundary.
        columns[missing | find_boundaries(missing, mode="thick")] = np.nan
        return columns[..., None]

    def decode(self, scores: np.ndarray) -> np.ndarray:
        probability = self.probabilities(scores)[..., 0]
        if self.thin:
            probability = thin_ridges(probability, least_bend=_LEAST_BEND)
        return probability > self.threshold


def _check_postprocess(task: SemanticSegmentation | BinaryMask) -> None:
    if task.postprocess is not None:
        check_step("postprocess", task, task.postprocess)
        task.postprocess.check_parameters()
