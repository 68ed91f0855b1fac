"""epfl6: how the losses of five tasks are weighted, one shared network, all labels.

The same network, images, pixels and seeds for every strategy; its settings were chosen
for the plain sum.

python benchmarks/weighting.py
"""

from __future__ import annotations

import time

import numpy as np
from common import options, report_machine, row
from sharing import TASKS, labelled_on, load_epfl6

from mtsk import DeepFeatures, MultiTaskSegmenter, SharedLayerNetwork
from mtsk.data.targets import Targets
from mtsk.features import MemoryCache
from mtsk.tasks import BinaryMask

STRATEGIES = ("equal", "uncertainty", "geometric", "gradnorm", "dwa", "famo", "pcgrad")


def main() -> None:
    chosen = options(
        __doc__ or "",
        seeds={"type": int, "default": 3},
        slices={"type": int, "default": 0},
        max_pixels_per_image={"type": int, "default": 2000},
        strategies={"nargs": "+", "default": list(STRATEGIES)},
    )
    report_machine()
    X, Y = load_epfl6(chosen.data)
    features = DeepFeatures(cache=MemoryCache())
    truth = Targets(Y["val"])
    found: dict[str, list] = {name: [] for name in chosen.strategies}
    seconds: dict[str, list] = {name: [] for name in chosen.strategies}
    for seed in range(chosen.seeds):
        some = Targets(labelled_on(Y["train"], chosen.slices, seed))
        for name in chosen.strategies:
            start = time.perf_counter()
            model = MultiTaskSegmenter(
                {task: BinaryMask(positive=255) for task in TASKS},
                features=features,
                head=SharedLayerNetwork(task_weights=name),
                max_pixels_per_image=chosen.max_pixels_per_image,
                random_state=seed,
            ).fit(X["train"], some)
            seconds[name].append(time.perf_counter() - start)
            metrics = dict.fromkeys(TASKS, "average_precision")
            scores = model.score_tasks(
                X["val"], truth, metrics, max_pixels_per_image=20_000
            )
            found[name].append([scores[task] for task in TASKS])
            print(name, seed, np.round(found[name][-1], 4).tolist(), flush=True)
    base = np.array(found[chosen.strategies[0]])
    for name in chosen.strategies:
        each = np.array(found[name])
        delta = 100 * (each / base - 1).mean(axis=1)
        row(
            f"{name}: mean average precision; Δm against equal",
            f"{each.mean():.4f}; {delta.mean():+.1f} ± {delta.std(ddof=1):.1f} %",
            "-",
        )
        print(
            "  by task:",
            dict(zip(TASKS, each.mean(axis=0).round(3).tolist(), strict=True)),
            f"fit {np.median(seconds[name]):.0f} s",
        )


if __name__ == "__main__":
    main()
