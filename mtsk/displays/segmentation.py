"""Display of an image, its labels and its prediction, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from mtsk._validation import parameter_error
from mtsk.displays.axes import as_image, check_segmenter, draw_scale, new_row
from mtsk.displays.drawing import (
    COLOURS,
    KINDS,
    Kind,
    class_colours,
    kind_of_task,
    paint_classes,
    paint_differences,
    paint_ids,
    paint_mask,
    shown,
)
from mtsk.exceptions import TargetError
from mtsk.tasks.boxes import as_boxes, check_inside

__all__ = ["SegmentationDisplay"]


class SegmentationDisplay:
    """An image, its labels, the prediction, and where the two differ.

    Up to eight classes have colours distinguishable with any kind of colour vision;
    more are steps of one map from dark to light. Labels of few pixels, such as
    scribbles, are drawn on the image; objects as outlines; boxes as frames; numbers by
    a map from dark to light with its scale.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, C)
        As ``fit`` takes it.
    prediction : ndarray of shape (H, W) or (H, W, C), or dict
        What ``predict`` gives for one image; boxes as left, top, right, bottom.
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
            As for the class and ``plot``.

        Returns
        -------
        SegmentationDisplay

        Raises
        ------
        ValueError
            Where the task is not a pixel task, or there are several and none is named.
        """
        check_segmenter(estimator, cls.__name__)
        image = as_image(image)
        kinds = {name: kind_of_task(t) for name, t in estimator.tasks_.items()}
        drawn = [name for name, kind in kinds.items() if kind is not None]
        if task is None and len(drawn) == 1:
            task = drawn[0]
        if task not in drawn:
            raise ValueError(
                f"`task` must be one that can be drawn, {drawn}, got {task!r}"
            )
        if truth is not None and kinds[task] == "classes":
            truth = _unlabelled_marked(estimator.tasks_[task], truth)
        prediction = estimator.predict([image], tasks=[task])[task][0]
        if kinds[task] == "boxes":
            prediction = estimator.tasks_[task].corners(prediction)
            truth = (
                None if truth is None else _true_boxes(estimator.tasks_[task], truth)
            )
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
        """Draw a given prediction.

        Parameters
        ----------
        image, prediction, truth, kind, classes, class_names
            See the class.
        axes : sequence of matplotlib Axes, default=None
            See ``plot``.

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
            One per panel: image and prediction, and with a truth image, truth,
            prediction and difference (not of boxes and pictures). None makes a figure.
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
        panels = self._check()
        self.axes_ = new_row(self, axes, panels, np.shape(self.image))
        self.figure_ = self.axes_["image"].figure
        self.images_: dict[str, Any] = {}
        self.legend_ = None
        for name, ax in self.axes_.items():
            self._panel(name, ax)
        if legend and self.kind == "classes":
            self._draw_legend()
        return self

    def _check(self) -> list[str]:
        """Return the names of the panels; raise on inconsistent input."""
        if self.kind not in KINDS:
            raise parameter_error("kind", self, f"one of {KINDS}", self.kind)
        shape = as_image(self.image).shape[:2]
        flat = self.kind in ("classes", "mask", "ids", "values")
        for name, value in (("prediction", self.prediction), ("truth", self.truth)):
            if value is None or self.kind == "boxes":
                continue
            if np.shape(value)[:2] != shape or (flat and np.ndim(value) != 2):
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
        """Raise on invalid boxes and on incomplete classes or names."""
        both = [("prediction", self.prediction), ("truth", self.truth)]
        for name, value in both:
            if value is None or self.kind == "classes":
                continue
            if self.kind == "boxes":
                self._check_boxes(name, value)
            elif np.asarray(value).dtype.kind not in "biuf":
                raise ValueError(
                    f"{name} must be numbers to be drawn as {self.kind!r}, got dtype "
                    f"{np.asarray(value).dtype}"
                )
        if self.kind != "classes":
            return
        if self.classes is not None and np.ndim(self.classes) != 1:
            allowed = "a sequence of labels, or None"
            raise parameter_error("classes", self, allowed, self.classes)
        every = self._all_classes()
        for name, value in both:
            found = [] if value is None else np.unique(np.asarray(value)).tolist()
            unknown = set(found) - {*every, *_UNLABELLED}
            if unknown:
                raise ValueError(f"{name} has {sorted(unknown)}; `classes` are {every}")
        names = self.class_names
        listed = isinstance(names, list | tuple | np.ndarray)
        if names is not None and not isinstance(names, Mapping) and not listed:
            allowed = "a mapping from class to name, a sequence of names, or None"
            raise parameter_error("class_names", self, allowed, names)
        if listed and len(names) != len(every):  # type: ignore[arg-type]
            raise ValueError(
                f"`class_names` must name {len(every)} classes, {every}, got {names!r}"
            )

    def _check_boxes(self, name: str, value: Any) -> None:
        if isinstance(value, Mapping) and "boxes" not in value:
            raise ValueError(f"{name} has no key 'boxes', but {sorted(value)}")
        given = value["boxes"] if isinstance(value, Mapping) else value
        try:
            boxes = as_boxes(given)
            check_inside(boxes, as_image(self.image).shape[:2])
        except TargetError as error:
            raise ValueError(f"{name}: {error}") from None
        labels = value.get("labels") if isinstance(value, Mapping) else None
        if labels is not None and len(labels) != len(boxes):
            raise ValueError(f"{name}: {len(boxes)} boxes, {len(labels)} labels")

    def _panel(self, name: str, ax: Any) -> None:
        if name == "image":
            self.images_[name] = ax.imshow(shown(self.image), cmap="gray")
        elif name == "difference":
            draw = self._draw_error if self.kind == "values" else self._draw_difference
            self.images_[name] = draw(ax)
        else:
            value = self.truth if name == "truth" else self.prediction
            self.images_[name] = getattr(self, f"_draw_{self.kind}")(ax, value)
            labelled = self._labelled_share() if name == "truth" else 1.0
            if labelled < _MOSTLY_LABELLED:
                ax.set_title(f"truth: {100 * labelled:.1f} % labelled")

    def _labelled_share(self) -> float:
        """Return the share of pixels that the truth labels, of classes and masks."""
        if self.kind == "classes":
            return float((self._codes(self.truth) >= 0).mean())
        if self.kind == "mask":
            return float((np.asarray(self.truth, float) >= 0).mean())
        return 1.0

    def _draw_classes(self, ax: Any, value: Any) -> Any:
        colours = class_colours(len(self._all_classes()))
        return ax.imshow(paint_classes(self.image, self._codes(value), colours))

    def _draw_mask(self, ax: Any, value: Any) -> Any:
        return ax.imshow(paint_mask(self.image, value))

    def _draw_ids(self, ax: Any, value: Any) -> Any:
        ids = np.asarray(value)
        n = len(np.unique(ids[ids > 0]))
        ax.set_title(f"{ax.get_title()}: {n} object{'s' * (n != 1)}")
        return ax.imshow(paint_ids(self.image, ids))

    def _draw_values(self, ax: Any, value: Any) -> Any:
        both = [
            np.asarray(v, float) for v in (self.truth, self.prediction) if v is not None
        ]
        known = np.concatenate([v[~np.isnan(v)] for v in both])
        low, high = (known.min(), known.max()) if known.size else (0, 1)
        image = ax.imshow(np.asarray(value, float), cmap="viridis", vmin=low, vmax=high)
        draw_scale(image)
        return image

    def _draw_picture(self, ax: Any, value: Any) -> Any:
        return ax.imshow(shown(value), cmap="gray")

    def _draw_boxes(self, ax: Any, value: Any) -> Any:
        from matplotlib.patches import Rectangle

        image = ax.imshow(paint_mask(self.image, np.zeros(np.shape(self.image)[:2])))
        found = value if isinstance(value, Mapping) else {"boxes": value}
        boxes = np.asarray(found["boxes"], float).reshape(-1, 4)
        labels = found.get("labels", [""] * len(boxes))
        known = list(dict.fromkeys(np.asarray(labels).tolist()))
        for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
            colour = COLOURS[known.index(np.asarray(label).item()) % len(COLOURS)]
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

    def _draw_error(self, ax: Any) -> Any:
        error = np.asarray(self.prediction, float) - np.asarray(self.truth, float)
        if np.isnan(error).all():
            ax.set_title("difference: nothing is labelled")
            return ax.imshow(np.ones_like(error), cmap="gray", vmin=0, vmax=1)
        most = max(float(np.nanmax(np.abs(error), initial=0)), 1e-12)
        image = ax.imshow(error, cmap="PuOr_r", vmin=-most, vmax=most)
        draw_scale(image)
        ax.set_title(f"difference: {np.nanmean(np.abs(error)):.3g} on average")
        return image

    def _draw_difference(self, ax: Any) -> Any:
        truth, found = np.asarray(self.truth), np.asarray(self.prediction)
        if self.kind == "ids":
            wrong, known = (truth > 0) != (found > 0), truth >= 0
        elif self.kind == "mask":
            truth = truth.astype(float)
            known = ~np.isnan(truth) & (truth >= 0)
            wrong = (truth > 0.5) != (found.astype(float) > 0.5)
        else:
            codes = self._codes(truth)
            known, wrong = codes >= 0, codes != self._codes(found)
        if known.any():
            of = " of labelled pixels" if known.mean() < _MOSTLY_LABELLED else ""
            ax.set_title(f"difference: {100 * wrong[known].mean():.1f} %{of}")
        else:
            ax.set_title("difference: nothing is labelled")
        return ax.imshow(paint_differences(self.image, wrong, known))

    def _all_classes(self) -> list[Any]:
        if self.classes is not None:
            return np.asarray(self.classes).tolist()
        maps = [np.asarray(m) for m in (self.truth, self.prediction) if m is not None]
        found = np.unique(np.concatenate([np.unique(m) for m in maps]))
        return [c for c in found.tolist() if c not in _UNLABELLED]

    def _codes(self, value: Any) -> np.ndarray:
        """Return the index of each pixel's class, −1 where it has none."""
        array = np.asarray(value)
        codes = np.full(array.shape, -1)
        for code, label in enumerate(self._all_classes()):
            codes[array == label] = code
        return codes

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
        classes = self._all_classes()
        colours = class_colours(len(classes))
        if len(shown) > _MOST_NAMED:
            return
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


_UNLABELLED = (-1, "")
_MOSTLY_LABELLED = 0.5  # share of pixels; titles tell of less
_MOST_NAMED = 40  # classes in a legend; more would cover the picture


def _true_boxes(task: Any, truth: Any) -> dict[str, Any]:
    """Return the boxes of a target to draw, without ignored ones."""
    read = task.canonical(truth)
    classes = np.asarray(task.classes_)
    known = read["codes"] < len(classes)
    if not known.all():
        raise ValueError(f"truth has labels other than {classes.tolist()}")
    return {"boxes": read["boxes"], "labels": classes[read["codes"]]}


def _unlabelled_marked(task: Any, truth: Any) -> np.ndarray:
    """Return a map of classes with the task's void labels marked as unlabelled.

    Raises
    ------
    TargetError
        Where it has a class unknown to the task.
    """
    array = np.asarray(truth)
    known = ~np.isnan(task.encode(array, array.shape[:2])[..., 0])
    classes = np.asarray(task.classes_)
    return np.where(known, array, -1 if classes.dtype.kind in "iu" else "")
