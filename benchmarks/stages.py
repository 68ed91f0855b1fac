"""Where the time of a fit and of a prediction goes, beside what the machine could do.

Default settings, CamVid. The floor of the network is its operations over the speed of a
large float32 product; that of the taps' way to half precision their bytes over the
speed of a copy.

python benchmarks/stages.py
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import load_masks, options, report_machine, semantic

from mtsk import DeepFeatures, MultiTaskSegmenter
from mtsk.backbones import Backbone
from mtsk.data.images import Images
from mtsk.features.feature_maps import FeatureMaps
from mtsk.heads import JointLogistic
from mtsk.tables.table import TableBuilder
from mtsk.tasks import SemanticSegmentation

GFLOP = 2.6  # of the network, for 360 x 480 pixels (DESIGN.md, 6)
spent: dict[str, float] = defaultdict(float)


def main() -> None:
    chosen = options(__doc__ or "", images={"type": int, "default": 100})
    report_machine()
    flops, copied = speeds()
    print(f"float32 product: {flops:.0f} GFLOP/s; copy: {copied:.1f} GB/s")
    watch(Images, "__getitem__", "read and check the image")
    watch(Backbone, "trace", "network")
    watch(DeepFeatures, "store", "taps to half precision")
    watch(FeatureMaps, "at", "rows: hypercolumns at pixels")
    watch(FeatureMaps, "scores", "score maps")
    watch(SemanticSegmentation, "encode", "encode targets")
    watch(SemanticSegmentation, "decode", "decode")
    watch(TableBuilder, "add", "tables (rows and encode included)")
    watch(JointLogistic, "fit", "head")
    X, Y = load_masks(chosen.data, "camvid", "train")
    X, Y = X[: chosen.images], Y[: chosen.images]
    model = MultiTaskSegmenter(semantic("camvid"), head="logistic", random_state=0)
    model.fit(X[:2], Y[:2])  # warms up
    report("fit", lambda: model.fit(X, Y), len(X))
    report("predict", lambda: model.predict(X), len(X))
    features = DeepFeatures().fit()
    scales = sum(s**2 for s in features.scales)
    (maps,) = features.transform([X[0]])
    assert maps is not None
    print(f"floor of the network: {GFLOP * scales / flops * 1000:.0f} ms an image")
    n_bytes = 3 * maps.nbytes  # four bytes a number read, two written
    print(f"floor of half precision: {n_bytes / copied / 1e6:.1f} ms an image")


def speeds() -> tuple[float, float]:
    """Return GFLOP/s of a product and GB/s of a copy, the best of several."""
    a = torch.rand(2048, 2048)
    b = np.ones(2**26, np.float32)
    out = np.empty_like(b)
    best = [np.inf, np.inf]
    for _ in range(7):
        for i, work in enumerate((lambda: a @ a, lambda: np.copyto(out, b))):
            start = time.perf_counter()
            work()
            best[i] = min(best[i], time.perf_counter() - start)
    return 2 * 2048**3 / best[0] / 1e9, 2 * b.nbytes / best[1] / 1e9


def watch(owner: Any, name: str, stage: str) -> None:
    """Add up the time of a method."""
    method = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent[stage] += time.perf_counter() - start

    setattr(owner, name, timed)


def report(what: str, work: Callable[[], Any], n_images: int) -> None:
    """Print milliseconds an image of every stage."""
    spent.clear()
    start = time.perf_counter()
    work()
    total = time.perf_counter() - start
    print(f"{what}: {total / n_images * 1000:.0f} ms an image, {n_images} images")
    for stage, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        share = 100 * seconds / total
        print(f"  {stage:36s} {seconds / n_images * 1000:7.1f} ms  {share:4.0f} %")


if __name__ == "__main__":
    main()
