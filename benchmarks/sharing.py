"""epfl6: one network for five tasks against one for each, the same in all else.

``--slices 0``: every slice has all labels. ``--slices n``: each task is labelled on n
slices of its own. Both kinds get the same images, pixels, settings and passes; their
settings were chosen for the separate ones (see CHANGELOG).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import options, report_machine, row
from skimage.io import imread

from mtsk import DeepFeatures, MultiTaskSegmenter, SharedLayerNetwork
from mtsk.data.targets import Targets
from mtsk.features import MemoryCache
from mtsk.tasks import BinaryMask

TASKS = (
    "membranes",
    "mitochondrion",
    "mitochondrial_boundaries",
    "vesicles",
    "PSD",
)
ASKED = {0: ">= +2 %", 3: ">= +6 %", 1: ">= +15 %"}
JUDGED = 20_000  # pixels of each slice


def main() -> None:
    chosen = options(
        __doc__ or "",
        slices={"type": int, "nargs": "+", "default": [0, 3, 1]},
        seeds={"type": int, "default": 3},
        max_pixels_per_image={"type": int, "default": 5000},
        epochs={"type": int, "default": 15},
    )
    report_machine()
    X, Y = load_epfl6(chosen.data)
    features = DeepFeatures(cache=MemoryCache())

    def average_precision(names: tuple[str, ...], Y_some: dict, seed: int) -> list:
        model = MultiTaskSegmenter(
            {name: BinaryMask(positive=255) for name in names},
            features=features,
            head=SharedLayerNetwork(n_epochs=chosen.epochs),
            max_pixels_per_image=chosen.max_pixels_per_image,
            random_state=seed,
        ).fit(X["train"], Targets({n: Y_some[n] for n in names}))
        truth = Targets({n: Y["val"][n] for n in names})
        metrics = dict.fromkeys(names, "average_precision")
        scores = model.score_tasks(
            X["val"], truth, metrics, max_pixels_per_image=JUDGED
        )
        return [scores[n] for n in names]

    for n_slices in chosen.slices:
        found = []
        for seed in range(chosen.seeds):
            some = labelled_on(Y["train"], n_slices, seed)
            joint = average_precision(TASKS, some, seed)
            alone = [average_precision((n,), some, seed)[0] for n in TASKS]
            found.append((alone, joint))
            print(
                f"{n_slices or 'all'} slices, seed {seed}: "
                + ", ".join(
                    f"{n} {a:.3f} -> {j:.3f}"
                    for n, a, j in zip(TASKS, alone, joint, strict=True)
                ),
                flush=True,
            )
        alone, joint = np.median(found, axis=0)
        gains = 100 * (joint / alone - 1)
        print("gain, %:", dict(zip(TASKS, gains.round(1).tolist(), strict=True)))
        label = f"{n_slices or 'all'} slices a task"
        row(
            f"{label}: mean gain without PSD",
            f"{gains[:4].mean():+.1f} %",
            ASKED[n_slices],
        )
        row(f"{label}: worst task", f"{gains.min():+.1f} %", ">= 0 beyond noise")
        row(
            f"{label}: PSD, joint", f"{joint[4]:.3f}", ">= 0.5" if not n_slices else "-"
        )


def load_epfl6(data: Path) -> tuple[dict[str, list[Path]], dict[str, dict]]:
    """Return the images' paths and the tasks' masks of both splits."""
    X: dict[str, list[Path]] = {}
    Y: dict[str, dict] = {}
    for split in ("train", "val"):
        folder = data / "epfl6" / split
        X[split] = sorted((folder / "images").iterdir())
        Y[split] = {
            task: [imread(p) for p in sorted((folder / task).iterdir())]
            for task in TASKS
        }
    return X, Y


def labelled_on(Y: dict, n_slices: int, seed: int) -> dict:
    """Return targets in which each task is labelled on some slices of its own."""
    n = len(Y[TASKS[0]])
    order = np.random.default_rng(seed).permutation(n)
    out = {}
    for t, name in enumerate(TASKS):
        own = (
            set(order[t * n_slices : (t + 1) * n_slices].tolist())
            if n_slices
            else {*range(n)}
        )
        out[name] = [y if i in own else None for i, y in enumerate(Y[name])]
    return out


if __name__ == "__main__":
    main()
