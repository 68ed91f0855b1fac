"""Display of task relatedness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy.cluster.hierarchy import dendrogram, leaves_list, linkage
from scipy.spatial.distance import squareform
from sklearn.utils.validation import check_is_fitted

from mtsk._validation import parameter_error
from mtsk.displays.axes import new_axes

__all__ = ["TaskRelatednessDisplay"]

_GREY = "0.45"


class TaskRelatednessDisplay:
    """A matrix of task relatedness, as a heat map under a dendrogram.

    Hatched cells with grey numbers are those whose interval covers 0: no relation was
    shown. Orange is below 0 and purple above, which are colour-blind safe; in grey the
    shade shows the size, the number the sign.

    Parameters
    ----------
    relatedness : ndarray of shape (T, T)
        Row i, column j: from task i to task j.
    lower, upper : ndarray of shape (T, T), default=None
        Intervals. None: no marks.
    task_names : sequence of str, default=None
        None is ``"task 0"`` and so on.
    directed : bool, default=False
        Whether entries are gains from a row's task to a column's, not correlations.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    im_ : matplotlib AxesImage
    text_ : ndarray of matplotlib Text, shape (T, T)
        In the order drawn.
    marks_ : list of matplotlib Rectangle
        Marks of the cells whose interval covers 0.
    dendrogram_ax_ : matplotlib Axes or None
    order_ : ndarray of int, shape (T,)
        Index of the task at each position.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.displays import TaskRelatednessDisplay
    >>> matrix = np.array([[1, 0.1, 0.8], [0.1, 1, 0.2], [0.8, 0.2, 1]])
    >>> display = TaskRelatednessDisplay(matrix, task_names=["ink", "sky", "edges"])
    >>> display.plot().order_  # doctest: +SKIP
    array([1, 0, 2])
    """

    def __init__(
        self,
        relatedness: np.ndarray,
        *,
        lower: np.ndarray | None = None,
        upper: np.ndarray | None = None,
        task_names: Sequence[str] | None = None,
        directed: bool = False,
    ) -> None:
        self.relatedness = relatedness
        self.lower = lower
        self.upper = upper
        self.task_names = task_names
        self.directed = directed

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **style: Any) -> Self:
        """Draw the result of a `TaskRelatedness`.

        Parameters
        ----------
        estimator : TaskRelatedness
            Fitted.
        ax : matplotlib Axes, default=None
        **style
            As for `plot`.

        Returns
        -------
        TaskRelatednessDisplay

        Raises
        ------
        NotFittedError, ImportError
        TypeError
            Where it is no `TaskRelatedness`.
        """
        if not hasattr(estimator, "n_bootstrap"):
            raise TypeError(
                f"{cls.__name__} draws a TaskRelatedness, got "
                f"{type(estimator).__name__}"
            )
        check_is_fitted(estimator, "relatedness_")
        return cls(
            estimator.relatedness_,
            lower=estimator.lower_,
            upper=estimator.upper_,
            task_names=estimator.task_names_,
            directed=estimator.method == "transfer",
        ).plot(ax=ax, **style)

    def plot(
        self,
        *,
        ax: Any = None,
        cmap: Any = "PuOr",
        values_format: str = "z.2f",
        tree: bool = True,
        colorbar: bool = True,
        im_kw: Mapping[str, Any] | None = None,
        text_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.
        cmap : str or matplotlib Colormap, default="PuOr"
            Diverging; 0 is at its middle.
        values_format : str, default="z.2f"
            ``z`` writes 0.00 for −0.00.
        tree : bool, default=True
            Whether tasks are ordered by a dendrogram, drawn above: average linkage of
            ``1 − |r|``, of directed gains 1 − the mean of both ways, those below 0 and
            NaN taken as 0.
        colorbar : bool, default=True
        im_kw, text_kw : dict, default=None
            For ``imshow`` and the numbers' ``text``.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            Where shapes do not fit.
        """
        matrix, names = self._checked()
        self.ax_ = new_axes(ax, self)
        self.figure_ = self.ax_.figure
        links = _links(matrix, self.directed) if tree and len(matrix) > 1 else None
        self.order_ = np.arange(len(matrix)) if links is None else leaves_list(links)
        self._plot_cells(matrix, cmap, values_format, im_kw or {}, text_kw or {})
        self._plot_marks()
        self._name_axes([names[i] for i in self.order_])
        self._plot_beside(links, colorbar)
        return self

    def _checked(self) -> tuple[np.ndarray, list[str]]:
        matrix = np.asarray(self.relatedness, float)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise parameter_error("relatedness", self, "of shape (T, T)", matrix.shape)
        for name in ("lower", "upper"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != matrix.shape:
                allowed = f"of shape {matrix.shape}, or None"
                raise parameter_error(name, self, allowed, np.shape(value))
        names = self.task_names
        names = [f"task {i}" for i in range(len(matrix))] if names is None else names
        if len(names) != len(matrix):
            raise parameter_error("task_names", self, f"{len(matrix)} names", names)
        return matrix, [str(name) for name in names]

    def _ordered(self, matrix: Any) -> np.ndarray:
        return np.asarray(matrix, float)[np.ix_(self.order_, self.order_)]

    def _plot_cells(
        self,
        matrix: np.ndarray,
        cmap: Any,
        values_format: str,
        im_kw: Mapping[str, Any],
        text_kw: Mapping[str, Any],
    ) -> None:
        shown = self._ordered(matrix)
        largest = np.nanmax(np.abs(shown), initial=1e-12) if self.directed else 1.0
        style = {"cmap": cmap, "vmin": -largest, "vmax": largest, **im_kw}
        self.ax_.set_facecolor("0.92")  # background of NaN cells
        self.im_ = self.ax_.imshow(shown, **style)
        self.text_ = np.empty(shown.shape, object)
        for (i, j), value in np.ndenumerate(shown):
            self.text_[i, j] = self.ax_.text(
                j,
                i,
                "–" if np.isnan(value) else format(value, values_format),
                **{
                    "ha": "center",
                    "va": "center",
                    "color": self._ink(value),
                    **text_kw,
                },
            )

    def _ink(self, value: float) -> str:
        """Return black or white, whichever is more legible on a value's colour."""
        if np.isnan(value):
            return _GREY
        red, green, blue, _ = self.im_.cmap(self.im_.norm(value))
        light = 0.299 * red + 0.587 * green + 0.114 * blue
        return "black" if light > 0.5 else "white"

    def _plot_marks(self) -> None:
        """Hatch the cells whose interval covers 0, and grey their numbers."""
        from matplotlib.patches import Rectangle

        self.marks_ = []
        if self.lower is None or self.upper is None:
            return
        covers = (self._ordered(self.lower) <= 0) & (self._ordered(self.upper) >= 0)
        if self.directed:  # the diagonal is 0 by definition
            np.fill_diagonal(covers, False)
        for i, j in np.argwhere(covers):
            mark = Rectangle(
                (j - 0.5, i - 0.5),
                1,
                1,
                fill=False,
                hatch="///",
                edgecolor="0.75",
                linewidth=0,
            )
            self.marks_.append(self.ax_.add_patch(mark))
            self.text_[i, j].set(
                color=_GREY,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"},
            )

    def _name_axes(self, names: list[str]) -> None:
        places = range(len(names))
        self.ax_.set_xticks(
            places, names, rotation=45, ha="right", rotation_mode="anchor"
        )
        self.ax_.set_yticks(places, names)
        self.ax_.tick_params(length=0)
        self.ax_.spines[:].set_visible(False)
        if self.directed:
            self.ax_.set(xlabel="to task", ylabel="from task")

    def _plot_beside(self, links: np.ndarray | None, colorbar: bool) -> None:
        self.dendrogram_ax_ = None
        if links is not None:
            above = self.ax_.inset_axes((0, 1.02, 1, 0.25))
            dendrogram(
                links,
                ax=above,
                no_labels=True,
                color_threshold=0,
                above_threshold_color="0.3",
            )
            above.set_axis_off()
            self.dendrogram_ax_ = above
        if colorbar:
            side = self.ax_.inset_axes((1.03, 0, 0.05, 1))
            bar = self.figure_.colorbar(self.im_, cax=side)
            bar.set_label("relative fall of loss" if self.directed else "relatedness")
            bar.outline.set_visible(False)


def _links(matrix: np.ndarray, directed: bool) -> np.ndarray:
    """Return the average linkage of tasks, by their dissimilarity."""
    near = np.nan_to_num(matrix)
    near = near.clip(0, 1) if directed else np.abs(near).clip(max=1)
    far = 1 - (near + near.T) / 2
    np.fill_diagonal(far, 0)
    return linkage(squareform(far, checks=False), "average", optimal_ordering=True)
