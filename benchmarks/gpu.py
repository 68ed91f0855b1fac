"""Images a second of default features on a GPU, and what it costs to bring them home.

Beside each rate stand the shares of two floors: the network's operations over the speed
of a large product in half precision, and the bytes of the taps over the speed of a copy
to the host. Ends at once where there is no GPU; with --device cpu it measures the same
ways there, at a tenth of the images.

python benchmarks/gpu.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from common import load_masks, options, report_machine, row

from mtsk import DeepFeatures
from mtsk.features.feature_maps import FeatureMaps

GFLOP = 2.6  # of the network, for 360 x 480 pixels (DESIGN.md, 6)
N_CLASSES = 11


def main() -> None:
    chosen = options(__doc__ or "", device={"default": "cuda"})
    on_gpu = chosen.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("no GPU here")
    report_machine()
    device = torch.device(chosen.device)
    if on_gpu:
        print("device:", torch.cuda.get_device_name())
    product, copied = speeds(device)
    print(f"half-precision product: {product:.1f} TFLOP/s; copy: {copied:.1f} GB/s")
    features = DeepFeatures(device=chosen.device).fit()
    paths, _ = load_masks(chosen.data, "camvid", "train")
    random = np.random.default_rng(0)
    n = 320 if on_gpu else 16
    few = random.integers(0, 256, (n, 360, 480, 3), np.uint8)
    large = random.integers(0, 256, (n // 8, 1024, 1024, 3), np.uint8)
    for name, images in (("360 x 480", few), ("1024 x 1024", large)):
        gflop = GFLOP * images[0, ..., 0].size / (360 * 480)
        gflop *= sum(scale**2 for scale in features.scales)
        report(name, features, images, gflop / product / 1000, copied)
    asked = "-"
    seconds = middle(lambda: consume(features.iter_maps(paths[:n])))
    row("camvid files, read and passed through, images/s", rate(n, seconds), asked)


def report(
    name: str,
    features: DeepFeatures,
    images: np.ndarray,
    floor: float,
    copied: float,
) -> None:
    """Print the rates of one size of image; the floor is in seconds an image."""
    n = len(images)
    segments = np.indices(images.shape[1:3]) // 20
    regions = segments[0] * (segments[1].max() + 1) + segments[1]
    (one,) = features.transform(images[:1])
    assert one is not None
    coef = np.random.default_rng(0).normal(size=(one.n_features, N_CLASSES))
    ways: dict[str, Callable[[FeatureMaps], object]] = {
        "maps stay": lambda maps: None,
        "regions travel": lambda maps: maps.region_means(regions),
        "score maps travel": lambda maps: maps.scores(coef),
        "whole maps travel": lambda maps: maps.to_host(),
    }
    for what, way in ways.items():

        def work(way: Callable[[FeatureMaps], object] = way) -> None:
            consume(tensors(features, images), way)

        seconds = middle(work)
        wanted = ">= 1000" if (what, name) == ("maps stay", "360 x 480") else "-"
        row(f"{name}, {what}, images/s", rate(n, seconds), wanted)
        print(f"  {100 * floor * n / seconds:.0f} % of the arithmetic's speed")
        if what == "whole maps travel":
            travel = one.nbytes / copied / 1e9
            print(f"  {100 * travel * n / seconds:.0f} % of the copy's speed")


def tensors(features: DeepFeatures, images: np.ndarray) -> Iterable[FeatureMaps]:
    """Yield maps whose taps are tensors, also where the device is the CPU."""
    for _, maps in features.iter_maps(images):
        yield replace(maps, taps=[torch.as_tensor(tap) for tap in maps.taps])


def consume(maps: Iterable, way: Callable[[FeatureMaps], object] | None = None) -> None:
    """Take all that comes, and wait for what is still under way."""
    for item in maps:
        if way is not None:
            way(item)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def middle(work: Callable[[], None]) -> float:
    """Return the median seconds of five runs, after one that warms up."""
    found = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def rate(n: int, seconds: float) -> str:
    return f"{n / seconds:.0f}" if n > seconds else f"{n / seconds:.2f}"


def speeds(device: torch.device) -> tuple[float, float]:
    """Return TFLOP/s of a product and GB/s of a copy to the host, the best of seven."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    a = torch.rand(side, side, device=device).to(dtype)
    there = torch.rand(2**26, device=device)
    here = torch.empty(2**26, pin_memory=device.type == "cuda")
    times: list[list[float]] = [[], []]
    for _ in range(8):
        for kept, work in zip(
            times, (lambda: a @ a, lambda: here.copy_(there)), strict=True
        ):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            kept.append(time.perf_counter() - start)
    best = [min(kept[1:]) for kept in times]
    return 2 * side**3 / best[0] / 1e12, there.nbytes / best[1] / 1e9


if __name__ == "__main__":
    main()
