"""Axes to draw on. Importing the displays does not load matplotlib; ``plot`` does."""

from __future__ import annotations

from typing import Any

__all__ = ["matplotlib_for", "new_axes"]


def matplotlib_for(owner: object) -> Any:
    """Return ``matplotlib.pyplot``.

    Raises
    ------
    ImportError
        Where it is not installed, with the remedy.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{type(owner).__name__}.plot needs matplotlib: "
            'python -m pip install "mtsk[plot]"'
        ) from error
    return plt


def new_axes(ax: Any, owner: object) -> Any:
    """Return axes to draw on, new ones for None."""
    plt = matplotlib_for(owner)
    return plt.subplots(layout="constrained")[1] if ax is None else ax
