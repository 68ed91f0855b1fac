"""Cells of tables: what is a number, what is text, what a spreadsheet would run."""

import csv
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsk.cli.cells import column_values, from_spreadsheet_text, spreadsheet_text
from mtsk.cli.writing import PredictionWriter
from mtsk.exceptions import TargetError
from mtsk.tasks import Classification, MultiLabel, Regression


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "", "-3"], [1, None, -3]),
        (["1", "2.5", " .5 ", "-1.", "+2e-05"], [1.0, 2.5, 0.5, -1.0, 2e-5]),
        (["10", "1_0", "a", "b"], ["10", "1_0", "a", "b"]),
        (["007", "7", "12"], ["007", "7", "12"]),
        (["1e5", "1e6"], ["1e5", "1e6"]),
        (["nan", "inf", ""], ["nan", "inf", None]),
        (["٣", "٤"], ["٣", "٤"]),  # digits of another script
        (["1;2", "", "3"], [{1, 2}, None, {3}]),
        (["1_0;1", "2"], [{"1_0", "1"}, {"2"}]),
        (["'=1+1", "'-a", "'tis"], ["=1+1", "-a", "'tis"]),
    ],
)
def test_values_of_a_column(cells, values):
    found = column_values(cells, "t")
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize("word", ["unknown", "nan", "1_0", "1e5", "-", "3,5"])
def test_a_few_words_among_numbers_are_refused(word):
    with pytest.raises(TargetError, match="t: 5 numbers, and"):
        column_values([*"12345", word], "t")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_what_python_writes_of_numbers_is_read_as_these(numbers):
    found = column_values([repr(number) for number in numbers], "t")
    assert found == numbers
    assert column_values([str(np.float64(n)) for n in numbers], "t") == numbers


@given(st.text() | st.text("'=+-@\t\ra", max_size=5))
def test_text_survives_a_spreadsheet(text):
    cell = spreadsheet_text(text)
    assert from_spreadsheet_text(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_predictions_hold_no_formula(tmp_path):
    tasks = {
        "kind": Classification().fit(["=1+1", "b"]),
        "tags": MultiLabel().fit([{"@a", "b"}]),
        "value": Regression().fit([[-1.0, 2.0]]),
    }
    writer = PredictionWriter(tmp_path, tasks, overlays=False)
    found = {"kind": "=1+1", "tags": {"@a", "b"}, "value": np.array([-1.0, 2.0])}
    writer.write(tmp_path / "-one.png", found)
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "image": "'-one.png",
        "kind": "'=1+1",
        "tags": "'@a;b",
        "value": "-1.0;2.0",
    }
    assert column_values([row["tags"]], "t") == [{"@a", "b"}]


cells = st.one_of(
    st.text(max_size=4),
    st.text("0123456789+-.eE_;,' nai\t=@", max_size=6),
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(["", "nan", "inf", "None", "true", "1;2", "٣"]),
)


@given(st.lists(cells, max_size=6))
@settings(max_examples=2000, deadline=None)
def test_any_column_is_of_one_kind_or_refused(column):
    found = None
    with suppress(TargetError):
        found = column_values(column, "table.csv: t")
    if found is None:
        return
    assert len(found) == len(column)
    given_values = [value for value in found if value is not None]
    assert len({type(value) for value in given_values}) <= 1
    for cell, value in zip(column, found, strict=True):
        text = from_spreadsheet_text(cell.strip())
        assert (value is None) == (not text)
        if isinstance(value, int):
            assert str(value) == text.lstrip("+").replace("-0", "0")
        elif isinstance(value, float):
            assert np.isfinite(value) or "e" in text.lower()
            assert value == float(text)
        elif isinstance(value, str):
            assert value == text
