"""Metrics: against scikit-learn, with unlabelled entries left out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    jaccard_score,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    r2_score,
)

from mtsk.exceptions import UnknownTaskError
from mtsk.metrics import (
    AveragePrecision,
    boundary_f1,
    boundary_matches,
    class_table,
    confusion,
    iou_per_class,
    make_task_scorer,
    match_instances,
    mean_iou,
    mean_skill,
    metric_names,
    task_metric,
)
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Classification,
    DenseRegression,
    MultiLabel,
    Regression,
    SemanticSegmentation,
)

FEW = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10_000)


def pairs(seed, k=4, n=40, missing=0.3):
    """Codes of truth, NaN where unlabelled, and guesses."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, k, n).astype(float)
    truth[random.random(n) < missing] = np.nan
    truth[0] = 0
    return truth, random.integers(0, k, n)


def known(truth, guess):
    labelled = truth >= 0
    return truth[labelled].astype(int), guess[labelled]


# -- from counts --------------------------------------------------------------


@given(seeds)
@FEW
def test_confusion_counts_like_scikit_learn(seed):
    truth, guess = pairs(seed)
    np.testing.assert_array_equal(
        confusion(truth, guess, 4),
        confusion_matrix(*known(truth, guess), labels=range(4)),
    )


@pytest.mark.parametrize("missing", [np.nan, -1, -7])
def test_what_counts_as_unlabelled(missing):
    counts = confusion(np.array([[0, missing], [1, 1]]), np.array([[0, 1], [1, 0]]), 2)
    np.testing.assert_array_equal(counts, [[1, 0], [1, 1]])


@given(seeds)
@FEW
def test_iou_is_jaccard(seed):
    truth, guess = pairs(seed)
    t, g = known(truth, guess)
    counts = confusion(truth, guess, 4)
    occurs = np.union1d(t, g)
    np.testing.assert_allclose(
        iou_per_class(counts)[occurs], jaccard_score(t, g, labels=occurs, average=None)
    )
    assert mean_iou(counts) == pytest.approx(
        jaccard_score(t, g, labels=np.unique(t), average="macro")
    )


def test_iou_of_a_class_that_never_occurs_is_nan():
    counts = confusion(np.array([0, 0, 1]), np.array([0, 2, 1]), 4)
    np.testing.assert_array_equal(iou_per_class(counts), [0.5, 1, 0, np.nan])
    assert mean_iou(counts) == 0.75, "class 2 is guessed but nowhere true"


def test_a_class_never_seen_in_training_counts_as_missed():
    counts = confusion(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 1]), 2)
    assert counts.shape == (3, 3)
    np.testing.assert_allclose(iou_per_class(counts), [1, 1 / 3, 0])
    assert mean_iou(counts) == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_nothing_labelled():
    counts = confusion(np.full(4, np.nan), np.zeros(4, int), 3)
    assert counts.shape == (3, 3)
    assert counts.sum() == 0
    assert np.isnan(mean_iou(counts))
    assert np.isnan(iou_per_class(counts)).all()


@given(seeds)
@FEW
def test_class_table(seed):
    truth, guess = pairs(seed)
    t, g = known(truth, guess)
    table = class_table(confusion(truth, guess, 4), ["a", "b", "c", "d"])
    assert table["class"] == ["a", "b", "c", "d"]
    assert table["count"] == np.bincount(t, minlength=4).tolist()
    for c in np.unique(t):
        assert table["recall"][c] == pytest.approx((g[t == c] == c).mean())
    for c in np.unique(g):
        assert table["precision"][c] == pytest.approx(
            precision_score(t == c, g == c, zero_division=0)
        )


def test_class_table_of_unseen_classes():
    table = class_table(confusion(np.array([0, 2]), np.array([0, 1]), 2), ["a", "b"])
    assert table["class"] == ["a", "b", "unseen"]
    assert table["count"] == [1, 0, 1]
    assert np.isnan(table["recall"][1])
    assert np.isnan(table["precision"][2])


# -- boundaries ---------------------------------------------------------------


def halves(column, width=20):
    """A map of two regions that meet at a column."""
    return np.repeat((np.arange(width) >= column)[None].astype(int), width, axis=0)


def test_boundary_f1_of_the_truth_is_one():
    assert boundary_f1(halves(10), halves(10), 0) == 1


def test_boundary_f1_by_hand():
    """A thick boundary of two columns, moved by one: one of two columns is met."""
    assert boundary_f1(halves(10), halves(11), tolerance=0) == pytest.approx(0.5)
    assert boundary_f1(halves(10), halves(12), tolerance=0) == 0
    one_pixel = 1.0 / np.hypot(20, 20)
    assert boundary_f1(halves(10), halves(11), tolerance=1.01 * one_pixel) == 1
    assert boundary_f1(
        halves(10), halves(12), tolerance=1.01 * one_pixel
    ) == pytest.approx(0.5)


def test_boundary_f1_balances_precision_and_recall():
    """The guess has a second boundary, far away: precision a half, recall one."""
    guess = halves(5) + (np.arange(20) >= 15)[None]
    assert boundary_f1(halves(5), guess, 0) == pytest.approx(2 * 0.5 / 1.5)
    assert boundary_f1(guess, halves(5), 0) == pytest.approx(2 * 0.5 / 1.5)


def test_boundary_f1_without_boundaries():
    flat = np.zeros((20, 20), int)
    assert np.isnan(boundary_f1(flat, flat))
    assert boundary_f1(flat, halves(10)) == 0
    assert boundary_f1(halves(10), flat) == 0
    assert np.isnan(boundary_f1(np.full((20, 20), -1), halves(10)))


def test_boundary_f1_leaves_out_void_and_its_rim():
    truth = halves(10)
    truth[:, 15:] = -1
    guess = halves(10)
    guess[:, 17:] = 5  # a boundary inside the void
    assert boundary_f1(truth, guess, 0) == 1
    guess = halves(10)
    guess[:, 15:] = 5  # a boundary at its rim
    assert boundary_f1(truth, guess, 0) == 1


@given(seeds, st.floats(0, 5))
@FEW
def test_boundary_matches_against_every_distance(seed, tolerance):
    truth, guess = np.random.default_rng(seed).random((2, 7, 9)) > 0.85
    a, b = np.argwhere(truth), np.argwhere(guess)
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    near_truth = int((apart <= tolerance).any(axis=0).sum())
    near_guess = int((apart <= tolerance).any(axis=1).sum())
    assert boundary_matches(truth, guess, tolerance) == (
        near_truth,
        len(b),
        near_guess,
        len(a),
    )


def test_boundary_f1_of_a_task_sums_matches_over_images():
    task = SemanticSegmentation().fit([halves(10)])
    metric = task_metric(task, "boundary_f1")
    for guess in (10, 2):
        columns = task.encode(halves(10), (20, 20))
        metric.update(columns, np.eye(2)[halves(guess)])
    assert metric.compute() == pytest.approx(0.5)


def test_boundary_f1_of_masks_and_edges():
    mask = halves(10)
    task = BinaryMask().fit([mask])
    metric = task_metric(task, "boundary_f1")
    metric.update(task.encode(mask, mask.shape), mask[..., None] * 20.0 - 10)
    assert metric.compute() == 1
    edges = Boundary(tolerance=0.0).fit([mask])
    columns = edges.encode(mask, mask.shape)
    metric = task_metric(edges, "boundary_f1")
    metric.update(columns, columns * 20 - 10)
    assert metric.compute() == 1
    metric.update(columns, -columns - 1)
    assert metric.compute() == pytest.approx(2 / 3), "two images, one found"


def test_unlabelled_pixels_of_an_edge_map_do_not_count():
    regions = np.array([[1] * 6 + [2] * 4 + [-1] * 10] * 10)
    task = Boundary(tolerance=0.0).fit([regions])
    columns = task.encode(regions, regions.shape)
    metric = task_metric(task, "boundary_f1")
    metric.update(columns, np.where(np.isnan(columns), 10, columns * 20 - 10))
    assert metric.compute() == 1


# -- by task ------------------------------------------------------------------


def total(task, name, columns, scores, n_parts=3):
    """Return a metric fed in pieces."""
    metric = task_metric(task, name)
    for c, s in zip(
        np.array_split(columns, n_parts), np.array_split(scores, n_parts), strict=True
    ):
        metric.update(c, s)
    return metric.compute()


@given(seeds)
@FEW
def test_metrics_of_classes(seed):
    truth, guess = pairs(seed, n=48)
    t, g = known(truth, guess)
    task = SemanticSegmentation().fit([np.arange(4)[None]])
    columns, scores = truth.reshape(6, 8, 1), np.eye(4)[guess].reshape(6, 8, 4)
    got = {
        n: total(task, n, columns, scores)
        for n in ("miou", "accuracy", "class_accuracy")
    }
    assert got["miou"] == pytest.approx(
        jaccard_score(t, g, labels=np.unique(t), average="macro")
    )
    assert got["accuracy"] == pytest.approx(accuracy_score(t, g))
    recalls = [(g[t == c] == c).mean() for c in np.unique(t)]
    assert got["class_accuracy"] == pytest.approx(np.mean(recalls))


def test_balanced_accuracy_of_class_labels():
    task = Classification().fit([0, 1, 2])
    truth, guess = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 0])
    metric = task_metric(task)
    for t, g in zip(truth, guess, strict=True):
        metric.update(np.array([t], np.float32), np.eye(3)[g])
    metric.update(np.array([np.nan], np.float32), np.eye(3)[0])
    assert metric.compute() == pytest.approx(balanced_accuracy_score(truth, guess))


def test_an_unseen_class_lowers_the_score():
    task = SemanticSegmentation().fit([np.array([[0, 1]])])
    columns = task.encode(np.array([[0, 1, 9, 9]]), (1, 4), unseen=True)
    metric = task_metric(task, "accuracy")
    metric.update(columns[:, :2], np.eye(2)[None, [0, 1]])
    assert metric.compute() == 1
    metric.update(columns[:, 2:], np.eye(2)[None, [0, 1]])
    assert metric.compute() == 0.5
    metric.update(columns[:, :2], np.eye(2)[None, [0, 1]])
    assert metric.compute() == pytest.approx(4 / 6)


@given(seeds, st.sampled_from([0.2, 0.5, 0.9]))
@FEW
def test_metrics_of_a_mask(seed, threshold):
    random = np.random.default_rng(seed)
    truth, _ = pairs(seed, k=2, n=48)
    truth[1] = 1
    logits = random.normal(size=48)
    labelled = ~np.isnan(truth)
    t, s = truth[labelled], logits[labelled]
    task = BinaryMask(threshold=threshold).fit([np.zeros((2, 2), bool)])
    columns, scores = truth.reshape(6, 8, 1), logits.reshape(6, 8, 1)
    yes = 1 / (1 + np.exp(-s)) > threshold
    assert total(task, "iou", columns, scores) == pytest.approx(
        jaccard_score(t, yes, zero_division=0)
    )
    assert total(task, "accuracy", columns, scores) == pytest.approx(
        accuracy_score(t, yes)
    )
    assert total(task, "average_precision", columns, scores) == pytest.approx(
        average_precision_score(t, s), abs=1e-6
    )


@given(seeds)
@FEW
def test_average_precision_of_labels_is_the_mean_over_labels(seed):
    random = np.random.default_rng(seed)
    truth = (random.random((30, 3)) > 0.6) * 1.0
    truth[random.random(truth.shape) < 0.3] = np.nan
    truth[0] = 1
    truth[:, 2] = np.where(np.isnan(truth[:, 2]), np.nan, 0)  # nothing to find here
    scores = random.normal(size=truth.shape)
    expected = [
        average_precision_score(truth[k, j], scores[k, j])
        for j in (0, 1)
        for k in [~np.isnan(truth[:, j])]
    ]
    task = MultiLabel().fit([[True, False, True]])
    metric = task_metric(task)
    for t, s in zip(truth, scores, strict=True):
        metric.update(t, s)
    assert metric.compute() == pytest.approx(np.mean(expected), abs=1e-6)


@given(seeds, st.integers(1, 3))
@FEW
def test_metrics_of_numbers(seed, n_values):
    random = np.random.default_rng(seed)
    truth = random.normal(size=(6, 8, n_values)) * 3 + 10
    truth[random.random(truth.shape) < 0.3] = np.nan
    truth[0, :2] = [[1.0] * n_values, [2.0] * n_values]
    scores = np.where(np.isnan(truth), 99, truth) + random.normal(size=truth.shape)
    task = DenseRegression().fit([truth])
    columns = [truth[..., j] for j in range(n_values)]
    each = [
        (c[~np.isnan(c)], scores[..., j][~np.isnan(c)]) for j, c in enumerate(columns)
    ]
    for name, oracle in [
        ("r2", r2_score),
        ("mae", mean_absolute_error),
        ("rmse", lambda t, s: np.sqrt(mean_squared_error(t, s))),
    ]:
        assert total(task, name, truth, scores) == pytest.approx(
            np.mean([oracle(t, s) for t, s in each]), rel=1e-6
        )


@pytest.mark.parametrize(("value", "n"), [(0.0, 7), (0.1, 51), (0.3, 19), (0.3, 42)])
@pytest.mark.parametrize("error", [0.0, 0.25])
def test_r2_of_constant_truth_is_scikit_learns(value, n, error):
    """Rounding must not make a spread where there is none."""
    task = Regression().fit([value])
    metric = task_metric(task)
    truth = np.full(n, value, np.float32)
    for t in truth:
        metric.update(np.array([t]), np.array([t + np.float32(error)]))
    assert metric.compute() == pytest.approx(
        r2_score(truth.astype(float), truth.astype(float) + error)
    )


def test_r2_far_from_zero():
    random = np.random.default_rng(0)
    truth = 1e5 + random.normal(size=200)
    scores = truth + random.normal(size=200) * 0.5
    metric = task_metric(Regression().fit([1.0]))
    for t, s in zip(truth, scores, strict=True):
        metric.update(np.array([t]), np.array([s]))
    assert metric.compute() == pytest.approx(r2_score(truth, scores), abs=1e-3)


TASKS = [
    SemanticSegmentation().fit([np.array([[0, 1]])]),
    BinaryMask().fit([np.zeros((2, 2), bool)]),
    Boundary().fit([np.zeros((2, 2), bool)]),
    DenseRegression().fit([np.zeros((2, 2))]),
    Classification().fit([0, 1]),
    MultiLabel().fit([[True, False]]),
    Regression().fit([0.0]),
]
EVERY = [(task, name) for task in TASKS for name in task.metrics]


@pytest.mark.parametrize(
    ("task", "name"), EVERY, ids=[f"{type(t).__name__}-{n}" for t, n in EVERY]
)
@pytest.mark.parametrize("n_images", [0, 2])
def test_nothing_labelled_scores_nan(task, name, n_images):
    metric = task_metric(task, name)
    shape = (5, 6) if task.granularity == "pixel" else ()
    for _ in range(n_images):
        metric.update(
            np.full((*shape, task.group_.n_columns), np.nan, np.float32),
            np.zeros((*shape, task.group_.size)),
        )
    assert np.isnan(metric.compute())


@pytest.mark.parametrize("task", TASKS, ids=lambda t: type(t).__name__)
def test_default_is_the_first_metric_and_all_exist(task):
    assert type(task_metric(task)) is type(task_metric(task, task.metrics[0]))
    assert set(task.metrics) <= set(metric_names())


def test_unknown_metric():
    with pytest.raises(
        ValueError,
        match=r"Regression has the metrics \['r2', 'rmse', 'mae'\], not 'miou'",
    ):
        task_metric(Regression().fit([0.0]), "miou")


# -- skill --------------------------------------------------------------------


def metric_of(task, name, columns, scores):
    metric = task_metric(task, name)
    metric.update(columns, scores)
    return metric


@given(seeds)
@FEW
def test_null_scores_are_those_of_the_best_constant(seed):
    random = np.random.default_rng(seed)
    columns = random.integers(0, 3, (6, 8, 1)) * 1.0
    columns[random.random(columns.shape) < 0.2] = np.nan
    task = SemanticSegmentation(classes=[0, 1, 2]).fit([np.zeros((2, 2), int)])
    constant = np.broadcast_to(np.eye(3)[:, None, None], (3, 6, 8, 3))
    for name in ("miou", "accuracy", "class_accuracy"):
        best = max(total(task, name, columns, scores) for scores in constant)
        found = metric_of(task, name, columns, random.normal(size=(6, 8, 3)))
        assert found.null_score() == pytest.approx(best)
    mask = BinaryMask().fit([np.zeros((2, 2), bool)])
    truth = np.where(columns > 1, 1.0, columns)
    for name in ("iou", "average_precision", "accuracy"):
        best = max(total(mask, name, truth, np.full((6, 8, 1), s)) for s in (-1, 1))
        found = metric_of(mask, name, truth, random.normal(size=(6, 8, 1)))
        assert found.null_score() == pytest.approx(best)


def test_mean_skill_by_hand():
    mask = BinaryMask().fit([np.zeros((2, 2), bool)])
    truth = np.array([1.0, 0, 0, 0]).reshape(2, 2, 1)
    perfect = metric_of(mask, "iou", truth, truth - 0.5)
    half = metric_of(mask, "iou", truth, np.array([1.0, 1, -1, -1]).reshape(2, 2, 1))
    every = metric_of(mask, "iou", truth, np.ones((2, 2, 1)))  # 0.25, as a constant
    assert mean_skill([perfect]) == 1
    assert mean_skill([half]) == pytest.approx((0.5 - 0.25) / 0.75)
    assert mean_skill([every]) == pytest.approx(0)
    depth = DenseRegression().fit([np.array([[0.0, 1], [2, 3]])])
    columns = np.array([0.0, 1, 2, 3]).reshape(2, 2, 1)
    terrible = metric_of(depth, "r2", columns, columns + 100)
    assert terrible.compute() < -1000
    assert mean_skill([perfect, terrible]) == 0  # it counts −1
    empty = task_metric(mask, "iou")
    constant = metric_of(mask, "accuracy", np.ones((2, 2, 1)), np.ones((2, 2, 1)))
    assert mean_skill([perfect, empty, constant]) == 1  # what says nothing is left out
    assert np.isnan(mean_skill([empty, constant]))


# -- scorers ------------------------------------------------------------------


class Fitted:
    """What a scorer needs of an estimator."""

    tasks_ = {"depth": DenseRegression(), "kind": None}

    def score(self, X, Y, max_pixels_per_image=None):
        self.max_pixels_per_image = max_pixels_per_image
        return 0.375

    def score_tasks(self, X, Y, metrics=None, max_pixels_per_image=None):
        (self.asked,) = metrics.items()
        return {next(iter(metrics)): 0.25}


@pytest.mark.parametrize(
    ("metric", "sign"), [("rmse", -1), ("mae", -1), ("r2", 1), (None, 1)]
)
def test_scorer_negates_errors(metric, sign):
    estimator = Fitted()
    assert make_task_scorer("depth", metric)(estimator, [], []) == sign * 0.25
    assert estimator.asked == ("depth", metric or "r2")


def test_scorer_of_an_unknown_task():
    with pytest.raises(
        UnknownTaskError, match=r"no task 'dept'; the tasks are \['depth'"
    ):
        make_task_scorer("dept")(Fitted(), [], [])
    scorer = make_task_scorer("a", "r2", max_pixels_per_image=9)
    assert repr(scorer) == "make_task_scorer('a', 'r2', max_pixels_per_image=9)"


def test_scorer_without_a_task_is_the_score():
    estimator = Fitted()
    assert make_task_scorer(max_pixels_per_image=7)(estimator, [], []) == 0.375
    assert estimator.max_pixels_per_image == 7
    with pytest.raises(ValueError, match="metric='r2' needs a `task`"):
        make_task_scorer(None, "r2")


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ((3,), {}, "`task` of make_task_scorer must be a name, or None, got 3"),
        (("a", "mean_iou"), {}, "`metric` of make_task_scorer must be one of .*'miou'"),
        (
            ("a",),
            {"max_pixels_per_image": 0},
            "`max_pixels_per_image` of make_task_scorer must be an int > 0",
        ),
        (("a",), {"max_pixels_per_image": True}, "`max_pixels_per_image`"),
    ],
)
def test_scorers_are_checked_before_a_search_is_run(given, more, message):
    with pytest.raises(ValueError, match=message):
        make_task_scorer(*given, **more)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusion([0.9, 1.9], [0, 1], 2), "truth must hold whole numbers"),
        (lambda: confusion([0, 1], [0], 2), "truth has 2 codes, and guess has 1"),
        (lambda: confusion([0, 1], [0.0, 1.0], 2), "guesses must be integers"),
        (lambda: confusion([0], [0], 0), "n_classes must be >= 1"),
        (lambda: mean_iou(np.zeros(3)), "must be of shape"),
        (lambda: iou_per_class(np.zeros((3, 2))), "must be of shape"),
        (lambda: boundary_f1(np.eye(4), np.eye(4), -1), "tolerance must be >= 0"),
        (lambda: boundary_f1(np.eye(4), np.eye(4), np.nan), "tolerance must be >= 0"),
        (lambda: boundary_f1(np.eye(4), np.eye(5)), "must be of one shape"),
        (lambda: AveragePrecision(0, [0.5]), "n_classes >= 1"),
        (lambda: AveragePrecision(1, []), r"overlaps in \[0, 1\]"),
        (lambda: AveragePrecision(1, [2.0]), r"overlaps in \[0, 1\]"),
        (lambda: match_instances([[np.nan]]), "without NaN"),
    ],
)
def test_what_metrics_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()
