"""What heads can do beside ``fit(X, y)`` and ``decision_function(X)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Capabilities", "capabilities_of"]


@dataclass(frozen=True)
class Capabilities:
    """What a head declares, so that nobody asks for its type.

    Attributes
    ----------
    is_joint : bool
        It learns all groups of columns at once, which its parameter ``columns`` names.
        Other estimators are fitted to one task each.
    is_linear : bool
        Scores are ``X @ coef_ + intercept_``, so that score maps can be made at the
        strides of the taps.
    is_convolutional : bool
        It learns from images and their features side by side, not from a table.
    learns_from_sums : bool
        ``add_rows``, ``merge`` and ``solve`` learn from rows in pieces, in any order.
    takes_groups : bool
        ``fit`` takes ``groups``: the image of each row.
    takes_memo : bool
        ``fit`` takes ``memo``: where it keeps what it derives from ``X``.
    weighs_tasks : bool
        It has a parameter ``task_weights``, by place of the task.
    rows_per_image : int
        Labelled pixels that an image gives to a task by default.
    """

    is_joint: bool = False
    is_linear: bool = False
    is_convolutional: bool = False
    learns_from_sums: bool = False
    takes_groups: bool = False
    takes_memo: bool = False
    weighs_tasks: bool = False
    rows_per_image: int = 500


def capabilities_of(head: Any) -> Capabilities | None:
    """Return what a head declares; None where it is an estimator that declares nothing.

    Parameters
    ----------
    head : estimator

    Returns
    -------
    Capabilities or None
    """
    found = getattr(head, "capabilities", None)
    return found if isinstance(found, Capabilities) else None
