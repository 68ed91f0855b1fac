"""Features and default prediction by each engine, for images of 480 x 360.

Each way runs in processes of its own, in turn, three rounds; figures are medians. A
plain pass is that of the bundled network at scale 1 by torch, all taps.

python benchmarks/engines.py
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
    OPENBLAS_CORETYPE=Haswell python benchmarks/engines.py --kernels avx2

onnxruntime chooses its kernels by the CPU alone; these variables do not limit it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import load_masks, options, report_machine, row, semantic
from skimage.io import imread

from mtsk import DeepFeatures, MultiTaskSegmenter
from mtsk.backbones import BUNDLED, INT8
from mtsk.backbones.engines import ENGINES, is_installed

ROUNDS = 3


def main() -> None:
    chosen = options(
        __doc__ or "",
        kernels={"default": "native"},
        way={"nargs": 2, "default": None},
        images={"type": int, "default": 12},
    )
    if chosen.way:
        measure(chosen, *chosen.way)
        return
    report_machine()
    ways = [(BUNDLED, e) for e in ENGINES[1:] if is_installed(e)]
    ways += [(INT8, e) for e in ENGINES[2:] if is_installed(e)]
    found: dict[Any, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for way in list(ways):
            done = subprocess.run(
                [sys.executable, __file__, "--data", chosen.data, "--way", *way],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                print(*way, done.stderr.strip().splitlines()[-1])
                ways.remove(way)
                continue
            found.setdefault(way, []).append(json.loads(done.stdout.splitlines()[-1]))
    middle = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for way, runs in found.items()
    }
    plain = middle[BUNDLED, "torch"]
    for (backbone, engine), own in middle.items():
        name = f"{backbone} by {engine}"
        print(name, {key: round(value * 1000, 1) for key, value in own.items()}, "ms")
        ratio = own["features"] / plain["features"]
        asked = "<= 0.4" if backbone == INT8 else "<= 0.77"
        row(f"{name}: features ÷ torch's in float32", f"{ratio:.2f}", asked)
        ratio = own["predict"] / plain["pass"]
        row(f"{name}: prediction ÷ one plain pass", f"{ratio:.2f}", "<= 2.5")


def measure(chosen: Any, backbone: str, engine: str) -> None:
    """Print, as JSON, the seconds an image of one way."""
    import torch

    paths, masks = load_masks(chosen.data, "camvid", "train")
    images = [imread(path) for path in paths[: chosen.images]]
    features = DeepFeatures(backbone, engine=engine)
    model = MultiTaskSegmenter(
        {"classes": semantic("camvid")},
        features=features,
        head="logistic",
        random_state=0,
    ).fit(images, {"classes": masks[: chosen.images]})
    x = torch.rand(1, 3, *images[0].shape[:2])
    plain = DeepFeatures(backbone, engine=engine).network()
    about = {
        "pass": seconds(lambda: plain(x), 8),
        "features": seconds(lambda: model.features_.transform(images), 2) / len(images),
        "predict": seconds(lambda: model.predict(images), 2) / len(images),
    }
    print(json.dumps(about))


def seconds(work: Callable[[], Any], n: int) -> float:
    """Return the median time of some work, after a first time."""
    work()
    times = []
    for _ in range(n):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main()
