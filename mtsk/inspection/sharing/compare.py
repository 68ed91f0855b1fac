"""Joint and separate fits of tasks on the same labels."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from numbers import Integral
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, KFold, check_cv
from sklearn.utils import check_random_state

from mtsk._progress import progress_bar
from mtsk._validation import group_numbers, parameter_error
from mtsk.data.targets import Targets, as_targets
from mtsk.exceptions import ImageError, TargetError, UnknownTaskError
from mtsk.inspection.sharing.report import Budget, Group, Job, SharingReport
from mtsk.links.pseudo_labels import find_tag_links
from mtsk.metrics import lower_is_better
from mtsk.segmenter import MultiTaskSegmenter
from mtsk.segmenter.head_factory import HeadFactory
from mtsk.segmenter.parameters import default_parts, given_links, given_tasks
from mtsk.tasks.task_set import GRANULARITIES, TaskSet

__all__ = ["compare_sharing"]

_NAME = "compare_sharing"


def compare_sharing(
    estimator: Any,
    X: Any,
    Y: Any,
    *,
    X_test: Any = None,
    Y_test: Any = None,
    cv: Any = None,
    budgets: Sequence[Budget] = (None,),
    n_repeats: int = 3,
    groups: Any = None,
    metrics: Mapping[str, str] | None = None,
    pairs: bool = False,
    confidence: float = 0.95,
    random_state: Any = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> SharingReport:
    """Measure which tasks gain from joint training, by fitting them.

    For each repeat and budget of labels one clone is fitted to all tasks and one to
    each task alone, from the same labels and the same ``random_state``, and scored on
    the same images; ``pairs`` adds one for every two tasks. A task alone is fitted to
    the images that it is labelled on, and an estimator's settings of other tasks (in
    ``tasks`` or ``head``) are left out.

    Parameters
    ----------
    estimator : estimator
        With ``fit(X, Y)`` and ``score_tasks(X, Y)`` for `Targets`, such as
        `MultiTaskSegmenter`. With ``features=DeepFeatures(cache="memory")`` the network
        runs once per image, whatever the number of fits; with ``n_jobs`` other than 1 a
        cache in a folder serves all processes.
    X : images
        Array, list, or lazy sequence.
    Y : targets, as for ``fit``
        At least two tasks.
    X_test, Y_test : images and targets, default=None
        Test images and targets. None scores on folds of ``X``. Not together with
        ``cv``.
    cv : int, splitter or iterable, default=None
        Folds of images; one repeat each. None is ``n_repeats`` folds, shuffled.
    budgets : sequence of int or None, default=(None,)
        Number of labelled images that each task keeps, redrawn at random in each
        repeat. None: all.
    n_repeats : int >= 2, default=3
        Folds where ``cv`` is None; seeds where ``X_test`` is given.
    groups : array-like of shape (n_images,), default=None
        Images of one group, such as one patient, stay in one fold.
    metrics : mapping of task to metric, default=None
        Names that `mtsk.metrics.metric_names` gives. None, and for tasks not named,
        the first metric of the fitted estimator's ``tasks_[name]``; where there is no
        such attribute, more is better.
    pairs : bool, default=False
        Whether every two tasks are fitted too, to find which to group.
    confidence : float in (0, 1), default=0.95
        Confidence level of each task's interval, without multiplicity correction.
    random_state : int, RandomState or None, default=None
        Chooses folds, labels, and the ``random_state`` of the estimator.
    n_jobs : int, default=None
        Number of parallel fits.
    verbose : int, default=0
        Above 0 says how many fits there will be and, after the first, how long they
        will take, and shows their progress.

    Returns
    -------
    SharingReport

    Warns
    -----
    UserWarning
        Where it was interrupted (Ctrl-C) after two repeats or more: the report is then
        of those that are complete.

    Raises
    ------
    InvalidParameterError, ImageError, UnknownTaskError
    TargetError
        Where no two tasks share anything in the estimator, among others.
    TypeError
        Where the estimator cannot be fitted, or scored by task.

    Notes
    -----
    Intervals are Student's t of the paired differences over repeats. Folds share most
    of their training images, so over folds the variance of a mean is not s²/n but
    s² (1/n + n_test/n_train) (Nadeau & Bengio, Machine Learning 2003). With a given
    test set it is s²/n: the interval covers the choice of labels and seeds, not of test
    images, and with ``budgets=(None,)`` of seeds only. Three repeats give wide
    intervals.

    A relative gain is the mean difference, turned so that more is better, over the
    size of the mean score alone. Δm is its mean over tasks, in percent (Maninis et al.,
    CVPR 2019; Vandenhende et al., TPAMI 2022).

    With R repeats, B budgets and T tasks there are R B (T + 1) fits, with ``pairs``
    R B T (T − 1) / 2 more.

    Examples
    --------
    >>> from mtsk import DeepFeatures, MultiTaskSegmenter, compare_sharing
    >>> from mtsk.testing import toy_images
    >>> X, Y = toy_images()
    >>> features = DeepFeatures(scales=[1], cache="memory")
    >>> model = MultiTaskSegmenter(
    ...     features=features, max_pixels_per_image=50, random_state=0
    ... )
    >>> tasks = {"labels": Y, "disc": list(Y == 7)}
    >>> report = compare_sharing(model, X, tasks, n_repeats=2, random_state=0)
    >>> [row["task"] for row in report.rows]
    ['labels', 'disc']
    """
    _check(estimator, budgets, n_repeats, confidence, metrics, n_jobs)
    X = X if hasattr(X, "__len__") else list(X)
    if len(X) < 2:
        raise ImageError(f"{_NAME} takes at least 2 images, X holds {len(X)}")
    targets, _ = as_targets(Y, len(X), getattr(X, "stems", None))
    names = targets.task_names
    if len(names) < 2:
        raise TargetError(f"sharing takes at least 2 tasks, Y has {names}")
    _check_names(metrics or {}, names)
    if isinstance(estimator, MultiTaskSegmenter):
        _check_shares(estimator, targets)
    random = check_random_state(random_state)
    parts = _parts(X, targets, X_test, Y_test, cv, n_repeats, groups, random)
    seeds = [int(random.randint(np.iinfo(np.int32).max)) for _ in parts]
    kept = {
        (repeat, budget): _keep(targets, part[0], budget, seeds[repeat], repeat)
        for repeat, part in enumerate(parts)
        for budget in budgets
    }
    jobs = [
        Job(tasks, repeat, budget)
        for repeat, budget in kept
        for tasks in _groups(names, pairs)
    ]

    def arguments(job: Job) -> tuple:
        train = kept[job.repeat, job.budget].subset(job.tasks)
        rows = _any_label(train)
        model = _for_tasks(estimator, job.tasks, seeds[job.repeat])
        _, X_held, Y_held = parts[job.repeat]
        test = X_held, Y_held.subset(job.tasks)
        return model, _take(X, rows), train[rows], *test, metrics

    done = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_fit_and_score)(*arguments(job)) for job in jobs
    )
    if verbose:
        print(f"{_NAME}: {len(jobs)} fits", file=sys.stderr, flush=True)
    bar = progress_bar(done, desc="fits", total=len(jobs), disable=not verbose)
    scores, used = _collect(jobs, bar)
    ratio = 0.0
    if X_test is None:
        ratio = float(np.mean([len(p[1]) / len(p[0]) for p in parts]))
    return SharingReport(scores, names, used, confidence=confidence, overlap=ratio)


def _check(
    estimator: Any,
    budgets: Any,
    n_repeats: Any,
    confidence: Any,
    metrics: Any,
    n_jobs: Any,
) -> None:
    for name in ("fit", "score_tasks"):
        if isinstance(estimator, type) or not hasattr(estimator, name):
            raise TypeError(
                f"{_NAME} needs an estimator with fit and score_tasks, such as "
                f"MultiTaskSegmenter, got {estimator!r}"
            )
    if not isinstance(n_repeats, Integral) or n_repeats < 2:
        raise parameter_error("n_repeats", _NAME, "an int >= 2", n_repeats)
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        raise parameter_error("confidence", _NAME, "in (0, 1)", confidence)
    good = isinstance(budgets, Sequence) and not isinstance(budgets, str)
    if not good or not budgets or len(set(budgets)) < len(budgets):
        allowed = "a sequence of different ints > 0 or None"
        raise parameter_error("budgets", _NAME, allowed, budgets)
    for budget in budgets:
        whole = isinstance(budget, Integral) and not isinstance(budget, bool)
        if budget is not None and not (whole and budget > 0):
            raise parameter_error("budgets", _NAME, "of ints > 0 or None", budgets)
    if metrics is not None and not isinstance(metrics, Mapping):
        raise parameter_error("metrics", _NAME, "a mapping of tasks, or None", metrics)
    if n_jobs is not None and not (isinstance(n_jobs, Integral) and n_jobs):
        raise parameter_error("n_jobs", _NAME, "an int other than 0, or None", n_jobs)


def _check_shares(model: MultiTaskSegmenter, targets: Targets) -> None:
    """Refuse tasks of which no two can share anything."""
    tasks = TaskSet.fit(given_tasks(model), targets)
    alike = any(len(tasks.names(kind)) > 1 for kind in GRANULARITIES)
    head = default_parts(model).get("head", model.head)
    links = given_links(model)
    if (
        alike
        or HeadFactory(head).capabilities.is_convolutional
        or model.structure is not None
        or links.region_pooling is not None
        or (links.n_pseudo_label_rounds and find_tag_links(tasks))
    ):
        return
    raise TargetError(
        f"the tasks {list(tasks)} share nothing with this model: one is of pixels, one "
        "of whole images, and each has a head of its own. The heads 'fcn' and 'unet' "
        "share layers between them; Links(region_pooling=...) and structure share "
        "predictions"
    )


def _check_names(metrics: Mapping[str, str], names: list[str]) -> None:
    for task in metrics:
        if task not in names:
            raise UnknownTaskError(f"`metrics` names {task!r}; the tasks are {names}")
        lower_is_better(metrics[task])  # raises for unknown metrics


def _parts(
    X: Any,
    targets: Targets,
    X_test: Any,
    Y_test: Any,
    cv: Any,
    n_repeats: int,
    groups: Any,
    random: np.random.RandomState,
) -> list[tuple[np.ndarray, Any, Targets]]:
    """Return, for each repeat, the training rows and the test part."""
    if (X_test is None) != (Y_test is None):
        raise ValueError(f"{_NAME} takes X_test and Y_test together, or neither")
    if X_test is not None:
        if cv is not None or groups is not None:
            raise ValueError(f"{_NAME} takes X_test, or `cv` and `groups`, not both")
        test, _ = as_targets(Y_test, len(X_test), getattr(X_test, "stems", None))
        _check_test(test, targets.task_names, "Y_test")
        test = test.subset(targets.task_names)
        return [(np.arange(len(X)), X_test, test)] * n_repeats
    parts: list[tuple[np.ndarray, Any, Targets]] = []
    for train, held in _folds(len(X), cv, n_repeats, groups, random):
        train, held = (_checked_places(part, len(X), cv) for part in (train, held))
        if np.intersect1d(train, held).size:
            allowed = "of test parts without an image that is learnt from"
            raise parameter_error("cv", _NAME, allowed, cv)
        test = targets[held]
        _check_test(test, targets.task_names, f"the test part of fold {len(parts)}")
        parts.append((train, _take(X, held), test))
    if len(parts) < 2:
        raise parameter_error("cv", _NAME, "of at least 2 folds", cv)
    return parts


def _checked_places(part: Any, n: int, cv: Any) -> np.ndarray:
    """Return the indices of images in a fold, given as indices or as a mask."""
    places = np.asarray(part)
    if places.dtype.kind == "b" and places.shape == (n,):
        places = np.flatnonzero(places)
    whole = places.ndim == 1 and places.size > 0 and places.dtype.kind in "iu"
    if not whole or places.min() < 0 or places.max() >= n:
        raise parameter_error("cv", _NAME, f"of places from 0 to {n - 1}", cv)
    if len(np.unique(places)) < len(places):
        raise parameter_error("cv", _NAME, "of places named once", cv)
    return places


def _folds(
    n: int, cv: Any, n_repeats: int, groups: Any, random: np.random.RandomState
) -> Any:
    most = n
    if groups is not None:
        most = int(group_numbers(groups, n, "images").max()) + 1
        if most < 2:
            raise ValueError("groups must name at least 2 groups, got 1")
    name, n_folds = ("n_repeats", n_repeats) if cv is None else ("cv", cv)
    if isinstance(n_folds, Integral) and not 2 <= int(n_folds) <= most:
        of = "images" if groups is None else "groups"
        allowed = f"from 2 to {most}, the number of {of}"
        raise parameter_error(name, _NAME, allowed, n_folds)
    if cv is None:
        kind = KFold if groups is None else GroupKFold
        seed = random.randint(np.iinfo(np.int32).max)
        cv = kind(n_repeats, shuffle=True, random_state=seed)
    elif groups is not None and isinstance(cv, Integral):
        cv = GroupKFold(int(cv))
    return check_cv(cv).split(np.zeros(n), groups=groups)


def _check_test(test: Targets, names: list[str], where: str) -> None:
    for name in names:
        if name not in test.task_names:
            raise TargetError(f"{where} lacks task {name!r}, it has {test.task_names}")
        if not len(test.labelled(name)):
            raise TargetError(
                f"task {name!r} is labelled on no image of {where}: nothing to score; "
                "label more images, or take fewer folds"
            )


def _keep(
    targets: Targets, rows: np.ndarray, budget: Budget, seed: int, repeat: int
) -> Targets:
    """Return targets of all images, with labels of some rows only.

    A task's choice depends on its index, not on the budget: larger budgets add images.
    """
    columns: dict[str, list] = {}
    for place, name in enumerate(targets.task_names):
        own = np.intersect1d(targets.labelled(name), rows)
        if len(own) < (budget or 1):
            raise TargetError(
                f"budget {budget or 'None'}: task {name!r} is labelled on {len(own)} "
                f"of the {len(rows)} images to learn from in repeat {repeat}"
            )
        chosen = np.random.default_rng([seed, place]).permutation(own)[:budget]
        keep, entries = set(chosen.tolist()), targets[name]
        columns[name] = [e if i in keep else None for i, e in enumerate(entries)]
    return Targets(columns)


def _any_label(targets: Targets) -> np.ndarray:
    """Return the images with a label of some task."""
    return np.unique(
        np.concatenate([targets.labelled(name) for name in targets.task_names])
    )


class _Some(Sequence):
    """Some images of a lazy sequence, opened when indexed."""

    def __init__(self, images: Any, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Any:
        return self.images[int(self.rows[key])]


def _take(X: Any, rows: np.ndarray) -> Any:
    """Return some of the images, in the form that they came in."""
    rows = np.asarray(rows)
    if isinstance(X, np.ndarray):
        return X[rows]
    return [X[i] for i in rows] if isinstance(X, list | tuple) else _Some(X, rows)


def _groups(names: list[str], pairs: bool) -> list[Group]:
    every = [tuple(names), *((name,) for name in names)]
    return list(dict.fromkeys([*every, *(combinations(names, 2) if pairs else ())]))


def _for_tasks(estimator: Any, names: Group, seed: int) -> Any:
    """Return a clone for some of the tasks, without settings of the others."""
    model = clone(estimator)
    params = model.get_params()
    for key in ("tasks", "head", "head__task_weights"):
        said = params.get(key)
        if isinstance(said, Mapping) and all(isinstance(name, str) for name in said):
            own = {n: _unlinked(v, names) for n, v in said.items() if n in names}
            equal = key == "head__task_weights" and not own
            model.set_params(**{key: "equal" if equal else own})
    if "random_state" in params:
        model.set_params(random_state=seed)
    return model


def _unlinked(part: Any, names: Group) -> Any:
    """Return a task without a link (``of``) to an absent task."""
    of = getattr(part, "of", None)
    return part if of in (None, "auto", *names) else clone(part).set_params(of=None)


def _fit_and_score(
    model: Any, X: Any, Y: Targets, X_test: Any, Y_test: Targets, metrics: Any
) -> tuple[dict[str, float], dict[str, str | None]]:
    """Return the scores of a fit, and their metrics."""
    model.fit(X, Y)
    names = Y.task_names
    given = {name: (metrics or {}).get(name) for name in names}
    more = {} if metrics is None else {"metrics": given}
    scores = model.score_tasks(X_test, Y_test, **more)
    own = getattr(model, "tasks_", {})
    used = {n: given[n] or (own[n].metrics[0] if n in own else None) for n in names}
    return {name: float(scores[name]) for name in names}, used


def _collect(
    jobs: Sequence[Job], done: Any
) -> tuple[dict[Job, dict[str, float]], dict[str, str | None]]:
    """Return the scores of all jobs, or of the complete repeats where interrupted."""
    scores: dict[Job, dict[str, float]] = {}
    metrics: dict[str, str | None] = {}
    results = iter(done)
    for job in jobs:
        try:
            own, used = next(results)
        except KeyboardInterrupt:
            if job.repeat < 2:
                raise
            warnings.warn(
                f"interrupted: the report is of the {job.repeat} complete repeats of "
                f"{jobs[-1].repeat + 1}",
                UserWarning,
                stacklevel=3,
            )
            return {k: s for k, s in scores.items() if k.repeat < job.repeat}, metrics
        for task, score in own.items():
            if not np.isfinite(score):
                raise TargetError(
                    f"task {task!r} scored {score} by {used[task] or 'its metric'} in "
                    f"repeat {job.repeat}: the test part does not suffice for it; "
                    "choose another metric, or fewer folds"
                )
        scores[job] = own
        metrics |= used
    return scores, metrics
