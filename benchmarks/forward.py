"""Forward of all taps, 8 x 360 x 480, against timm's plain eager network, same run.

python benchmarks/forward.py
python benchmarks/forward.py --more    # also torch.compile and bfloat16
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from common import options, report_machine, row

from mtsk.backbones import INT8, Backbone, load_backbone
from mtsk.backbones.hooks import HookedTaps
from mtsk.backbones.int8 import int8_supported

IMAGES = 8
USED = "ours, batches of 2, as DeepFeatures does"


def main() -> None:
    chosen = options(__doc__ or "", more={"action": "store_true"})
    report_machine()
    print("threads:", torch.get_num_threads())
    x = torch.rand(IMAGES, 3, 360, 480, generator=torch.Generator().manual_seed(0))
    plain = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    taps = HookedTaps(tuple(f"blocks.{i}" for i in range(7)))
    ours = load_backbone()
    integers = load_backbone(INT8) if int8_supported() else None

    def eager() -> None:
        with torch.inference_mode():
            taps(plain, x)

    def batched(size: int, network: Backbone = ours) -> None:
        for start in range(0, IMAGES, size):
            network(x[start : start + size])

    ways = {
        "timm eager, one batch": eager,
        "ours, folded, channels last, one batch": lambda: batched(IMAGES),
        USED: lambda: batched(2),
    }
    if integers is not None:
        ways["the same in integers of 8 bits"] = lambda: batched(2, integers)
    if chosen.more:
        ways |= other_ways(ours, x)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(8):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat:  # the first warms up
                times[name].append((time.perf_counter() - start) / IMAGES * 1000)
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, value in middle.items():
        print(f"{name:62s} {value:7.1f} ms an image")
    eager_ms = middle["timm eager, one batch"]
    row(
        "as DeepFeatures does ÷ timm eager", f"{middle[USED] / eager_ms:.3f}", "<= 0.25"
    )
    if integers is not None:
        ratio = middle["the same in integers of 8 bits"] / eager_ms
        row("in integers of 8 bits ÷ timm eager", f"{ratio:.3f}", "<= 0.15")


def other_ways(ours: Backbone, x: torch.Tensor) -> dict[str, Callable[[], None]]:
    """Return ways that were tried and are not used; see the changelog."""
    compiled = ours.copy()
    stages: Any = compiled.network.blocks
    for i, stage in enumerate(stages):
        stages[i] = torch.compile(stage)

    def in_twos(backbone: Backbone, half: bool) -> Callable[[], None]:
        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                for start in range(0, IMAGES, 2):
                    backbone(x[start : start + 2])

        return run

    return {
        "torch.compile, batches of 2": in_twos(compiled, False),
        "bfloat16, batches of 2": in_twos(ours, True),
        "bfloat16 and torch.compile, batches of 2": in_twos(compiled, True),
    }


if __name__ == "__main__":
    main()
