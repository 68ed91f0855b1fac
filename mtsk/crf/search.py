"""Choice of strengths on held-out graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import softmax

from mtsk.crf.factor_graph import FactorGraph
from mtsk.crf.inference import mean_field
from mtsk.crf.learning import Affinity
from mtsk.crf.regions import RegionGraph

__all__ = [
    "HeldOut",
    "Setting",
    "iou_gain",
    "mean_node_iou",
    "node_confusions",
    "prior",
]

_TOP, _EPSILON = 20, 3e-3  # palette: one node in so many, and ε
_ROUNDS = 2  # the second uses the probabilities updated by the first


class Setting(NamedTuple):
    """Weights of the parts of the energy."""

    strength: float
    temperature: float
    palette: float = 0.0
    context: float = 0.0


def prior(graph: RegionGraph, setting: Setting) -> np.ndarray:
    """Return the prior that the image as a whole adds to all its nodes, (K,).

    Parameters
    ----------
    graph : RegionGraph
    setting : Setting
    """
    if setting.strength == 0:
        return np.zeros_like(graph.context)
    context = logits = setting.context * graph.context
    if setting.palette and len(graph.scores):
        most = max(1, len(graph.scores) // _TOP)
        for _ in range(_ROUNDS):
            q = softmax(graph.scores + logits, axis=1)
            top = np.partition(q, len(q) - most, axis=0)[-most:].mean(axis=0)
            palette = np.log(top + _EPSILON)
            logits = context + setting.palette * (palette - palette.max())
    return logits


class Model(Protocol):
    """Interface of the model searched over, `SuperpixelCRF`."""

    n_folds: int
    n_sweeps: int

    def learn(
        self, graphs: Sequence[RegionGraph], labels: Sequence[np.ndarray]
    ) -> tuple[Affinity, np.ndarray]:
        """Return weights of edges and costs of labels."""

    def potentials_at(
        self,
        graph: RegionGraph,
        affinity: Affinity,
        cost: np.ndarray,
        setting: Setting,
    ) -> FactorGraph:
        """Return scores and links."""


class HeldOut:
    """Scores of settings on held-out graphs."""

    def __init__(
        self, crf: Model, graphs: list[RegionGraph], labels: list[np.ndarray]
    ) -> None:
        self._crf, self._graphs, self._labels = crf, graphs, labels
        self._n_labels = graphs[0].scores.shape[1]
        fold = np.arange(len(graphs)) % min(crf.n_folds, len(graphs))
        self._learnt = [
            crf.learn(
                [graphs[i] for i in np.flatnonzero(fold != k)],
                [labels[i] for i in np.flatnonzero(fold != k)],
            )
            for k in range(fold.max() + 1)
        ]
        self._fold = fold
        self._counts: dict[Setting, np.ndarray] = {}
        self.found: dict[Setting, float] = {}

    def counts(self, setting: Setting) -> np.ndarray:
        """Return the confusion of each graph's nodes, (n, K, K)."""
        if setting not in self._counts:
            guesses = []
            for graph, k in zip(self._graphs, self._fold, strict=True):
                model = self._crf.potentials_at(graph, *self._learnt[k], setting)
                q = mean_field(model, self._crf.n_sweeps)[0]
                guesses.append(q.argmax(axis=1))
            self._counts[setting] = node_confusions(
                self._graphs, self._labels, guesses, self._n_labels
            )
            self.found[setting] = mean_node_iou(self._counts[setting].sum(axis=0))
        return self._counts[setting]

    def table(self) -> dict[str, np.ndarray]:
        """Return the settings tried and their scores, by column."""
        columns = {
            name: np.array([getattr(setting, name) for setting in self.found])
            for name in Setting._fields
        }
        return {**columns, "score": np.array(list(self.found.values()))}

    def best(self, settings: list[Setting]) -> Setting:
        """Return the setting of highest score, the first of ties."""
        for setting in settings:
            self.counts(setting)
        return max(settings, key=lambda s: self.found[s])

    def gain(self, trial: Setting, base: Setting) -> tuple[float, float]:
        """Return how much better one setting is; see `iou_gain`."""
        return iou_gain([self.counts(trial)], [self.counts(base)])


def iou_gain(
    trial: Sequence[np.ndarray], base: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Return a gain in mean intersection over union, and its standard error.

    The error is the jackknife's, over graphs (Efron & Tibshirani, *An Introduction to
    the Bootstrap*, 1993, equation 11.5).

    Parameters
    ----------
    trial, base : sequence of ndarray of shape (n, K, K)
        Confusions of n graphs, for each of some tasks, whose gains are averaged.

    Returns
    -------
    gain, error : float
    """
    n = len(trial[0])

    def gain(without: int | None) -> float:
        total = 0.0
        for sign, side in ((1, trial), (-1, base)):
            for counts in side:
                kept = counts.sum(axis=0)
                kept = kept if without is None else kept - counts[without]
                total += sign * mean_node_iou(kept) / len(side)
        return total

    spread = np.var([gain(i) for i in range(n)])
    return gain(None), float(np.sqrt((n - 1) * spread))


def node_confusions(
    graphs: Sequence[RegionGraph],
    labels: Sequence[np.ndarray],
    guesses: Sequence[np.ndarray],
    n_labels: int,
) -> np.ndarray:
    """Return the confusion of each graph's labelled nodes, by size, (n, K, K)."""
    counts = np.zeros((len(graphs), n_labels, n_labels))
    for count, graph, truth, guess in zip(counts, graphs, labels, guesses, strict=True):
        known = truth >= 0
        np.add.at(count, (truth[known], guess[known]), graph.sizes[known])
    return counts


def mean_node_iou(counts: np.ndarray) -> float:
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    true = counts.sum(axis=1) > 0
    return float((hits[true] / union[true]).mean()) if true.any() else 0.0
