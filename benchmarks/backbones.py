"""Time and memory of the networks with short names, for an image of a megapixel.

Weights are random: neither figure depends on them. Each network runs in a process of
its own, at scale 1; the time is the median of three passes, over that of the bundled
network in the same run, the memory what the process held at most.

python benchmarks/backbones.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from common import options, peak_gigabytes, report_machine, row

from mtsk.backbones import BUNDLED, CATALOGUE

SIDE = 1008, 1040  # 1.05 million pixels, odd numbers of patches among them


def main() -> None:
    chosen = options(
        __doc__ or "", names={"nargs": "+", "default": [BUNDLED, *CATALOGUE]}
    )
    if "MTSK_BACKBONE" in chosen.names:
        measure(chosen.names[1])
        return
    report_machine()
    base = None
    for name in chosen.names:
        done = subprocess.run(
            [sys.executable, __file__, "--names", "MTSK_BACKBONE", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(name, done.stderr[-500:])
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        base = base or found["seconds"]
        row(
            f"{name}: seconds; ÷ bundled; GB; strides",
            f"{found['seconds']:.2f}; {found['seconds'] / base:.1f}; "
            f"{found['gigabytes']:.1f}; {found['strides']}",
            "-",
        )


def measure(name: str) -> None:
    """Print what one network takes, as JSON."""
    import torch

    from mtsk.backbones import load_backbone

    backbone = load_backbone(name, weights=None if name == BUNDLED else "random")
    image = torch.rand(1, 3, *SIDE)
    backbone(image)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        backbone(image)
        seconds.append(time.perf_counter() - start)
    about = {
        "seconds": statistics.median(seconds),
        "gigabytes": peak_gigabytes(),
        "strides": sorted({tap.stride for tap in backbone.taps}),
    }
    print(json.dumps(about))


if __name__ == "__main__":
    main()
