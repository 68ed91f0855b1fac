"""Display of the attribution of a label to layers."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Self

import numpy as np

from mtsk._validation import parameter_error
from mtsk.displays.axes import as_image, draw_scale, new_row
from mtsk.displays.drawing import shown

__all__ = ["AttributionDisplay"]


class AttributionDisplay:
    """An image, the evidence for a label, and the layers that it came from.

    Purple favours the label, orange opposes it, relative to the mean over the image.
    All maps have one scale.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, C)
    evidence : LayerAttribution
        As `mtsk.inspection.layer_attribution` gives it.
    label : object, default=None
        For the title.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : dict of str to matplotlib Axes
        ``"image"``, ``"evidence"`` and the layers drawn, the most important first.
    images_ : dict of str to matplotlib AxesImage

    See Also
    --------
    layer_attribution : Computes the evidence.
    """

    def __init__(self, image: Any, evidence: Any, *, label: Any = None) -> None:
        self.image = image
        self.evidence = evidence
        self.label = label

    @classmethod
    def from_predictions(
        cls, image: Any, evidence: Any, *, label: Any = None, **style: Any
    ) -> Self:
        """Draw given evidence.

        Parameters
        ----------
        image, evidence, label
            See the class.
        **style
            As for ``plot``.

        Returns
        -------
        AttributionDisplay
        """
        return cls(image, evidence, label=label).plot(**style)

    def plot(self, *, axes: Any = None, n_layers: int = 3, cmap: Any = "PuOr") -> Self:
        """Draw.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, default=None
            For image, evidence, and each layer drawn. None makes a figure.
        n_layers : int, default=3
            Number of layers, those of the largest share of variance first.
        cmap : str or matplotlib Colormap, default="PuOr"
            Diverging; 0 is at its middle.

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
        whole = isinstance(n_layers, Integral) and not isinstance(n_layers, bool)
        if not whole or n_layers < 0:
            raise parameter_error("n_layers", self, "an int, 0 or more", n_layers)
        if not hasattr(self.evidence, "shares"):
            allowed = "what mtsk.inspection.layer_attribution returns"
            raise parameter_error("evidence", self, allowed, self.evidence)
        image = as_image(self.image)
        shape = image.shape[:2]
        total = self.evidence.total
        if total.shape != shape:
            raise ValueError(f"evidence is of shape {total.shape}, the image {shape}")
        shares = dict(list(self.evidence.shares().items())[:n_layers])
        names = ["image", "evidence", *shares]
        self.axes_ = new_row(self, axes, names, shape)
        self.figure_ = self.axes_["image"].figure
        self.images_ = {"image": self.axes_["image"].imshow(shown(image), cmap="gray")}
        maps = {"evidence": total, **{n: self.evidence.layers[n] for n in shares}}
        maps = {name: found - found.mean() for name, found in maps.items()}
        most = max(float(np.abs(found).max()) for found in maps.values()) or 1.0
        for name, found in maps.items():
            ax = self.axes_[name]
            self.images_[name] = ax.imshow(found, cmap=cmap, vmin=-most, vmax=most)
            draw_scale(self.images_[name])
        about = "" if self.label is None else f" for {self.label}"
        self.axes_["evidence"].set_title(f"evidence{about}")
        for name, share in shares.items():
            self.axes_[name].set_title(
                f"{name.replace('_', ' ', 1)}: {100 * share:.0f} %"
            )
        return self
