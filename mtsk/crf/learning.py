"""Learning of edge weights and of costs of label pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, softmax

from mtsk.crf.regions import RegionGraph

__all__ = ["Affinity", "fit_affinity", "fit_costs"]

_LEAST = 1e-6


@dataclass
class Affinity:
    """Edge weights that favour equal labels, linear in the features of edges.

    Attributes
    ----------
    mean, scale : ndarray of shape (F,)
        Mean and 1/std of the features.
    coef : ndarray of shape (F,)
        Weights on standardised features.
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
    """Learn which edges join equal labels, given the scores.

    Piecewise training (Sutton & McCallum, UAI 2005): each edge is a separate CRF. Where
    both ends' scores alone give "equal" the probability s = Σ_k p_ik p_jk, a weight a
    makes the odds s/(1 − s) · exp(a); so a = θᵀφ + b is a logistic regression of
    "equal" on the features φ with offset logit(s).

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
    """Learn which unequal labels are adjacent more often than scores predict.

    Among edges whose ends differ, the number of pairs (k, l) is divided by that
    expected from the ends' scores. One step of iterative scaling turns this ratio r
    into the cost 1 − log r / mean weight, kept in [0, 2].

    Parameters
    ----------
    graphs : sequence of RegionGraph
    labels : sequence of ndarray of int
    weights : sequence of ndarray of float
        Weights of the edges.
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
