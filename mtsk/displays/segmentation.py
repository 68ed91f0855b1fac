"""An image, what is true of its pixels, and what was predicted, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from scipy import ndimage
from sklearn.utils.validation import check_is_fitted

from mtsk._validation import parameter_error
from mtsk.displays.axes import matplotlib_for

__all__ = ["SegmentationDisplay"]

Kind = Literal["classes", "mask", "ids", "values", "picture", "boxes"]
KINDS = ("classes", "mask", "ids", "values", "picture", "boxes")

# Okabe & Ito (2008): told apart with any kind of colour vision; in an order in which
# neighbours differ in lightness too.
_COLOURS = (
    "#E69F00",
    "#0072B2",
    "#F0E442",
    "#D55E00",
    "#56B4E9",
    "#000000",
    "#CC79A7",
    "#009E73",
)
_WRONG = "#D55E00"
_OF_TASK: dict[str, Kind] = {
    "SemanticSegmentation": "classes",
    "BinaryMask": "mask",
    "Boundary": "mask",
    "DenseRegression": "values",
    "DensityCount": "values",
    "InstanceSegmentation": "ids",
    "Detection": "boxes",
    "ImageToImage": "picture",
    "SurfaceNormals": "picture",
}


class SegmentationDisplay:
    """An image, its labels, the prediction, and where the two differ.

    Up to eight classes have colours that any kind of colour vision tells apart; more
    are steps of one map from dark to light. Labels of few pixels, such as scribbles,
    are drawn on the image; objects as outlines; boxes as frames; numbers by a map from
    dark to light with its scale.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, C)
        As ``fit`` takes it.
    prediction : ndarray of shape (H, W) or (H, W, C), or dict
        What ``predict`` gives for one image.
    truth : the same, default=None
        None draws neither truth nor differences. −1 and NaN are unlabelled.
    kind : {"classes", "mask", "ids", "values", "picture", "boxes"}, default="classes"
        How to draw it.
    classes : sequence, default=None
        All classes, in the order of their colours. None takes those that occur.
    class_names : mapping or sequence of str, default=None
        For the legend: by class, or in the order of ``classes``.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : dict of str to matplotlib Axes
        ``"image"``, ``"truth"``, ``"prediction"`` and ``"difference"``, where drawn.
    images_ : dict of str to matplotlib AxesImage
    legend_ : matplotlib Legend or None

    See Also
    --------
    MultiTaskSegmenter : Predicts.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import SegmentationDisplay
    >>> image = np.zeros((8, 8), np.uint8)
    >>> truth = np.zeros((8, 8), int)
    >>> prediction = np.eye(8, dtype=int)
    >>> display = SegmentationDisplay(image, prediction, truth)
    >>> sorted(display.plot().axes_)  # doctest: +SKIP
    ['difference', 'image', 'prediction', 'truth']
    """

    def __init__(
        self,
        image: Any,
        prediction: Any,
        truth: Any = None,
        *,
        kind: Kind = "classes",
        classes: Sequence[Any] | None = None,
        class_names: Mapping[Any, str] | Sequence[str] | None = None,
    ) -> None:
        self.image = image
        self.prediction = prediction
        self.truth = truth
        self.kind = kind
        self.classes = classes
        self.class_names = class_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        image: Any,
        truth: Any = None,
        *,
        task: str | None = None,
        class_names: Mapping[Any, str] | Sequence[str] | None = None,
        axes: Any = None,
    ) -> Self:
        """Predict one image and draw one task.

        Parameters
        ----------
        estimator : MultiTaskSegmenter
            Fitted.
        image : ndarray of shape (H, W) or (H, W, C)
        truth : target of the task, default=None
        task : str, default=None
            None takes the only task of pixels.
        class_names, axes
            As elsewhere.

        Returns
        -------
        SegmentationDisplay

        Raises
        ------
        ValueError
            Where the task is none of pixels, or there are several and none is named.
        """
        check_is_fitted(estimator)
        kinds = {name: _kind_of(t) for name, t in estimator.tasks_.items()}
        drawn = [name for name, kind in kinds.items() if kind is not None]
        if task is None and len(drawn) == 1:
            task = drawn[0]
        if task not in drawn:
            raise ValueError(
                f"`task` must be one that can be drawn, {drawn}, got {task!r}"
            )
        prediction = estimator.predict([image], tasks=[task])[task][0]
        return cls(
            image,
            prediction,
            truth,
            kind=kinds[task],  # type: ignore[arg-type]
            classes=getattr(estimator.tasks_[task], "classes_", None),
            class_names=class_names,
        ).plot(axes=axes)

    @classmethod
    def from_predictions(
        cls,
        image: Any,
        prediction: Any,
        truth: Any = None,
        *,
        kind: Kind = "classes",
        classes: Sequence[Any] | None = None,
        class_names: Mapping[Any, str] | Sequence[str] | None = None,
        axes: Any = None,
    ) -> Self:
        """Draw what was predicted.

        Parameters
        ----------
        image, prediction, truth, kind, classes, class_names
            As of the class.
        axes : sequence of matplotlib Axes, default=None
            As of ``plot``.

        Returns
        -------
        SegmentationDisplay
        """
        display = cls(
            image,
            prediction,
            truth,
            kind=kind,
            classes=classes,
            class_names=class_names,
        )
        return display.plot(axes=axes)

    def plot(self, *, axes: Any = None, legend: bool = True) -> Self:
        """Draw.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, default=None
            One a panel: image and prediction, and with a truth image, truth, prediction
            and difference (not of boxes and pictures). None makes a figure.
        legend : bool, default=True
            Whether classes are named below.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            Where shapes do not fit, or the number of axes.
        """
        plt = matplotlib_for(self)
        panels = self._check()
        if axes is None:
            height, width = np.shape(self.image)[:2]
            size = 3.2 * len(panels), min(3.2 * height / width, 6) + 0.9
            _, grid = plt.subplots(
                1, len(panels), figsize=size, layout="constrained", squeeze=False
            )
            axes = grid[0]
        axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        if len(axes) != len(panels):
            raise ValueError(f"`axes` must be {len(panels)}, {panels}, got {len(axes)}")
        self.axes_ = dict(zip(panels, axes, strict=True))
        self.figure_ = axes[0].figure
        self.images_: dict[str, Any] = {}
        self.legend_ = None
        for name, ax in self.axes_.items():
            ax.set_title(name)
            ax.set_axis_off()
            self._panel(name, ax)
        if legend and self.kind == "classes":
            self._draw_legend()
        return self

    def _check(self) -> list[str]:
        """Return the names of the panels; refuse what does not fit together."""
        if self.kind not in KINDS:
            raise parameter_error("kind", self, f"one of {KINDS}", self.kind)
        shape = np.shape(self.image)[:2]
        if len(np.shape(self.image)) not in (2, 3):
            raise ValueError(
                f"image must be (H, W) or (H, W, C), got {np.shape(self.image)}"
            )
        for name, value in (("prediction", self.prediction), ("truth", self.truth)):
            if value is None or self.kind == "boxes":
                continue
            if np.shape(value)[:2] != shape:
                raise ValueError(
                    f"{name} must be of the image's height and width, {shape}, got "
                    f"shape {np.shape(value)}"
                )
        self._check_values()
        if self.truth is None:
            return ["image", "prediction"]
        alike = self.kind in ("boxes", "picture")
        return ["image", "truth", "prediction", *([] if alike else ["difference"])]

    def _check_values(self) -> None:
        """Refuse boxes that are none, and classes or names that are not all there."""
        if self.kind == "boxes":
            for value in (self.prediction, self.truth):
                boxes = value["boxes"] if isinstance(value, Mapping) else value
                shape = np.shape(boxes if value is not None else np.empty((0, 4)))
                if shape != (0,) and (len(shape) != 2 or shape[1] != 4):
                    raise ValueError(f"boxes must have shape (n, 4), got {shape}")
        if self.kind != "classes":
            return
        every = self._all_classes()
        unknown = set(np.unique(np.asarray(self.prediction)).tolist()) - {*every, -1}
        if unknown:
            raise ValueError(f"prediction has {sorted(unknown)}; `classes` are {every}")
        names = self.class_names
        listed = isinstance(names, list | tuple | np.ndarray)
        if names is not None and not isinstance(names, Mapping) and not listed:
            allowed = "a mapping from class to name, a sequence of names, or None"
            raise parameter_error("class_names", self, allowed, names)
        if listed and len(names) != len(every):  # type: ignore[arg-type]
            raise ValueError(
                f"`class_names` must name {len(every)} classes, {every}, got {names!r}"
            )

    def _panel(self, name: str, ax: Any) -> None:
        grey = _grey(self.image)
        if name == "image":
            self.images_[name] = ax.imshow(_shown(self.image), cmap="gray")
            return
        if name == "difference":
            self.images_[name] = self._draw_difference(ax, grey)
            return
        value = self.truth if name == "truth" else self.prediction
        self.images_[name] = getattr(self, f"_draw_{self.kind}")(ax, value, grey)

    def _draw_classes(self, ax: Any, value: Any, grey: np.ndarray) -> Any:
        codes = self._codes(value)
        colours = np.asarray([_rgb(c) for c in self._colours()])
        drawn = np.repeat(grey[..., None], 3, axis=2)
        known = codes >= 0
        few = known.mean() < _FEW
        if few:  # scribbles: a little wider, or they are not seen
            codes = ndimage.grey_dilation(codes, size=3)
            known = codes >= 0
        share = 1.0 if few else 0.75
        drawn[known] = (1 - share) * drawn[known] + share * colours[codes[known]]
        return ax.imshow(drawn)

    def _draw_mask(self, ax: Any, value: Any, grey: np.ndarray) -> Any:
        share = np.nan_to_num(np.asarray(value, float)).clip(0, 1)[..., None]
        drawn = grey[..., None] * (1 - share) * 0.7 + share * np.array(
            _rgb(_COLOURS[0])
        )
        return ax.imshow(drawn)

    def _draw_ids(self, ax: Any, value: Any, grey: np.ndarray) -> Any:
        ids = np.asarray(value)
        rim = (ids > 0) & (ndimage.grey_erosion(ids, size=3) != ids)
        drawn = np.repeat(grey[..., None], 3, axis=2)
        drawn[rim] = _rgb(_COLOURS[2])
        n = len(np.unique(ids[ids > 0]))
        ax.set_title(f"{ax.get_title()}: {n} object{'s' * (n != 1)}")
        return ax.imshow(drawn)

    def _draw_values(self, ax: Any, value: Any, grey: np.ndarray) -> Any:
        both = [
            np.asarray(v, float) for v in (self.truth, self.prediction) if v is not None
        ]
        known = np.concatenate([v[~np.isnan(v)] for v in both])
        low, high = (known.min(), known.max()) if known.size else (0, 1)
        image = ax.imshow(np.asarray(value, float), cmap="viridis", vmin=low, vmax=high)
        ax.figure.colorbar(image, ax=ax, orientation="horizontal", shrink=0.8, pad=0.02)
        return image

    def _draw_picture(self, ax: Any, value: Any, grey: np.ndarray) -> Any:
        return ax.imshow(_shown(value), cmap="gray")

    def _draw_boxes(self, ax: Any, value: Any, grey: np.ndarray) -> Any:
        from matplotlib.patches import Rectangle

        image = ax.imshow(grey, cmap="gray", vmin=0, vmax=1)
        found = value if isinstance(value, Mapping) else {"boxes": value}
        boxes = np.asarray(found["boxes"], float).reshape(-1, 4)
        labels = found.get("labels", [""] * len(boxes))
        known = list(dict.fromkeys(np.asarray(labels).tolist()))
        for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
            colour = _COLOURS[known.index(np.asarray(label).item()) % len(_COLOURS)]
            ax.add_patch(
                Rectangle(
                    (left - 0.5, top - 0.5),
                    right - left,
                    bottom - top,
                    fill=False,
                    edgecolor=colour,
                    linewidth=1.5,
                )
            )
            text = self._name(label) if str(label) else ""
            ax.text(left, top - 1, text, color=colour, fontsize="small", va="bottom")
        return image

    def _draw_difference(self, ax: Any, grey: np.ndarray) -> Any:
        truth, found = np.asarray(self.truth), np.asarray(self.prediction)
        if self.kind == "values":
            error = found.astype(float) - truth.astype(float)
            if np.isnan(error).all():
                ax.set_title("difference: nothing is labelled")
                return ax.imshow(np.ones_like(error), cmap="gray", vmin=0, vmax=1)
            most = max(float(np.nanmax(np.abs(error), initial=0)), 1e-12)
            image = ax.imshow(error, cmap="PuOr_r", vmin=-most, vmax=most)
            ax.figure.colorbar(
                image, ax=ax, orientation="horizontal", shrink=0.8, pad=0.02
            )
            ax.set_title(f"difference: {np.nanmean(np.abs(error)):.3g} on average")
            return image
        if self.kind == "ids":
            wrong, known = (truth > 0) != (found > 0), truth >= 0
        elif self.kind == "mask":
            known = ~np.isnan(truth.astype(float)) & (truth.astype(float) >= 0)
            wrong = (truth.astype(float) > 0.5) != (found.astype(float) > 0.5)
        else:
            codes = self._codes(truth)
            known, wrong = codes >= 0, codes != self._codes(found)
        drawn = np.repeat(grey[..., None], 3, axis=2) * 0.5 + 0.5
        drawn[~known] = 1
        drawn[known & wrong] = _rgb(_WRONG)
        if known.any():
            share = wrong[known].mean()
            ax.set_title(f"difference: {100 * share:.1f} %")
        else:
            ax.set_title("difference: nothing is labelled")
        return ax.imshow(drawn)

    def _all_classes(self) -> list[Any]:
        if self.classes is not None:
            return np.asarray(self.classes).tolist()
        maps = [np.asarray(m) for m in (self.truth, self.prediction) if m is not None]
        found = np.unique(np.concatenate([np.unique(m) for m in maps]))
        return [c for c in found.tolist() if c != -1]

    def _codes(self, value: Any) -> np.ndarray:
        """Return the place of each pixel's class, −1 where it is none."""
        array = np.asarray(value)
        codes = np.full(array.shape, -1)
        for code, label in enumerate(self._all_classes()):
            codes[array == label] = code
        return codes

    def _colours(self) -> list[Any]:
        n = len(self._all_classes())
        if n <= len(_COLOURS):
            return list(_COLOURS[:n])
        from matplotlib import colormaps

        return list(colormaps["viridis"](np.linspace(0, 1, n))[:, :3])

    def _name(self, label: Any) -> str:
        label = np.asarray(label).item()
        if isinstance(self.class_names, Mapping):
            return str(self.class_names.get(label, label))
        if self.class_names is not None:
            place = self._all_classes().index(label)
            return str(self.class_names[place])
        return str(label)

    def _draw_legend(self) -> None:
        from matplotlib.patches import Patch

        shown = set()
        for value in (self.truth, self.prediction):
            if value is not None:
                shown |= set(np.unique(self._codes(value)).tolist()) - {-1}
        classes, colours = self._all_classes(), self._colours()
        patches = [
            Patch(facecolor=colours[i], edgecolor="0.5", label=self._name(classes[i]))
            for i in sorted(shown)
        ]
        self.legend_ = self.figure_.legend(
            handles=patches,
            loc="outside lower center",
            ncols=min(len(patches), 8) or 1,
            frameon=False,
        )


_FEW = 0.2  # share of labelled pixels below which they are drawn as strokes


def _kind_of(task: Any) -> Kind | None:
    """Return how a task is drawn; one of your own as its nearest known kind."""
    if task.granularity != "pixel":
        return None
    for own in type(task).__mro__:
        if own.__name__ in _OF_TASK:
            return _OF_TASK[own.__name__]
    return "values"


def _shown(image: Any) -> np.ndarray:
    """Return an image as matplotlib draws it: uint8 or [0, 1], one channel or three."""
    array = np.asarray(image)
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] < 3 else array[..., :3]
    if array.dtype == np.uint16:
        array = array / np.float32(65535)
    if array.dtype.kind == "f" and array.min(initial=0) < 0:  # unit vectors
        array = (array + 1) / 2
    return array.clip(0, 1) if array.dtype.kind == "f" else array


def _grey(image: Any) -> np.ndarray:
    """Return an image in grey, in [0, 1]."""
    array = _shown(image)
    grey = array.mean(axis=2) if array.ndim == 3 else array.astype(float)
    return grey / 255 if array.dtype == np.uint8 else grey


def _rgb(colour: Any) -> tuple[float, float, float]:
    if isinstance(colour, str):
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return red, green, blue
    return tuple(float(c) for c in colour[:3])  # type: ignore[return-value]
