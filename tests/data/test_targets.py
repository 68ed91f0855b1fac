"""Targets: indexed as scikit-learn indexes arrays, and what fit accepts as Y."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, train_test_split
from sklearn.utils import _safe_indexing

from mtsk.data.targets import DEFAULT_TASK, Targets, as_targets
from mtsk.exceptions import MtskError, TargetError, UnknownTaskError

MASKS = [np.full((3, 4), i) for i in range(5)]
NAMES = ["a", None, "c", "d", None]


@pytest.fixture
def Y():
    return Targets(mask=MASKS, name=NAMES)


def names_of(targets):
    return targets["name"]


@pytest.mark.parametrize(
    ("key", "places"),
    [
        (2, [2]),
        (-1, [4]),
        (np.int64(3), [3]),
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, -2), [4, 2, 0]),
        (slice(4, 4), []),
        (np.array([True, False, False, True, True]), [0, 3, 4]),
        ([True, False, False, True, True], [0, 3, 4]),
        (np.array([4, 0, 0]), [4, 0, 0]),
        ([3, 1], [3, 1]),
        (np.array([], int), []),
        ((np.array([2, 1]), Ellipsis), [2, 1]),
        ((2, Ellipsis), [2]),
    ],
)
def test_row_indexing(Y, key, places):
    rows = Y[key]
    assert isinstance(rows, Targets)
    assert rows.task_names == ["mask", "name"]
    assert rows.shape == (len(places),)
    assert names_of(rows) == [NAMES[i] for i in places]
    assert all(a is MASKS[i] for a, i in zip(rows["mask"], places, strict=True))


@given(
    st.lists(st.none() | st.integers(-5, 5), min_size=1, max_size=8),
    st.data(),
)
@settings(max_examples=25, deadline=None)
def test_indexing_agrees_with_numpy(entries, data):
    n = len(entries)
    key = data.draw(
        st.slices(n)
        | st.lists(st.integers(-n, n - 1), max_size=6).map(lambda v: np.array(v, int))
        | st.lists(st.booleans(), min_size=n, max_size=n).map(np.array)
    )
    column = np.empty(n, object)
    column[:] = entries
    assert Targets(t=entries)[key]["t"] == column[key].tolist()


def test_column_indexing_gives_the_entries(Y):
    assert Y["name"] == NAMES
    Y["name"].append("more")
    assert len(Y["name"]) == 5, "a column handed out is a copy"


def test_unknown_task(Y):
    with pytest.raises(
        UnknownTaskError, match=r"no task 'masks'; the tasks are \['mask"
    ):
        Y["masks"]
    with pytest.raises(KeyError, match="no task"):
        Y["masks"]
    assert issubclass(UnknownTaskError, MtskError)


@pytest.mark.parametrize("key", [(0, 1), (0, 1, 2), (slice(None), slice(None))])
def test_two_axes_are_refused(Y, key):
    with pytest.raises(IndexError, match="Targets has one axis, cannot be indexed by"):
        Y[key]


@pytest.mark.parametrize("key", [5, -6, [0, 5]])
def test_out_of_range(Y, key):
    with pytest.raises(IndexError, match="out of bounds"):
        Y[key]


def test_boolean_of_another_length(Y):
    with pytest.raises(IndexError, match="boolean index did not match"):
        Y[[True, False]]


def test_iteration_gives_one_row_at_a_time(Y):
    assert [names_of(row) for row in Y] == [[name] for name in NAMES]


def test_shape_len_repr_and_labelled(Y):
    assert Y.shape == (5,)
    assert len(Y) == 5
    assert repr(Y) == "Targets(5 images; mask: 5 labelled, name: 3 labelled)"
    assert Y.labelled("name").tolist() == [0, 2, 3]
    assert Y.subset(["name"]).task_names == ["name"]


def test_pickle_and_equality(Y):
    assert pickle.loads(pickle.dumps(Y)) == Y
    assert Y[[0, 1]] != Y[[1, 0]]
    assert Y.subset(["mask"]) != Y
    assert Y != "Targets"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([np.array([1.0, np.nan])], [np.array([1.0, np.nan])], True),
        ([None], [0], False),
        ([{"x"}], [{"x"}], True),
        ([{"x"}], [{"y"}], False),
        ([np.zeros((2, 3))], [np.zeros((3, 2))], False),
        ([1, 2], [1], False),
    ],
)
def test_equality_of_entries(a, b, same):
    assert (Targets(t=a) == Targets(t=b)) is same


# -- scikit-learn's own indexing ----------------------------------------------


def test_safe_indexing(Y):
    for key in (np.array([1, 3]), [1, 3], slice(1, 3), np.array([0, 1, 0, 1, 0], bool)):
        assert _safe_indexing(Y, key) == Y[key]


def test_train_test_split_keeps_rows_together(Y):
    X = np.arange(5)
    X_train, X_test, Y_train, Y_test = train_test_split(
        X, Y, test_size=2, random_state=1
    )
    assert isinstance(Y_train, Targets)
    assert names_of(Y_train) == [NAMES[i] for i in X_train]
    assert names_of(Y_test) == [NAMES[i] for i in X_test]


def test_kfold_covers_every_row_once(Y):
    seen = []
    for train, test in KFold(3).split(MASKS, Y):
        part = _safe_indexing(Y, test)
        assert len(_safe_indexing(Y, train)) + len(part) == 5
        seen += [int(m[0, 0]) for m in part["mask"]]
    assert sorted(seen) == [0, 1, 2, 3, 4]


# -- what Targets is made of --------------------------------------------------


def test_columns_may_be_arrays_series_mappings_and_keywords():
    Y = Targets(
        {"a": np.zeros((3, 2, 2)), "b": pd.Series([1, 2, 3], index=[9, 8, 7])},
        c=("x", "y", None),
    )
    assert Y.task_names == ["a", "b", "c"]
    assert Y["a"][0].shape == (2, 2)
    assert Y["b"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Targets(), "Targets needs at least one task"),
        (lambda: Targets({}), "Targets needs at least one task"),
        (lambda: Targets({3: [1]}), "task names must be str, not empty, got 3"),
        (lambda: Targets({"": [1]}), "task names must be str, not empty, got ''"),
        (lambda: Targets(a=[1], b=[1, 2]), r"differ in number.*'a': 1, 'b': 2"),
        (lambda: Targets(a="xyz"), "task 'a' must be a sequence.*got str"),
        (lambda: Targets(a={"x": 1}), "task 'a' must be a sequence.*got dict"),
        (lambda: Targets(a=3), "task 'a' must be a sequence.*got int"),
        (lambda: Targets(a=None), "task 'a' must be a sequence.*got NoneType"),
        (lambda: as_targets(None, 3), "Y is None"),
        (lambda: as_targets([1, 2], 3), "X has 3 images but Y has targets for 2"),
        (lambda: as_targets({"a": [1]}, 3), "X has 3 images but Y has targets for 1"),
        (lambda: as_targets(7, 3), "task 'target' must be a sequence.*got int"),
        (lambda: as_targets({}, 0), "Targets needs at least one task"),
    ],
)
def test_errors(make, message):
    with pytest.raises(TargetError, match=message):
        make()


def test_as_targets_keeps_targets_and_names():
    Y = Targets(a=[1, 2])
    same, bare = as_targets(Y, 2)
    assert same is Y
    assert not bare
    mapped, bare = as_targets({"a": [1, None]}, 2)
    assert mapped == Targets(a=[1, None])
    assert not bare


@pytest.mark.parametrize("Y", [MASKS, np.stack(MASKS), pd.Series(MASKS), tuple(MASKS)])
def test_as_targets_of_one_bare_task(Y):
    targets, bare = as_targets(Y, 5)
    assert bare
    assert targets == Targets({DEFAULT_TASK: MASKS})


def test_as_targets_of_a_data_frame():
    frame = pd.DataFrame({"count": [1.5, np.nan, 2.0], "kind": ["x", "y", "z"]})
    targets, bare = as_targets(frame.set_index(pd.Index([4, 5, 6])), 3)
    assert not bare
    assert targets.task_names == ["count", "kind"]
    assert targets["kind"] == ["x", "y", "z"]
    assert targets["count"] == [1.5, None, 2.0]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["x", None, "z"]),
        pd.Series(["x", np.nan, "z"], dtype=object),
        pd.Series(["x", pd.NA, "z"], dtype="string"),
        pd.Series(["x", None, "z"], dtype="category"),
    ],
    ids=["default", "object", "string", "category"],
)
def test_missing_labels_of_a_data_frame_are_none(column):
    targets, _ = as_targets(pd.DataFrame({"kind": column}), 3)
    assert targets["kind"] == ["x", None, "z"]
    assert targets.labelled("kind").tolist() == [0, 2]


def test_missing_integers_of_a_nullable_column_are_none():
    frame = pd.DataFrame({"k": pd.Series([3, None, 5], dtype="Int64")})
    assert as_targets(frame, 3)[0]["k"] == [3, None, 5]


def test_masks_in_a_data_frame():
    frame = pd.DataFrame({"mask": pd.Series([MASKS[0], None, MASKS[2]])})
    targets, _ = as_targets(frame, 3)
    assert targets.labelled("mask").tolist() == [0, 2]
    assert targets["mask"][2] is MASKS[2]


@pytest.mark.parametrize("form", [np.ma.stack, list])
def test_what_is_masked_is_unlabelled(form):
    ids = np.ma.masked_equal(np.array([[0, 1], [2, 7]], np.uint8), 7)
    depth = np.ma.masked_greater(np.array([[0.5, 9.0]]), 1)
    Y = Targets(ids=form([ids, ids]), depth=form([depth, depth]))
    assert np.array_equal(Y["ids"][1], [[0, 1], [2, -1]])
    assert np.array_equal(Y["depth"][0], [[0.5, np.nan]], equal_nan=True)
    grades = np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False])
    assert Targets(grade=grades)["grade"] == [1.0, None, 3.0]


def test_a_masked_array_of_bool_is_refused():
    ink = np.ma.masked_array([[True, False]], [[True, False]])
    with pytest.raises(TargetError, match="'ink': a masked array of dtype bool"):
        Targets(ink=[ink])
    assert Targets(ink=[np.ma.masked_array(ink.data)])["ink"][0].tolist() == [[1, 0]]


def test_a_frame_is_a_table_of_tasks():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}, index=[7, 3])
    assert Targets(frame).task_names == ["a", "b"]
    assert Targets(frame, c=[1, 2])["c"] == [1, 2]
    with pytest.raises(TargetError, match="several columns are called 'a'"):
        Targets(pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]))
