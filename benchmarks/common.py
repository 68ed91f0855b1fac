"""What the benchmark scripts share: data, the machine, the form of the report."""

from __future__ import annotations

import argparse
import csv
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import scipy
import skimage
import sklearn
import timm
import torch
from skimage.io import imread

import mtsk
from mtsk.backbones.machine import cpu_name
from mtsk.tasks import SemanticSegmentation

VOID = {"camvid": 11, "msrc21": (0, 5, 8)}


def options(description: str, **extra: dict) -> argparse.Namespace:
    """Parse the options that every script has, and its own."""
    parser = argparse.ArgumentParser(description=description)
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default)
    for name, keywords in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        sys.exit(f"no data at {chosen.data}; give --data")
    return chosen


def report_machine() -> None:
    """Print what the figures below were measured on, and what limits its kernels."""
    versions = {
        module.__name__: module.__version__
        for module in (mtsk, torch, timm, sklearn, skimage, scipy, np)
    }
    python = platform.python_version()
    print(f"machine: {cpu_name()}, {os.cpu_count()} cores, Python {python}")
    print("versions:", ", ".join(f"{k} {v}" for k, v in versions.items()))


def load_masks(
    data: Path, name: str, split: str
) -> tuple[list[Path], list[np.ndarray]]:
    """Return the images' paths and the label maps of CamVid or MSRC-21."""
    images = sorted((data / name / split / "images").iterdir())
    labels = {p.stem: p for p in (data / name / split / "labels").iterdir()}
    return images, [imread(labels[p.stem]).astype(np.int64) for p in images]


def semantic(name: str) -> SemanticSegmentation:
    """Return the task of CamVid or MSRC-21 with its protocol's void labels."""
    return SemanticSegmentation(void=VOID[name])


@contextmanager
def clock(times: dict[str, float], name: str) -> Iterator[None]:
    """Put the wall time of a block into ``times``."""
    start = time.perf_counter()
    yield
    times[name] = time.perf_counter() - start


def peak_gigabytes() -> float:
    """Return the most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def row(figure: str, measured: str, asked: str) -> None:
    """Print one line of the report; note it in the file that MTSK_RECORD names."""
    print(f"{figure:58s} {measured:>18s}   asked {asked}", flush=True)
    if "MTSK_RECORD" in os.environ:
        record(figure, measured, asked, Path(os.environ["MTSK_RECORD"]))


def record(figure: str, measured: str, asked: str, path: Path) -> None:
    """Add a figure to a table, in place of what the same command found before."""
    words = [Path(sys.argv[0]).name, *_own_options(sys.argv[1:])]
    command = f"``{' '.join(words)}``"  # as the page of figures shows it
    asked = "" if asked == "-" else asked
    kept = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = list(csv.reader(file))[1:]
    kept = [r for r in kept if r[:2] != [command, figure]]
    kept.append([command, figure, measured, asked, f"{date.today()}"])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["command", "figure", "measured", "asked", "on"])
        writer.writerows(sorted(kept))


def _own_options(given: list[str]) -> list[str]:
    """Return the options but for where the data are."""
    if "--data" in given:
        place = given.index("--data")
        return given[:place] + given[place + 2 :]
    return given
