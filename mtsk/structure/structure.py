"""Structure: the parameters of the CRFs over the parts of a picture."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Self

from sklearn.base import BaseEstimator

from mtsk._validation import (
    Interval,
    StrOptions,
    check_parameters,
    parameter_error,
)
from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.structure.superpixels import SUPERPIXELS, Segmentation, Superpixels

__all__ = ["Structure"]


class Structure(BaseEstimator):
    """What ``MultiTaskSegmenter(structure=...)`` learns beside the heads.

    Parameters
    ----------
    regions : SuperpixelCRF, default=None
        Over neighbouring superpixels, and the picture as a whole. None: not used.
    pixels : PixelCRF, default=None
        Over pixels that look alike, after the regions. None: not used.
    couple : bool, default=True
        Whether labels of two tasks at one region are coupled, where that raises the
        score of held-out pictures. Only of tasks whose regions have a strength.
    superpixels : {"slic", "skimage_slic", "felzenszwalb"} or callable, default="slic"
        How regions are made; see `mtsk.structure.over_segment`.
    n_segments : int, default=None
        Approximate number of regions per image; None: regions of about 170 pixels.

    Examples
    --------
    >>> from mtsk import MultiTaskSegmenter
    >>> from mtsk.crf import SuperpixelCRF
    >>> from mtsk.structure import Structure
    >>> structure = Structure(SuperpixelCRF(), n_segments=500)
    >>> MultiTaskSegmenter(structure=structure).structure.pixels is None
    True
    """

    def __init__(
        self,
        regions: SuperpixelCRF | None = None,
        pixels: PixelCRF | None = None,
        *,
        couple: bool = True,
        superpixels: str | Segmentation = "slic",
        n_segments: int | None = None,
    ) -> None:
        self.regions = regions
        self.pixels = pixels
        self.couple = couple
        self.superpixels = superpixels
        self.n_segments = n_segments

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` where a parameter is not allowed."""
        check_parameters(self, _CONSTRAINTS)
        if self.regions is None and self.pixels is None:
            allowed = (
                "a SuperpixelCRF where `pixels` is None, too, as in "
                "Structure(SuperpixelCRF(), PixelCRF(), n_segments=500)"
            )
            raise parameter_error("regions", self, allowed, None)
        for part in (self.regions, self.pixels):
            if part is not None:
                part.check_parameters()

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also those of ``regions`` and ``pixels``.

        Parameters
        ----------
        **params : object

        Returns
        -------
        self

        Raises
        ------
        ValueError
            On a name that is none, and on a parameter of a part that is None.
        """
        for key in params:
            part, nested, _ = key.partition("__")
            if nested and params.get(part, getattr(self, part, self)) is None:
                raise ValueError(
                    f"{key!r} cannot be set: `{part}` of Structure is None; set it "
                    "first"
                )
        return super().set_params(**params)

    def segmentation(self) -> Superpixels:
        """Return how images are cut into regions."""
        return Superpixels(self.superpixels, self.n_segments)


_CONSTRAINTS: dict[str, list] = {
    "regions": [SuperpixelCRF, None],
    "pixels": [PixelCRF, None],
    "couple": ["boolean"],
    "superpixels": [StrOptions(set(SUPERPIXELS)), callable],
    "n_segments": [Interval(Integral, 1, None, closed="left"), None],
}
