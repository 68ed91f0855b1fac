"""SuperpixelCRF: pairwise potentials of neighbours, learnt on any graph."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from mtsk._validation import (
    Interval,
    StrOptions,
    check_parameters,
)
from mtsk.crf.factor_graph import FactorGraph, Link, energy
from mtsk.crf.inference import mean_field, messages
from mtsk.crf.learning import Affinity, fit_affinity, fit_costs
from mtsk.crf.regions import RegionGraph
from mtsk.crf.search import (
    HeldOut,
    Setting,
    mean_node_iou,
    node_confusions,
    prior,
)

__all__ = ["SuperpixelCRF"]


class SuperpixelCRF(BaseEstimator):
    """A conditional random field over regions, or over the nodes of any graph.

    The energy of labels y of one graph is::

        E(y) = − Σ_i (scores[i, y_i] + prior[y_i]) / temperature
               + strength · Σ_(i,j) weight(features_ij) · cost[y_i, y_j]
        prior[k] = context · graph.context[k] + palette · log(ε + top(k))

    where top(k) is the mean probability of label k, by scores and prior (found in two
    rounds), at the twentieth of the nodes where it is most probable: a label that is
    likely at some nodes of an image becomes likelier at all. The weights are learnt
    from which neighbours have equal labels, the costs from which unequal labels are
    adjacent, and temperature and strengths by cross-validation over graphs, with
    strength 0 among the candidates: the scores alone then decide, whatever the other
    weights. Graphs given to ``fit`` should have out-of-fold scores: a model is
    overconfident on its training set.

    Parameters
    ----------
    costs : {"potts", "learnt"}, default="potts"
        Whether all pairs of unequal labels cost the same.
    strength : float >= 0 or "cv", default="cv"
        Factor on all pairwise terms. ``"cv"`` takes the best of 0, ¼, ½, 1, 2.
    temperature : float > 0 or "cv", default="cv"
        Divisor of the scores. ``"cv"`` takes the best of ½, 1, 2.
    palette : float >= 0 or "cv", default="cv"
        Weight of the image's palette of labels, log(ε + top). ``"cv"`` is 1, or 0 where
        held-out graphs are worse with it by more than a standard error.
    context : float >= 0 or "cv", default="cv"
        Weight of the graphs' own ``context``. ``"cv"`` takes the best of ¼, ½ and 1
        where held-out graphs are better with it by more than a standard error, else 0.
    n_folds : int, default=3
        Number of cross-validation folds of whole graphs.
    n_sweeps : int, default=10
        Maximum number of mean-field sweeps.

    Attributes
    ----------
    n_labels_, n_edge_features_ : int
    affinity_ : Affinity
        Weights of edges from their features.
    cost_ : ndarray of shape (n_labels, n_labels)
    strength_, temperature_, palette_, context_ : float
    search_ : dict of str to ndarray of shape (n_settings,)
        ``strength``, ``temperature``, ``palette`` and ``context`` of each setting
        tried, and its ``score``: mean intersection over union of held-out nodes, by
        size. Empty where nothing was tried.

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
        *,
        costs: str = "potts",
        strength: float | str = "cv",
        temperature: float | str = "cv",
        palette: float | str = "cv",
        context: float | str = "cv",
        n_folds: int = 3,
        n_sweeps: int = 10,
    ) -> None:
        self.costs = costs
        self.strength = strength
        self.temperature = temperature
        self.palette = palette
        self.context = context
        self.n_folds = n_folds
        self.n_sweeps = n_sweeps

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
        self.affinity_, self.cost_ = self.learn(graphs, labels)
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
            With one field and one link (none where ``strength_`` is 0).
        """
        check_is_fitted(self)
        self._check_graph(graph)
        return self.potentials_at(graph, self.affinity_, self.cost_, self._setting)

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
        """Return the likeliest label of each node, by mean-field marginals.

        Parameters
        ----------
        X : sequence of RegionGraph

        Returns
        -------
        list of ndarray of int, shape (n_nodes,)
        """
        return [q.argmax(axis=1) for q in self.predict_proba(X)]

    def messages(self, graph: RegionGraph) -> np.ndarray:
        """Return the messages of neighbours to each node, in units of the scores.

        Added to a node's scores, they give its marginal's logits; added to the scores
        of a region's pixels, they shift these without averaging them, so that
        structures thinner than a region are kept.

        Parameters
        ----------
        graph : RegionGraph

        Returns
        -------
        ndarray of shape (n_nodes, K)
            Exactly 0 where ``strength_`` is 0.
        """
        potentials = self.potentials(graph)
        out = np.broadcast_to(self.prior(graph), graph.scores.shape).copy()
        if potentials.links:
            q = mean_field(potentials, self.n_sweeps)
            out += messages(potentials, q)[0] * self.temperature_
        return out

    def prior(self, graph: RegionGraph) -> np.ndarray:
        """Return the prior that the image as a whole adds to all its nodes.

        Parameters
        ----------
        graph : RegionGraph

        Returns
        -------
        ndarray of shape (K,)
            In units of the scores.
        """
        check_is_fitted(self)
        return prior(graph, self._setting)

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
        guesses = self.predict(graphs)
        counts = node_confusions(graphs, labels, guesses, self.n_labels_)
        return mean_node_iou(counts.sum(axis=0))

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

    def learn(
        self, graphs: Sequence[RegionGraph], labels: Sequence[np.ndarray]
    ) -> tuple[Affinity, np.ndarray]:
        """Return weights of edges and costs of labels, learnt piecewise."""
        affinity = fit_affinity(graphs, labels)
        n = graphs[0].scores.shape[1]
        if self.costs == "potts":
            return affinity, 1 - np.eye(n)
        weights = [affinity.weights(g.features) for g in graphs]
        return affinity, fit_costs(graphs, labels, weights, n)

    @property
    def _setting(self) -> Setting:
        return Setting(self.strength_, self.temperature_, self.palette_, self.context_)

    def potentials_at(
        self,
        graph: RegionGraph,
        affinity: Affinity,
        cost: np.ndarray,
        setting: Setting,
    ) -> FactorGraph:
        """Return scores and links for given weights, costs and strengths."""
        scores = (graph.scores + prior(graph, setting)) / setting.temperature
        if setting.strength == 0 or not len(graph.edges):
            return FactorGraph([scores], [])
        weights = setting.strength * affinity.weights(graph.features)
        return FactorGraph([scores], [Link(graph.edges, weights, cost)])

    def _choose(self, graphs: list[RegionGraph], labels: list[np.ndarray]) -> None:
        """Set strengths and temperature: as given, or the best on held-out graphs."""
        given = self.palette, self.context
        fixed = [0.0 if isinstance(p, str) else float(p) for p in given]
        settings = self._settings(len(graphs), fixed)
        self.search_: dict[str, np.ndarray] = {}
        best = settings[0]
        if len(graphs) > 1:
            held = HeldOut(self, graphs, labels)
            # Ties go to the first, which is the weakest.
            best = held.best(settings) if len(settings) > 1 else best
            if best.strength and self.context == "cv":
                some = any(g.context.any() for g in graphs)
                trials = [best._replace(context=c) for c in _CONTEXTS if some]
                trial = held.best(trials) if some else best
                gain, error = held.gain(trial, best)
                best = trial if gain > error else best
            if best.strength and self.palette == "cv":
                # Few graphs can only show that it hurts: it is on by default, and off
                # where held-out graphs are worse with it.
                trial = best._replace(palette=1.0)
                gain, error = held.gain(trial, best)
                best = trial if gain >= -error else best
            self.search_ = held.table()
        self.strength_, self.temperature_, self.palette_, self.context_ = best

    def _settings(self, n_graphs: int, fixed: Sequence[float]) -> list[Setting]:
        """Return the strengths and temperatures to choose from, the weakest first."""
        single = n_graphs < 2
        strengths = _candidates(self.strength, _STRENGTHS, single)
        temperatures = _candidates(self.temperature, _TEMPERATURES, single)
        settings = [
            Setting(s, t, *fixed) for s in strengths if s > 0 for t in temperatures
        ]
        if 0.0 in strengths:
            neutral = 1.0 if self.temperature == "cv" else float(self.temperature)
            settings.insert(0, Setting(0.0, neutral))
        return settings


_STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
_TEMPERATURES = (0.5, 1.0, 2.0)
_CONTEXTS = (0.25, 0.5, 1.0)
_CONSTRAINTS: dict[str, list] = {
    "costs": [StrOptions({"potts", "learnt"})],
    "strength": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
    "temperature": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
    "palette": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
    "context": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
    "n_folds": [Interval(Integral, 2, None, closed="left")],
    "n_sweeps": [Interval(Integral, 1, None, closed="left")],
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
