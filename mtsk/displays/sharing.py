"""Display of the gains of sharing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from mtsk._validation import parameter_error
from mtsk.displays.axes import new_axes
from mtsk.displays.drawing import COLOURS

__all__ = ["SharingDisplay"]

_GREY = "0.45"
_MARKERS = "osD^vPX"


class SharingDisplay:
    """Gain of each task from joint training: a dot and its interval.

    Dots are filled where the interval excludes 0, else hollow. Budgets of labels differ
    in marker as well as in colour.

    Parameters
    ----------
    rows : sequence of dict
        With ``task``, ``budget``, ``gain``, ``lower``, ``upper`` (fractions) and
        ``verdict``, as ``SharingReport.rows``.
    delta_m : mapping of budget to dict, default=None
        With ``value``, ``lower``, ``upper`` (percent), as ``SharingReport.delta_m``.
        None: not drawn.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib ErrorbarContainer
        One a budget.
    legend_ : matplotlib Legend or None

    Examples
    --------
    >>> from mtsk.displays import SharingDisplay
    >>> row = {"task": "edges", "budget": None, "gain": 0.04, "lower": 0.01}
    >>> display = SharingDisplay([row | {"upper": 0.07, "verdict": "gains"}])
    >>> display.plot().ax_.get_xlabel()  # doctest: +SKIP
    'gain of training together, %'
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        delta_m: Mapping[Any, Mapping[str, float]] | None = None,
    ) -> None:
        self.rows = rows
        self.delta_m = delta_m

    @classmethod
    def from_report(cls, report: Any, *, ax: Any = None, **style: Any) -> Self:
        """Draw what `compare_sharing` returned.

        Parameters
        ----------
        report : SharingReport
        ax : matplotlib Axes, default=None
        **style
            As for `plot`.

        Returns
        -------
        SharingDisplay

        Raises
        ------
        ImportError
        """
        return cls(report.rows, report.delta_m).plot(ax=ax, **style)

    def plot(self, *, ax: Any = None, line_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.
        line_kw : dict, default=None
            For ``errorbar``.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            Without rows.
        """
        if not len(self.rows):
            raise parameter_error("rows", self, "at least one row", self.rows)
        self.ax_ = new_axes(ax, self)
        self.figure_ = self.ax_.figure
        tasks = list(dict.fromkeys(row["task"] for row in self.rows))
        budgets = list(dict.fromkeys(row["budget"] for row in self.rows))
        shift = (np.arange(len(budgets)) - (len(budgets) - 1) / 2) * 0.6 / len(budgets)
        self.lines_ = [
            self._plot_budget(budget, i, tasks, shift[i], line_kw or {})
            for i, budget in enumerate(budgets)
        ]
        self._dress(tasks, budgets)
        return self

    def _plot_budget(
        self,
        budget: Any,
        place: int,
        tasks: list[str],
        shift: float,
        line_kw: Mapping[str, Any],
    ) -> Any:
        """Draw a budget's intervals, and its dots by whether they exclude 0."""
        rows = [row for row in self.rows if row["budget"] == budget]
        found = [
            (tasks.index(r["task"]), r["gain"], r["lower"], r["upper"]) for r in rows
        ]
        if self.delta_m is not None:
            mean = self.delta_m[budget]
            value, lower, upper = (mean[k] / 100 for k in ("value", "lower", "upper"))
            found.append((len(tasks), value, lower, upper))
        y, *ends = np.array(found, float).T
        y += shift
        gain, low, high = 100 * np.stack(ends)
        shown = (low > 0) | (high < 0)
        style = {
            "fmt": _MARKERS[place % len(_MARKERS)],
            "color": _colour(place),
            "capsize": 2,
            "markerfacecolor": "none",
            "label": "all labels" if budget is None else f"{budget} images a task",
            **line_kw,
        }
        spread = np.abs(np.stack([gain - low, high - gain]))
        line = self.ax_.errorbar(gain, y, xerr=spread, **style)
        self.ax_.plot(gain[shown], y[shown], style["fmt"], color=style["color"])
        return line

    def _dress(self, tasks: list[str], budgets: list[Any]) -> None:
        names = list(tasks)
        if self.delta_m is not None:
            names.append("mean (Δm)")
            self.ax_.axhline(len(tasks) - 0.5, color="0.8", linewidth=0.8, zorder=0)
        self.ax_.axvline(0, color="0.3", linewidth=0.8, zorder=0)
        self.ax_.set_yticks(range(len(names)), names)
        self.ax_.set_ylim(len(names) - 0.5, -0.5)
        self.ax_.set_xlabel("gain of training together, %")
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.legend_ = None
        if len(budgets) > 1:
            self.legend_ = self.ax_.legend(
                title="labels", frameon=False, loc="upper left", bbox_to_anchor=(1, 1)
            )


def _colour(place: int) -> str:
    """Return a colour for dots on white: those that stand out first, no yellow."""
    order = (1, 3, 7, 6, 0, 4)
    return COLOURS[order[place % len(order)]]
