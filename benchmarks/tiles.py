"""One large image in tiles: peak memory, time, and whether it is as the whole image.

Three tasks (classes, boundaries, objects) learnt from parts of the picture of a
retina that scikit-image ships, with discs drawn on it; the large image is made of that
picture, mirrored side by side.

python benchmarks/tiles.py
python benchmarks/tiles.py --side 4000 --halo 128
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from common import options, report_machine, row
from scipy import ndimage
from skimage.data import retina

from mtsk import MultiTaskSegmenter, predict_tiled
from mtsk.tasks import Boundary, InstanceSegmentation


def main() -> None:
    chosen = options(
        __doc__ or "",
        side={"type": int, "default": 10_000},
        crop={"type": int, "default": 2_000},
        tile={"type": int, "default": 2048},
        crop_tile={"type": int, "default": 1024},
        halo={"type": int, "default": None},
    )
    report_machine()
    model = learnt()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        draw(path, chosen.side)
        image = np.load(path, mmap_mode="r")
        with Peak() as peak:
            start = time.perf_counter()
            predict_tiled(
                model,
                image,
                Path(folder) / "out.zarr",
                tile_size=chosen.tile,
                halo=chosen.halo,
            )
            seconds = time.perf_counter() - start
        pixels = chosen.side**2 / 1e6
        name = f"{chosen.side} x {chosen.side}, three tasks"
        row(f"{name}: peak memory above start, GB", f"{peak.rise:.2f}", "<= 1.5")
        row(f"{name}: seconds a megapixel", f"{seconds / pixels:.2f}", "-")
        part = np.ascontiguousarray(image[: chosen.crop, : chosen.crop])
    start = time.perf_counter()
    whole = {k: v[0] for k, v in model.predict([part]).items()}
    at_once = time.perf_counter() - start
    found = predict_tiled(model, part, tile_size=chosen.crop_tile, halo=chosen.halo)
    size = f"{chosen.crop} x {chosen.crop}"
    row(
        f"{size} at once: seconds a megapixel",
        f"{at_once / part[..., 0].size * 1e6:.2f}",
        "-",
    )
    for task in ("classes", "rims"):
        differ = int((found[task] != whole[task]).sum())
        row(f"{size}: pixels that differ, {task}", f"{differ}", "equal")
    pairs = np.unique(np.stack([found["ids"].ravel(), whole["ids"].ravel()]), axis=1)
    n = len(np.unique(whole["ids"])) - 1
    alike = len(pairs[0]) - 1
    row(
        f"{size}: objects, and pairs of ids that share a pixel",
        f"{n}, {alike}",
        "equal",
    )


def learnt() -> MultiTaskSegmenter:
    """Return a model of three tasks, learnt from parts of one picture."""
    picture = retina()[200:1200, 200:1200].copy()
    drawn = draw_discs(picture, seed=0)
    X, Y = [], {"classes": [], "rims": [], "ids": []}
    for top, left in ((100, 100), (100, 600), (600, 100), (600, 600), (350, 350)):
        part = slice(top, top + 256), slice(left, left + 256)
        X.append(picture[part])
        light = ndimage.gaussian_filter(picture[part][..., 1].astype(float), 1)
        Y["classes"].append(np.digitize(light, [50, 75]))
        Y["rims"].append(drawn[part])
        Y["ids"].append(drawn[part])
    tasks = {"rims": Boundary(), "ids": InstanceSegmentation(min_size=9)}
    return MultiTaskSegmenter(tasks, random_state=0, verbose=1).fit(X, Y)


def draw_discs(picture: np.ndarray, seed: int) -> np.ndarray:
    """Draw light discs on a picture, in place; return their ids."""
    random = np.random.default_rng(seed)
    ids = np.zeros(picture.shape[:2], int)
    y, x = np.mgrid[-12:13, -12:13]
    for i in range(1, 601):
        disc = y**2 + x**2 < random.uniform(5, 11) ** 2
        top, left = random.integers(0, np.subtract(ids.shape, 25))
        place = slice(top, top + 25), slice(left, left + 25)
        if not ids[place][disc].any():
            ids[place][disc] = i
            picture[place][disc] = picture[place][disc] // 3 + [150, 160, 60]
    return ids


def draw(path: Path, side: int) -> None:
    """Write a square image of the picture and its mirror images, with discs."""
    picture = retina()[200:1200, 200:1200].copy()
    draw_discs(picture, seed=1)
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 3))
    for i, top in enumerate(range(0, side, 1000)):
        for j, left in enumerate(range(0, side, 1000)):
            part = picture[:: 1 - 2 * (i % 2), :: 1 - 2 * (j % 2)]
            cell = out[top : top + 1000, left : left + 1000]
            cell[:] = part[: cell.shape[0], : cell.shape[1]]
    out.flush()


class Peak:
    """How far the memory of this process, without files it maps, rises."""

    def __enter__(self) -> Peak:
        self.rise, self._stop = 0.0, threading.Event()
        self._start = _resident()
        self._watch = threading.Thread(target=self._run, daemon=True)
        self._watch.start()
        return self

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self.rise = max(self.rise, _resident() - self._start)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watch.join()


def _resident() -> float:
    """Return gigabytes of anonymous resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 2**20
    raise OSError("no RssAnon: this script needs Linux")


if __name__ == "__main__":
    main()
