"""Region graphs, from which a CRF learns: regions, scores and edge features."""

from __future__ import annotations

import numpy as np

from mtsk.crf.factor_graph import check_edges, check_scores

__all__ = ["RegionGraph"]


class RegionGraph:
    """Regions of one image (or nodes of any graph), with scores and edges.

    Parameters
    ----------
    scores : ndarray of float, shape (n, K)
        Logits of every node.
    edges : ndarray of int, shape (m, 2)
        Pairs of neighbours, each once.
    features : ndarray of float, shape (m, F), default=None
        Features of each edge, such as contrast. None: no features, edges are alike.
    sizes : ndarray of float, shape (n,), default=None
        Weight of each node in metrics, such as its pixels. None: 1.
    context : ndarray of float, shape (K,), default=None
        Logits added to all nodes, such as those of the image's tags. None: 0.

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

    def __init__(
        self,
        scores: np.ndarray,
        edges: np.ndarray,
        features: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
        context: np.ndarray | None = None,
    ) -> None:
        self.scores = check_scores(scores)
        self.edges = check_edges(edges)
        n, m = len(self.scores), len(self.edges)
        if m and self.edges.max() >= n:
            raise ValueError(f"edges name node {self.edges.max()}, there are {n} nodes")
        if (self.edges[:, 0] == self.edges[:, 1]).any():
            raise ValueError("edges must join two nodes, there is a self-loop")
        self.features = np.asarray(np.zeros((m, 0)) if features is None else features)
        if self.features.ndim != 2 or len(self.features) != m:
            raise ValueError(
                f"features must have shape ({m}, F), one row an edge, got "
                f"{self.features.shape}"
            )
        self.sizes = np.asarray(np.ones(n) if sizes is None else sizes, float)
        if self.sizes.shape != (n,):
            raise ValueError(f"sizes must have shape ({n},), got {self.sizes.shape}")
        k = self.scores.shape[1]
        self.context = np.asarray(np.zeros(k) if context is None else context, float)
        if self.context.shape != (k,) or not np.isfinite(self.context).all():
            raise ValueError(
                f"context must be {k} finite numbers, one a label, got shape "
                f"{self.context.shape}"
            )
        if not np.isfinite(self.features).all() or not (self.sizes >= 0).all():
            raise ValueError("features must be finite, and sizes at least 0")

    def __repr__(self) -> str:
        n, k = self.scores.shape
        return f"RegionGraph({n} nodes, {k} labels, {len(self.edges)} edges)"
