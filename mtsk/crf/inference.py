"""From scores and costs to labels: mean field, ICM and alpha-expansion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.special import softmax

from mtsk.crf.factor_graph import FactorGraph, Link, energy

__all__ = [
    "alpha_expansion",
    "icm",
    "is_metric",
    "mean_field",
    "messages",
    "metric_closure",
]

_FLOW = 2**28  # maximum_flow counts in int32; all capacities together stay below


def mean_field(
    graph: FactorGraph, n_sweeps: int = 10, tol: float = 1e-4
) -> list[np.ndarray]:
    """Return approximate marginals: the product distribution nearest to the graph's.

    Coordinate descent on KL(q ‖ p) (Koller & Friedman, *Probabilistic Graphical
    Models*, algorithm 11.7). Nodes of one colour, no two of them neighbours, move
    together, so the divergence never rises.

    Parameters
    ----------
    graph : FactorGraph
    n_sweeps : int, default=10
        Most passes over all nodes.
    tol : float, default=1e-4
        Stops when no marginal changed by more in a sweep.

    Returns
    -------
    list of ndarray of shape (n_nodes, K)
        Of each field; rows sum to 1.
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
    """Return what the others tell each node: minus the mean cost of each label.

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


def icm(
    graph: FactorGraph, labels: Sequence[np.ndarray] | None = None, n_sweeps: int = 100
) -> list[np.ndarray]:
    """Return a labelling that no change of a single node improves.

    Iterated conditional modes (Besag, *J. Royal Stat. Soc. B* 48, 1986).

    Parameters
    ----------
    graph : FactorGraph
    labels : sequence of ndarray of int, optional
        Where to start. None is each node's best score.
    n_sweeps : int, default=100
        Most passes over all nodes.

    Returns
    -------
    list of ndarray of int, shape (n_nodes,)
        Of each field.
    """
    starts = [s.argmax(axis=1) for s in graph.fields] if labels is None else labels
    energy(graph, starts)  # refuses labels that do not fit
    q = [
        _one_hot(np.asarray(y, int), scores.shape[1])
        for y, scores in zip(starts, graph.fields, strict=True)
    ]
    moves = _moves(graph)
    for _ in range(n_sweeps):
        changed = False
        for move in moves:
            costs = move.local_energies(q)
            now = q[move.field][move.nodes].argmax(axis=1)
            best = costs.argmin(axis=1)
            rows = np.arange(len(now))
            better = costs[rows, best] < costs[rows, now] - 1e-12
            if better.any():
                changed = True
                new = np.where(better, best, now)
                q[move.field][move.nodes] = _one_hot(new, costs.shape[1])
        if not changed:
            break
    return [marginals.argmax(axis=1) for marginals in q]


def alpha_expansion(
    graph: FactorGraph,
    labels: np.ndarray | None = None,
    *,
    non_metric: Literal["refuse", "project"] = "refuse",
    max_cycles: int = 20,
) -> list[np.ndarray]:
    """Return a labelling that no expansion of a label improves.

    For one field and metric costs: its energy is then within a known factor of the
    least (Boykov, Veksler & Zabih, *PAMI* 23, 2001; graphs as in Kolmogorov & Zabih,
    *PAMI* 26, 2004). Cuts are found by `scipy.sparse.csgraph.maximum_flow`, on
    energies rounded to whole numbers.

    Parameters
    ----------
    graph : FactorGraph
    labels : ndarray of int, shape (n_nodes,), optional
        Where to start. None is each node's best score.
    non_metric : {"refuse", "project"}, default="refuse"
        What to do about costs that are no metric: raise, or take the largest metric
        below them (`metric_closure`).
    max_cycles : int, default=20
        Most rounds over all labels.

    Returns
    -------
    list of one ndarray of int, shape (n_nodes,)

    Raises
    ------
    ValueError
        Where there are several fields, or costs are no metric.
    """
    if non_metric not in ("refuse", "project"):
        raise ValueError(
            f"non_metric must be 'refuse' or 'project', got {non_metric!r}"
        )
    if len(graph.fields) != 1:
        raise ValueError(
            "alpha_expansion moves one field whose nodes share their labels, got "
            f"{len(graph.fields)} fields; use mean_field or icm"
        )
    links = [_metric_link(link, non_metric) for link in graph.links]
    graph = FactorGraph(graph.fields, links)
    scores = graph.fields[0]
    y = scores.argmax(axis=1) if labels is None else np.array(labels, int)
    if not len(y):
        return [y]
    best = energy(graph, [y])
    for _ in range(max_cycles):
        before = best
        for alpha in range(scores.shape[1]):
            trial = np.where(_expand(scores, links, y, alpha), alpha, y)
            value = energy(graph, [trial])
            if value < best - 1e-9:  # rounding can make a cut that is no gain
                y, best = trial, value
        if best >= before:
            break
    return [y]


def is_metric(cost: np.ndarray, rtol: float = 1e-9) -> bool:
    """Tell whether costs are symmetric, 0 for equal labels, and keep the triangle rule.

    Two labels may be at distance 0 (a semimetric in the strict sense; cuts allow it).

    Parameters
    ----------
    cost : ndarray of shape (K, K)

    Returns
    -------
    bool
    """
    cost = np.asarray(cost, float)
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1]:
        return False
    slack = rtol * float(np.abs(cost).max(initial=0))
    detour = (cost[:, :, None] + cost[None]).min(axis=1)  # shortest over a third label
    return bool(
        (np.abs(np.diag(cost)) <= slack).all()
        and (np.abs(cost - cost.T) <= slack).all()
        and (cost >= -slack).all()
        and (cost <= detour + slack).all()
    )


def metric_closure(cost: np.ndarray) -> np.ndarray:
    """Return the largest metric that nowhere exceeds some costs.

    Made symmetric by the mean of both directions, then each pair of labels gets the
    length of the shortest path between them.

    Parameters
    ----------
    cost : ndarray of shape (K, K)
        At least 0 off the diagonal; the diagonal is taken as 0.

    Returns
    -------
    ndarray of shape (K, K)
    """
    mean = (np.asarray(cost, float) + np.asarray(cost, float).T) / 2
    np.fill_diagonal(mean, 0)
    if (mean < 0).any():
        raise ValueError("costs below 0 reward unlike labels; no metric is near them")
    for over in range(len(mean)):  # Floyd–Warshall; csgraph's takes 0 for no edge
        mean = np.minimum(mean, mean[:, [over]] + mean[[over]])
    return mean


class _Move:
    """Nodes of a field that may change together, and what they see of the others."""

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


def _one_hot(y: np.ndarray, n_labels: int) -> np.ndarray:
    return np.eye(n_labels)[y]


def _metric_link(link: Link, non_metric: str) -> Link:
    if is_metric(link.cost):
        return link
    if non_metric == "refuse":
        raise ValueError(
            "alpha_expansion needs costs that are a metric (symmetric, 0 on the "
            "diagonal, triangle rule); non_metric='project' takes the nearest below, "
            "or use mean_field or icm"
        )
    return Link(link.edges, link.weights, metric_closure(link.cost), link.a, link.b)


def _expand(
    scores: np.ndarray, links: Sequence[Link], y: np.ndarray, alpha: int
) -> np.ndarray:
    """Return which nodes take the label alpha in the best such move.

    With x = 1 for a node that takes it, an edge costs A, B, C or D at (x_i, x_j) =
    00, 01, 10, 11: A + (C − A) x_i + (D − C) x_j + (B + C − A − D)(1 − x_i) x_j.
    """
    n = len(y)
    gain = scores[np.arange(n), y] - scores[:, alpha]  # energy of x = 1 over x = 0
    heads, tails, caps = [], [], []
    for link in links:
        i, j = link.edges.T
        cost, w = link.cost, link.weights
        both, only_j, only_i = cost[y[i], y[j]], cost[y[i], alpha], cost[alpha, y[j]]
        gain += np.bincount(i, w * (only_i - both), minlength=n)
        gain += np.bincount(j, w * (cost[alpha, alpha] - only_i), minlength=n)
        heads.append(i)
        tails.append(j)
        caps.append(w * (only_j + only_i - both - cost[alpha, alpha]))
    return _least_cut(gain, heads, tails, caps)


def _least_cut(
    gain: np.ndarray,
    heads: list[np.ndarray],
    tails: list[np.ndarray],
    caps: list[np.ndarray],
) -> np.ndarray:
    """Minimise Σ gain·x + Σ cap·(1 − x_i)·x_j over binary x, 1 on the sink's side."""
    n = len(gain)
    source, sink, nodes = n, n + 1, np.arange(n)
    rows = np.concatenate([*heads, np.full(n, source), nodes])
    cols = np.concatenate([*tails, nodes, np.full(n, sink)])
    flow = np.concatenate([*caps, gain.clip(min=0), (-gain).clip(min=0)]).clip(min=0)
    if not flow.any():
        return np.zeros(n, bool)
    scale = _FLOW / float(flow.sum())
    whole = np.rint(flow * scale).astype(np.int32)
    capacity = sparse.csr_array((whole, (rows, cols)), shape=(n + 2, n + 2))
    capacity.eliminate_zeros()
    result = maximum_flow(sparse.csr_matrix(capacity), source, sink)
    residual = sparse.csr_matrix(capacity - result.flow)
    residual.eliminate_zeros()
    reached = breadth_first_order(residual, source, return_predecessors=False)
    takes = np.ones(n + 2, bool)
    takes[reached] = False
    return takes[:n]


INFERENCE: dict[str, Callable[..., list[np.ndarray]]] = {
    "mean_field": mean_field,
    "icm": icm,
    "alpha_expansion": alpha_expansion,
}
"""Ways to solve a graph, by name."""
