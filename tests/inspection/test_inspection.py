"""task_table: the rows that a fit learns from."""

import numpy as np
import pytest
from tests_support import Counting

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.exceptions import TargetError
from mtsk.inspection import TaskRelatedness, task_table
from mtsk.tasks import Boundary
from mtsk.testing import toy_images


def model(**keywords):
    features = DeepFeatures(Counting(), scales=[1])
    return MultiTaskSegmenter(
        features=features, max_pixels_per_image=30, random_state=0, **keywords
    )


def many(labels):
    return Targets(
        semantic=[*labels[:4], None, None],
        edges=list(labels),
        count=[float((m == 7).sum()) for m in labels],
        odd=[i % 2 == 1 for i in range(len(labels))],
    )


def test_rows_are_those_of_the_fit():
    X, labels = toy_images()
    own = model(tasks={"edges": Boundary()})
    table = task_table(own, X, many(labels))
    assert table.task_names == ["semantic", "edges"]
    assert [c.kind for c in table.columns] == ["nominal", "binary"]
    assert len(table.X) == own.fit(X, many(labels)).n_rows_
    assert np.isnan(table.y[table.groups > 3, 0]).all()
    assert not np.isnan(table.y[table.groups > 3, 1]).any()
    assert set(table.groups) == set(range(6))


def test_image_tasks_have_one_row_an_image():
    X, labels = toy_images()
    table = task_table(model(), X, many(labels), "image")
    assert table.task_names == ["count", "odd"]
    assert table.groups.tolist() == list(range(6))
    np.testing.assert_allclose(table.y[:, 0], many(labels)["count"])


def test_the_model_is_not_touched():
    X, labels = toy_images()
    own = model()
    task_table(own, X, many(labels))
    assert not hasattr(own, "tasks_")


def test_relatedness_of_pixel_tasks():
    X, labels = toy_images()
    Y = {"disc": list(labels == 7), "rest": list(labels != 7)}
    table = task_table(model(), X, Y)
    found = TaskRelatedness(columns=table.columns, n_bootstrap=5, random_state=0)
    found.fit(table.X, table.y, table.groups)
    assert found.relatedness_[0, 1] == pytest.approx(-1, abs=1e-4)


def test_bad_input():
    X, labels = toy_images()
    with pytest.raises(ValueError, match="`granularity` of task_table must be 'pixel'"):
        task_table(model(), X, many(labels), "region")
    with pytest.raises(TargetError, match=r"no image task, its tasks are \['target'\]"):
        task_table(model(), X, labels, "image")
    with pytest.raises(ValueError, match="`max_pixels_per_image`"):
        task_table(model().set_params(max_pixels_per_image=0), X, labels)
