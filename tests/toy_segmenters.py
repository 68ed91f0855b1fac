"""Segmenters and targets of toy images, which several test files use."""

from __future__ import annotations

import numpy as np

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter, Targets
from mtsk.features import MemoryCache
from mtsk.tasks import Boundary

CACHE = MemoryCache(2**28)
FAST = DeepFeatures(scales=[1], cache=CACHE)
SUMS = JointRidge(alpha=1e-2, calibrate=False)
TASKS = {"edges": Boundary()}


def segmenter(tasks=None, **keywords) -> MultiTaskSegmenter:
    keywords.setdefault("features", FAST)
    keywords.setdefault("random_state", 0)
    keywords.setdefault("max_pixels_per_image", 100)
    return MultiTaskSegmenter(tasks, **keywords)


def many_targets(Y: np.ndarray) -> Targets:
    """Every kind of task that the toy images can have."""
    disc = Y == 7
    return Targets(
        semantic=list(Y),
        disc=list(disc),
        edges=list(Y),
        depth=[np.where(d, 1.0, np.linspace(2, 3, 48)) for d in disc],
        third=[i % 3 == 0 for i in range(len(Y))],
        name=["odd" if i % 2 else "even" for i in range(len(Y))],
        tags=[np.array([d[20, 24], d[8, 24]]) for d in disc],
        words=[{"disc"} if i % 2 else {"disc", "odd"} for i in range(len(Y))],
        area=[float(d.mean()) for d in disc],
        place=[np.array(np.argwhere(d).mean(axis=0)) for d in disc],
    )
