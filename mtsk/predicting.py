"""How the segmenter predicts: from features to scores, whole maps or some pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import joblib
import numpy as np
from sklearn.utils.validation import check_is_fitted

from mtsk._validation import parameter_error
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.feature_maps import FeatureMaps
from mtsk.images import Images
from mtsk.learning import Learning
from mtsk.shards import in_this_process, shard_ends
from mtsk.structure import with_messages
from mtsk.tables import choose_pixels
from mtsk.targets import DEFAULT_TASK
from mtsk.task_scores import task_scores
from mtsk.tasks import Boundary, Task
from mtsk.tasks.columns import ColumnGroup

__all__ = [
    "Predicting",
    "as_they_are",
    "check_n_pixels",
    "decoded",
    "judge",
    "probabilities",
]


class Predicting(Learning):
    """What ``predict`` and ``score`` of ``MultiTaskSegmenter`` are made of."""

    def _truths_and_scores(
        self,
        views: np.ndarray,
        maps: FeatureMaps,
        truths: Mapping[str, np.ndarray],
        n_pixels: int | None,
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield (task, truth, scores) of an image, whole or at some labelled pixels."""
        if n_pixels is None:
            for name, scores in self._scores(views, maps, list(truths)).items():
                yield name, truths[name], scores
            return
        points: np.ndarray | None
        for name, truth in truths.items():
            points, known = None, truth
            if self.tasks_[name].granularity == "pixel":
                flat = truth.reshape(-1, truth.shape[-1])
                labelled = ~np.isnan(flat).all(axis=1)
                rows = np.flatnonzero(
                    choose_pixels(labelled[None], n_pixels, self._seed, maps.digest)[0]
                )
                points = np.stack(np.unravel_index(rows, maps.shape), axis=1)
                known = flat[rows]
            if known.size:
                yield name, known, self._scores(views, maps, [name], points)[name]

    @property
    def bare_targets(self) -> bool:
        """Whether ``fit`` got targets of one task without its name."""
        check_is_fitted(self)
        return self._bare

    def wanted_tasks(self, tasks: Sequence[str] | None) -> list[str]:
        """Return the names of some tasks, or of all; refuse unknown ones."""
        check_is_fitted(self)
        if isinstance(tasks, str):
            tasks = [tasks]
        names = list(self.tasks_) if tasks is None else list(tasks)
        for name in names:
            if name not in self.tasks_:
                raise UnknownTaskError(
                    f"no task {name!r}; the tasks are {list(self.tasks_)}"
                )
        return names

    def _scores(
        self,
        views: np.ndarray,
        maps: FeatureMaps,
        names: Sequence[str],
        points: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        heads = {"pixel": self.pixel_head_, "image": self.image_head_}
        partners = {n for c in self.couplings_ for n in (c.a, c.b)}
        partners = partners if partners & set(names) else set()
        structures = {
            n: s
            for n, s in self.structures_.items()
            if n in partners or (n in names and s.active)
        }
        if not structures:
            return task_scores(
                maps, self.tasks_, heads, names, self.head_stride, points, self.pooling_
            )
        edges = [n for n, t in self.tasks_.items() if isinstance(t, Boundary)][:1]
        sources = [c.source for c in self.contexts_ if c.pixels in structures]
        every = list(dict.fromkeys([*names, *structures, *edges, *sources]))
        scores = task_scores(
            maps,
            self.tasks_,
            heads,
            every,
            self.head_stride,
            pooling=self.pooling_,
        )
        found = with_messages(
            self._picture(views, maps),
            self.tasks_,
            scores,
            structures,
            self.couplings_,
            self._boundary(scores),
            self._context(scores),
        )
        if points is not None:
            found = {
                n: s[tuple(points.T)] if self.tasks_[n].granularity == "pixel" else s
                for n, s in found.items()
            }
        return {name: found[name] for name in self.tasks_ if name in names}

    def _map_scores(self, X: Any, tasks: Sequence[str] | None, answer: Answer) -> Any:
        names = self.wanted_tasks(tasks)
        images = Images(X, self.features_.channels, self.features_.on_error)
        out: dict[str, list[Any]] = {name: [None] * len(images) for name in names}
        for found, skipped in self._answers(images, names, answer):
            images.skipped.update(skipped)
            for index, entries in found.items():
                for name, entry in entries.items():
                    out[name][index] = entry
        images.warn_of_skipped()
        stacked = isinstance(X, np.ndarray) and X.ndim >= 3 and not images.skipped
        shaped = {name: _shape_up(column, stacked) for name, column in out.items()}
        return shaped[DEFAULT_TASK] if self._bare and tasks is None else shaped

    def _answers(
        self, images: Images, names: Sequence[str], answer: Answer
    ) -> Iterator[_Answers]:
        """Yield what is said of images, here or from joblib's workers."""
        n = len(images)
        if n < _FEWEST_SHARED or in_this_process(self.features_, self.n_jobs):
            yield self._answer(images, names, answer)
            return
        ends = shard_ends(n, self.n_jobs, _MOST_SHARED)
        yield from joblib.Parallel(n_jobs=self.n_jobs, return_as="generator")(
            joblib.delayed(self._answer)(images.part(start, end), names, answer)
            for start, end in pairwise([0, *ends])
        )

    def _answer(self, images: Images, names: Sequence[str], answer: Answer) -> _Answers:
        found = {}
        for index, views, maps in self.features_.iter_views_and_maps(
            images, desc="predict"
        ):
            scores = self._scores(views, maps, names)
            found[index] = {n: answer(self.tasks_[n], s) for n, s in scores.items()}
        return found, dict(images.skipped)


Answer = Callable[[Task, np.ndarray], Any]
_Answers = tuple[dict[int, dict[str, Any]], dict[int, str]]  # and skipped images
_FEWEST_SHARED, _MOST_SHARED = 4, 16  # images worth sharing; images of a shard


def _shape_up(column: list[Any], stacked: bool) -> Any:
    """Return scalars as an array, maps as an array where the images were one."""
    if any(entry is None for entry in column) or isinstance(column[0], set | dict):
        return column
    if stacked or np.ndim(column[0]) < 2:
        return np.array(column)
    return column


def check_n_pixels(model: Predicting, n_pixels: Any, meters: Mapping[str, Any]) -> None:
    """Refuse to judge by some pixels what is no number of them, or needs them all."""
    if not isinstance(n_pixels, Integral) or n_pixels < 1:
        raise parameter_error("n_pixels", model, "an int > 0, or None", n_pixels)
    for name, meter in meters.items():
        if getattr(meter, "needs_maps", False):
            raise ValueError(
                f"the metric of task {name!r} needs whole maps; leave `n_pixels` None"
            )


def judge(
    meter: Any,
    name: str,
    index: int,
    entry: Any,
    truth: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Show a meter an image; errors name the task and the image."""
    try:
        meter.update(entry if getattr(meter, "from_targets", False) else truth, scores)
    except ValueError as error:
        raise TargetError(f"task {name!r}, image {index}: {error}") from error


def decoded(task: Task, scores: np.ndarray) -> Any:
    """Answer in the form that targets have."""
    return task.decode(scores)


def as_they_are(task: Task, scores: np.ndarray) -> np.ndarray:
    """Answer with the scores."""
    return scores


def probabilities(task: Task, scores: np.ndarray) -> np.ndarray:
    """Answer with probabilities; of a mask in (H, W), of numbers with these."""
    if all(group.kind == "real" for group in task.groups_):
        return task.decode(scores)
    found = task.probabilities(scores)
    if task.granularity == "pixel" and task.groups_ == (ColumnGroup("binary", 1),):
        return found[..., 0]
    return found
