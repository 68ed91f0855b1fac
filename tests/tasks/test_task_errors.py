"""Tasks: what is no target is refused, and the message says where it is."""

import numpy as np
import pytest
from sklearn.base import clone

from mtsk._validation import InvalidParameterError
from mtsk.exceptions import TargetError
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Classification,
    Count,
    DenseRegression,
    MultiLabel,
    Regression,
    SemanticSegmentation,
)

MAP = np.array([[0, 1], [1, 0]])


CUBE = np.zeros((2, 2, 3))


@pytest.mark.parametrize(
    ("task", "targets", "message"),
    [
        (
            SemanticSegmentation(),
            [MAP, MAP * 0.5],
            "entry 1: class labels.*dtype float64",
        ),
        (SemanticSegmentation(), [MAP.astype(complex)], "entry 0:.*dtype complex128"),
        (
            SemanticSegmentation(),
            [MAP, MAP.astype(str)],
            "labels mix numbers and strings",
        ),
        (Classification(classes=[1, 1, 2]), [1], "names a label twice"),
        (SemanticSegmentation(classes="37"), [MAP], "a sequence of labels, got '37'"),
        (MultiLabel(), [{1, "a"}], "labels mix numbers and strings"),
        (SemanticSegmentation(), [MAP * 0 - 1], "no entry has a labelled value"),
        (SemanticSegmentation(void=(0, 1)), [MAP], "everything is void or -1"),
        (Classification(), [1, 2.5], "entry 1: class labels must be .*whole.*float64"),
        (Classification(), [None], "entry 0: .*dtype object"),
        (Classification(), ["a", 1], "labels mix numbers and strings"),
        (Classification(), [-1, -1], "no entry has a labelled value"),
        (Classification(), [np.array([1, 2])], r"(scalar|shape \(2,\))"),
        (Classification(), [], "no entry"),
        (SemanticSegmentation(), [], "no entry"),
        (
            BinaryMask(),
            [MAP * 0.5],
            "must be .*whole numbers or NaN, got .*float64",
        ),
        (BinaryMask(positive=0), [MAP], "`positive` of BinaryMask must differ from 0"),
        (MultiLabel(), [[True], [True, False]], r"1-D and of one length.*\(1,\)"),
        (MultiLabel(), [{"a"}, [True]], r"1-D and of one length, got shapes"),
        (MultiLabel(), [MAP], r"1-D and of one length, got shapes.*\(2, 2\)"),
        (MultiLabel(labels=["a"]), [[True, False]], "has 1 names, targets have 2"),
        (MultiLabel(), [set()], "there is no label in any entry"),
        (MultiLabel(), [[]], "there is no label in any entry"),
        (MultiLabel(), [], "no label"),
        (Regression(), [1.0, [1.0, 2.0]], r"one length, got shapes.*\(2,\)"),
        (Regression(), [MAP], r"scalars or vectors.*\(2, 2\)"),
        (DenseRegression(), [1.5], r"a map must have shape \(H, W\), got \(\)"),
        (DenseRegression(), [CUBE, MAP], r"maps differ in number of values: \[1, 3\]"),
        (SemanticSegmentation(), [np.array([1, 2])], r"\(2,\)"),
        (SemanticSegmentation(), [np.zeros((2, 2, 3), int)], r"\(2, 2, 3\)"),
    ],
)
def test_fit_errors(task, targets, message):
    with pytest.raises(TargetError, match=message):
        task.fit(targets)


@pytest.mark.parametrize(
    ("task", "seen", "target", "message"),
    [
        (
            SemanticSegmentation(),
            MAP,
            MAP[:1],
            r"\(1, 2\) does not fit an image of \(2, 2\)",
        ),
        (
            SemanticSegmentation(),
            MAP,
            CUBE.astype(int),
            r"must be \(H, W\), got \(2, 2, 3\)",
        ),
        (
            SemanticSegmentation(),
            MAP,
            np.array(1),
            r"must have shape \(H, W\), got \(\)",
        ),
        (SemanticSegmentation(), MAP, MAP * 0.5, "got dtype float64"),
        (SemanticSegmentation(), MAP, MAP.astype(str), "are not among the classes"),
        (
            BinaryMask(),
            MAP,
            MAP * 3,
            r"may hold 0, positive=1 and void=\(\), got \[3\]",
        ),
        (BinaryMask(), MAP, MAP.T[:, :1], r"\(2, 1\) does not fit"),
        (BinaryMask(), MAP, MAP * 0.5, "got dtype float64"),
        (BinaryMask(), MAP, CUBE.astype(bool), r"\(H, W\).*\(2, 2, 3\)"),
        (BinaryMask(), MAP, CUBE.astype(int), r"\(H, W\).*\(2, 2, 3\)"),
        (Boundary(), MAP, MAP * 0.5, "got dtype float64"),
        (Boundary(), MAP, MAP[:1], "does not fit an image"),
        (Boundary(), MAP, CUBE.astype(bool), r"\(H, W\).*\(2, 2, 3\)"),
        (Boundary(), MAP, CUBE.astype(int), r"\(H, W\).*\(2, 2, 3\)"),
        (Boundary(), MAP, MAP.astype(str), "(str|dtype <U)"),
        (DenseRegression(), MAP * 0.5, MAP > 0, "must be float, got dtype bool"),
        (DenseRegression(), MAP * 0.5, MAP / [0.5, np.inf] + np.inf, "infinite"),
        (DenseRegression(), MAP * 0.5, CUBE, "a map of 3 values, others have 1"),
        (DenseRegression(), MAP * 0.5, MAP[:1] * 0.5, "does not fit an image"),
        (Classification(), 1, [1, 2], r"must be a scalar, got shape \(2,\)"),
        (Classification(), 1, 0.5, "got dtype float64"),
        (Classification(), 1, "a", r"labels \['a'\] are not among the classes \[1\]"),
        (Classification(), "a", 1, r"labels \[1\] are not among the classes \['a'\]"),
        (MultiLabel(), [True, False], [True], r"must have 2 bool.*shape \(1,\)"),
        (MultiLabel(), [True, False], ["a", "b"], "must have 2 bool.*dtype <U1"),
        (MultiLabel(), [True, False], [2, 0], "may hold 0, 1 and -1"),
        (MultiLabel(), [True, False], [0.5, 0], "may hold 0, 1 and -1"),
        (Regression(), 1.0, [1.0, 2.0], r"expected 1 number\(s\), got \[1.0, 2.0\]"),
        (Regression(), 1.0, "one", r"expected 1 number\(s\), got 'one'"),
        (Regression(), 1.0, True, r"expected 1 number\(s\), got True"),
        (Regression(), 1.0, None, r"expected 1 number\(s\), got None"),
        (Regression(), 1.0, np.inf, "must not be infinite"),
        (Regression(), 1.0, 1e300, r"within ±1e\+30, got one of size 1e\+300"),
        (DenseRegression(), MAP * 0.5, MAP * 1e38, "within.*larger unit"),
        (Count(), 1, 1e300, "within.*larger unit"),
        (SemanticSegmentation(), np.array([[0, 1], [2, 2]]), MAP > 0, "true and false"),
    ],
)
def test_encode_errors(task, seen, target, message):
    task = clone(task).fit([seen])
    with pytest.raises(TargetError, match=message):
        task.encode(target, (2, 2))


@pytest.mark.parametrize(
    ("task", "near", "far"),
    [
        (Regression(), 10.0 * np.arange(6), 1.7e9),
        (Regression(), np.arange(6).reshape(3, 2) / 10, 2_460_000),
        (DenseRegression(), [MAP * 1.0, MAP * 2.0, np.full(MAP.shape, np.nan)], 1e8),
    ],
)
def test_numbers_that_single_precision_cannot_tell_apart(task, near, far):
    clone(task).fit(list(near))
    clone(task).fit([entry * 0 + far for entry in near])  # all alike: nothing is lost
    with pytest.raises(TargetError, match=r"differ by too little.*take off"):
        clone(task).fit([entry + far for entry in near])


@pytest.mark.parametrize("make", [BinaryMask, Boundary])
@pytest.mark.parametrize("threshold", ["half", None, 1.5, -0.5])
def test_wrong_threshold(make, threshold):
    with pytest.raises(
        InvalidParameterError, match=rf"`threshold` of {make.__name__} must be.*got"
    ):
        make(threshold=threshold).fit([MAP])


def test_wrong_tolerance_and_positive():
    with pytest.raises(
        InvalidParameterError, match=r"`tolerance` of Boundary.*got 'x'"
    ):
        Boundary(tolerance="x").fit([MAP])
    with pytest.raises(
        InvalidParameterError, match=r"`positive` of BinaryMask.*got 'x'"
    ):
        BinaryMask(positive="x").fit([MAP])
