"""Heads take rows whatever their order and strides in memory, writable or not."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mtsk import JointLogistic, JointRidge, SharedLayerNetwork
from mtsk.heads import PerTaskHead, RelatedRidge
from mtsk.tasks.columns import ColumnGroup

HEADS = {
    "logistic": JointLogistic(),
    "ridge": JointRidge(),
    "related": RelatedRidge(),
    "network": SharedLayerNetwork(n_epochs=2, random_state=0),
    "per task": PerTaskHead(Ridge(), [ColumnGroup("real", 1)] * 2),
}


def read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


LAYOUTS = {
    "rows backwards": lambda X: X[::-1].copy()[::-1],
    "columns backwards": lambda X: X[:, ::-1].copy()[:, ::-1],
    "every second": lambda X: np.repeat(X, 2, axis=0)[::2],
    "column by column": np.asfortranarray,
    "read only": read_only,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", HEADS)
def test_layout_changes_nothing(name, layout):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 6)).astype(np.float32)
    Y = X[:, :2] + rng.normal(size=(40, 2))
    laid_out = LAYOUTS[layout](X)
    np.testing.assert_array_equal(laid_out, X)
    head = HEADS[name].fit(X, Y)
    expected = head.decision_function(X)
    np.testing.assert_allclose(
        head.decision_function(laid_out), expected, rtol=1e-5, atol=1e-6
    )
    again = HEADS[name].fit(laid_out, LAYOUTS[layout](Y)).decision_function(X)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-5)
