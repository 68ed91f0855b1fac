"""Links: parameters of supervision between tasks."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator

from mtsk._validation import Interval, check_parameters

__all__ = ["Links"]


class Links(BaseEstimator):
    """Links between the tasks of ``MultiTaskSegmenter(links=...)``.

    Parameters
    ----------
    n_pseudo_label_rounds : int, default=2
        Rounds of pseudo-labels for images with tags but no mask, where a `MultiLabel`
        is linked to a pixel task (its ``of``): their pixels get the likeliest of the
        tags' classes under the last fit, and the head is refitted. 0: none. Not used in
        ``partial_fit``.
    region_pooling : str or (str, sequence of labels), default=None
        A pixel task of classes or a mask by whose predictions the features of image
        tasks are pooled: in place of the mean over the image, they get the means over
        the pixels of each predicted class, or of the labels given; of a mask, over its
        inside. Masks on a few images thus select the regions in all. Labelled images
        are read twice for it, unless cached.

    Examples
    --------
    >>> from mtsk import MultiTaskSegmenter
    >>> from mtsk.links import Links
    >>> MultiTaskSegmenter(links=Links(n_pseudo_label_rounds=0)).get_params()[
    ...     "links__n_pseudo_label_rounds"
    ... ]
    0
    """

    def __init__(
        self,
        *,
        n_pseudo_label_rounds: int = 2,
        region_pooling: str | tuple[str, Sequence[Any]] | None = None,
    ) -> None:
        self.n_pseudo_label_rounds = n_pseudo_label_rounds
        self.region_pooling = region_pooling

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` where a parameter is not allowed."""
        check_parameters(self, _CONSTRAINTS)


_CONSTRAINTS: dict[str, list] = {
    "n_pseudo_label_rounds": [Interval(Integral, 0, None, closed="left")],
    "region_pooling": [str, tuple, None],
}
