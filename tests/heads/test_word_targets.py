"""Tables whose targets are words, some of them missing."""

import numpy as np
import pandas as pd
import pytest

from mtsk import JointRidge


@pytest.mark.parametrize("unknown", [None, np.nan, pd.NA])
def test_words_may_be_missing(unknown):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = np.where(X[:, :2] > 0, "yes", "no").astype(object)
    y[::3, 0] = unknown
    head = JointRidge(alpha=0.1, calibrate=False).fit(X, y)
    assert [list(classes) for classes in head.classes_] == [["no", "yes"]] * 2
    known = np.arange(60) % 3 > 0
    alone = JointRidge(alpha=0.1, calibrate=False).fit(X[known], y[known, 0])
    np.testing.assert_array_equal(head.predict(X)[:, 0], alone.predict(X))
    with pytest.raises(ValueError, match="column 1 of y has no label"):
        JointRidge().fit(X, np.c_[y[:, 1], np.full(60, unknown)])
    with pytest.raises(ValueError, match="y mixes words and numbers"):
        JointRidge().fit(X, np.c_[y, np.arange(60)])
