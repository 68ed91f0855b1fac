"""Mean field and alpha-expansion on a planar graph of 1,000 nodes and 20 labels."""

from __future__ import annotations

import time

import numpy as np
from common import options, report_machine, row
from scipy.spatial import Delaunay

from mtsk.crf import FactorGraph, Link, alpha_expansion, energy, icm, mean_field


def main() -> None:
    options(__doc__ or "")
    report_machine()
    times: dict[str, list[float]] = {"mean field": [], "alpha-expansion": [], "icm": []}
    lower = []
    for seed in range(9):
        graph = planar(np.random.default_rng(seed))
        solvers = {
            "mean field": lambda g: mean_field(g, 10, 0),
            "alpha-expansion": alpha_expansion,
            "icm": icm,
        }
        answers = {}
        for name, solve in solvers.items():
            start = time.perf_counter()
            answers[name] = solve(graph)
            times[name].append(time.perf_counter() - start)
        energies = {n: energy(graph, answers[n]) for n in ("alpha-expansion", "icm")}
        lower.append(energies["alpha-expansion"] <= energies["icm"])
    median = {name: 1e3 * float(np.median(each)) for name, each in times.items()}
    row("mean field, 10 sweeps, ms", f"{median['mean field']:.1f}", "<= 10")
    row("alpha-expansion to its end, ms", f"{median['alpha-expansion']:.0f}", "<= 200")
    row("ICM to its end, ms", f"{median['icm']:.1f}", "-")
    row(
        "graphs where alpha-expansion ends no higher than ICM",
        f"{sum(lower)} of 9",
        "-",
    )


def planar(random: np.random.Generator) -> FactorGraph:
    """Return 1,000 random points, joined as Delaunay's triangles are."""
    corners = Delaunay(random.random((1000, 2))).simplices
    pairs = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [0, 2]]])
    edges = np.unique(np.sort(pairs, axis=1), axis=0)
    link = Link(edges, random.random(len(edges)), 1 - np.eye(20))
    return FactorGraph([2 * random.normal(size=(1000, 20))], [link])


if __name__ == "__main__":
    main()
