"""How edges come to their weights and pairs of labels to their costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, softmax

from mtsk.crf.factor_graph import FactorGraph, Link
from mtsk.crf.inference import alpha_expansion
from mtsk.crf.regions import RegionGraph

__all__ = [
    "Affinity",
    "FrankWolfe",
    "fit_affinity",
    "fit_costs",
    "fit_margin",
    "frank_wolfe",
]

_LEAST = 1e-6


@dataclass
class Affinity:
    """How strongly two neighbours want one label: linear in what lies between them.

    Attributes
    ----------
    mean, scale : ndarray of shape (F,)
        Of the features.
    coef : ndarray of shape (F,)
        On standardised features.
    intercept : float
    """

    mean: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    intercept: float

    def weights(self, features: np.ndarray) -> np.ndarray:
        """Return the weight of each edge, at least 0.

        Parameters
        ----------
        features : ndarray of shape (m, F)

        Returns
        -------
        ndarray of shape (m,)
        """
        standard = (features - self.mean) * self.scale
        return np.clip(self.intercept + standard @ self.coef, 0, None)


def fit_affinity(
    graphs: Sequence[RegionGraph], labels: Sequence[np.ndarray], alpha: float = 1e-3
) -> Affinity:
    """Learn which edges join equal labels, given what the scores say already.

    Piecewise training (Sutton & McCallum, UAI 2005): each edge is a CRF of its own.
    Where both ends' scores alone say "equal" with probability s = Σ_k p_ik p_jk, a
    weight a makes the odds s/(1 − s) · exp(a); so a = θᵀφ + b is a logistic regression
    of "equal" on the features φ with offset logit(s).

    Parameters
    ----------
    graphs : sequence of RegionGraph
    labels : sequence of ndarray of int
        −1 is unlabelled; edges with such an end are left out.
    alpha : float, default=1e-3
        Penalty on θ.

    Returns
    -------
    Affinity
        With weight 0 where no edge has both ends labelled.
    """
    features, equal, offset = [], [], []
    for graph, y in zip(graphs, labels, strict=True):
        i, j = graph.edges.T
        known = (y[i] >= 0) & (y[j] >= 0)
        i, j = i[known], j[known]
        p = softmax(graph.scores, axis=1)
        same = (p[i] * p[j]).sum(axis=1).clip(_LEAST, 1 - _LEAST)
        features.append(graph.features[known])
        equal.append(y[i] == y[j])
        offset.append(np.log(same / (1 - same)))
    phi, t, o = (np.concatenate(parts) for parts in (features, equal, offset))
    n_features = graphs[0].features.shape[1]
    if not len(t):
        return Affinity(
            np.zeros(n_features), np.ones(n_features), np.zeros(n_features), 0.0
        )
    mean, std = phi.mean(axis=0), phi.std(axis=0)
    scale = np.where(std > 1e-12, 1 / np.where(std > 1e-12, std, 1), 0)
    standard = (phi - mean) * scale

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        logits = o + standard @ theta[:-1] + theta[-1]
        loss = np.logaddexp(0, np.where(t, -logits, logits)).mean()
        residual = (expit(logits) - t) / len(t)
        penalty = alpha / 2 * (theta @ theta)
        gradient = np.append(standard.T @ residual, residual.sum()) + alpha * theta
        return loss + penalty, gradient

    found = minimize(objective, np.zeros(n_features + 1), jac=True, method="L-BFGS-B")
    return Affinity(mean, scale, found.x[:-1], float(found.x[-1]))


def fit_costs(
    graphs: Sequence[RegionGraph],
    labels: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    n_labels: int,
) -> np.ndarray:
    """Learn which unlike labels stand beside one another more than scores tell.

    Among edges whose ends differ, the pairs (k, l) that occur are counted, and those
    that the ends' scores lead one to expect. One step of iterative scaling makes their
    ratio r a change of cost: 1 − log r / mean weight, kept in [0, 2].

    Parameters
    ----------
    graphs : sequence of RegionGraph
    labels : sequence of ndarray of int
    weights : sequence of ndarray of float
        Of the edges.
    n_labels : int

    Returns
    -------
    ndarray of shape (n_labels, n_labels)
        Symmetric, 0 on the diagonal, 1 for pairs as frequent as expected.
    """
    seen = np.zeros((n_labels, n_labels))
    expected = np.zeros((n_labels, n_labels))
    total, count = 0.0, 0
    for graph, y, w in zip(graphs, labels, weights, strict=True):
        i, j = graph.edges.T
        differ = (y[i] >= 0) & (y[j] >= 0) & (y[i] != y[j])
        i, j = i[differ], j[differ]
        p = softmax(graph.scores, axis=1)
        unlike = 1 - (p[i] * p[j]).sum(axis=1).clip(_LEAST, 1 - _LEAST)
        np.add.at(seen, (y[i], y[j]), 1.0)
        expected += (p[i] / unlike[:, None]).T @ p[j]
        total, count = total + float(w[differ].sum()), count + int(differ.sum())
    np.fill_diagonal(expected, 0)
    ratio = (seen + seen.T + 1) / (expected + expected.T + 1)
    mean = max(total / max(count, 1), _LEAST)
    cost = np.clip(1 - np.log(ratio) / mean, 0, 2)
    np.fill_diagonal(cost, 0)
    return cost


@dataclass
class FrankWolfe:
    """What `frank_wolfe` found.

    Attributes
    ----------
    coef : ndarray of shape (d,)
    gaps : list of float
        Duality gap after each pass. With an exact oracle, no other coef has an
        objective lower by more than the last one.
    """

    coef: np.ndarray
    gaps: list[float]


def frank_wolfe(
    n: int,
    oracle: Callable[[int, np.ndarray], tuple[np.ndarray, float]],
    n_features: int,
    *,
    penalty: float = 1e-2,
    n_passes: int = 20,
    tol: float = 1e-3,
    random_state: np.random.RandomState | None = None,
) -> FrankWolfe:
    """Train a structured SVM by block-coordinate Frank–Wolfe.

    Minimises penalty/2 ‖w‖² + 1/n Σ_i max_y (loss_i(y) − wᵀψ_i(y)), with
    ψ_i(y) = φ(x_i, y_i) − φ(x_i, y), in its dual (Lacoste-Julien, Jaggi, Schmidt &
    Pletscher, ICML 2013, algorithm 4, steps by exact line search).

    Parameters
    ----------
    n : int
        Examples.
    oracle : callable
        ``oracle(i, w)`` returns ψ_i(y) and loss_i(y) of the worst labelling y.
    n_features : int
    penalty : float, default=1e-2
    n_passes : int, default=20
    tol : float, default=1e-3
        Stops when the gap is below this fraction of the loss at w = 0.
    random_state : RandomState, optional
        Order of the examples.

    Returns
    -------
    FrankWolfe
    """
    random = random_state or np.random.RandomState(0)
    w, loss = np.zeros(n_features), 0.0
    own_w, own_loss = np.zeros((n, n_features)), np.zeros(n)
    gaps: list[float] = []
    first = sum(oracle(i, w)[1] for i in range(n)) / n
    for _ in range(n_passes):
        for i in random.permutation(n):
            psi, hurt = oracle(i, w)
            corner, corner_loss = psi / (penalty * n), hurt / n
            away = own_w[i] - corner
            gain = penalty * float(away @ w) - own_loss[i] + corner_loss
            curved = penalty * float(away @ away)
            step = float(np.clip(gain / curved, 0, 1)) if curved > 0 else 1.0
            new_w = own_w[i] - step * away
            new_loss = (1 - step) * own_loss[i] + step * corner_loss
            w, loss = w + new_w - own_w[i], loss + new_loss - own_loss[i]
            own_w[i], own_loss[i] = new_w, new_loss
        worst = [oracle(i, w) for i in range(n)]
        corner = np.sum([psi for psi, _ in worst], axis=0) / (penalty * n)
        corner_loss = float(np.mean([hurt for _, hurt in worst]))
        gaps.append(float(penalty * (w - corner) @ w - loss + corner_loss))
        if gaps[-1] <= tol * max(first, 1e-300):
            break
    return FrankWolfe(w, gaps)


def fit_margin(
    graphs: Sequence[RegionGraph],
    labels: Sequence[np.ndarray],
    *,
    penalty: float,
    random_state: np.random.RandomState,
) -> tuple[Affinity, list[float]]:
    """Learn the scores' scale and the edges' weights with a margin, for Potts costs.

    Each edge has a constant, its features scaled to [0, 1], and 1 minus these, so that
    weights that must be >= 0 can say "the less, the stronger". The loss of a labelling
    is the share of the labelled nodes that are wrong, by size; its worst labelling is
    found by alpha-expansion.

    Parameters
    ----------
    graphs : sequence of RegionGraph
    labels : sequence of ndarray of int
    penalty : float
    random_state : RandomState

    Returns
    -------
    affinity : Affinity
        In units of the scores.
    gaps : list of float
        Of `frank_wolfe`.
    """
    features = np.concatenate([g.features for g in graphs])
    low = features.min(axis=0) if len(features) else np.zeros(0)
    span = np.ptp(features, axis=0) if len(features) else np.zeros(0)
    scale = np.where(span > 0, 1 / np.where(span > 0, span, 1), 0)
    found = frank_wolfe(
        len(graphs),
        _MarginOracle(graphs, labels, [_both_ways(g, low, scale) for g in graphs]),
        2 * len(low) + 2,
        penalty=penalty,
        random_state=random_state,
    )
    unit = max(float(found.coef[0]), 1e-6)
    up, down = np.split(found.coef[2:] / unit, [len(low)])
    intercept = float(found.coef[1] / unit + down.sum())
    return Affinity(low, scale, up - down, intercept), found.gaps


def _both_ways(graph: RegionGraph, low: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return a constant, each edge's features in [0, 1], and 1 minus these."""
    rising = (graph.features - low) * scale
    return np.concatenate([np.ones((len(graph.edges), 1)), rising, 1 - rising], axis=1)


@dataclass
class _MarginOracle:
    """ψ and loss of the worst labelling of one graph, for `frank_wolfe`."""

    graphs: Sequence[RegionGraph]
    labels: Sequence[np.ndarray]
    edge_features: Sequence[np.ndarray]

    def __call__(self, i: int, w: np.ndarray) -> tuple[np.ndarray, float]:
        graph, truth, phi = self.graphs[i], self.labels[i], self.edge_features[i]
        known = truth >= 0
        share = graph.sizes * known
        share = share / max(share.sum(), 1e-300)
        n, k = graph.scores.shape
        scores = graph.scores * (w[0] / n) * known[:, None] + share[:, None]
        scores[known, truth[known]] -= share[known]
        link = Link(graph.edges, (phi @ w[1:] / n).clip(min=0), 1 - np.eye(k))
        y = alpha_expansion(FactorGraph([scores], [link]))[0]
        best = np.where(known, truth, y)  # unlabelled nodes as the scores have it
        loss = float(share[known] @ (y[known] != truth[known]))
        return self._joint(i, best) - self._joint(i, y), loss

    def _joint(self, i: int, y: np.ndarray) -> np.ndarray:
        """Return φ(x, y): the sum of scores, and minus that of cut edges' features."""
        graph, known = self.graphs[i], self.labels[i] >= 0
        apart = (y[graph.edges[:, 0]] != y[graph.edges[:, 1]]).astype(float)
        unary = graph.scores[np.arange(len(y)), y][known].sum()
        return np.append(unary, -(apart @ self.edge_features[i])) / max(len(y), 1)
