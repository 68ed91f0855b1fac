"""Forward of all taps, 8 x 360 x 480, against timm's plain eager network, same run."""

from __future__ import annotations

import statistics
import time

import timm
import torch
from common import options, report_machine, row

from mtsk._resources import keep_freed_memory
from mtsk.backbones import load_backbone
from mtsk.backbones.hooks import hooked_forward

IMAGES = 8


def main() -> None:
    options(__doc__ or "")
    report_machine()
    print("threads:", torch.get_num_threads())
    x = torch.rand(IMAGES, 3, 360, 480, generator=torch.Generator().manual_seed(0))
    plain = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    taps = hooked_forward(plain, [f"blocks.{i}" for i in range(7)])
    ours = load_backbone()

    def eager() -> None:
        with torch.inference_mode():
            taps(x)

    def batched(size: int) -> None:
        for start in range(0, IMAGES, size):
            ours(x[start : start + size])

    def as_used() -> None:
        with keep_freed_memory():
            batched(2)

    ways = {
        "timm eager, one batch": eager,
        "ours, folded, channels last, one batch": lambda: batched(IMAGES),
        "ours, batches of 2": lambda: batched(2),
        "ours, batches of 2, freed memory kept (as DeepFeatures does)": as_used,
    }
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
    ratio = list(middle.values())[-1] / middle["timm eager, one batch"]
    row("ratio of the last to the first", f"{ratio:.3f}", "<= 0.4")


if __name__ == "__main__":
    main()
