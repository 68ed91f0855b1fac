"""Couplings between the labels of two tasks at one region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from mtsk.crf.estimator import SuperpixelCRF
from mtsk.crf.factor_graph import FactorGraph, Link
from mtsk.crf.inference import mean_field, messages
from mtsk.crf.regions import RegionGraph
from mtsk.crf.search import iou_gain, node_confusions

__all__ = ["Coupling", "coupled_messages", "fit_coupling"]

_STRENGTHS = (0.5, 1.0)
_MOST = 2.0  # bound of the log-ratios that define costs
_FOLDS = 3


@dataclass
class Coupling:
    """Compatibility of two tasks' labels at one region.

    Attributes
    ----------
    a, b : str
        The tasks.
    cost : ndarray of shape (K_a, K_b)
        At least 0; small where the labels co-occur more often than the scores predict.
    strength : float
        Factor on the cost of each region. 0: no coupling.
    """

    a: str
    b: str
    cost: np.ndarray
    strength: float


def fit_coupling(
    a: str,
    b: str,
    crfs: Mapping[str, SuperpixelCRF],
    graphs: Mapping[str, Sequence[RegionGraph]],
    labels: Mapping[str, Sequence[np.ndarray]],
) -> Coupling:
    """Learn the costs and the strength of the coupling of two tasks.

    The cost is minus the logarithm of the number of regions with both labels over the
    number expected from the scores (one step of iterative scaling, as for
    `SuperpixelCRF` with learnt costs). The strength is the better of ½ and 1 on
    held-out graphs, where the mean of both tasks' intersection over union gains more
    than its standard error; else 0.

    Parameters
    ----------
    a, b : str
    crfs : mapping of str to SuperpixelCRF
        Fitted.
    graphs : mapping of str to sequence of RegionGraph
        Graphs of the same images, with the same regions, for both tasks.
    labels : mapping of str to sequence of ndarray of int
        −1 is unlabelled.

    Returns
    -------
    Coupling
    """
    n = len(graphs[a])
    cost = _costs(a, b, graphs, labels, np.arange(n))
    if n < 2:
        return Coupling(a, b, cost, 0.0)
    fold = np.arange(n) % min(_FOLDS, n)
    counts: dict[float, list[np.ndarray]] = {}
    for strength in (0.0, *_STRENGTHS):
        guesses: dict[str, list[np.ndarray]] = {a: [], b: []}
        for i in range(n):
            rest = _costs(a, b, graphs, labels, np.flatnonzero(fold != fold[i]))
            here = {t: graphs[t][i] for t in (a, b)}
            q = _solve(here, crfs, [Coupling(a, b, rest, strength)])[1]
            for task, marginals in zip((a, b), q, strict=True):
                guesses[task].append(marginals.argmax(axis=1))
        counts[strength] = [
            node_confusions(
                graphs[t], labels[t], guesses[t], graphs[t][0].scores.shape[1]
            )
            for t in (a, b)
        ]
    gains = {s: iou_gain(counts[s], counts[0.0]) for s in _STRENGTHS}
    best = max(gains, key=lambda s: gains[s][0])
    gain, error = gains[best]
    return Coupling(a, b, cost, best if gain > error else 0.0)


def coupled_messages(
    graphs: Mapping[str, RegionGraph],
    crfs: Mapping[str, SuperpixelCRF],
    couplings: Sequence[Coupling],
) -> dict[str, np.ndarray]:
    """Return the messages of neighbours, other tasks and the prior to each task.

    Parameters
    ----------
    graphs : mapping of str to RegionGraph
        Graph of each task, with the same regions.
    crfs : mapping of str to SuperpixelCRF
    couplings : sequence of Coupling
        Couplings of other tasks and those of strength 0 are ignored.

    Returns
    -------
    dict of str to ndarray of shape (n_nodes, K)
        In units of the scores.
    """
    active = [c for c in couplings if c.strength and {c.a, c.b} <= set(graphs)]
    joined = [n for n in graphs if any(n in (c.a, c.b) for c in active)]
    out = {n: crfs[n].messages(graphs[n]) for n in graphs if n not in joined}
    if joined:
        graph, q = _solve({n: graphs[n] for n in joined}, crfs, active)
        for name, each in zip(joined, messages(graph, q), strict=True):
            scaled = each * crfs[name].temperature_
            out[name] = scaled + crfs[name].prior(graphs[name])
    return out


def _solve(
    graphs: Mapping[str, RegionGraph],
    crfs: Mapping[str, SuperpixelCRF],
    couplings: Sequence[Coupling],
) -> tuple[FactorGraph, list[np.ndarray]]:
    """Return the graph of all tasks, and its marginals."""
    names = list(graphs)
    fields, links = [], []
    for place, name in enumerate(names):
        own = crfs[name].potentials(graphs[name])
        fields.append(own.fields[0])
        links += [replace(link, a=place, b=place) for link in own.links]
    for c in couplings:
        regions = np.arange(len(graphs[c.a].scores))
        links.append(
            Link(
                np.stack([regions, regions], axis=1),
                np.full(len(regions), c.strength),
                c.cost,
                names.index(c.a),
                names.index(c.b),
            )
        )
    graph = FactorGraph(fields, links)
    return graph, mean_field(graph, max(crfs[n].n_sweeps for n in names))


def _costs(
    a: str,
    b: str,
    graphs: Mapping[str, Sequence[RegionGraph]],
    labels: Mapping[str, Sequence[np.ndarray]],
    which: np.ndarray,
) -> np.ndarray:
    shape = graphs[a][0].scores.shape[1], graphs[b][0].scores.shape[1]
    seen, expected = np.zeros(shape), np.zeros(shape)
    for i in which:
        known = (labels[a][i] >= 0) & (labels[b][i] >= 0)
        np.add.at(seen, (labels[a][i][known], labels[b][i][known]), 1.0)
        p, q = (softmax(graphs[t][i].scores[known], axis=1) for t in (a, b))
        expected += p.T @ q
    cost = -np.log((seen + 1) / (expected + 1)).clip(-_MOST, _MOST)
    return cost - cost.min()
