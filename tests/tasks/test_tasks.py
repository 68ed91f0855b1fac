"""Tasks: what a person gives comes back as given, whatever it was."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from mtsk.data.targets import Targets
from mtsk.exceptions import TargetError
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Classification,
    ColumnGroup,
    DenseRegression,
    MultiLabel,
    Regression,
    SemanticSegmentation,
    infer_task,
)
from mtsk.tasks.columns import column_slices, score_slices

FEW = settings(max_examples=25, deadline=None)
SHAPE = (4, 5)
NAN = np.nan

label_sets = st.one_of(
    st.lists(st.integers(0, 300), min_size=1, max_size=6, unique=True),
    st.lists(
        st.integers(-(10**9), 10**9).filter(lambda v: v != -1),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    st.lists(
        st.text("abcxyz é", min_size=1, max_size=6), min_size=1, max_size=6, unique=True
    ),
    st.just([False, True]),
    st.just([True]),
)


def scores_for(codes, size):
    """Scores whose largest is at each code."""
    return np.eye(size)[np.asarray(codes, int)]


def round_trip(task, target, shape=SHAPE):
    """Encode, make certain scores of the columns, decode."""
    columns = task.encode(target, shape)
    assert columns.dtype == np.float32
    assert columns.shape[-1] == task.group_.n_columns
    if task.group_.kind == "nominal":
        return task.decode(scores_for(columns[..., 0], task.group_.size))
    return task.decode(columns if task.group_.kind == "real" else columns * 20 - 10)


# -- round trips --------------------------------------------------------------


@given(label_sets, st.integers(0, 1000))
@FEW
def test_label_maps_come_back_as_given(labels, seed):
    random = np.random.default_rng(seed)
    maps = [np.array(labels)[random.integers(0, len(labels), SHAPE)] for _ in range(3)]
    task = SemanticSegmentation().fit(maps)
    assert task.group_ == ColumnGroup("nominal", len(np.unique(np.stack(maps))))
    for target in maps:
        back = round_trip(task, target)
        np.testing.assert_array_equal(back, target)
        assert back.dtype.kind == target.dtype.kind


@given(label_sets, st.data())
@FEW
def test_class_labels_come_back_as_given(labels, data):
    entries = data.draw(st.lists(st.sampled_from(labels), min_size=1, max_size=8))
    task = Classification().fit(entries)
    assert sorted(set(entries)) == task.classes_.tolist()
    for entry in entries:
        assert round_trip(task, entry) == entry


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int32", "int64", "uint64"]
)
def test_integer_dtypes_of_label_maps(dtype):
    target = np.array([[3, 7, 100], [7, 3, 0]], dtype)
    task = SemanticSegmentation().fit([target])
    np.testing.assert_array_equal(round_trip(task, target, (2, 3)), target)


def test_string_maps_of_objects():
    target = np.array([["cow", "grass"], ["sky", "cow"]], object)
    task = SemanticSegmentation().fit([target])
    assert task.classes_.tolist() == ["cow", "grass", "sky"]
    np.testing.assert_array_equal(round_trip(task, target, (2, 2)), target)


@given(
    st.sampled_from(["bool", "uint8", "int32", "int64"]),
    st.sampled_from([1, 2, 100, 255]),
    st.integers(0, 1000),
)
@FEW
def test_binary_masks_come_back_in_their_own_values(dtype, positive, seed):
    mask = np.random.default_rng(seed).random(SHAPE) > 0.5
    target = mask if dtype == "bool" else (mask * positive).astype(dtype)
    task = BinaryMask(positive=positive).fit([target])
    back = round_trip(task, target)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, target)


def test_masks_without_a_yes_come_back_too():
    target = np.zeros(SHAPE, np.uint8)
    np.testing.assert_array_equal(
        round_trip(BinaryMask().fit([target]), target), target
    )


@given(st.integers(1, 3), st.booleans(), st.integers(0, 1000))
@FEW
def test_real_maps_come_back(n_values, flat, seed):
    shape = SHAPE if flat else (*SHAPE, n_values)
    target = np.random.default_rng(seed).normal(size=shape)
    task = DenseRegression().fit([target, target])
    back = round_trip(task, target)
    assert back.shape == shape
    np.testing.assert_allclose(back, target, rtol=1e-6)


@given(st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=6))
@FEW
def test_sets_of_labels_come_back(entries):
    if not set().union(*entries):
        with pytest.raises(TargetError, match="there is no label in any entry"):
            MultiLabel().fit(entries)
        return
    task = MultiLabel().fit(entries)
    assert task.classes_.tolist() == sorted(set().union(*entries))
    for entry in entries:
        assert round_trip(task, entry) == entry
        assert round_trip(task, frozenset(entry)) == entry


def test_sets_of_integers_come_back():
    task = MultiLabel().fit([{3, 70}, {-5}])
    assert round_trip(task, {-5, 70}) == {-5, 70}


@given(st.lists(st.booleans(), min_size=1, max_size=6))
@FEW
def test_label_vectors_come_back(entry):
    task = MultiLabel().fit([entry])
    np.testing.assert_array_equal(round_trip(task, entry), entry)
    np.testing.assert_array_equal(round_trip(task, np.array(entry, np.uint8)), entry)


@given(st.floats(-1e6, 1e6), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4))
@FEW
def test_numbers_come_back(number, vector):
    back = round_trip(Regression().fit([number, 0.0]), number)
    assert isinstance(back, float)
    assert back == pytest.approx(number, rel=1e-6, abs=1e-30)
    vectors = Regression().fit([np.array(vector)])
    assert vectors.n_values_ == len(vector)
    np.testing.assert_allclose(
        round_trip(vectors, vector), vector, rtol=1e-6, atol=1e-30
    )


def test_integers_are_numbers_to_a_regression():
    assert round_trip(Regression().fit([3, 4]), 3) == 3.0


# -- unlabelled ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("void", "target", "classes", "columns"),
    [
        ((), [[3, -1]], [3], [[0, NAN]]),
        (255, [[3, 255], [-1, 7]], [3, 7], [[0, NAN], [NAN, 1]]),
        ([255, 9], [[9, 255], [3, 7]], [3, 7], [[NAN, NAN], [0, 1]]),
        (np.array([255, 9]), [[9, 255], [3, 7]], [3, 7], [[NAN, NAN], [0, 1]]),
        ("?", [["?", "b"]], ["b"], [[NAN, 0]]),
        ((), [[-5, -1]], [-5], [[0, NAN]]),
        ((), [[False, True]], [False, True], [[0, 1]]),
    ],
)
def test_void_and_minus_one_in_label_maps(void, target, classes, columns):
    target = np.array(target)
    task = SemanticSegmentation(void=void).fit([target])
    assert task.classes_.tolist() == classes
    np.testing.assert_array_equal(task.encode(target, target.shape)[..., 0], columns)


@pytest.mark.parametrize("void", [9, [9], (9, 255), np.array([9, 255])])
def test_void_and_minus_one_of_class_labels(void):
    task = Classification(void=void).fit([3, 9, -1, 7])
    assert task.classes_.tolist() == [3, 7]
    for missing in (9, -1):
        assert np.isnan(task.encode(missing, SHAPE)).all()


def test_void_string_of_class_labels():
    task = Classification(void="unknown").fit(["cat", "unknown"])
    assert task.classes_.tolist() == ["cat"]
    assert np.isnan(task.encode("unknown", SHAPE)).all()


@pytest.mark.parametrize(
    ("task", "target", "columns"),
    [
        (BinaryMask(), [[0, 1, -1]], [[0, 1, NAN]]),
        (BinaryMask(positive=255), [[0, 255, -1]], [[0, 1, NAN]]),
        (BinaryMask(void=128), [[0, 1, 128]], [[0, 1, NAN]]),
        (BinaryMask(void=[2, 3]), [[2, 1, 3]], [[NAN, 1, NAN]]),
        (BinaryMask(), [[False, True, True]], [[0, 1, 1]]),
        (DenseRegression(), [[0.5, NAN]], [[0.5, NAN]]),
        (DenseRegression(), [[2, 3]], [[2, 3]]),
    ],
)
def test_unlabelled_pixels(task, target, columns):
    target = np.array(target)
    encoded = task.fit([target]).encode(target, target.shape)
    np.testing.assert_array_equal(encoded[..., 0], columns)


@pytest.mark.parametrize(
    ("entry", "columns"),
    [
        ([1, 0, -1], [1, 0, NAN]),
        ([1.0, NAN, 0.0], [1, NAN, 0]),
        (np.array([True, False, True]), [1, 0, 1]),
    ],
)
def test_unlabelled_labels(entry, columns):
    task = MultiLabel().fit([[True, False, True]])
    np.testing.assert_array_equal(task.encode(entry, SHAPE), columns)


def test_unlabelled_number():
    assert np.isnan(Regression().fit([1.0]).encode(NAN, SHAPE)).all()


def test_encoding_leaves_the_target_alone():
    vector = np.array([1.0, -1.0, 0.0], np.float32)
    MultiLabel().fit([vector]).encode(vector, SHAPE)
    np.testing.assert_array_equal(vector, [1, -1, 0])


# -- boundaries ---------------------------------------------------------------


def test_boundary_of_regions():
    regions = np.array([[1, 1, 1, 2, 2, 2]] * 2)
    columns = Boundary().fit([regions]).encode(regions, (2, 6))[..., 0]
    np.testing.assert_array_equal(columns, [[0, 0, 1, 1, 0, 0]] * 2)


@pytest.mark.parametrize(("void", "value"), [((), -1), (255, 255), ([7, 255], 7)])
def test_rim_of_void_is_no_boundary(void, value):
    regions = np.array([[1, 1, 1, value, value, 1, 1, 2]] * 2)
    columns = Boundary(void=void).fit([regions]).encode(regions, (2, 8))[..., 0]
    np.testing.assert_array_equal(columns, [[0, 0, NAN, NAN, NAN, NAN, 1, 1]] * 2)


def test_boundary_of_unsigned_regions():
    regions = np.array([[1, 1, 255, 2]] * 2, np.uint8)
    columns = Boundary(void=255).fit([regions]).encode(regions, (2, 4))[..., 0]
    np.testing.assert_array_equal(columns, [[0, NAN, NAN, NAN]] * 2)


def test_boundary_maps_are_taken_as_they_are():
    edges = np.random.default_rng(0).random(SHAPE) > 0.5
    task = Boundary(thin=False).fit([edges])
    np.testing.assert_array_equal(task.encode(edges, SHAPE)[..., 0], edges)
    np.testing.assert_array_equal(round_trip(task, edges), edges)


@pytest.mark.parametrize("make", [BinaryMask, partial(Boundary, thin=False)])
def test_threshold_moves_the_decision(make):
    scores = np.log([[[0.2 / 0.8]], [[0.4 / 0.6]]])
    target = np.zeros((2, 1), bool)
    assert make(threshold=0.3).fit([target]).decode(scores).tolist() == [
        [False],
        [True],
    ]
    assert make().fit([target]).decode(scores).tolist() == [[False], [False]]


# -- classes given, classes unseen --------------------------------------------


def test_classes_given_need_not_occur():
    task = SemanticSegmentation(classes=[9, 3, 5]).fit([np.full(SHAPE, 5)])
    assert task.classes_.tolist() == [3, 5, 9]
    assert (task.encode(np.full(SHAPE, 9), SHAPE) == 2).all()


@pytest.mark.parametrize("make", [SemanticSegmentation, Classification])
def test_labels_not_among_the_classes_given(make):
    entry = np.array([[3, 8]]) if make is SemanticSegmentation else 8
    with pytest.raises(
        TargetError,
        match=r"entry 1: labels \[8\] are not among `classes`=\[3, 5\]",
    ):
        make(classes=[3, 5]).fit([np.array([[3, 5]]) if np.ndim(entry) else 3, entry])


@pytest.mark.parametrize("unseen", [False, True])
def test_classes_that_fit_did_not_see(unseen):
    task = SemanticSegmentation().fit([np.array([[3, 7]])])
    target = np.array([[7, 5, 99, -1, -8]])
    if unseen:
        codes = task.encode(target, (1, 5), unseen=True)[..., 0]
        np.testing.assert_array_equal(codes, [[1, 2, 2, NAN, 2]])
        return
    with pytest.raises(
        TargetError, match=r"labels \[-8, 5, 99\] are not among the classes \[3, 7\]"
    ):
        task.encode(target, (1, 5))


def test_unseen_class_label():
    task = Classification().fit(["cat", "dog"])
    assert task.encode("emu", SHAPE, unseen=True).tolist() == [2]
    with pytest.raises(TargetError, match=r"labels \['emu'\] are not among"):
        task.encode("emu", SHAPE)


def test_unseen_labels_of_a_set():
    task = MultiLabel().fit([{"a"}, {"b"}])
    assert task.encode({"a", "z"}, SHAPE, unseen=True).tolist() == [1, 0]
    with pytest.raises(
        TargetError, match=r"unknown labels \['z'\]; they are \['a', 'b'\]"
    ):
        task.encode({"a", "z"}, SHAPE)


def test_names_of_labels():
    task = MultiLabel(labels=["sun", "rain"]).fit([[True, False]])
    assert task.classes_.tolist() == ["sun", "rain"]
    assert task.encode({"rain"}, SHAPE).tolist() == [0, 1]
    sets = MultiLabel(labels=["sun", "rain"]).fit([{"rain"}])
    assert sets.encode({"rain"}, SHAPE).tolist() == [0, 1]


# -- probabilities ------------------------------------------------------------


def test_probabilities_by_kind():
    scores = np.array([[1.0, 2.0, -3.0]])
    nominal = Classification().fit([0, 1, 2]).probabilities(scores)
    np.testing.assert_allclose(nominal, np.exp(scores) / np.exp(scores).sum())
    binary = MultiLabel().fit([[True, False, True]]).probabilities(scores)
    np.testing.assert_allclose(binary, 1 / (1 + np.exp(-scores)))
    real = Regression().fit([[1.0, 2.0, 3.0]]).probabilities(scores)
    np.testing.assert_array_equal(real, scores)


@pytest.mark.parametrize(
    "task",
    [
        SemanticSegmentation(void=9),
        BinaryMask(2),
        Boundary(),
        Classification(classes=[1]),
    ],
)
def test_tasks_clone(task):
    assert clone(task).get_params() == task.get_params()


@pytest.mark.parametrize("number", [1, np.int64(255), np.uint8(255)])
def test_positive_may_be_any_integer(number):
    target = np.array([[0, number]])
    np.testing.assert_array_equal(
        round_trip(BinaryMask(positive=number).fit([target]), target, (1, 2)), target
    )


MAP = np.array([[0, 1], [1, 0]])
CUBE = np.zeros((2, 2, 3))


# -- which task it is ---------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (MAP, SemanticSegmentation),
        (MAP.astype(np.uint8), SemanticSegmentation),
        (MAP.astype(str), SemanticSegmentation),
        (MAP.astype(str).astype(object), SemanticSegmentation),
        (MAP.tolist(), SemanticSegmentation),
        (MAP > 0, BinaryMask),
        (MAP * 0.5, DenseRegression),
        (MAP.astype(np.float16) + 0.25, DenseRegression),
        (3, Classification),
        (np.int8(3), Classification),
        ("cat", Classification),
        (np.str_("cat"), Classification),
        (True, Classification),
        (0.5, Regression),
        (np.float32(0.5), Regression),
        (np.array([0.5, 2]), Regression),
        (np.array([True, False]), MultiLabel),
        ([True, False], MultiLabel),
        ({"a"}, MultiLabel),
        (frozenset({"a"}), MultiLabel),
    ],
)
def test_inferred_from_dtype_and_axes(entry, expected):
    assert type(infer_task("t", [None, entry])) is expected


def test_integers_among_floats_are_floats():
    assert isinstance(infer_task("t", [1.0, 2, None, 2.5]), Regression)


def test_classes_that_pandas_made_floats_are_told():
    column = Targets(k=pd.Series([1, 2, None, 1, 2, 1]))["k"]
    with pytest.warns(UserWarning, match=r"'k' .*whole numbers \(1, 2\).*Int64"):
        assert isinstance(infer_task("k", column), Regression)


@pytest.mark.parametrize(
    ("entries", "expected", "remedy"),
    [
        (np.array([[1, np.nan], [0, 1]]), Regression, "tags, give .*MultiLabel"),
        ([np.eye(3), None], DenseRegression, "a mask, give bool"),
        (
            [np.full((2, 2), np.nan), np.eye(2) + 1],
            DenseRegression,
            "classes, give int",
        ),
    ],
)
def test_tags_and_maps_that_a_conversion_made_floats_are_told(
    entries, expected, remedy
):
    with pytest.warns(UserWarning, match=f"'t' .*whole numbers.*{remedy}"):
        assert isinstance(infer_task("t", entries), expected)


@pytest.mark.parametrize(
    "entries",
    [
        [[1.0, 2.0], [0.0, 1.0]],  # vectors of counts
        [np.zeros((2, 2)), None],
        [np.eye(3) / 2],
        [np.arange(400.0).reshape(20, 20)],  # too many values for classes
        [2.0, 3.0, 2.0, 2.0],  # counts, none missing
        [0.5, None, 0.5, 0.5],
    ],
)
def test_other_floats_are_numbers_without_a_word(entries):
    assert type(infer_task("t", entries)) in (Regression, DenseRegression)


@pytest.mark.parametrize("column", [[1.0, 2.0, np.nan], np.array([1, 2, -1.0])])
def test_whole_floats_are_classes_where_classes_are_said(column):
    task = Classification().fit(list(column)[:2])
    assert task.classes_.tolist() == [1, 2]
    assert task.classes_.dtype.kind == "i"
    codes = [task.encode(entry, (4, 4)).item() for entry in column]
    np.testing.assert_array_equal(codes, [0, 1, np.nan])


def test_whole_floats_are_classes_of_maps_too():
    task = SemanticSegmentation(void=0).fit([np.array([[0, 5.0], [7, np.nan]])])
    assert task.classes_.tolist() == [5, 7]
    codes = task.encode(np.array([[7.0, np.nan]]), (1, 2))
    np.testing.assert_array_equal(codes.reshape(-1), [1, np.nan])


def test_values_are_never_looked_at():
    """0 and 1 in integers are classes, not a mask."""
    assert isinstance(infer_task("t", [np.zeros((2, 2), int)]), SemanticSegmentation)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([None, None], "task 'sky': labelled on no image"),
        ([], "task 'sky': labelled on no image"),
        (
            [None, MAP, MAP * 0.5],
            r"'sky' are of several kinds \(image 1: 2-D integer, image 2: 2-D float",
        ),
        ([[1, 2]], r"one label map alone is Y\[None\]"),
        ([1, "a"], r"several kinds \(image 0: 0-D integer, image 1: 0-D str"),
        (
            [None, np.array([1, 2])],
            r"from a 1-D integer target \(image 1\); say it with",
        ),
        ([CUBE], r"from a 3-D float target \(image 0\).*tasks=\{'sky'"),
        ([MAP[..., None]], r"three axes .*drop the last one, mask\[..., 0\]"),
        ([MAP.astype(complex)], "from a 2-D complex128 target"),
        ([[[1, 2], [3]]], r"ragged target \(image 0\)"),
        ([object()], "from a 0-D object target"),
    ],
)
def test_inference_errors(entries, message):
    with pytest.raises(TargetError, match=message):
        infer_task("sky", entries)


# -- columns ------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from(["nominal", "binary", "real"]), st.integers(1, 5)),
        min_size=1,
        max_size=5,
    )
)
@FEW
def test_slices_cover_the_tables_without_overlap(specs):
    groups = [ColumnGroup(kind, size) for kind, size in specs]
    for slices, widths in [
        (column_slices(groups), [g.n_columns for g in groups]),
        (score_slices(groups), [g.size for g in groups]),
    ]:
        places = [i for s in slices for i in range(s.start, s.stop)]
        assert places == list(range(sum(widths)))
        assert [s.stop - s.start for s in slices] == widths
