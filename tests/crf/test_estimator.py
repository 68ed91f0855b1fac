"""SuperpixelCRF: what it learns, and what it refuses."""

import pickle

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone

from mtsk.crf import RegionGraph, SuperpixelCRF
from mtsk.crf.learning import fit_affinity, fit_costs


def grid_edges(height, width):
    nodes = np.arange(height * width).reshape(height, width)
    across = np.stack([nodes[:, :-1].ravel(), nodes[:, 1:].ravel()], axis=1)
    down = np.stack([nodes[:-1].ravel(), nodes[1:].ravel()], axis=1)
    return np.concatenate([across, down])


def pictures(n=8, side=8, noise=1.5, k=3, seed=0, informative=True):
    """Pictures of vertical stripes: noisy scores, contrast that tells of borders."""
    rng = np.random.default_rng(seed)
    edges = grid_edges(side, side)
    graphs, labels = [], []
    for _ in range(n):
        y = np.repeat(rng.integers(0, k, side), side).reshape(side, side).T.ravel()
        scores = np.eye(k)[y] * 2 + rng.normal(0, noise, (side * side, k))
        differ = y[edges[:, 0]] != y[edges[:, 1]]
        contrast = (differ if informative else 0) + rng.normal(0, 0.3, len(edges))
        graphs.append(RegionGraph(scores, edges, contrast[:, None]))
        labels.append(y)
    return graphs, labels


def accuracy(labels, guesses):
    return np.mean(np.concatenate(labels) == np.concatenate(guesses))


@pytest.fixture(scope="module")
def data():
    return pictures(), pictures(seed=1)


def test_neighbours_help(data):
    (X, y), (X_new, y_new) = data
    crf = SuperpixelCRF().fit(X, y)
    alone = [g.scores.argmax(axis=1) for g in X_new]
    gain = accuracy(y_new, crf.predict(X_new)) - accuracy(y_new, alone)
    assert gain > 0.1
    assert crf.score(X_new, y_new) > 0.5


def test_contrast_weakens_an_edge(data):
    (X, y), _ = data
    affinity = SuperpixelCRF().fit(X, y).affinity_
    same, other = affinity.weights(np.array([[0.0], [1.0]]))
    assert same > other + 0.5


def test_piecewise_weights_are_the_edges_own_maximum_likelihood():
    rng = np.random.default_rng(0)
    n, weight = 4000, 1.3
    scores = rng.normal(size=(2 * n, 3))
    edges = np.arange(2 * n).reshape(n, 2)
    joint = scores[::2][:, :, None] + scores[1::2][:, None] - weight * (1 - np.eye(3))
    p = softmax(joint.reshape(n, 9), axis=1)
    pair = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    y = np.stack(np.divmod(pair, 3), axis=1).ravel()
    found = fit_affinity([RegionGraph(scores, edges)], [y], alpha=1e-9)
    assert found.intercept == pytest.approx(weight, abs=0.1)


def test_costs_learn_which_labels_meet():
    rng = np.random.default_rng(0)
    n = 3000
    y = np.stack([np.zeros(n, int), rng.choice([0, 1, 2], n, p=[0.5, 0.4, 0.1])], 1)
    graph = RegionGraph(np.zeros((2 * n, 3)), np.arange(2 * n).reshape(n, 2))
    cost = fit_costs([graph], [y.ravel()], [np.ones(n)], 3)
    assert cost[0, 1] < cost[0, 2]
    np.testing.assert_array_equal(cost, cost.T)
    np.testing.assert_array_equal(np.diag(cost), 0)
    crf = SuperpixelCRF(costs="learnt").fit([graph] * 2, [y.ravel()] * 2)
    assert crf.cost_[0, 1] < crf.cost_[0, 2]


def test_strength_0_is_the_scores_own_answer(data):
    (X, y), (X_new, _) = data
    crf = SuperpixelCRF(strength=0, temperature=1).fit(X, y)
    for graph, guess, p in zip(
        X_new, crf.predict(X_new), crf.predict_proba(X_new), strict=True
    ):
        np.testing.assert_array_equal(guess, graph.scores.argmax(axis=1))
        np.testing.assert_allclose(p, softmax(graph.scores, axis=1))
        assert not crf.messages(graph).any()


def test_strength_0_is_chosen_where_neighbours_tell_nothing():
    rng = np.random.default_rng(0)
    edges = grid_edges(6, 6)
    labels = [rng.integers(0, 3, 36) for _ in range(9)]
    graphs = [
        RegionGraph(np.eye(3)[y] * 2 + rng.normal(0, 1, (36, 3)), edges) for y in labels
    ]
    crf = SuperpixelCRF().fit(graphs, labels)
    *settings, scores = crf.search_.values()
    found = dict(zip(zip(*settings, strict=True), scores, strict=True))
    assert found[crf.strength_, crf.temperature_, 0, 0] == max(scores)
    assert max(scores) <= found[0, 1, 0, 0] + 0.02


def test_messages_and_scores_are_the_marginals_logits(data):
    (X, y), (X_new, _) = data
    crf = SuperpixelCRF(temperature=2.0, strength=0.5, n_sweeps=500).fit(X, y)
    graph = X_new[0]
    total = (graph.scores + crf.messages(graph)) / 2.0
    np.testing.assert_allclose(
        softmax(total, axis=1), crf.predict_proba([graph])[0], atol=1e-3
    )


def test_energy_is_that_of_the_formula(data):
    (X, y), _ = data
    parts = {"strength": 0.5, "temperature": 2.0, "palette": 0.7, "context": 0.3}
    crf = SuperpixelCRF(**parts).fit(X, y)
    graph, labels = X[0], y[0]
    graph.context[:] = np.arange(len(graph.context))
    prior = 0.3 * graph.context
    for _ in range(2):
        seen = softmax(graph.scores + prior, axis=1)
        top = np.log(np.sort(seen, axis=0)[-3:].mean(axis=0) + 3e-3)  # of 64 nodes
        prior = 0.3 * graph.context + 0.7 * (top - top.max())
    by_hand = -(graph.scores + prior)[np.arange(64), labels].sum() / 2
    weights = crf.affinity_.weights(graph.features)
    for (i, j), w in zip(graph.edges, weights, strict=True):
        by_hand += 0.5 * w * (labels[i] != labels[j])
    assert crf.energy(graph, labels) == pytest.approx(by_hand)


def test_unlabelled_nodes_change_nothing():
    X, y = pictures(4)
    lonely = [
        RegionGraph(
            np.concatenate([g.scores, np.zeros((1, 3))]),
            np.concatenate([g.edges, [[0, 64]]]),
            np.concatenate([g.features, [[9.0]]]),
        )
        for g in X
    ]
    a = fit_affinity(X, y)
    b = fit_affinity(lonely, [np.append(one, -1) for one in y])
    np.testing.assert_allclose(a.coef, b.coef)


def test_a_class_absent_from_training_can_still_be_predicted():
    X, y = pictures(4, k=2)
    wide = [
        RegionGraph(np.c_[g.scores, np.full(64, -9.0)], g.edges, g.features) for g in X
    ]
    crf = SuperpixelCRF(costs="learnt", strength=1, temperature=1).fit(wide, y)
    sure = RegionGraph(np.tile([0.0, 0.0, 50.0], (64, 1)), X[0].edges, X[0].features)
    assert (crf.predict([sure])[0] == 2).all()


def test_pictures_of_one_region(data):
    (X, y), _ = data
    one = RegionGraph(np.array([[0.0, 1.0, 0.0]]), [], np.zeros((0, 1)))
    crf = SuperpixelCRF().fit([*X, one], [*y, np.array([1])])
    assert crf.predict([one])[0].tolist() == [1]
    alone = SuperpixelCRF().fit([one], [np.array([1])])
    assert alone.predict([one])[0].tolist() == [1]


def test_clone_and_pickle(data):
    (X, y), _ = data
    crf = clone(SuperpixelCRF(strength=1.0)).fit(X, y)
    again = pickle.loads(pickle.dumps(crf))
    for a, b in zip(crf.predict_proba(X), again.predict_proba(X), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"strength": -1.0}, "strength"),
        ({"strength": "best"}, "strength"),
        ({"temperature": 0}, "temperature"),
        ({"costs": "free"}, "costs"),
        ({"n_folds": 1}, "n_folds"),
        ({"n_sweeps": 0}, "n_sweeps"),
    ],
)
def test_bad_parameters_are_named(data, parameters, message):
    (X, y), _ = data
    with pytest.raises(ValueError, match=f"'?{message}'?.*SuperpixelCRF"):
        SuperpixelCRF(**parameters).fit(X, y)


def test_bad_data_is_refused(data):
    (X, y), _ = data
    with pytest.raises(ValueError, match="one length > 0, got 8 graphs and 7"):
        SuperpixelCRF().fit(X, y[:7])
    with pytest.raises(ValueError, match="one length > 0"):
        SuperpixelCRF().fit([], [])
    with pytest.raises(ValueError, match=r"y\[1\] must be 64 integers"):
        SuperpixelCRF().fit(X[:2], [y[0], y[1][:9]])
    with pytest.raises(
        ValueError, match=r"y\[0\] must be 64 integers, got dtype float"
    ):
        SuperpixelCRF().fit(X[:1], [y[0] * 1.0])
    with pytest.raises(ValueError, match=r"y\[0\] has the label 3, of 3"):
        SuperpixelCRF().fit(X[:1], [y[0] * 0 + 3])
    with pytest.raises(ValueError, match="item 0 is"):
        SuperpixelCRF().fit([np.zeros((3, 3))], [np.zeros(3, int)])
    other = RegionGraph(np.zeros((2, 4)), [[0, 1]])
    with pytest.raises(ValueError, match="graph 1 has 4 labels and 0 edge features"):
        SuperpixelCRF().fit([X[0], other], [y[0], np.zeros(2, int)])
    with pytest.raises(ValueError, match="a graph has 4 labels"):
        SuperpixelCRF().fit(X, y).predict([other])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 2)), [[0, 2]]), "edges name node 2, there are 2"),
        ((np.zeros((2, 2)), [[1, 1]]), "self-loop"),
        ((np.full((2, 2), np.nan), [[0, 1]]), "scores must be finite"),
        ((np.zeros((2, 2)), [[0, 1]], np.zeros((2, 1))), r"shape \(1, F\)"),
        ((np.zeros((2, 2)), [[0, 1]], [[np.inf]]), "features must be finite"),
        (
            (np.zeros((2, 2)), [[0, 1]], None, np.ones(3)),
            r"sizes must have shape \(2,\)",
        ),
        ((np.zeros((2, 2)), [[0, 1]], None, [-1.0, 1.0]), "sizes at least 0"),
    ],
)
def test_bad_region_graphs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RegionGraph(*arguments)


def test_the_palette_keeps_out_what_no_node_is_sure_of():
    scores = np.zeros((40, 3))
    scores[:20, 0], scores[20:, 1] = 4, 4
    scores[::10] = [1.0, 0.9, 1.2]  # doubtful, and nothing else has the label 2
    edges = np.stack([np.arange(39), np.arange(1, 40)], axis=1)
    y = np.repeat([0, 1], 20)
    graph = RegionGraph(scores, edges)
    crf = SuperpixelCRF(strength=1e-9, temperature=1.0)
    without = clone(crf).set_params(palette=0).fit([graph] * 2, [y] * 2)
    assert set(without.predict([graph])[0]) == {0, 1, 2}
    crf.set_params(palette=1.0).fit([graph] * 2, [y] * 2)
    assert set(crf.predict([graph])[0]) == {0, 1}


def test_the_palette_goes_where_it_hurts():
    rng = np.random.default_rng(0)
    edges = np.stack([np.arange(99), np.arange(1, 100)], axis=1)
    graphs, labels = [], []
    for _ in range(12):
        y = np.repeat([0, 1], 50)
        y[rng.choice(100, 3, replace=False)] = 2  # always there, never sure
        scores = np.eye(3)[y] * 1.5 + [2, 2, 0] + rng.normal(0, 0.3, (100, 3))
        scores[y == 2] = [1.0, 1.0, 1.3]
        graphs.append(RegionGraph(scores, edges))
        labels.append(y)
    crf = SuperpixelCRF(strength=0.01, temperature=1.0).fit(graphs, labels)
    assert crf.palette_ == 0
    same = SuperpixelCRF(strength=0.01, temperature=1.0, palette=0).fit(graphs, labels)
    for a, b in zip(crf.predict(graphs), same.predict(graphs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_context_is_weighed_by_what_it_is_worth():
    rng = np.random.default_rng(0)
    edges = np.stack([np.arange(29), np.arange(1, 30)], axis=1)

    def graphs_with(true):
        graphs, labels = [], []
        for _ in range(12):
            k = int(rng.integers(3))
            told = k if true else int(rng.integers(3))
            scores = np.eye(3)[np.full(30, k)] * 0.3 + rng.normal(0, 1, (30, 3))
            graphs.append(RegionGraph(scores, edges, context=3 * np.eye(3)[told]))
            labels.append(np.full(30, k))
        return graphs, labels

    crf = SuperpixelCRF(strength=0.1, temperature=1.0, palette=0)
    assert clone(crf).fit(*graphs_with(true=True)).context_ > 0
    assert clone(crf).fit(*graphs_with(true=False)).context_ == 0


@pytest.mark.parametrize("context", [np.zeros(2), [np.nan, 0, 0], np.zeros((3, 1))])
def test_a_context_of_another_form_is_refused(context):
    with pytest.raises(ValueError, match="context must be 3 finite numbers"):
        RegionGraph(np.zeros((2, 3)), [[0, 1]], context=context)
