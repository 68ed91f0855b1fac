"""The automatic head: what predicts held-out images best, task by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.metrics import average_precision_score, r2_score

from mtsk.metrics import mean_iou
from mtsk.segmenter.head_factory import CANDIDATES, MIN_IMAGES, HeadFitter
from mtsk.tables import Table
from mtsk.tasks.columns import ColumnGroup, labelled_columns
from mtsk.tasks.task_set import Granularity, Layout, TaskSet

__all__ = ["HeadChoice", "choose_heads"]

_HELD_OUT = 5  # one image in so many is held out
_MIN_ROWS, _MAX_ROWS = 6_000, 40_000  # that candidates learn from: a tenth, in between
_MAX_HELD_OUT_ROWS = 16_000  # that they are compared on


@dataclass(frozen=True)
class HeadChoice:
    """Which head was chosen for the tasks of pixels or of whole images, and why.

    Attributes
    ----------
    by_task : dict of str to str
        The chosen head of each task.
    scores : dict of str to dict of str to float
        For each task that was compared, the score of each candidate on held-out images.
        Of classes the mean IoU of rows, of masks and labels the
        average precision, of numbers R².
    n_held_out : int
        Images that candidates were compared on.
    """

    by_task: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    n_held_out: int = 0

    def __str__(self) -> str:
        lines = []
        for name, chosen in self.by_task.items():
            own = self.scores.get(name)
            if own is None:
                reason = "too few labels to compare heads"
            else:
                found = ", ".join(f"{head} {score:.3f}" for head, score in own.items())
                reason = f"{found} on {self.n_held_out} held-out images"
            lines.append(f"{name}: {chosen} ({reason})")
        return "; ".join(lines)


def choose_heads(
    fit_head: HeadFitter, granularity: Granularity, table: Table, seed: int
) -> HeadChoice:
    """Compare the candidates on held-out images; choose one for each task.

    Of the images that a task is labelled on, one in five is held out. Candidates learn
    all compared tasks at once, from a tenth of each task's rows of the other images, at
    least 6,000 and at most 40,000. A task that cannot be compared, with labels on fewer
    than 8 images or nothing to tell apart in those held out, gets what most others get.

    Parameters
    ----------
    fit_head : HeadFitter
        With an automatic `HeadFactory`.
    granularity : {"pixel", "image"}
    table : Table
    seed : int
        Chooses the images.

    Returns
    -------
    HeadChoice
    """
    layout = fit_head.tasks.layout(granularity)
    n_images = _n_labelled(table, layout.columns)
    judged = [name for name in layout.names if n_images[name] >= MIN_IMAGES]
    if not judged:
        return HeadChoice(dict.fromkeys(layout.names, CANDIDATES[0]))
    # Others may have no label outside the images that are held out.
    tasks = TaskSet({name: fit_head.tasks[name] for name in judged})
    own = tasks.layout(granularity)
    held = _held_out(table, [layout.columns[name] for name in judged], seed)
    table = _of_tasks(table, layout, judged)
    is_held = np.isin(table.images, held)
    inside = _thinned(table, own, ~is_held, _rows_to_learn_from)
    outside = _thinned(table, own, is_held, lambda n: _MAX_HELD_OUT_ROWS)
    scores: dict[str, dict[str, float]] = {name: {} for name in judged}
    for candidate in CANDIDATES:
        chosen = {granularity: dict.fromkeys(judged, candidate)}
        head = replace(fit_head, tasks=tasks).choosing(chosen)(granularity, inside)
        found = head.decision_function(outside.X)
        for t, name in enumerate(judged):
            scores[name][candidate] = _score(
                tasks[name].groups_,
                outside.Y[:, own.columns[name]],
                found[:, own.scores[name]],
                outside.weights[t],
            )
    scores = {
        name: found
        for name, found in scores.items()
        if np.isfinite(list(found.values())).all()
    }
    best = {name: max(found, key=found.__getitem__) for name, found in scores.items()}
    usual = max(CANDIDATES, key=list(best.values()).count)
    by_task = {name: best.get(name, usual) for name in layout.names}
    return HeadChoice(by_task, scores, len(held))


def _rows_to_learn_from(n_rows: int) -> int:
    return int(np.clip(n_rows // 10, _MIN_ROWS, _MAX_ROWS))


def _n_labelled(table: Table, columns: Mapping[str, slice]) -> dict[str, int]:
    """Return on how many images of a table each task has a label."""
    known = ~np.isnan(table.Y)
    return {
        name: len(np.unique(table.images[known[:, part].any(axis=1)]))
        for name, part in columns.items()
    }


def _held_out(table: Table, columns: Sequence[slice], seed: int) -> np.ndarray:
    """Return images to hold out: a fifth of those that each task is labelled on."""
    held: set[int] = set()
    every = np.unique(table.images)
    order = np.random.default_rng(seed).permutation(every)
    for part in columns:
        known = ~np.isnan(table.Y[:, part]).all(axis=1)
        labelled = order[np.isin(order, table.images[known])]
        missing = len(labelled) // _HELD_OUT - np.isin(labelled, list(held)).sum()
        fresh = labelled[~np.isin(labelled, list(held))]
        held |= set(fresh[: max(0, missing)].tolist())
    return np.array(sorted(held))


def _of_tasks(table: Table, layout: Layout, names: Sequence[str]) -> Table:
    """Return a table with the columns of some of its tasks alone."""
    places = [layout.names.index(name) for name in names]
    columns = np.concatenate([np.r_[layout.columns[name]] for name in names])
    return table._replace(Y=table.Y[:, columns], weights=table.weights[places])


def _thinned(
    table: Table, layout: Layout, allowed: np.ndarray, most: Callable[[int], int]
) -> Table:
    """Return every k-th of the allowed rows that a task is labelled on, for each task.

    ``most`` says how many, for the number that there are.
    """
    kept = np.zeros(len(table.X), bool)
    for part in layout.columns.values():
        known = ~np.isnan(table.Y[:, part]).all(axis=1)
        rows = np.flatnonzero(known & allowed)
        kept[rows[:: max(1, -(-len(rows) // most(len(rows))))]] = True
    return table.of_rows(kept, f"{kept.sum()} rows to compare heads")


def _score(
    groups: Sequence[ColumnGroup], Y: np.ndarray, scores: np.ndarray, weight: np.ndarray
) -> float:
    """Return the mean over column groups of a score that is 1 at best; NaN for none."""
    found = []
    for group, columns, part in labelled_columns(groups):
        for k in range(group.n_columns):
            truth = Y[:, columns][:, k]
            known = ~np.isnan(truth) & (weight > 0)
            if not known.any():
                continue
            truth, own, mass = truth[known], scores[known, part], weight[known]
            if group.kind == "nominal":
                cell = truth.astype(int) * group.size + own.argmax(axis=1)
                counts = np.bincount(cell, mass, minlength=group.size**2)
                found.append(float(mean_iou(counts.reshape(group.size, -1))))
            elif (truth != truth[0]).any():
                metric = r2_score if group.kind == "real" else average_precision_score
                found.append(metric(truth, own[:, k], sample_weight=mass))
    return float(np.mean(found)) if found else np.nan
