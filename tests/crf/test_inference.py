"""Energy and inference, against every labelling of tiny graphs."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from mtsk.crf import (
    FactorGraph,
    Link,
    energy,
    mean_field,
)

POTTS3 = 1 - np.eye(3)


def random_graph(seed, n=5, k=3, strength=1.0, cost=None, density=0.6):
    rng = np.random.default_rng(seed)
    pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n)], int)
    edges = pairs[rng.random(len(pairs)) < density].reshape(-1, 2)
    weights = strength * rng.random(len(edges))
    cost = 1 - np.eye(k) if cost is None else cost
    return FactorGraph([rng.normal(size=(n, k))], [Link(edges, weights, cost)])


def two_fields(seed, strength=1.0):
    """Regions with three labels, one binary node joined to all of them."""
    rng = np.random.default_rng(seed)
    link = Link([[0, 1], [1, 2]], strength * rng.random(2), POTTS3)
    cost = rng.random((2, 3))
    joined = Link([[0, 0], [0, 1], [0, 2]], strength * rng.random(3), cost, 1, 0)
    return FactorGraph(
        [rng.normal(size=(3, 3)), rng.normal(size=(1, 2))], [link, joined]
    )


def labellings(graph):
    """Every labelling, as a list of arrays, one a field."""
    sizes = [(len(s), s.shape[1]) for s in graph.fields]
    for flat in product(*(range(k) for n, k in sizes for _ in range(n))):
        out, start = [], 0
        for n, _ in sizes:
            out.append(np.array(flat[start : start + n], int))
            start += n
        yield out


def exact(graph):
    """The exact marginals, least energy and log Z."""
    every = list(labellings(graph))
    energies = np.array([energy(graph, y) for y in every])
    p = softmax(-energies)
    marginals = [np.zeros(s.shape) for s in graph.fields]
    for weight, y in zip(p, every, strict=True):
        for field, labels in enumerate(y):
            marginals[field][np.arange(len(labels)), labels] += weight
    return marginals, energies.min(), np.log(np.exp(-energies).sum())


def free_energy(graph, q):
    """Energy expected under a product distribution, minus its entropy."""
    total = sum(
        float((m * (np.log(np.maximum(m, 1e-300)) - s)).sum())
        for m, s in zip(q, graph.fields, strict=True)
    )
    for link in graph.links:
        i, j = link.edges.T
        expected = np.einsum("ek,kl,el->e", q[link.a][i], link.cost, q[link.b][j])
        total += float(link.weights @ expected)
    return total


def reversed_edges(graph):
    links = [Link(k.edges[:, ::-1], k.weights, k.cost.T, k.b, k.a) for k in graph.links]
    return FactorGraph(graph.fields, links)


def test_energy_by_hand():
    graph = FactorGraph(
        [np.array([[1.0, 2.0], [3.0, 5.0]])],
        [Link([[0, 1]], [10.0], [[0.0, 1.0], [0.5, 0.0]])],
    )
    assert energy(graph, [[0, 0]]) == -4
    assert energy(graph, [[0, 1]]) == -6 + 10
    assert energy(graph, [[1, 0]]) == -5 + 5


@pytest.mark.parametrize("make", [random_graph, two_fields])
@pytest.mark.parametrize("seed", range(5))
def test_an_edge_reversed_with_its_cost_transposed_is_the_same(make, seed):
    graph = make(seed)
    other = reversed_edges(graph)
    for y in list(labellings(graph))[::17]:
        assert energy(graph, y) == pytest.approx(energy(other, y))
    for a, b in zip(mean_field(graph), mean_field(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_an_asymmetric_cost_inside_a_field_keeps_its_direction():
    cost = np.array([[0.0, 3.0], [0.0, 0.0]])  # 0 before 1 costs, 1 before 0 does not
    graph = FactorGraph([np.zeros((2, 2))], [Link([[0, 1]], [1.0], cost)])
    q = mean_field(graph, 100)[0]
    assert q[0, 1] > 0.5
    assert q[1, 0] > 0.5
    for a, b in zip(mean_field(graph), mean_field(reversed_edges(graph)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("make", [random_graph, two_fields])
@pytest.mark.parametrize("seed", range(6))
def test_mean_field_of_weak_links_is_near_the_marginals(make, seed):
    graph = make(seed, strength=0.3)
    marginals, _, _ = exact(graph)
    for q, m in zip(mean_field(graph, 100, 1e-9), marginals, strict=True):
        np.testing.assert_allclose(q, m, atol=0.02)
        np.testing.assert_allclose(q.sum(axis=1), 1)


@pytest.mark.parametrize("make", [random_graph, two_fields])
@pytest.mark.parametrize("seed", range(6))
def test_mean_field_lowers_a_bound_on_log_z(make, seed):
    graph = make(seed, strength=3.0)
    _, _, log_z = exact(graph)
    bounds = [free_energy(graph, mean_field(graph, n, 0)) for n in range(12)]
    assert (np.diff(bounds) <= 1e-9).all()
    assert bounds[-1] >= -log_z - 1e-9


def test_mean_field_ends_where_no_node_moves():
    graph = random_graph(3, strength=2.0)
    q = mean_field(graph, 500, 1e-12)[0]
    link = graph.links[0]
    local = graph.fields[0].copy()
    for (i, j), w in zip(link.edges, link.weights, strict=True):
        local[i] -= w * link.cost @ q[j]
        local[j] -= w * link.cost.T @ q[i]
    np.testing.assert_allclose(softmax(local, axis=1), q, atol=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_permuting_labels_and_nodes_permutes_the_answer(seed):
    rng = np.random.default_rng(seed)
    distance = np.triu(rng.random((3, 3)), 1)
    distance += distance.T
    graph = random_graph(seed, cost=distance)
    scores, link = graph.fields[0], graph.links[0]
    labels, nodes = rng.permutation(3), rng.permutation(5)
    place = np.argsort(nodes)  # where each node went
    other = FactorGraph(
        [scores[nodes][:, labels]],
        [Link(place[link.edges], link.weights, distance[np.ix_(labels, labels)])],
    )
    np.testing.assert_allclose(
        mean_field(graph, 300, 1e-12)[0][nodes][:, labels],
        mean_field(other, 300, 1e-12)[0],
        atol=1e-5,
    )


def test_no_links_leave_the_scores():
    scores = np.random.default_rng(0).normal(size=(7, 4))
    out = mean_field(FactorGraph([scores]))[0]
    np.testing.assert_allclose(out, softmax(scores, axis=1))


@pytest.mark.parametrize(
    "shape",
    [(1, 3), (4, 1), (0, 3)],
    ids=["one node", "one label", "no node"],
)
def test_degenerate_graphs(shape):
    edges = [[0, 1], [2, 3]] if shape[0] == 4 else []
    link = Link(edges, np.ones(len(edges)), 1 - np.eye(shape[1]))
    out = mean_field(FactorGraph([np.zeros(shape)], [link]))[0]
    np.testing.assert_allclose(out, np.full(shape, 1 / shape[1]))


def test_a_disconnected_graph_is_its_parts():
    a, b = random_graph(1), random_graph(2)
    both = FactorGraph(
        [np.concatenate([a.fields[0], b.fields[0]])],
        [
            Link(a.links[0].edges, a.links[0].weights, POTTS3),
            Link(b.links[0].edges + 5, b.links[0].weights, POTTS3),
        ],
    )
    parts = [mean_field(g, 300, 1e-12)[0] for g in (a, b)]
    np.testing.assert_allclose(
        mean_field(both, 300, 1e-12)[0], np.concatenate(parts), atol=1e-6
    )


def test_a_second_edge_between_two_nodes_adds_to_the_first():
    scores = np.array([[1.0, 0.0], [0.0, 1.5]])
    cost = 1 - np.eye(2)
    twice = FactorGraph([scores], [Link([[0, 1], [0, 1]], [0.6, 0.6], cost)])
    once = FactorGraph([scores], [Link([[0, 1]], [1.2], cost)])
    np.testing.assert_allclose(mean_field(twice)[0], mean_field(once)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Link([[0, 0]], [1.0], POTTS3), "node 0 has a self-loop"),
        (lambda: Link([[0, 1]], [-1.0], POTTS3), "finite numbers >= 0"),
        (lambda: Link([[0, 1]], [np.nan], POTTS3), "finite numbers >= 0"),
        (lambda: Link([[0, 1]], [1.0, 2.0], POTTS3), r"weights must have shape \(1,\)"),
        (lambda: Link([[0, -1]], [1.0], POTTS3), "counted from 0"),
        (lambda: Link([[0.5, 1]], [1.0], POTTS3), "integers of shape"),
        (lambda: Link([0, 1], [1.0], POTTS3), "integers of shape"),
        (lambda: FactorGraph([[[np.nan, 1]]]), "scores must be finite"),
        (lambda: FactorGraph([[1.0, 2.0]]), r"shape \(n_nodes, K\)"),
        (
            lambda: FactorGraph([np.zeros((2, 3))], [Link([[0, 2]], [1.0], POTTS3)]),
            "edges name node 2, field 0 has 2 nodes",
        ),
        (
            lambda: FactorGraph([np.zeros((2, 2))], [Link([[0, 1]], [1.0], POTTS3)]),
            r"cost must have shape \(2, 2\)",
        ),
        (
            lambda: FactorGraph(
                [np.zeros((2, 3))], [Link([[0, 1]], [1.0], POTTS3 * np.inf)]
            ),
            "cost must hold finite|invalid",
        ),
        (
            lambda: FactorGraph(
                [np.zeros((2, 3))], [Link([[0, 1]], [1.0], POTTS3, 0, 1)]
            ),
            "names field 1, there are 1",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_bad_graphs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_labels_are_refused():
    graph = random_graph(0)
    with pytest.raises(ValueError, match=r"labels must have shape \(5,\)"):
        energy(graph, [[0, 1]])
    with pytest.raises(ValueError, match="labels must lie in 0"):
        energy(graph, [[0, 1, 2, 3, 0]])
