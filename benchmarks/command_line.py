"""The command line on 1,000 images, five of them broken: what is done, what is named.

python benchmarks/command_line.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import options, report_machine, row
from skimage.io import imread, imsave

from mtsk.datasets import make_digit_scenes

BROKEN = (17, 250, 499, 731, 998)


def main() -> None:
    chosen = options(__doc__ or "", images={"type": int, "default": 1000})
    report_machine()
    with tempfile.TemporaryDirectory(prefix="Bilder é ") as folder:
        home = Path(folder)
        taught = write_labelled(home)
        broken = write_new(home / "new", chosen.images)
        train = [str(taught), str(home / "digits"), "-o", str(home / "m.mtsk")]
        mtsk("train", *train, "--scales", "1")
        start = time.perf_counter()
        run = mtsk(
            "predict", str(home / "m.mtsk"), str(home / "new"), "-o", str(home / "out")
        )
        seconds = time.perf_counter() - start
        answer = json.loads(run.stdout)
        maps = list((home / "out" / "digits").iterdir())
        assert all(imread(path).shape == (96, 128) for path in maps[:50])
        failed = {Path(name).name for name in answer["failed"]}
    n = f"of {chosen.images} images, {len(broken)} broken"
    row(f"{n}: done", f"{answer['done']}, {len(maps)} maps", "995")
    row(f"{n}: named, and no other", f"{len(failed)}, {failed == broken}", "5")
    row("exit code", f"{run.returncode}", "not 0")
    row("milliseconds an image", f"{1000 * seconds / chosen.images:.0f}", "-")


def mtsk(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mtsk", *arguments, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def write_labelled(home: Path) -> Path:
    scenes = make_digit_scenes(40, size=(96, 128))
    for name in ("photos", "digits", "new"):
        (home / name).mkdir()
    for i, image in enumerate(scenes.images):
        mask = scenes.targets["semantic"][i].astype(np.uint8)
        imsave(home / "photos" / f"{i}.png", image, check_contrast=False)
        imsave(home / "digits" / f"{i}.png", mask, check_contrast=False)
    return home / "photos"


def write_new(folder: Path, n: int) -> set[str]:
    """Write images, and return the names of those that are none."""
    scenes = make_digit_scenes(50, size=(96, 128), subset="test").images
    for i in range(n):
        path = folder / f"{i:04d}.png"
        imsave(path, np.roll(scenes[i % 50], i // 50, axis=1), check_contrast=False)
    whole = (folder / f"{BROKEN[0]:04d}.png").read_bytes()
    noise = np.random.default_rng(0).bytes(2000)
    damaged = [whole[: len(whole) // 2], b"", b"no image\n", noise, whole[:30] + noise]
    names = [f"{i:04d}.png" for i in BROKEN]
    for name, content in zip(names, damaged, strict=True):
        (folder / name).write_bytes(content)
    return set(names)


if __name__ == "__main__":
    main()
