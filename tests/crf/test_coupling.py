"""Couplings of two tasks at the same regions."""

import numpy as np
import pytest

from mtsk.crf import RegionGraph, SuperpixelCRF, coupled_messages, fit_coupling

EDGES = np.stack([np.arange(29), np.arange(1, 30)], axis=1)


def pictures(rng, n=12, *, together=True, noise=1.0):
    """Two tasks; where together, label 2 of a is always label 1 of b."""
    graphs, labels = {"a": [], "b": []}, {"a": [], "b": []}
    for _ in range(n):
        a = rng.integers(0, 3, 30)
        b = (a == 2).astype(int) if together else rng.integers(0, 2, 30)
        sharp = np.eye(2)[b] * 4 + rng.normal(0, 0.3, (30, 2))
        blurred = np.eye(3)[a] * 0.5 + rng.normal(0, noise, (30, 3))
        graphs["a"].append(RegionGraph(blurred, EDGES))
        graphs["b"].append(RegionGraph(sharp, EDGES))
        labels["a"].append(a)
        labels["b"].append(b)
    crfs = {
        n: SuperpixelCRF(strength=1e-6, temperature=1.0, palette=0).fit(
            graphs[n], labels[n]
        )
        for n in ("a", "b")
    }
    return crfs, graphs, labels


def accuracy(crfs, graphs, labels, couplings):
    hits = []
    for i, truth in enumerate(labels["a"]):
        here = {n: graphs[n][i] for n in ("a", "b")}
        told = coupled_messages(here, crfs, couplings)["a"]
        hits.append(((here["a"].scores + told).argmax(axis=1) == truth).mean())
    return np.mean(hits)


def test_what_goes_together_is_learnt_and_helps():
    crfs, graphs, labels = pictures(np.random.default_rng(0))
    coupling = fit_coupling("a", "b", crfs, graphs, labels)
    assert coupling.strength > 0
    assert coupling.cost.min() == 0
    assert coupling.cost[2, 1] < coupling.cost[0, 1]
    assert coupling.cost[0, 0] < coupling.cost[2, 0]
    _, new, truth = pictures(np.random.default_rng(1))
    alone = accuracy(crfs, new, truth, [])
    assert accuracy(crfs, new, truth, [coupling]) > alone + 0.1


def test_tasks_that_have_nothing_to_say_stay_apart():
    crfs, graphs, labels = pictures(np.random.default_rng(0), together=False)
    coupling = fit_coupling("a", "b", crfs, graphs, labels)
    assert coupling.strength == 0
    here = {n: graphs[n][0] for n in ("a", "b")}
    told = coupled_messages(here, crfs, [coupling])
    for name in here:
        np.testing.assert_array_equal(told[name], crfs[name].messages(here[name]))


def test_the_other_direction_is_the_transpose():
    crfs, graphs, labels = pictures(np.random.default_rng(0))
    ab = fit_coupling("a", "b", crfs, graphs, labels)
    ba = fit_coupling("b", "a", crfs, graphs, labels)
    np.testing.assert_allclose(ab.cost, ba.cost.T)
    here = {n: graphs[n][0] for n in ("a", "b")}
    first = coupled_messages(here, crfs, [ab])
    second = coupled_messages({n: here[n] for n in ("b", "a")}, crfs, [ba])
    for name in here:
        np.testing.assert_allclose(first[name], second[name], atol=1e-3)


def test_unlabelled_regions_and_a_single_picture():
    crfs, graphs, labels = pictures(np.random.default_rng(0))
    labels["a"] = [np.full(30, -1) for _ in labels["a"]]
    coupling = fit_coupling("a", "b", crfs, graphs, labels)
    assert coupling.strength == 0
    assert coupling.cost == pytest.approx(np.zeros((3, 2)))
    one = {n: graphs[n][:1] for n in graphs}
    assert fit_coupling("a", "b", crfs, one, labels).strength == 0
