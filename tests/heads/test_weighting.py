"""Task weighting strategies against their published updates, on two tasks."""

import numpy as np
import pytest
import torch
from torch import nn

from mtsk import SharedLayerNetwork
from mtsk.heads.weighting import (
    FAMO,
    STRATEGIES,
    DynamicWeightAverage,
    GeometricMean,
    GradNorm,
    PCGrad,
    TaskWeighting,
    Uncertainty,
)

BOTH = torch.tensor([0, 1])


def toy(shared=(1.0, 2.0)):
    """Two losses of two shared parameters, with gradients (1, 2) and (-3, 1)."""
    w = nn.Parameter(torch.tensor([shared]))
    a = (w * torch.tensor([[1.0, 2.0]])).sum()
    b = (w * torch.tensor([[-3.0, 1.0]])).sum() + 6
    return w, torch.stack([a, b])


def test_uncertainty_is_kendalls_objective():
    strategy = Uncertainty()
    (s,) = strategy.start(2, 0)
    s.data = torch.tensor([0.5, -1.0])
    w, losses = toy()
    strategy.backward(losses, BOTH, [w])
    e = np.exp([-0.5, 1.0])
    np.testing.assert_allclose(
        w.grad[0], e[0] * np.r_[1, 2] + e[1] * np.r_[-3, 1], 1e-5
    )
    np.testing.assert_allclose(s.grad, 1 - e * losses.detach().numpy(), rtol=1e-5)


def test_geometric_mean():
    strategy = GeometricMean()
    strategy.start(2, 0)
    w, losses = toy()
    strategy.backward(losses, BOTH, [w])
    fresh, losses = toy()
    (slope,) = torch.autograd.grad(torch.sqrt(losses[0] * losses[1]), [fresh])
    np.testing.assert_allclose(w.grad, 2 * slope, rtol=1e-5)  # times the tasks


def test_dynamic_weight_average():
    strategy = DynamicWeightAverage(temperature=2.0)
    strategy.start(2, 0)
    losses = torch.ones(2)
    np.testing.assert_allclose(strategy.weights(losses, BOTH), [1, 1])
    strategy.after_epoch(np.array([1.0, 1.0]))
    strategy.after_epoch(np.array([0.5, 0.9]))
    e = np.exp(np.array([0.5, 0.9]) / 2)
    np.testing.assert_allclose(strategy.weights(losses, BOTH), 2 * e / e.sum(), 1e-5)


def test_gradnorm_moves_weights_towards_equal_norms():
    strategy = GradNorm(alpha=0.0, rate=0.1)
    strategy.start(2, 0)
    w, losses = toy()
    strategy.backward(losses, BOTH, [w])
    norms = np.sqrt([5.0, 10.0])
    moved = 1 - 0.1 * np.sign(norms - norms.mean()) * norms
    np.testing.assert_allclose(strategy.values, 2 * moved / moved.sum(), rtol=1e-5)
    # A task that has fallen less gets the larger weight.
    strategy = GradNorm(alpha=1.5, rate=0.01)
    strategy.start(2, 0)
    for losses in ([1.0, 1.0], [0.2, 1.0], [0.1, 1.0]):
        w = nn.Parameter(torch.ones(1, 1))
        strategy.backward(w.sum() * torch.tensor(losses), BOTH, [w])
    assert strategy.values[1] > strategy.values[0]


def test_famo_moves_towards_what_falls_least():
    strategy = FAMO(rate=0.5, decay=0.0)
    strategy.start(2, 0)
    first = strategy.weights(torch.tensor([1.0, 2.0]), BOTH)
    # c · softmax(0) / losses with c = 1 / Σ, times the tasks
    np.testing.assert_allclose(first, [4 / 3, 2 / 3], rtol=1e-5)
    strategy.weights(torch.tensor([0.5, 2.0]), BOTH)
    fall = np.log(2.0)
    np.testing.assert_allclose(strategy.xi, [-0.125 * fall, 0.125 * fall], rtol=1e-4)


def test_pcgrad_projects_conflicts():
    strategy = PCGrad()
    strategy.start(2, 0)
    w, losses = toy()
    strategy.backward(losses, BOTH, [w])
    g = np.array([[1.0, 2.0], [-3.0, 1.0]])
    dot = g[0] @ g[1]
    assert dot < 0
    first = g[0] - dot / (g[1] @ g[1]) * g[1]
    second = g[1] - dot / (g[0] @ g[0]) * g[0]
    np.testing.assert_allclose(w.grad[0], first + second, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_learns(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    Y = np.stack([X[:, 0] > 0, X[:, 0] + X[:, 1] > 0], axis=1).astype(int)
    Y = Y.astype(float)
    Y[:100, 0] = np.nan
    from mtsk.tasks.columns import ColumnGroup

    model = SharedLayerNetwork(
        (16,),
        dropout=0.1,
        task_weights=name,
        columns=[ColumnGroup("binary", 1), ColumnGroup("binary", 1)],
        random_state=2,
    ).fit(X, Y)
    known = ~np.isnan(Y)
    assert ((model.predict(X) == Y)[known]).mean() > 0.9


def test_a_strategy_of_ones_own_in_a_few_lines():
    class Softest(TaskWeighting):
        """Only the task with the highest loss counts."""

        def weights(self, losses, tasks):
            return (losses == losses.max()).to(losses)

    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    Y = np.stack([X[:, 0] > 0, X[:, 1] > 0], axis=1)
    model = SharedLayerNetwork((16,), task_weights=Softest(), random_state=0).fit(X, Y)
    assert (model.predict(X) == Y).mean() > 0.9
