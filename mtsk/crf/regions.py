"""What a CRF learns from: regions with scores, and what lies between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtsk.crf.factor_graph import check_edges, check_scores

__all__ = ["RegionGraph"]


@dataclass
class RegionGraph:
    """One picture's regions (or any graph's nodes) before anything is learnt.

    Parameters
    ----------
    scores : ndarray of float, shape (n, K)
        Logits of every node.
    edges : ndarray of int, shape (m, 2)
        Pairs of neighbours, each once.
    features : ndarray of float, shape (m, F), default=None
        What is known of each edge, such as contrast. None is no feature: edges are
        alike.
    sizes : ndarray of float, shape (n,), default=None
        What a node counts in scores, such as its pixels. None is 1.

    Raises
    ------
    ValueError
        On arrays of other shapes, edges out of range or self-loops, and numbers that
        are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk.crf import RegionGraph
    >>> RegionGraph(np.zeros((3, 2)), [[0, 1], [1, 2]]).features.shape
    (2, 0)
    """

    scores: np.ndarray
    edges: np.ndarray
    features: np.ndarray | None = None
    sizes: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.scores = check_scores(self.scores)
        self.edges = check_edges(self.edges)
        n, m = len(self.scores), len(self.edges)
        if m and self.edges.max() >= n:
            raise ValueError(f"edges name node {self.edges.max()}, there are {n} nodes")
        if (self.edges[:, 0] == self.edges[:, 1]).any():
            raise ValueError("edges must join two nodes, there is a self-loop")
        features = np.zeros((m, 0)) if self.features is None else self.features
        self.features = np.asarray(features, float)
        if self.features.ndim != 2 or len(self.features) != m:
            raise ValueError(
                f"features must have shape ({m}, F), one row an edge, got "
                f"{self.features.shape}"
            )
        sizes = np.ones(n) if self.sizes is None else self.sizes
        self.sizes = np.asarray(sizes, float)
        if self.sizes.shape != (n,):
            raise ValueError(f"sizes must have shape ({n},), got {self.sizes.shape}")
        if not np.isfinite(self.features).all() or not (self.sizes >= 0).all():
            raise ValueError("features must be finite, and sizes at least 0")
