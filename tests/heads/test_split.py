"""SplitHead: joint heads side by side."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError

from mtsk.heads import JointLogistic, JointRidge, SharedLayerNetwork, SplitHead
from mtsk.tasks.columns import ColumnGroup

GROUPS = [ColumnGroup("nominal", 3), ColumnGroup("binary", 2), ColumnGroup("real", 2)]
MEMBERS = [[2, 0], [1]]


def table(n=120):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    Y = np.column_stack(
        [rng.integers(3, size=n), rng.random((n, 2)) > 0.5, X[:, :2] + 3]
    ).astype(np.float32)
    Y[::7, 0] = np.nan
    return X, Y


def heads():
    network = SharedLayerNetwork((8,), n_epochs=1, device="cpu", random_state=0)
    return [network, JointRidge(alpha=1e-3, calibrate=False)]


def alone(head, groups, columns, X, Y, **extra):
    """Return a head fitted to some columns by itself."""
    return clone(head).set_params(columns=groups).fit(X, Y[:, columns], **extra)


def test_every_head_learns_its_own_columns_as_it_would_alone():
    X, Y = table()
    weight = np.random.default_rng(1).random(Y.shape) + 0.5
    network, ridge = heads()
    model = SplitHead([network, ridge], MEMBERS, GROUPS)
    model.fit(X, Y, sample_weight=weight, groups=np.arange(len(X)) // 4)
    real_and_classes = alone(
        network,
        [GROUPS[2], GROUPS[0]],
        [3, 4, 0],
        X,
        Y,
        sample_weight=weight[:, [3, 4, 0]],
    )
    binary = alone(ridge, GROUPS[1:2], [1, 2], X, Y, sample_weight=weight[:, [1, 2]])
    expected = np.empty((len(X), 7), np.float32)
    first = real_and_classes.decision_function(X)
    expected[:, 5:], expected[:, :3] = first[:, :2], first[:, 2:]
    expected[:, 3:5] = binary.decision_function(X)
    np.testing.assert_array_equal(model.decision_function(X), expected)
    corrections = real_and_classes.prior_corrections
    np.testing.assert_allclose(model.prior_corrections[:3], corrections[2:])
    assert model.predict(X).shape == Y.shape


def test_as_a_network_of_torch():
    X, Y = table()
    model = SplitHead([heads()[0], JointLogistic()], MEMBERS, GROUPS).fit(X, Y)
    with torch.no_grad():
        found = model.to_torch()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(found, model.decision_function(X), atol=1e-4)


def test_clone():
    model = clone(SplitHead(heads(), MEMBERS, GROUPS))
    assert model.members == MEMBERS
    X, Y = table()
    assert model.fit(X, Y).decision_function(X).shape == (len(X), 7)


@pytest.mark.parametrize("members", [[[0], [1]], [[0, 1], [1, 2]], [[0, 1, 2, 3], []]])
def test_every_group_has_one_head(members):
    X, Y = table()
    with pytest.raises(InvalidParameterError, match="column groups once"):
        SplitHead(heads(), members, GROUPS).fit(X, Y)
