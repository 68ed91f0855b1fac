"""Pairwise factor graphs: fields of nodes, links between them, and their energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["FactorGraph", "Link", "energy"]


@dataclass
class Link:
    """Pairwise factors between two fields, or inside one.

    An edge e between node i of field ``a`` and node j of field ``b`` costs
    ``weights[e] · cost[y_i, y_j]``.

    Parameters
    ----------
    edges : ndarray of int, shape (m, 2)
        Node of field ``a``, node of field ``b``.
    weights : ndarray of float, shape (m,)
        At least 0.
    cost : ndarray of float, shape (K_a, K_b)
        Cost of every pair of labels.
    a, b : int, default=0
        Indices of the fields in the graph.
    """

    edges: np.ndarray
    weights: np.ndarray
    cost: np.ndarray
    a: int = 0
    b: int = 0

    def __post_init__(self) -> None:
        self.edges = check_edges(self.edges)
        self.weights = np.asarray(self.weights, float)
        self.cost = np.asarray(self.cost, float)
        if self.weights.shape != (len(self.edges),):
            raise ValueError(
                f"weights must have shape ({len(self.edges)},), one an edge, got "
                f"{self.weights.shape}"
            )
        if not (self.weights >= 0).all() or not np.isfinite(self.weights).all():
            raise ValueError("weights must be finite numbers >= 0")
        if self.a == self.b and (self.edges[:, 0] == self.edges[:, 1]).any():
            node = self.edges[self.edges[:, 0] == self.edges[:, 1]][0, 0]
            raise ValueError(f"edges must join two nodes, node {node} has a self-loop")


@dataclass
class FactorGraph:
    """Fields of nodes with scores, and links with costs.

    The energy of a labelling is ``− Σ scores[i, y_i] + Σ weights[e] · cost[y_i, y_j]``;
    its probability is ∝ exp(− energy).

    Parameters
    ----------
    fields : sequence of ndarray of shape (n_nodes, K)
        The scores (log-potentials, logits) of each field's nodes. Nodes of one field
        share their K labels.
    links : sequence of Link

    Raises
    ------
    ValueError
        On scores that are not finite, edges out of range, and costs of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.crf import FactorGraph, Link, energy, mean_field
    >>> scores = np.array([[2.0, 0.0], [0.0, 0.5]])
    >>> link = Link([[0, 1]], [1.0], 1 - np.eye(2))
    >>> graph = FactorGraph([scores], [link])
    >>> energy(graph, [[0, 0]]), energy(graph, [[0, 1]])
    (-2.0, -1.5)
    >>> mean_field(graph)[0].argmax(axis=1)
    array([0, 0])
    """

    fields: Sequence[np.ndarray]
    links: Sequence[Link] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fields = [check_scores(scores) for scores in self.fields]
        for link in self.links:
            for side, place in enumerate((link.a, link.b)):
                if not 0 <= place < len(self.fields):
                    raise ValueError(
                        f"a link names field {place}, there are {len(self.fields)}"
                    )
                n = len(self.fields[place])
                if len(link.edges) and link.edges[:, side].max() >= n:
                    raise ValueError(
                        f"edges name node {link.edges[:, side].max()}, field {place} "
                        f"has {n} nodes"
                    )
            shape = tuple(self.fields[p].shape[1] for p in (link.a, link.b))
            if link.cost.shape != shape:
                raise ValueError(
                    f"cost must have shape {shape}, (labels of one end, labels of the "
                    f"other), got {link.cost.shape}"
                )
            if not np.isfinite(link.cost).all():
                raise ValueError("cost must hold finite numbers")


def energy(graph: FactorGraph, labels: Sequence[np.ndarray]) -> float:
    """Return the energy of a labelling.

    Parameters
    ----------
    graph : FactorGraph
    labels : sequence of ndarray of int, shape (n_nodes,)
        Labels of each field.

    Returns
    -------
    float
    """
    total = 0.0
    labels = [np.asarray(y) for y in labels]
    if len(labels) != len(graph.fields):
        raise ValueError(
            f"labels must be one array for each of {len(graph.fields)} fields, got "
            f"{len(labels)}"
        )
    for scores, y in zip(graph.fields, labels, strict=True):
        if y.shape != (len(scores),):
            raise ValueError(f"labels must have shape ({len(scores)},), got {y.shape}")
        if len(y) and y.dtype.kind not in "iu":
            raise ValueError(f"labels must be integers, got dtype {y.dtype}")
        if len(y) and not (y.min() >= 0 and y.max() < scores.shape[1]):
            raise ValueError(f"labels must lie in 0 … {scores.shape[1] - 1}")
        total -= float(scores[np.arange(len(y)), y].sum())
    for link in graph.links:
        i, j = link.edges.T
        total += float(link.weights @ link.cost[labels[link.a][i], labels[link.b][j]])
    return total


def check_edges(edges: np.ndarray) -> np.ndarray:
    """Return edges as an (m, 2) integer array."""
    edges = np.asarray(edges)
    if edges.size == 0:
        return np.zeros((0, 2), np.intp)
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise ValueError(
            f"edges must be integers of shape (m, 2), got dtype {edges.dtype}, shape "
            f"{edges.shape}"
        )
    if edges.min() < 0:
        raise ValueError(f"edges name node {edges.min()}; nodes are counted from 0")
    return edges.astype(np.intp)


def check_scores(scores: np.ndarray) -> np.ndarray:
    """Return scores as a finite (n, K) array of float64."""
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or scores.shape[1] < 1:
        raise ValueError(f"scores must have shape (n_nodes, K), got {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return scores
