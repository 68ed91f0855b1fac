"""Capabilities of heads beyond ``fit(X, y)`` and ``decision_function(X)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Capabilities", "capabilities_of"]


@dataclass(frozen=True)
class Capabilities:
    """Capabilities that a head declares, so that no type checks are needed.

    Attributes
    ----------
    is_joint : bool
        It learns all column groups jointly, given by its parameter ``columns``. Other
        estimators are fitted to one task each.
    is_linear : bool
        Scores are ``X @ coef_ + intercept_``, so that score maps can be made at the
        strides of the taps.
    is_convolutional : bool
        It learns from images and their feature maps, not from a table.
    learns_from_sums : bool
        ``add_rows``, ``merge`` and ``solve`` learn from rows in pieces, in any order.
    takes_groups : bool
        ``fit`` takes ``groups``: the image of each row.
    takes_memo : bool
        ``fit`` takes ``memo``, a cache of quantities derived from ``X``.
    takes_entry_weights : bool
        ``sample_weight`` may have the shape of ``y``: a weight for each entry.
    weighs_tasks : bool
        It has a parameter ``task_weights``, by task index.
    rows_per_image : int
        Labelled pixels sampled per image and task by default.
    """

    is_joint: bool = False
    is_linear: bool = False
    is_convolutional: bool = False
    learns_from_sums: bool = False
    takes_groups: bool = False
    takes_memo: bool = False
    takes_entry_weights: bool = False
    weighs_tasks: bool = False
    rows_per_image: int = 500


def capabilities_of(head: Any) -> Capabilities | None:
    """Return the capabilities of a head; None for an estimator that declares none.

    Parameters
    ----------
    head : estimator

    Returns
    -------
    Capabilities or None
    """
    found = getattr(head, "capabilities", None)
    return found if isinstance(found, Capabilities) else None
