"""Display of a model's uncertainty at each pixel of an image."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from mtsk.displays.axes import as_image, check_segmenter, draw_scale, new_row
from mtsk.displays.drawing import shown

__all__ = ["UncertaintyDisplay"]


class UncertaintyDisplay:
    """An image beside an uncertainty map: 0, dark, is certain; 1, light, a guess.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, C)
    doubt : ndarray of shape (H, W)
        In [0, 1], such as the entropy of the classes over its maximum.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : dict of str to matplotlib Axes
        ``"image"`` and ``"doubt"``.
    images_ : dict of str to matplotlib AxesImage

    See Also
    --------
    suggest_labels : Suggests images to label by their uncertainty.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.displays import UncertaintyDisplay
    >>> display = UncertaintyDisplay(np.zeros((8, 8)), np.eye(8))
    >>> sorted(display.plot().axes_)  # doctest: +SKIP
    ['doubt', 'image']
    """

    def __init__(self, image: Any, doubt: Any) -> None:
        self.image = image
        self.doubt = doubt

    @classmethod
    def from_estimator(
        cls, estimator: Any, image: Any, *, task: str | None = None, axes: Any = None
    ) -> Self:
        """Draw the uncertainty of a model's predictions of one task.

        Parameters
        ----------
        estimator : MultiTaskSegmenter
            Fitted.
        image : ndarray of shape (H, W) or (H, W, C)
        task : str, default=None
            None takes the only task of pixels that has labels, not numbers.
        axes
            See ``plot``.

        Returns
        -------
        UncertaintyDisplay

        Raises
        ------
        ValueError
            Where the task is not a pixel task of labels, or there are several and none
            is named.
        """
        check_segmenter(estimator, cls.__name__)
        image = as_image(image)
        drawn = [
            name
            for name, of in estimator.tasks_.items()
            if of.is_of_pixels and any(g.kind != "real" for g in of.groups_)
        ]
        if task is None and len(drawn) == 1:
            task = drawn[0]
        if task not in drawn:
            raise ValueError(f"`task` must be one of {drawn}, got {task!r}")
        scores = estimator.decision_function([image], tasks=[task])[task][0]
        scores = scores + estimator.predictor_.prior_corrections(task)
        return cls(image, estimator.tasks_[task].normalized_entropy(scores)).plot(
            axes=axes
        )

    @classmethod
    def from_predictions(cls, image: Any, proba: Any, *, axes: Any = None) -> Self:
        """Draw the uncertainty of probabilities.

        Parameters
        ----------
        image : ndarray of shape (H, W) or (H, W, C)
        proba : ndarray of shape (H, W, K), or (H, W) of a mask
            As ``predict_proba`` gives.
        axes
            See ``plot``.

        Returns
        -------
        UncertaintyDisplay
        """
        proba = np.asarray(proba, float)
        known = proba[~np.isnan(proba)]
        if proba.ndim not in (2, 3) or not proba.size or proba.shape[-1] < 1:
            raise ValueError(f"proba must be (H, W) or (H, W, K), got {proba.shape}")
        if ((known < 0) | (known > 1 + 1e-6)).any():
            raise ValueError("proba must be probabilities, in [0, 1]")
        if proba.ndim == 2:
            proba = np.stack([1 - proba, proba], axis=-1)
        if (np.abs(np.nansum(proba, axis=-1) - 1) > 1e-3).any():
            raise ValueError("proba must sum to 1 over the classes at every pixel")
        logs = np.log(np.where(proba > 0, proba, 1))
        doubt = -(proba * logs).sum(axis=-1) / np.log(max(proba.shape[-1], 2))
        return cls(image, doubt).plot(axes=axes)

    def plot(self, *, axes: Any = None, cmap: Any = "cividis") -> Self:
        """Draw.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, default=None
            For image and doubt. None makes a figure.
        cmap : str or matplotlib Colormap, default="cividis"

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
        image, doubt = as_image(self.image), np.asarray(self.doubt, float)
        shape = image.shape[:2]
        if doubt.shape != shape:
            raise ValueError(f"doubt must be of shape {shape}, got {doubt.shape}")
        known = doubt[~np.isnan(doubt)]
        if not known.size or known.min() < -1e-6 or known.max() > 1 + 1e-6:
            raise ValueError("doubt must be in [0, 1], and somewhere known")
        self.axes_ = new_row(self, axes, ["image", "doubt"], shape)
        self.figure_ = self.axes_["image"].figure
        self.images_ = {
            "image": self.axes_["image"].imshow(shown(image), cmap="gray"),
            "doubt": self.axes_["doubt"].imshow(doubt, cmap=cmap, vmin=0, vmax=1),
        }
        draw_scale(self.images_["doubt"])
        self.axes_["doubt"].set_title(f"doubt: {np.nanmean(doubt):.2f} on average")
        return self
