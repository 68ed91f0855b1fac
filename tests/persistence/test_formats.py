"""Files of every format that was released are read, and say what they said."""

from pathlib import Path

import numpy as np
import pytest

import mtsk

FORMATS = Path(__file__).parents[1] / "formats"


def test_no_format_is_forgotten():
    assert {path.stem for path in FORMATS.glob("*.mtsk")} >= {"format1"}


@pytest.mark.parametrize("path", sorted(FORMATS.glob("*.mtsk")), ids=lambda p: p.name)
def test_files_of_every_format_are_read(path):
    expected = np.load(path.with_suffix(".npz"))
    found = mtsk.load(path).predict(expected["X"])
    assert {"X", *found} == set(expected.files)
    for name in found:
        np.testing.assert_allclose(np.stack(found[name]), expected[name], rtol=1e-4)
