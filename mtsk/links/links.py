"""Links: the parameters of how one task teaches another."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator

from mtsk._validation import Interval, check_parameters

__all__ = ["Links"]


class Links(BaseEstimator):
    """How one task of ``MultiTaskSegmenter(links=...)`` teaches another.

    Parameters
    ----------
    n_pseudo_label_rounds : int, default=2
        Rounds in which images with tags but no mask teach a task of pixels, where a
        `MultiLabel` is linked to it (its ``of``): their pixels take the likeliest of
        the tags' classes, as the last fit sees them, and the head is fitted anew. 0
        is no such round. ``partial_fit`` has no such rounds.
    region_pooling : str or (str, sequence of labels), default=None
        A task of pixels, of classes or a mask, by which tasks of whole images look:
        in place of the mean features of the image they see those of the pixels of each
        class that this task finds, or of the labels given; of a mask those inside. So
        masks on a few images tell where to look in all. Labelled images are read
        twice for it, where no cache keeps them.

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
