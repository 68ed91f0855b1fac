"""Mean-field marginals of factor graphs, and their messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.special import softmax

from mtsk.crf.factor_graph import FactorGraph, Link

__all__ = ["mean_field", "messages"]


def mean_field(
    graph: FactorGraph, n_sweeps: int = 10, tol: float = 1e-4
) -> list[np.ndarray]:
    """Return approximate marginals: the product distribution nearest to the graph's.

    Coordinate descent on KL(q ‖ p) (Koller & Friedman, *Probabilistic Graphical
    Models*, algorithm 11.7). Nodes of one colour, no two of them neighbours, are
    updated together, so the divergence never increases.

    Parameters
    ----------
    graph : FactorGraph
    n_sweeps : int, default=10
        Maximum number of passes over all nodes.
    tol : float, default=1e-4
        Stops when no marginal changed by more in a sweep.

    Returns
    -------
    list of ndarray of shape (n_nodes, K)
        Marginals of each field; rows sum to 1.
    """
    q = [softmax(scores, axis=1) for scores in graph.fields]
    moves = _moves(graph)
    if not graph.links:
        return q
    for _ in range(n_sweeps):
        change = 0.0
        for move in moves:
            new = softmax(-move.local_energies(q), axis=1)
            change = max(change, float(np.abs(new - q[move.field][move.nodes]).max()))
            q[move.field][move.nodes] = new
        if change <= tol:
            break
    return q


def messages(graph: FactorGraph, q: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the messages to each node: minus the expected cost of each label.

    Parameters
    ----------
    graph : FactorGraph
    q : sequence of ndarray of shape (n_nodes, K)
        Marginals of each field.

    Returns
    -------
    list of ndarray of shape (n_nodes, K)
        At a fixed point of mean field, scores plus messages are the marginals' logits.
    """
    out = [np.zeros_like(scores) for scores in graph.fields]
    for link in graph.links:
        i, j = link.edges.T
        weights = link.weights[:, None]
        np.add.at(out[link.a], i, -weights * (q[link.b][j] @ link.cost.T))
        np.add.at(out[link.b], j, -weights * (q[link.a][i] @ link.cost))
    return out


class _Move:
    """Nodes of a field that are updated together, and their neighbours."""

    def __init__(self, place: int, nodes: np.ndarray, scores: np.ndarray) -> None:
        self.field = place
        self.nodes = nodes
        self._unary = -scores[nodes]
        self._seen: list[tuple[int, sparse.csr_array, np.ndarray]] = []

    def sees(self, other: int, weights: sparse.csr_array, cost: np.ndarray) -> None:
        """Add neighbours: weights (all nodes here, nodes there), cost (K, K there)."""
        rows = weights[self.nodes]
        if rows.nnz:
            self._seen.append((other, rows, cost.T.copy()))

    def local_energies(self, q: Sequence[np.ndarray]) -> np.ndarray:
        """Return the expected energy of each label of each node, given the others."""
        total = self._unary.copy()
        for other, rows, cost in self._seen:
            total += rows @ (q[other] @ cost)
        return total


def _moves(graph: FactorGraph) -> list[_Move]:
    moves: list[_Move] = []
    for place, scores in enumerate(graph.fields):
        inside = [link for link in graph.links if link.a == link.b == place]
        colour = _colours(len(scores), inside)
        for c in range(colour.max(initial=-1) + 1):
            moves.append(_Move(place, np.flatnonzero(colour == c), scores))
    for link in graph.links:
        shape = len(graph.fields[link.a]), len(graph.fields[link.b])
        there = sparse.csr_array((link.weights, tuple(link.edges.T)), shape=shape)
        back = there.T.tocsr()
        if link.a == link.b and np.array_equal(link.cost, link.cost.T):
            there = there + back  # one product serves both directions
        for move in moves:
            if move.field == link.a:
                move.sees(link.b, there, link.cost)
            if move.field == link.b and not (
                link.a == link.b and np.array_equal(link.cost, link.cost.T)
            ):
                move.sees(link.a, back, link.cost.T)
    return moves


def _colours(n_nodes: int, links: Sequence[Link]) -> np.ndarray:
    """Colour nodes so that neighbours differ (Jones & Plassmann, SISC 14, 1993)."""
    colour = np.full(n_nodes, -1)
    edges = [link.edges for link in links if len(link.edges)]
    if not edges:
        return np.zeros(n_nodes, int)
    pairs = np.concatenate([*edges, *(e[:, ::-1] for e in edges)])
    rank = np.random.default_rng(0).permutation(n_nodes)
    while (colour < 0).any():
        open_pairs = pairs[(colour[pairs] < 0).all(axis=1)]
        top = np.full(n_nodes, -1)
        np.maximum.at(top, open_pairs[:, 0], rank[open_pairs[:, 1]])
        ready = (colour < 0) & (rank > top)
        taken = np.zeros((n_nodes, colour.max() + 2), bool)
        done = pairs[colour[pairs[:, 1]] >= 0]
        taken[done[:, 0], colour[done[:, 1]]] = True
        colour[ready] = (~taken[ready]).argmax(axis=1)
    return colour
