"""Law 11: a metric equals its independent implementation, unseen classes among them."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.metrics import task_metric
from mtsk.tasks import Classification, Detection, SemanticSegmentation
from mtsk.testing import toy_images

KNOWN = [2, 5, 9]


def computed(task, name, pairs):
    """Return the metric of (truth, predicted labels), as scoring would compute it."""
    metric = task_metric(task, name)
    for truth, guess in pairs:
        shape = np.shape(truth)
        columns = task.encode(truth, shape, unseen=True)
        metric.note_unseen(task.unseen_labels(truth))
        metric.update(columns, np.eye(3)[np.searchsorted(KNOWN, guess)])
    return metric.compute()


@settings(deadline=None, max_examples=200)
@given(
    truth=st.lists(st.sampled_from([*KNOWN, 0, 3, 7, 11]), min_size=6, max_size=24),
    seed=st.integers(0, 99),
)
def test_metrics_of_classes_are_those_of_scikit_learn(truth, seed):
    truth = np.array(truth[: len(truth) // 6 * 6]).reshape(-1, 2, 3)
    guess = np.random.default_rng(seed).choice(KNOWN, truth.shape)
    dense = SemanticSegmentation(classes=KNOWN).fit([np.array([KNOWN])])
    flat = truth.ravel(), guess.ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # predicted, and never true
        recall = balanced_accuracy_score(*flat)
    pairs = list(zip(truth, guess, strict=True))
    assert computed(dense, "accuracy", pairs) == pytest.approx(accuracy_score(*flat))
    assert computed(dense, "class_accuracy", pairs) == pytest.approx(recall)
    iou = jaccard_score(*flat, average="macro", labels=np.unique(truth))
    assert computed(dense, "miou", pairs) == pytest.approx(iou)
    scalar = Classification(classes=KNOWN).fit(KNOWN)
    pairs = [(int(t), int(g)) for t, g in zip(*flat, strict=True)]
    assert computed(scalar, "balanced_accuracy", pairs) == pytest.approx(recall)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_scores_count_every_unseen_class(n_jobs):
    X, Y = toy_images(8)
    model = MultiTaskSegmenter(
        features=DeepFeatures(scales=(1,)), random_state=0, n_jobs=n_jobs
    ).fit(X[:4], Targets(a=Y[:4], kind=list("xyxy")))
    truth = Y.copy()
    truth[1, :9], truth[6, :5, :7], truth[7, -4:] = 1, 4, 8
    kinds = ["x", "y", "new", "other", "x", "y", "new", "third"]
    with pytest.warns(UserWarning, match="never predicted count as wrong"):
        scores = model.score_tasks(X, Targets(a=truth, kind=kinds))
    found = model.predict(X)
    flat = truth.ravel(), np.stack(found["a"]).ravel()
    labels = np.unique(truth)
    assert {1, 4, 8} <= set(labels)
    iou = jaccard_score(*flat, average="macro", labels=labels)
    assert scores["a"] == pytest.approx(iou, abs=1e-6)
    recall = [np.mean(found["kind"][np.array(kinds) == k] == k) for k in set(kinds)]
    assert scores["kind"] == pytest.approx(np.mean(recall))


def test_boxes_of_every_unseen_class_are_missed():
    task = Detection().fit([{"boxes": [[2, 2, 9, 9]], "labels": ["cat"]}])
    truth = {
        "boxes": [[2, 2, 9, 9], [12, 2, 20, 9], [2, 12, 9, 20]],
        "labels": ["cat", "cow", "hen"],
    }
    metric = task_metric(task, "box_ap50")
    metric.note_unseen(task.unseen_labels(truth))
    columns = task.encode({"boxes": [[2, 2, 9, 9]], "labels": ["cat"]}, (24, 24))
    logits = np.where(columns[..., :1] == 1, 20.0, -20.0)
    metric.update(truth, np.concatenate([logits, np.nan_to_num(columns[..., 1:])], -1))
    assert metric.compute() == pytest.approx(1 / 3)
