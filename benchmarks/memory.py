"""Peak memory of a fit: CamVid's 367 images against the list ten times over.

Each fit has a process of its own. ``--scales 1`` is four times faster and as telling.

python benchmarks/memory.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from common import load_masks, options, peak_gigabytes, report_machine, row, semantic

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter


def main() -> None:
    chosen = options(
        __doc__ or "",
        times={"type": int, "nargs": "+", "default": [1, 10]},
        scales={"type": float, "nargs": "+", "default": [0.5, 1.0, 2.0]},
        head={"choices": ["logistic", "ridge", "sums"], "default": "logistic"},
        alone={"action": "store_true"},
    )
    if chosen.alone:
        print(json.dumps(measure(chosen)))
        return
    report_machine()
    print(vars(chosen))
    found = []
    for n in chosen.times:
        command = [
            sys.executable,
            __file__,
            *sys.argv[1:],
            "--alone",
            "--times",
            str(n),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(run.stdout.splitlines()[-1]))
        print(f"{n} x 367 images:", found[-1], flush=True)
    ratio = found[-1]["gigabytes"] / found[0]["gigabytes"]
    row(f"peak memory, {chosen.times[-1]} x the images ÷ 1 x", f"{ratio:.2f}", "<= 1.1")


def measure(chosen: object) -> dict[str, float]:
    """Fit once; return gigabytes and seconds."""
    X, Y = load_masks(chosen.data, "camvid", "train")  # type: ignore[attr-defined]
    n = chosen.times[0]  # type: ignore[attr-defined]
    head = chosen.head  # type: ignore[attr-defined]
    start = time.perf_counter()
    MultiTaskSegmenter(
        semantic("camvid"),
        features=DeepFeatures(scales=chosen.scales),  # type: ignore[attr-defined]
        head=JointRidge(alpha=1e-3, calibrate=False) if head == "sums" else head,
        random_state=0,
    ).fit(X * n, Y * n)
    return {
        "gigabytes": round(peak_gigabytes(), 2),
        "seconds": round(time.perf_counter() - start),
    }


if __name__ == "__main__":
    main()
