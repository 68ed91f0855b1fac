"""Displays: artists, labels and extents, not pixels."""

import builtins
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb

from mtsk import JointRidge
from mtsk.displays import SharingDisplay, TaskRelatednessDisplay
from mtsk.inspection import SharingReport, TaskRelatedness

NAMES = ["ink", "sky", "edges"]
MATRIX = np.array([[1, 0.1, -0.8], [0.1, 1, 0.2], [-0.8, 0.2, 1]])
LOWER, UPPER = MATRIX - 0.15, MATRIX + 0.15


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def display(**keywords):
    keywords = {"lower": LOWER, "upper": UPPER, "task_names": NAMES, **keywords}
    return TaskRelatednessDisplay(MATRIX, **keywords)


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


# -- relatedness --------------------------------------------------------------


def test_the_tree_orders_cells_names_and_numbers():
    drawn = display().plot()
    order = drawn.order_
    assert sorted(order) == [0, 1, 2]
    assert abs(int(np.flatnonzero(order == 0)[0] - np.flatnonzero(order == 2)[0])) == 1
    np.testing.assert_array_equal(drawn.im_.get_array(), MATRIX[np.ix_(order, order)])
    names = [NAMES[i] for i in order]
    assert ticks(drawn.ax_.xaxis) == ticks(drawn.ax_.yaxis) == names
    shown = [[t.get_text() for t in row] for row in drawn.text_]
    assert shown == [[f"{MATRIX[i, j]:.2f}" for j in order] for i in order]
    place = drawn.text_[0, 2].get_position()
    assert place == (2, 0)


def test_the_tree_stands_over_the_cells_and_joins_the_related_first():
    drawn = display().plot()
    above = drawn.dendrogram_ax_
    assert len(above.collections[0].get_segments() if above.collections else []) >= 1
    drawn.figure_.canvas.draw()
    tree, cells = above.get_position(), drawn.ax_.get_position()
    assert tree.y0 >= cells.y1 - 1e-6
    assert above.get_xlim() == (0, 30)  # ten a leaf, as the cells are one a task
    heights = sorted({round(y, 9) for s in segments(above) for y in s[:, 1]})
    assert heights == pytest.approx([0, 0.2, 0.85])


def segments(ax):
    return [s for c in ax.collections for s in c.get_segments()]


def test_without_a_tree_the_order_is_as_given():
    drawn = display().plot(tree=False, colorbar=False)
    assert drawn.order_.tolist() == [0, 1, 2]
    assert drawn.dendrogram_ax_ is None
    assert len(drawn.ax_.child_axes) == 0
    assert len(display().plot().ax_.child_axes) == 2


def test_cells_whose_interval_covers_0_are_marked():
    drawn = display().plot(tree=False)
    marked = {mark.get_xy() for mark in drawn.marks_}
    assert marked == {(0.5, -0.5), (-0.5, 0.5)}
    assert all(mark.get_hatch() for mark in drawn.marks_)
    grey = to_rgb(drawn.text_[0, 1].get_color())
    assert grey[0] == grey[1] == grey[2]
    assert 0.3 < grey[0] < 0.6
    assert drawn.text_[0, 2].get_color() in ("black", "white")


def test_no_interval_no_mark():
    assert display(lower=None).plot().marks_ == []
    nothing = np.full((3, 3), np.nan)
    assert display(lower=nothing, upper=nothing).plot().marks_ == []


def test_numbers_are_readable_on_their_cells():
    drawn = display().plot(tree=False)
    assert drawn.text_[0, 0].get_color() == "white"  # on dark purple
    assert drawn.text_[1, 2].get_color() == "black"  # on pale purple


def test_0_is_the_middle_of_the_colours():
    assert display().plot().im_.get_clim() == (-1, 1)
    gains = np.array([[0, 0.3], [-0.1, 0]])
    drawn = TaskRelatednessDisplay(gains, directed=True).plot()
    assert drawn.im_.get_clim() == (-0.3, 0.3)
    low, middle, high = (drawn.im_.cmap(v)[:3] for v in (0.0, 0.5, 1.0))
    assert min(middle) > 0.9
    assert low[0] > low[2]  # orange
    assert high[2] > high[0]  # purple


def test_shades_fall_with_size_on_both_sides():
    cmap = display().plot().im_.cmap
    light = cmap(np.linspace(0, 1, 11))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(light[:6]) > 0).all()
    assert (np.diff(light[5:]) < 0).all()


def test_directed_gains_say_from_and_to():
    gains = np.array([[0, 0.3], [-0.001, 0]])
    drawn = TaskRelatednessDisplay(
        gains, lower=gains - 0.1, upper=gains + 0.1, directed=True
    ).plot(tree=False)
    assert drawn.ax_.get_xlabel() == "to task"
    assert drawn.ax_.get_ylabel() == "from task"
    assert drawn.text_[1, 0].get_text() == "0.00"  # not -0.00
    assert [mark.get_xy() for mark in drawn.marks_] == [(-0.5, 0.5)]
    assert ticks(drawn.ax_.xaxis) == ["task 0", "task 1"]


def test_nan_is_a_dash_and_far_from_everything():
    matrix = MATRIX.copy()
    matrix[0, 2] = matrix[2, 0] = np.nan
    drawn = TaskRelatednessDisplay(matrix).plot()
    texts = {t.get_text() for t in drawn.text_.flat}
    assert "–" in texts
    assert drawn.order_.tolist() in ([0, 1, 2], [0, 2, 1], [1, 2, 0], [2, 1, 0])
    assert max(s[:, 1].max() for s in segments(drawn.dendrogram_ax_)) > 0.9


def test_one_task():
    drawn = TaskRelatednessDisplay(np.ones((1, 1))).plot()
    assert drawn.dendrogram_ax_ is None
    assert drawn.text_[0, 0].get_text() == "1.00"


def test_style():
    figure, ax = plt.subplots()
    drawn = display().plot(
        ax=ax,
        cmap="RdBu",
        values_format=".0%",
        im_kw={"vmin": -2},
        text_kw={"fontsize": 5},
    )
    assert drawn.ax_ is ax
    assert drawn.figure_ is figure
    assert drawn.im_.get_cmap().name == "RdBu"
    assert drawn.im_.get_clim() == (-2, 1)
    assert "100%" in {t.get_text() for t in drawn.text_.flat}
    assert drawn.text_[0, 0].get_fontsize() == 5


def test_from_estimator():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    model = TaskRelatedness(n_bootstrap=5, task_names=NAMES, random_state=0)
    with pytest.raises(NotFittedError):
        TaskRelatednessDisplay.from_estimator(model)
    model.fit(X, X[:, :3] + rng.normal(size=(60, 3)))
    drawn = TaskRelatednessDisplay.from_estimator(model, tree=False)
    np.testing.assert_array_equal(drawn.im_.get_array(), model.relatedness_)
    assert drawn.task_names == NAMES
    assert not drawn.directed
    model.set_params(method="transfer").fit(X, X[:, :3] + rng.normal(size=(60, 3)))
    assert TaskRelatednessDisplay.from_estimator(model).directed


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"relatedness": np.ones((2, 3))}, r"`relatedness` .* \(T, T\), got \(2, 3\)"),
        ({"relatedness": np.ones(3)}, "`relatedness`"),
        ({"relatedness": np.ones((0, 0))}, "`relatedness`"),
        ({"lower": np.ones((2, 2))}, r"`lower` .* \(3, 3\), or None, got \(2, 2\)"),
        ({"upper": [1, 2]}, "`upper`"),
        ({"task_names": ["a"]}, r"`task_names` .* 3 names, got \['a'\]"),
    ],
)
def test_shapes_that_do_not_fit(keywords, message):
    with pytest.raises(ValueError, match=message):
        TaskRelatednessDisplay(**{"relatedness": MATRIX, **keywords}).plot()


# -- sharing ------------------------------------------------------------------


def row(task, gain, spread=0.01, budget=None):
    lower, upper = gain - spread, gain + spread
    shown = "gains" if lower > 0 else "pays" if upper < 0 else "no difference shown"
    return {
        "task": task,
        "budget": budget,
        "gain": gain,
        "lower": lower,
        "upper": upper,
        "verdict": shown,
    }


ROWS = [row("a", 0.1), row("b", -0.05), row("c", 0.005)]
DELTA = {None: {"value": 2.0, "lower": 1.0, "upper": 3.0}}


def test_dots_and_intervals_lie_where_they_should():
    drawn = SharingDisplay(ROWS, DELTA).plot()
    assert ticks(drawn.ax_.yaxis) == ["a", "b", "c", "mean (Δm)"]
    (line,) = drawn.lines_
    dots, _, (bars,) = line.lines
    np.testing.assert_allclose(dots.get_xdata(), [10, -5, 0.5, 2])
    np.testing.assert_allclose(dots.get_ydata(), [0, 1, 2, 3])
    ends = np.array([s[:, 0] for s in bars.get_segments()])
    np.testing.assert_allclose(ends, [[9, 11], [-6, -4], [-0.5, 1.5], [1, 3]])
    assert drawn.ax_.get_xlabel() == "gain of training together, %"
    assert drawn.ax_.yaxis_inverted()
    assert drawn.legend_ is None


def test_only_differences_that_were_shown_are_filled():
    drawn = SharingDisplay(ROWS).plot()
    dots = drawn.lines_[0].lines[0]
    assert dots.get_markerfacecolor() == "none"
    filled = [x for x in drawn.ax_.lines if x.get_linestyle() == "None"]
    filled = [x for x in filled if len(x.get_xdata()) == 2 and x is not dots]
    assert any(np.allclose(sorted(x.get_xdata()), [-5, 10]) for x in filled)


def test_budgets_differ_in_marker_colour_and_place():
    rows = [row("a", g, budget=b) for g, b in ((0.1, 5), (0.2, 20), (0.3, None))]
    drawn = SharingDisplay(rows).plot()
    dots = [line.lines[0] for line in drawn.lines_]
    assert len({d.get_marker() for d in dots}) == 3
    assert len({d.get_color() for d in dots}) == 3
    heights = [float(d.get_ydata()[0]) for d in dots]
    assert heights == sorted(heights)
    assert np.ptp(heights) < 1
    names = [t.get_text() for t in drawn.legend_.get_texts()]
    assert names == ["5 images a task", "20 images a task", "all labels"]


def test_an_undefined_gain_is_left_out():
    drawn = SharingDisplay([row("a", np.nan), row("b", 0.1)]).plot()
    drawn.figure_.canvas.draw()
    assert np.isnan(drawn.lines_[0].lines[0].get_xdata()[0])


def test_from_report_and_style():
    scores = {(("a", "b"), r, None): {"a": 0.6, "b": 0.4} for r in (0, 1)}
    scores |= {((t,), r, None): {t: 0.5} for t in "ab" for r in (0, 1)}
    report = SharingReport(scores, ["a", "b"], {})
    _, ax = plt.subplots()
    drawn = SharingDisplay.from_report(report, ax=ax, line_kw={"color": "black"})
    assert drawn.ax_ is ax
    assert drawn.lines_[0].lines[0].get_color() == "black"
    np.testing.assert_allclose(drawn.lines_[0].lines[0].get_xdata(), [20, -20, 0])


def test_no_rows():
    with pytest.raises(ValueError, match="`rows` of SharingDisplay must be at least"):
        SharingDisplay([]).plot()


# -- matplotlib is optional ---------------------------------------------------


@pytest.mark.parametrize(
    "drawing",
    [TaskRelatednessDisplay(MATRIX), SharingDisplay(ROWS)],
    ids=["map", "dots"],
)
def test_without_matplotlib_the_remedy_is_named(drawing, monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return plain(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'plot needs matplotlib: .*"mtsk\[plot\]"'):
        drawing.plot()


def test_importing_displays_loads_neither_matplotlib_nor_torch():
    code = (
        "import sys; from mtsk.displays import SharingDisplay; "
        "print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_only_relatedness_is_drawn_as_relatedness():
    with pytest.raises(TypeError, match="draws a TaskRelatedness, got JointRidge"):
        TaskRelatednessDisplay.from_estimator(JointRidge())
