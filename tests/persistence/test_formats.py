"""Files of every format that was released are read, and say what they said."""

from pathlib import Path

import numpy as np
import pytest
from formats.make import EACH

import mtsk

FORMATS = Path(__file__).parents[1] / "formats"
BY_CPU = sorted(FORMATS.glob("*_avx*.mtsk"))


def test_no_format_is_forgotten():
    found = {path.stem for path in FORMATS.glob("*.mtsk")}
    assert found >= {"format1_avx2", "format1_avx512"}


@pytest.mark.parametrize("path", BY_CPU, ids=lambda path: path.stem)
def test_a_model_of_one_kind_of_processor_predicts_on_any(path):
    expected = np.load(path.with_suffix(".npz"))
    model = mtsk.load(path)
    scores = model.decision_function(expected["X"])
    some = np.stack(scores["semantic"])[:, ::EACH, ::EACH]
    np.testing.assert_allclose(some, expected["scores"], atol=1e-3)
    depth = np.stack(scores["depth"])[:, ::EACH, ::EACH]
    np.testing.assert_allclose(depth, expected["depth"], atol=1e-3)
    np.testing.assert_allclose(scores["bright"], expected["bright"], rtol=1e-4)
    maps = np.stack(model.predict(expected["X"])["semantic"])
    assert maps.size > 1e5
    assert (maps != expected["semantic"]).sum() <= maps.size / 1e5
