"""Anything given as targets is coded rightly or refused by name: never otherwise."""

import datetime
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mtsk import Targets
from mtsk.exceptions import MtskError
from mtsk.heads.base import check_codes
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Classification,
    Count,
    DenseRegression,
    DensityCount,
    Detection,
    ImageToImage,
    InstanceSegmentation,
    MultiLabel,
    Ordinal,
    Regression,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtsk.tasks.task_set import TaskSet

SHAPE = (4, 5)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.integers(),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.just(datetime.date(2020, 1, 1)),
    st.just(object()),
    st.just(np.ma.masked),
)
dtypes = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(),
    arrays.unsigned_integer_dtypes(),
    arrays.floating_dtypes(),
    arrays.unicode_string_dtypes(max_len=3),
    arrays.byte_string_dtypes(max_len=3),
    arrays.complex_number_dtypes(),
    arrays.datetime64_dtypes(),
)
shapes = st.one_of(
    st.just(SHAPE),
    st.just((*SHAPE, 1)),
    st.just((*SHAPE, 3)),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)
tables = st.one_of(
    arrays.arrays(dtypes, shapes),
    arrays.arrays(np.dtype(object), shapes, elements=scalars),
)
boxes = st.fixed_dictionaries(
    {},
    optional={
        "boxes": st.one_of(
            tables, st.lists(st.lists(st.floats(-2, 9), min_size=4, max_size=4))
        ),
        "labels": st.one_of(tables, st.lists(scalars, max_size=3)),
        "ignore": tables,
    },
)
entries = st.one_of(
    scalars,
    tables,
    boxes,
    st.lists(scalars, max_size=4),
    st.tuples(scalars, scalars),
    st.frozensets(st.one_of(st.text(max_size=2), st.integers(0, 5)), max_size=3),
    st.lists(st.lists(scalars, min_size=5, max_size=5), min_size=4, max_size=4),
    st.dictionaries(st.text(max_size=2), scalars, max_size=2),
    st.just("no/such/file.png"),
)
columns = st.one_of(
    st.lists(entries, min_size=1, max_size=4),
    entries.map(lambda entry: [entry] * 3),
    st.lists(tables, min_size=2, max_size=3),
    arrays.arrays(
        dtypes,
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=5),
    ),
)
TASKS = {
    type(task).__name__: task
    for task in (
        BinaryMask(),
        Boundary(),
        Classification(),
        Count(),
        DenseRegression(),
        DensityCount(),
        Detection(),
        ImageToImage(),
        InstanceSegmentation(),
        MultiLabel(),
        Ordinal(["a", "b", 3]),
        Regression(),
        SemanticSegmentation(),
        SurfaceNormals(),
    )
}
MANY = settings(
    max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck)
)


def code_all(given_tasks, column):
    """Code every entry of a column as `fit` would, and check the codes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        targets = Targets(t=column)
        tasks = TaskSet.fit(given_tasks, targets)
        for index, entry in enumerate(targets["t"]):
            if entry is None:
                continue
            coded = tasks.encode("t", entry, index, SHAPE)
            task = tasks["t"]
            shape = SHAPE if tasks.is_of_pixels("t") else ()
            assert coded.shape == (*shape, task.n_columns_)
            assert coded.dtype == np.float32
            assert not np.isinf(coded).any()
            check_codes(task.groups_, coded.reshape(-1, task.n_columns_))


@given(columns)
@MANY
def test_targets_without_a_task_are_coded_or_refused(column):
    with suppress(MtskError):
        code_all({}, column)


@pytest.mark.parametrize("name", TASKS)
@given(column=columns)
@settings(MANY, max_examples=400)
def test_targets_of_a_task_are_coded_or_refused(name, column):
    with suppress(MtskError):
        code_all({"t": TASKS[name]}, column)
