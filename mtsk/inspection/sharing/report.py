"""Gains of sharing and their intervals, from the scores of many fits."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from mtsk.inspection.sharing.grouping import best_partition
from mtsk.metrics import lower_is_better

__all__ = ["Budget", "Group", "Job", "SharingReport"]

_NOT_SHOWN = "no difference shown"
_ROUNDING = 1e-6  # of a score: scores are made in float32
Group = tuple[str, ...]
Budget = int | None


class Job(NamedTuple):
    """One fit: which tasks, which repeat, how many labelled images per task."""

    tasks: Group
    repeat: int
    budget: Budget


class SharingReport:
    """The result of `compare_sharing`.

    Parameters
    ----------
    scores : mapping of Job to mapping of task to float
        ``Job(tasks, repeat, budget)``: the score of each task when ``tasks`` were
        trained together.
    task_names : sequence of str
    metrics : mapping of task to str or None
        The metric of each task, by `mtsk.metrics`; None: more is better.
    confidence : float, default=0.95
    overlap : float, default=0
        n_test / n_train where repeats are folds; 0 where the test part is given.

    Differences of less than a millionth of a score are rounding, and count as 0.

    Attributes
    ----------
    rows : list of dict
        One for each task and budget: ``task``, ``budget``, ``metric``, ``joint`` and
        ``separate`` (mean scores), ``difference`` with ``difference_lower`` and
        ``difference_upper`` (more is better), ``gain``, ``lower``, ``upper`` (the same
        as fractions of the separate score; NaN where that is 0) and ``verdict``:
        ``"gains"``, ``"pays"`` or ``"no difference shown"``.
    delta_m : dict of budget to dict
        ``value``, ``lower``, ``upper``: mean gain over tasks, in percent.
    recommendation : dict of budget to dict
        ``together``: list of groups of tasks to train together; ``alone``: list of
        tasks. Without pairs: tasks that pay are trained alone, the others together,
        also where no difference is shown, as one fit is then sufficient. With pairs:
        the partition of the tasks with the largest sum of gains, where a task in a
        group gains the mean of what it gains with each of the others (Standley et al.,
        ICML 2020), or the measured gain where all or two are together; each partition
        is tried up to 8 tasks, above that groups are merged while the sum grows.
    pair_gains : dict of budget to ndarray of shape (T, T), or None
        Entry (i, j): gain of task j from training with task i alone.
    scores, task_names, metrics, confidence
        As given.
    budgets : list
    n_repeats : int

    Examples
    --------
    >>> from mtsk.inspection import SharingReport
    >>> scores = {(("a", "b"), r, None): {"a": 0.6, "b": 0.4 + r / 50} for r in (0, 1)}
    >>> scores |= {(("a",), r, None): {"a": 0.5} for r in (0, 1)}
    >>> scores |= {(("b",), r, None): {"b": 0.4} for r in (0, 1)}
    >>> SharingReport(scores, ["a", "b"], {"a": "miou", "b": "miou"})
    Sharing, 2 repeats, 95 % intervals
    all labels: Δm +11.2 % [-4.6, +27.1]; train together: a, b
      task  metric  separate  joint   gain, %  interval        verdict
      a     miou      0.5000  0.6000    +20.0  [+20.0, +20.0]  gains
      b     miou      0.4000  0.4100     +2.5  [-29.3, +34.3]  no difference shown
    """

    def __init__(
        self,
        scores: Mapping[Any, Mapping[str, float]],
        task_names: Sequence[str],
        metrics: Mapping[str, str | None],
        *,
        confidence: float = 0.95,
        overlap: float = 0.0,
    ) -> None:
        self.scores = {Job(*key): dict(value) for key, value in scores.items()}
        self.task_names = list(task_names)
        self.metrics = dict(metrics)
        self.confidence = confidence
        self.budgets: list[Budget] = list(dict.fromkeys(j.budget for j in self.scores))
        self.n_repeats = len({job.repeat for job in self.scores})
        self._overlap = overlap
        self._every = tuple(self.task_names)
        self.rows = [self._row(t, b) for b in self.budgets for t in self.task_names]
        self.delta_m = {budget: self._delta_m(budget) for budget in self.budgets}
        self.pair_gains = self._pair_gains()
        self.recommendation = {b: self._recommend(b) for b in self.budgets}

    def _of(self, task: str, group: Group, budget: Budget) -> np.ndarray:
        """Return a task's score in each repeat, of fits to a group of tasks."""
        return np.array(
            [self.scores[Job(group, r, budget)][task] for r in range(self.n_repeats)]
        )

    def _differences(self, task: str, group: Group, budget: Budget) -> np.ndarray:
        """Return what a task gained in each repeat; more is better."""
        name = self.metrics.get(task)
        error = name is not None and lower_is_better(name)
        alone = self._of(task, (task,), budget)
        better = self._of(task, group, budget) - alone
        better[np.abs(better) <= _ROUNDING * np.abs(alone)] = 0
        return -better if error else better

    def _scale(self, task: str, budget: Budget) -> float:
        """Return the size of the mean score alone, NaN for 0."""
        return abs(float(self._of(task, (task,), budget).mean())) or float("nan")

    def _interval(self, values: np.ndarray) -> tuple[float, float, float]:
        """Return mean and bounds; see the Notes of `compare_sharing`."""
        n = len(values)
        mean, spread = float(values.mean()), float(values.std(ddof=1))
        half_width = float(student.ppf(0.5 + self.confidence / 2, n - 1))
        half_width *= spread * np.sqrt(1 / n + self._overlap)
        return mean, mean - half_width, mean + half_width

    def _row(self, task: str, budget: Budget) -> dict[str, Any]:
        mean, lower, upper = self._interval(
            self._differences(task, self._every, budget)
        )
        scale = self._scale(task, budget)
        shown = "gains" if lower > 0 else "pays" if upper < 0 else _NOT_SHOWN
        return {
            "task": task,
            "budget": budget,
            "metric": self.metrics.get(task),
            "joint": float(self._of(task, self._every, budget).mean()),
            "separate": float(self._of(task, (task,), budget).mean()),
            "difference": mean,
            "difference_lower": lower,
            "difference_upper": upper,
            "gain": mean / scale,
            "lower": lower / scale,
            "upper": upper / scale,
            "verdict": shown,
        }

    def _delta_m(self, budget: Budget) -> dict[str, float]:
        each = [
            self._differences(t, self._every, budget) / self._scale(t, budget)
            for t in self.task_names
        ]
        ends = self._interval(100 * np.mean(each, axis=0))
        return dict(zip(("value", "lower", "upper"), ends, strict=True))

    def _gain(self, task: str, group: Group, budget: Budget) -> float:
        mean = float(self._differences(task, group, budget).mean())
        return mean / self._scale(task, budget)

    def _pair_gains(self) -> dict[Budget, np.ndarray] | None:
        names, n = self.task_names, len(self.task_names)
        pairs = list(combinations(names, 2))
        if any(Job(p, 0, b) not in self.scores for p in pairs for b in self.budgets):
            return None
        out = {budget: np.zeros((n, n)) for budget in self.budgets}
        for budget, matrix in out.items():
            for i, j in combinations(range(n), 2):
                pair = names[i], names[j]
                matrix[j, i] = self._gain(names[i], pair, budget)
                matrix[i, j] = self._gain(names[j], pair, budget)
        return out

    def _recommend(self, budget: Budget) -> dict[str, list]:
        if self.pair_gains is None or len(self.task_names) == 2:
            pays = [
                row["task"]
                for row in self.rows
                if row["budget"] == budget and row["verdict"] == "pays"
            ]
            groups = [tuple(t for t in self.task_names if t not in pays)]
            groups += [(task,) for task in pays]
        else:
            every = [self._gain(t, self._every, budget) for t in self.task_names]
            places = best_partition(self.pair_gains[budget], np.array(every))
            groups = [tuple(self.task_names[i] for i in part) for part in places]
        return {
            "together": [list(group) for group in groups if len(group) > 1],
            "alone": [group[0] for group in groups if len(group) == 1],
        }

    def to_frame(self) -> Any:
        """Return ``rows`` as a DataFrame.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            Without pandas.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error
        return DataFrame(self.rows)

    def __repr__(self) -> str:
        lines = [self._title()]
        for budget in self.budgets:
            table = [_HEADER, *self._cells(budget)]
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines.append(self._summary(budget))
            lines += ["  " + _line(cells, widths) for cells in table]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{html.escape(self._title())}</b></p>"]
        for budget in self.budgets:
            parts.append(f"<p>{html.escape(self._summary(budget))}</p><table>")
            parts += [_html_row(_HEADER, "th")]
            parts += [_html_row(cells, "td") for cells in self._cells(budget)]
            parts.append("</table>")
        return "".join(parts)

    def _title(self) -> str:
        share = f"{100 * self.confidence:g}"
        return f"Sharing, {self.n_repeats} repeats, {share} % intervals"

    def _summary(self, budget: Budget) -> str:
        labels = "all labels" if budget is None else f"{budget} labelled images a task"
        m, advice = self.delta_m[budget], self.recommendation[budget]
        ends = f"[{m['lower']:+z.1f}, {m['upper']:+z.1f}]"
        verdicts = {r["verdict"] for r in self.rows if r["budget"] == budget}
        lead = "train together: "
        if verdicts == {_NOT_SHOWN} and advice["together"] == [self.task_names]:
            lead = f"{_NOT_SHOWN}, one fit will do: "
        words = [lead + ", ".join(group) for group in advice["together"]]
        words += [f"alone: {', '.join(advice['alone'])}"] * bool(advice["alone"])
        return f"{labels}: Δm {m['value']:+z.1f} % {ends}; {'; '.join(words)}"

    def _cells(self, budget: Budget) -> Iterator[list[str]]:
        for row in self.rows:
            if row["budget"] == budget:
                yield [
                    row["task"],
                    row["metric"] or "",
                    f"{row['separate']:.4f}",
                    f"{row['joint']:.4f}",
                    f"{100 * row['gain']:+z.1f}",
                    f"[{100 * row['lower']:+z.1f}, {100 * row['upper']:+z.1f}]",
                    row["verdict"],
                ]


_HEADER = ["task", "metric", "separate", "joint", "gain, %", "interval", "verdict"]
_RIGHT = {2, 3, 4}  # columns of numbers


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    out = [
        cell.rjust(width) if place in _RIGHT else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(out).rstrip()


def _html_row(cells: Sequence[str], tag: str) -> str:
    inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"
