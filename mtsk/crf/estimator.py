"""SuperpixelCRF: learns how neighbours speak to one another, on any graph."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from mtsk._validation import (
    Interval,
    StrOptions,
    check_parameters,
)
from mtsk.crf.factor_graph import FactorGraph, Link, energy
from mtsk.crf.inference import (
    INFERENCE,
    alpha_expansion,
    mean_field,
    metric_closure,
)
from mtsk.crf.learning import Affinity, fit_affinity, fit_costs, frank_wolfe
from mtsk.crf.regions import RegionGraph

__all__ = ["SuperpixelCRF"]


class SuperpixelCRF(BaseEstimator):
    """A conditional random field over regions, or over the nodes of any graph.

    The energy of labels y of one graph is::

        E(y) = − Σ_i scores[i, y_i] / temperature
               + strength · Σ_(i,j) weight(features_ij) · cost[y_i, y_j]

    The weights are learnt from which neighbours have equal labels, the costs from
    which unlike ones meet, and temperature and strength by cross-validation over
    graphs, with strength 0 among the candidates: then the scores' own answer stands.
    Scores of the graphs that it is fitted to should be out-of-fold ones: a model's
    scores on what it was fitted to are too sure.

    Parameters
    ----------
    learning : {"piecewise", "ssvm"}, default="piecewise"
        ``"piecewise"``: logistic regression on single edges, then the search.
        ``"ssvm"``: a structured SVM of the scores' scale and the edges' weights by
        block-coordinate Frank–Wolfe; the search is left out unless asked for.
    inference : {"mean_field", "icm", "alpha_expansion"}, default="mean_field"
        How ``predict`` finds labels. Probabilities are always those of mean field.
    costs : {"potts", "learnt"}, default="potts"
        Whether all unlike pairs of labels cost the same. For
        ``inference="alpha_expansion"`` learnt costs are brought down to a metric
        (`metric_closure`).
    strength : float >= 0 or "cv", default="cv"
        Factor on all pairwise terms. ``"cv"`` takes the best of 0, ¼, ½, 1, 2.
    temperature : float > 0 or "cv", default="cv"
        Divisor of the scores. ``"cv"`` takes the best of ½, 1, 2.
    n_folds : int, default=3
        Of the cross-validation; a graph is never on both sides.
    penalty : float, default=1e-2
        Of the structured SVM.
    n_sweeps : int, default=10
        Most sweeps of mean field.
    random_state : int, RandomState or None, default=None
        Order in which the structured SVM visits graphs.

    Attributes
    ----------
    n_labels_, n_edge_features_ : int
    affinity_ : Affinity
        Weights of edges from their features.
    cost_ : ndarray of shape (n_labels, n_labels)
    strength_, temperature_ : float
    search_ : dict of (float, float) to float
        Score of each (strength, temperature) tried: mean intersection over union of
        held-out nodes, by size.
    gaps_ : list of float
        Duality gap of the structured SVM after each pass.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.crf import RegionGraph, SuperpixelCRF
    >>> rng = np.random.default_rng(0)
    >>> chain = np.stack([np.arange(19), np.arange(1, 20)], axis=1)
    >>> truth = [np.repeat([0, 1], 10)] * 6
    >>> graphs = [
    ...     RegionGraph(np.eye(2)[y] + rng.normal(0, 1, (20, 2)), chain) for y in truth
    ... ]
    >>> crf = SuperpixelCRF().fit(graphs, truth)
    >>> crf.strength_ > 0
    True
    """

    def __init__(
        self,
        learning: str = "piecewise",
        *,
        inference: str = "mean_field",
        costs: str = "potts",
        strength: float | str = "cv",
        temperature: float | str = "cv",
        n_folds: int = 3,
        penalty: float = 1e-2,
        n_sweeps: int = 10,
        random_state: Any = None,
    ) -> None:
        self.learning = learning
        self.inference = inference
        self.costs = costs
        self.strength = strength
        self.temperature = temperature
        self.n_folds = n_folds
        self.penalty = penalty
        self.n_sweeps = n_sweeps
        self.random_state = random_state

    def fit(self, X: Sequence[RegionGraph], y: Sequence[np.ndarray]) -> Self:
        """Learn weights, costs, strength and temperature.

        Parameters
        ----------
        X : sequence of RegionGraph
        y : sequence of ndarray of int, shape (n_nodes,)
            Labels 0 … K − 1; −1 is unlabelled.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ValueError
        """
        self.check_parameters()
        graphs, labels = _check(X, y)
        self.n_labels_ = graphs[0].scores.shape[1]
        self.n_edge_features_ = graphs[0].features.shape[1]
        if self.learning == "ssvm":
            self._fit_svm(graphs, labels)
        else:
            self.affinity_, self.cost_ = self._learn(graphs, labels)
        self._choose(graphs, labels)
        return self

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` where a parameter is not allowed."""
        check_parameters(self, _CONSTRAINTS)

    def potentials(self, graph: RegionGraph) -> FactorGraph:
        """Return the scores and links whose energy is minimised.

        Parameters
        ----------
        graph : RegionGraph

        Returns
        -------
        FactorGraph
            Of one field and one link (none where ``strength_`` is 0).
        """
        check_is_fitted(self)
        self._check_graph(graph)
        return self._potentials(
            graph, self.affinity_, self.cost_, self.strength_, self.temperature_
        )

    def energy(self, graph: RegionGraph, labels: np.ndarray) -> float:
        """Return the energy of a labelling.

        Parameters
        ----------
        graph : RegionGraph
        labels : ndarray of int, shape (n_nodes,)

        Returns
        -------
        float
        """
        return energy(self.potentials(graph), [labels])

    def predict_proba(self, X: Sequence[RegionGraph]) -> list[np.ndarray]:
        """Return mean-field marginals.

        Parameters
        ----------
        X : sequence of RegionGraph

        Returns
        -------
        list of ndarray of shape (n_nodes, K)
        """
        return [mean_field(self.potentials(g), self.n_sweeps)[0] for g in X]

    def predict(self, X: Sequence[RegionGraph]) -> list[np.ndarray]:
        """Return the labels that inference finds.

        Parameters
        ----------
        X : sequence of RegionGraph

        Returns
        -------
        list of ndarray of int, shape (n_nodes,)
        """
        check_is_fitted(self)
        if self.inference == "mean_field":
            return [q.argmax(axis=1) for q in self.predict_proba(X)]
        solve = INFERENCE[self.inference]
        return [solve(self.potentials(graph))[0] for graph in X]

    def messages(self, graph: RegionGraph) -> np.ndarray:
        """Return what its neighbours tell each node, in units of the given scores.

        Added to a node's scores, they give its marginal's logits; added to the scores
        of a region's pixels, they move these without levelling them, so that what is
        thinner than a region survives.

        Parameters
        ----------
        graph : RegionGraph

        Returns
        -------
        ndarray of shape (n_nodes, K)
            Exactly 0 where ``strength_`` is 0.
        """
        potentials = self.potentials(graph)
        if not potentials.links:
            return np.zeros_like(graph.scores)
        q = mean_field(potentials, self.n_sweeps)[0]
        out = np.zeros_like(graph.scores)
        for link in potentials.links:
            i, j = link.edges.T
            np.add.at(out, i, -link.weights[:, None] * (q[j] @ link.cost.T))
            np.add.at(out, j, -link.weights[:, None] * (q[i] @ link.cost))
        return out * self.temperature_

    def score(self, X: Sequence[RegionGraph], y: Sequence[np.ndarray]) -> float:
        """Return the mean intersection over union of labelled nodes, by size.

        Parameters
        ----------
        X : sequence of RegionGraph
        y : sequence of ndarray of int

        Returns
        -------
        float
        """
        graphs, labels = _check(X, y)
        return _mean_iou(graphs, labels, self.predict(graphs), self.n_labels_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags

    def _check_graph(self, graph: RegionGraph) -> None:
        shape = graph.scores.shape[1], graph.features.shape[1]
        if shape != (self.n_labels_, self.n_edge_features_):
            raise ValueError(
                f"a graph has {shape[0]} labels and {shape[1]} edge features, fit had "
                f"{self.n_labels_} and {self.n_edge_features_}"
            )

    def _learn(
        self, graphs: Sequence[RegionGraph], labels: Sequence[np.ndarray]
    ) -> tuple[Affinity, np.ndarray]:
        affinity = fit_affinity(graphs, labels)
        n = graphs[0].scores.shape[1]
        if self.costs == "potts":
            return affinity, 1 - np.eye(n)
        weights = [affinity.weights(g.features) for g in graphs]
        cost = fit_costs(graphs, labels, weights, n)
        if self.inference == "alpha_expansion":
            cost = metric_closure(cost)
        return affinity, cost

    def _potentials(
        self,
        graph: RegionGraph,
        affinity: Affinity,
        cost: np.ndarray,
        strength: float,
        temperature: float,
    ) -> FactorGraph:
        scores = graph.scores / temperature
        if strength == 0 or not len(graph.edges):
            return FactorGraph([scores], [])
        weights = strength * affinity.weights(graph.features)
        return FactorGraph([scores], [Link(graph.edges, weights, cost)])

    def _choose(self, graphs: list[RegionGraph], labels: list[np.ndarray]) -> None:
        """Set strength and temperature: as given, or the best on held-out graphs."""
        single = self.learning == "ssvm" or len(graphs) < 2
        strengths = _candidates(self.strength, _STRENGTHS, single)
        temperatures = _candidates(self.temperature, _TEMPERATURES, single)
        pairs = [(0.0, 1.0)] if 0.0 in strengths else []
        pairs += [(s, t) for s in strengths if s > 0 for t in temperatures]
        self.search_: dict[tuple[float, float], float] = {}
        if len(pairs) == 1:
            self.strength_, self.temperature_ = pairs[0]
            if pairs[0][0] == 0 and self.temperature != "cv":
                self.temperature_ = float(self.temperature)
            return
        found: dict[tuple[float, float], list[np.ndarray]] = {p: [] for p in pairs}
        fold = np.arange(len(graphs)) % min(self.n_folds, len(graphs))
        for k in np.unique(fold):
            rest = np.flatnonzero(fold != k)
            affinity, cost = self.affinity_, self.cost_
            if self.learning == "piecewise":
                affinity, cost = self._learn(
                    [graphs[i] for i in rest], [labels[i] for i in rest]
                )
            for pair in pairs:
                for i in np.flatnonzero(fold == k):
                    model = self._potentials(graphs[i], affinity, cost, *pair)
                    q = mean_field(model, self.n_sweeps)[0]
                    found[pair].append(q.argmax(axis=1))
        order = np.concatenate([np.flatnonzero(fold == k) for k in np.unique(fold)])
        graphs, labels = [graphs[i] for i in order], [labels[i] for i in order]
        for pair, guesses in found.items():
            self.search_[pair] = _mean_iou(graphs, labels, guesses, self.n_labels_)
        # Of equals the first, which is the weakest.
        self.strength_, self.temperature_ = max(self.search_, key=self.search_.get)  # type: ignore[arg-type]

    def _fit_svm(
        self, graphs: Sequence[RegionGraph], labels: Sequence[np.ndarray]
    ) -> None:
        """Learn the scores' scale and the edges' weights with a margin."""
        features = np.concatenate([g.features for g in graphs])
        mean = features.min(axis=0) if len(features) else np.zeros(0)
        span = np.ptp(features, axis=0) if len(features) else np.zeros(0)
        scale = np.where(span > 0, 1 / np.where(span > 0, span, 1), 0)
        phis = []
        for graph in graphs:
            rising = (graph.features - mean) * scale
            # Falling too, so that weights >= 0 can say "the less, the stronger".
            parts = [np.ones((len(graph.edges), 1)), rising, 1 - rising]
            phis.append(np.concatenate(parts, axis=1))
        cost = 1 - np.eye(graphs[0].scores.shape[1])

        def joint(i: int, y: np.ndarray) -> np.ndarray:
            graph, known = graphs[i], labels[i] >= 0
            apart = cost[y[graph.edges[:, 0]], y[graph.edges[:, 1]]]
            unary = graph.scores[np.arange(len(y)), y][known].sum()
            return np.append(unary, -(apart @ phis[i])) / max(len(y), 1)

        def worst(i: int, w: np.ndarray) -> tuple[np.ndarray, float]:
            graph, truth = graphs[i], labels[i]
            known = truth >= 0
            share = graph.sizes * known
            share = share / max(share.sum(), 1e-300)
            n = len(truth)
            scores = graph.scores * (w[0] / n) * known[:, None] + share[:, None]
            scores[known, truth[known]] -= share[known]
            weights = (phis[i] @ w[1:] / n).clip(min=0)
            link = Link(graph.edges, weights, cost)
            y = alpha_expansion(FactorGraph([scores], [link]))[0]
            best = np.where(known, truth, y)  # unlabelled nodes as the scores have it
            loss = float(share[known] @ (y[known] != truth[known]))
            return joint(i, best) - joint(i, y), loss

        found = frank_wolfe(
            len(graphs),
            worst,
            phis[0].shape[1] + 1,
            penalty=self.penalty,
            random_state=check_random_state(self.random_state),
        )
        self.gaps_ = found.gaps
        n_features = len(mean)
        unit = max(float(found.coef[0]), 1e-6)
        up, down = np.split(found.coef[2:] / unit, [n_features])
        intercept = float(found.coef[1] / unit + down.sum())
        self.affinity_ = Affinity(mean, scale, up - down, intercept)
        self.cost_ = cost


_STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
_TEMPERATURES = (0.5, 1.0, 2.0)
_CONSTRAINTS: dict[str, list] = {
    "learning": [StrOptions({"piecewise", "ssvm"})],
    "inference": [StrOptions(set(INFERENCE))],
    "costs": [StrOptions({"potts", "learnt"})],
    "strength": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
    "temperature": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
    "n_folds": [Interval(Integral, 2, None, closed="left")],
    "penalty": [Interval(Real, 0, None, closed="neither")],
    "n_sweeps": [Interval(Integral, 1, None, closed="left")],
    "random_state": ["random_state"],
}


def _check(
    X: Sequence[RegionGraph], y: Sequence[np.ndarray]
) -> tuple[list[RegionGraph], list[np.ndarray]]:
    graphs, labels = list(X), [np.asarray(one) for one in y]
    if not graphs or len(graphs) != len(labels):
        raise ValueError(
            f"X and y must have one length > 0, got {len(graphs)} graphs and "
            f"{len(labels)} arrays of labels"
        )
    for i, (graph, one) in enumerate(zip(graphs, labels, strict=True)):
        if not isinstance(graph, RegionGraph):
            raise ValueError(f"X must hold RegionGraphs, item {i} is {type(graph)}")
        shape = graph.scores.shape[1], graph.features.shape[1]
        first = graphs[0].scores.shape[1], graphs[0].features.shape[1]
        if shape != first:
            raise ValueError(
                f"graph {i} has {shape[0]} labels and {shape[1]} edge features, "
                f"graph 0 has {first[0]} and {first[1]}"
            )
        if one.shape != (len(graph.scores),) or one.dtype.kind not in "iu":
            raise ValueError(
                f"y[{i}] must be {len(graph.scores)} integers, got dtype {one.dtype}, "
                f"shape {one.shape}"
            )
        if len(one) and one.max() >= shape[0]:
            raise ValueError(f"y[{i}] has the label {one.max()}, of {shape[0]}")
    return graphs, labels


def _candidates(
    given: float | str, choices: Sequence[float], single: bool
) -> Sequence[float]:
    if not isinstance(given, str):
        return [float(given)]
    return [1.0] if single else choices


def _mean_iou(
    graphs: Sequence[RegionGraph],
    labels: Sequence[np.ndarray],
    guesses: Sequence[np.ndarray],
    n_labels: int,
) -> float:
    counts = np.zeros((n_labels, n_labels))
    for graph, truth, guess in zip(graphs, labels, guesses, strict=True):
        known = truth >= 0
        np.add.at(counts, (truth[known], guess[known]), graph.sizes[known])
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    true = counts.sum(axis=1) > 0
    return float((hits[true] / union[true]).mean()) if true.any() else 0.0
