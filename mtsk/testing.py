"""The contracts of image estimators and of tasks, as checks that run on anybody's.

`check_image_estimator` does for estimators over images what scikit-learn's
``check_estimator`` does for estimators over tables. An image estimator has
``fit(X, Y)``, ``predict(X)`` and ``score(X, Y)``, where X is what `mtsk.data.Images`
takes and Y an integer label map an image (or Targets). `check_task` does it for tasks.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split

from mtsk.data.targets import Targets
from mtsk.metrics import lower_is_better, task_metric
from mtsk.tasks import PixelTask, Task
from mtsk.tasks.columns import column_slices

__all__ = [
    "check_image_estimator",
    "check_task",
    "image_estimator_checks",
    "perfect_scores",
    "toy_images",
]


def toy_images(
    n: int = 6, size: tuple[int, int] = (40, 48), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return images of a bright disc on dark noise, and their label maps (3 and 7).

    Parameters
    ----------
    n : int, default=6
    size : (int, int), default=(40, 48)
    seed : int, default=0

    Returns
    -------
    images : ndarray of uint8, shape (n, H, W, 3)
    labels : ndarray of int, shape (n, H, W)
    """
    random = np.random.default_rng(seed)
    images = random.integers(0, 90, (n, *size, 3), dtype=np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    labels = np.full((n, *size), 3)
    for image, label in zip(images, labels, strict=True):
        centre = random.uniform(0.35, 0.65, 2) * size
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (0.3 * min(size)) ** 2
        image[disc] += 130
        label[disc] = 7
    return images, labels


def perfect_scores(task: Task, columns: np.ndarray) -> np.ndarray:
    """Return the scores of a head that makes no mistake.

    Parameters
    ----------
    task : Task
        Fitted.
    columns : ndarray of shape (..., n_columns)
        As ``encode`` gives them.

    Returns
    -------
    ndarray of float32, shape (..., n_scores)
        Logits of ±20, and numbers as they are; "no" and 0 where unlabelled.
    """
    parts = []
    for group, part in zip(task.groups_, column_slices(task.groups_), strict=True):
        own = columns[..., part]
        if group.kind == "nominal":
            own = own == np.arange(group.size)
        parts.append(np.nan_to_num(own) if group.kind == "real" else own == 1)
    kinds = [group.kind for group in task.groups_]
    scores = [
        part if kind == "real" else np.where(part, 20.0, -20.0)
        for part, kind in zip(parts, kinds, strict=True)
    ]
    return np.concatenate(scores, axis=-1).astype(np.float32)


def check_task(
    task: Task,
    targets: Sequence[Any],
    shapes: Sequence[tuple[int, int]],
    *,
    same: Callable[[Any, Any], bool] | None = None,
    mirrored: Callable[[Any], Any] | None = None,
) -> None:
    """Check that a task keeps the contract of `mtsk.tasks.Task`.

    What it encodes it decodes again, mirrored or not; its metrics prefer the truth to
    scores of 0; it pickles; it refuses maps that do not fit.

    Parameters
    ----------
    task : Task
        Not fitted.
    targets : sequence
        Entries, fully labelled, with which ``decode`` can be compared.
    shapes : sequence of (int, int)
        The height and width of the image of each.
    same : callable, optional
        Tells whether a decoded entry is as good as the one given. None compares arrays.
    mirrored : callable, optional
        Returns an entry of the mirror image. None reverses the second axis of pixel
        tasks' entries, and leaves those of image tasks.

    Raises
    ------
    AssertionError
        The message says what the contract asks for.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.tasks import BinaryMask
    >>> from mtsk.testing import check_task
    >>> check_task(BinaryMask(), [np.eye(9, dtype=bool)], [(9, 9)])
    """
    assert isinstance(task, Task), f"a Task is checked, not fitted, got {task!r}"
    is_same = same or _alike
    given = task.get_params()
    task = clone(task)
    assert task.fit(list(targets)) is task, "fit must return self"
    assert task.get_params().keys() == given.keys()
    assert task.groups_, "a task has at least one group of columns"
    assert task.metrics, "a task has at least one metric"
    assert len(targets) == len(shapes), "every target needs the shape of its image"
    task = pickle.loads(pickle.dumps(task))
    for entry, shape in zip(targets, shapes, strict=True):
        columns = task.encode(entry, shape)
        front = shape if task.is_of_pixels else ()
        assert columns.dtype == np.float32, "columns must be float32"
        assert columns.shape == (*front, task.n_columns_), "one place a column"
        scores = perfect_scores(task, columns)
        assert is_same(task.decode(scores), entry), "decode must undo encode"
        shares = task.probabilities(scores)
        assert shares.shape == scores.shape, "a probability a score"
        _assert_mirror(task, entry, shape, is_same, mirrored)
    _assert_metrics(task, targets, shapes)
    first = targets[0]
    if isinstance(first, np.ndarray) and first.shape[:2] == tuple(shapes[0]):
        _refused(lambda: task.encode(first[:-1], shapes[0]), str(shapes[0][0]))


def _alike(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return bool(np.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True))
    return bool(np.array_equal(a, b))


def _assert_mirror(
    task: Task,
    entry: Any,
    shape: tuple[int, int],
    is_same: Callable[[Any, Any], bool],
    mirrored: Callable[[Any], Any] | None,
) -> None:
    columns = task.encode(entry, shape)
    turned = entry if mirrored is None else mirrored(entry)
    if isinstance(task, PixelTask):
        matrix = np.array([[1.0, 0.0], [0.0, -1.0]])
        columns = task.transform_columns(np.ascontiguousarray(columns[:, ::-1]), matrix)
        turned = np.asarray(entry)[:, ::-1] if mirrored is None else turned
    found = task.decode(perfect_scores(task, columns))
    assert is_same(found, turned), (
        "what is decoded from a mirror image's columns must be the mirrored entry: see "
        "`move`, and give `same` where entries may differ, as ids do in their numbers"
    )


def _assert_metrics(
    task: Task, targets: Sequence[Any], shapes: Sequence[tuple[int, int]]
) -> None:
    assert not lower_is_better(task.metrics[0]), "of the first metric more is better"
    for name in task.metrics:
        best, other = task_metric(task, name), task_metric(task, name)
        for entry, shape in zip(targets, shapes, strict=True):
            columns = task.encode(entry, shape)
            truth = entry if getattr(best, "from_targets", False) else columns
            scores = perfect_scores(task, columns)
            best.update(truth, scores)
            other.update(truth, np.zeros_like(scores))
        sign = -1 if lower_is_better(name) else 1
        a, b = best.compute(), other.compute()
        if not np.isnan(a) and not np.isnan(b):
            assert sign * a >= sign * b - 1e-9, f"{name}: the truth must score best"


def check_image_estimator(estimator: Any) -> None:
    """Run every check on an image estimator; raise at the first that fails.

    Parameters
    ----------
    estimator : estimator
        Not fitted; cloned for every check. With an integer ``random_state`` where it
        has one.

    Raises
    ------
    AssertionError
        The message says what the contract asks for.

    Examples
    --------
    >>> from mtsk import DeepFeatures, MultiTaskSegmenter
    >>> from mtsk.testing import check_image_estimator
    >>> check_image_estimator(
    ...     MultiTaskSegmenter(
    ...         features=DeepFeatures(scales=[1], cache="memory"), random_state=0
    ...     )
    ... )
    """
    for _, check in image_estimator_checks(estimator):
        check()


def image_estimator_checks(
    estimator: Any,
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield (name, check) for ``pytest.mark.parametrize`` and the like.

    Parameters
    ----------
    estimator : estimator

    Yields
    ------
    name : str
    check : callable without arguments
    """
    for name, function in list(globals().items()):
        if name.startswith("_check_"):
            yield name.removeprefix("_check_"), partial(_run, function, estimator)


def _run(check: Callable[[Any], None], estimator: Any) -> None:
    check(clone(estimator))


def _same(a: Any, b: Any) -> bool:
    """Tell whether two predictions are equal, whatever their form."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | np.ndarray):
        return len(a) == len(b) and all(
            np.array_equal(x, y) for x, y in zip(a, b, strict=True)
        )
    return bool(a == b)


def _refused(call: Callable[[], Any], *words: str) -> None:
    """Assert that a call raises a ValueError whose message has some words."""
    message = _message_of(ValueError, call)
    assert message is not None, f"bad input was accepted; expected one about {words}"
    absent = [word for word in words if word not in message]
    assert not absent, f"the message lacks {absent}: {message}"


def _message_of(kind: type[Exception], call: Callable[[], Any]) -> str | None:
    """Return the message of the error that a call raises, or None."""
    try:
        call()
    except kind as error:
        return str(error)
    return None


def _check_init_stores_and_clone_keeps(estimator: Any) -> None:
    before = estimator.get_params(deep=False)
    again = clone(estimator).get_params(deep=False)
    assert before.keys() == again.keys()
    made = type(estimator)(**before)
    for name, value in before.items():
        assert getattr(made, name) is value, f"__init__ must store {name} as it is"


def _check_set_params_round_trip(estimator: Any) -> None:
    params = estimator.get_params(deep=True)
    assert estimator.set_params(**estimator.get_params(deep=False)) is estimator
    assert params.keys() == estimator.get_params(deep=True).keys()
    try:
        estimator.set_params(no_such_parameter=1)
    except ValueError:
        return
    raise AssertionError("set_params must refuse unknown names with a ValueError")


def _check_fit_returns_self_and_keeps_parameters(estimator: Any) -> None:
    X, Y = toy_images()
    before = estimator.get_params(deep=False)
    assert estimator.fit(X, Y) is estimator, "fit must return self"
    for name, value in estimator.get_params(deep=False).items():
        assert value is before[name], f"fit must not change the parameter {name}"
    fitted = [n for n in vars(estimator) if n.endswith("_") and not n.startswith("_")]
    assert fitted, "what fit learns must have names that end in an underscore"


def _check_not_fitted(estimator: Any) -> None:
    X, _ = toy_images(2)
    try:
        estimator.predict(X)
    except NotFittedError:
        return
    raise AssertionError("predict before fit must raise NotFittedError")


def _check_inputs_are_not_changed(estimator: Any) -> None:
    X, Y = toy_images()
    X_before, Y_before = X.copy(), Y.copy()
    estimator.fit(X, Y).predict(X)
    assert np.array_equal(X, X_before), "images must not be written to"
    assert np.array_equal(Y, Y_before), "targets must not be written to"


def _check_predictions_have_the_targets_form(estimator: Any) -> None:
    X, Y = toy_images()
    guess = estimator.fit(X, Y).predict(X)
    assert np.shape(guess) == Y.shape
    assert set(np.unique(guess)) <= {3, 7}, "labels must come back as they were given"
    named = estimator.fit(X, Targets(a=Y)).predict(X)
    assert set(named) == {"a"}
    assert _same(named["a"], guess)


def _check_learns_something(estimator: Any) -> None:
    X, Y = toy_images()
    assert estimator.fit(X[:4], Y[:4]).score(X[4:], Y[4:]) > 0.6


def _check_same_again(estimator: Any) -> None:
    X, Y = toy_images()
    first = estimator.fit(X, Y).predict(X)
    assert _same(first, clone(estimator).fit(X, Y).predict(X)), (
        "two fits with one random_state must agree"
    )
    assert _same(first, estimator.fit(X, Y).predict(X)), "fit must start afresh"


def _check_every_source_is_the_same(estimator: Any) -> None:
    from skimage.io import imsave

    X, Y = toy_images()
    estimator.fit(X, Y)
    expected = estimator.predict(X)

    class Lazy:
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, index: int) -> np.ndarray:
            return X[index]

    assert _same(estimator.predict(list(X)), expected)
    assert _same(estimator.predict(Lazy()), expected)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.png" for i in range(len(X))]
        for path, image in zip(paths, X, strict=True):
            imsave(path, image, check_contrast=False)
        assert _same(estimator.predict(paths), expected)


def _check_sizes_may_differ(estimator: Any) -> None:
    X, Y = toy_images()
    small, small_Y = toy_images(2, size=(33, 41), seed=1)
    images, masks = [*X, *small], [*Y, *small_Y]
    guess = estimator.fit(images, masks).predict(images)
    assert [np.shape(g) for g in guess] == [np.shape(m) for m in masks]


def _check_one_by_one_is_all_at_once(estimator: Any) -> None:
    X, Y = toy_images()
    whole = estimator.fit(X, Y).predict(X)
    each = [estimator.predict(X[i : i + 1])[0] for i in range(len(X))]
    agree = np.mean([np.mean(a == b) for a, b in zip(whole, each, strict=True)])
    assert agree > 0.999, "an image's prediction must not depend on its neighbours"


def _check_pickle(estimator: Any) -> None:
    X, Y = toy_images()
    estimator.fit(X, Y)
    again = pickle.loads(pickle.dumps(estimator))
    assert _same(again.predict(X), estimator.predict(X))


def _check_unlabelled_changes_nothing(estimator: Any) -> None:
    X, Y = toy_images()
    more, _ = toy_images(2, seed=5)
    expected = estimator.fit(X, Y).predict(X)
    got = estimator.fit([*X, *more], [*Y, None, None]).predict(X)
    assert _same(got, expected), "an image without a target must change nothing"


def _check_bad_images(estimator: Any) -> None:
    X, Y = toy_images()
    not_finite = [x / 255 for x in X]
    not_finite[2] = np.full_like(not_finite[2], np.nan)
    cases: list[tuple[Any, tuple[str, ...]]] = [
        (not_finite, ("image 2", "NaN")),
        ([*X[:3], X[3].astype(float), *X[4:]], ("image 3", "[0, 1]")),
        ([*X[:5], X[5].astype(np.int64)], ("image 5", "int64")),
        ([*X[:4], np.zeros((40, 48, 4), np.uint8), X[5]], ("image 4", "alpha")),
        ([*X[:1], np.zeros((1, 1, 3), np.uint8), *X[2:]], ("image 1", "(1, 1, 3)")),
        ([*X[:1], np.zeros((0, 5, 3), np.uint8), *X[2:]], ("image 1", "(0, 5, 3)")),
        ([*X[:5], "no such file.png"], ("image 5", "no such file.png")),
        (X[0, 0], ("shape",)),
        ([], ("no image",)),
    ]
    for images, words in cases:
        _refused(partial(estimator.fit, images, Y[: len(images)]), *words)
    estimator.fit(X, Y)
    for images, words in cases[:5]:
        _refused(partial(estimator.predict, images), *words)


def _check_bad_targets(estimator: Any) -> None:
    X, Y = toy_images()
    small = [*Y[:3], Y[3][:-1], *Y[4:]]
    _refused(lambda: estimator.fit(X, small), "image 3", "(39, 48)", "(40, 48)")
    _refused(lambda: estimator.fit(X, Y[:-1]), "6", "5")
    _refused(lambda: estimator.fit(X, [None] * 6), "labelled on no image")
    _refused(lambda: estimator.fit(X, np.full_like(Y, -1)), "void")
    _refused(lambda: estimator.fit(X, None), "Y")
    _refused(lambda: estimator.fit(X, {"a": Y, "b": [None] * 6}), "'b'")
    mixed = [*Y[:5], "a word"]
    _refused(lambda: estimator.fit(X, mixed), "image 5")


def _check_unknown_task(estimator: Any) -> None:
    X, Y = toy_images()
    estimator.fit(X, Targets(a=Y))
    calls: list[Callable[[], Any]] = [
        lambda: estimator.score(X, Targets(b=Y)),
        lambda: estimator.predict(X, tasks=["b"]),
    ]
    for call in calls:
        message = _message_of(KeyError, call)
        assert message is not None, "an unknown task must raise a KeyError"
        assert "'b'" in message, message
        assert "'a'" in message, message


def _check_model_selection(estimator: Any) -> None:
    X, Y = toy_images()
    ragged = [*X[:5], X[5][:-3]]
    targets = Targets(a=[*Y[:5], Y[5][:-3]], b=[None, "x", "y", "x", "y", "x"])
    train, test, Y_train, Y_test = train_test_split(
        ragged, targets, test_size=2, random_state=0
    )
    assert (len(train), len(Y_train), len(test), len(Y_test)) == (4, 4, 2, 2)
    scores = cross_val_score(estimator, ragged, targets.subset(["a"]), cv=2)
    assert np.isfinite(scores).all()
    search = GridSearchCV(estimator, {}, cv=2).fit(X, Y)
    assert np.isfinite(search.best_score_)


def _check_html_repr(estimator: Any) -> None:
    assert type(estimator).__name__ in estimator._repr_html_()
