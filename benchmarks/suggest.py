"""MSRC-21: which masks to draw next. `mtsk.suggest_labels` against random choice.

Every seed begins with the same random masks for both; then, round after round, a model
is fitted, and either `suggest_labels` or chance says which images are labelled next.
"""

from __future__ import annotations

import numpy as np
from common import VOID, load_masks, options, report_machine, row

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets, suggest_labels
from mtsk.features import MemoryCache
from mtsk.tasks import SemanticSegmentation


def main() -> None:
    chosen = options(
        __doc__ or "",
        start={"type": int, "default": 10},
        step={"type": int, "default": 10},
        stop={"type": int, "default": 40},
        seeds={"type": int, "default": 5},
    )
    report_machine()
    X, Y = load_masks(chosen.data, "msrc21", "train")
    val = load_masks(chosen.data, "msrc21", "val")
    every = np.unique(np.concatenate([np.unique(y) for y in Y]))
    classes = np.setdiff1d(every, VOID["msrc21"])
    task = SemanticSegmentation(void=VOID["msrc21"], classes=classes)
    features = DeepFeatures(cache=MemoryCache())
    gains = []
    for seed in range(chosen.seeds):
        model = MultiTaskSegmenter(
            {"semantic": task}, features=features, head="logistic", random_state=seed
        )
        order = np.random.default_rng(seed).permutation(len(X)).tolist()
        curves: dict[str, list[float]] = {}
        for way in ("random", "suggest"):
            labelled = order[: chosen.start]
            curves[way] = []
            while True:
                some = [Y[i] for i in labelled], [X[i] for i in labelled]
                model.fit(some[1], Targets(semantic=some[0]))
                curves[way].append(
                    model.score_tasks(val[0], {"semantic": val[1]})["semantic"]
                )
                if len(labelled) >= chosen.stop:
                    break
                if way == "random":
                    labelled = order[: len(labelled) + chosen.step]
                else:
                    known = [y if i in set(labelled) else None for i, y in enumerate(Y)]
                    new = suggest_labels(model, X, chosen.step, {"semantic": known})
                    labelled = labelled + [s.image for s in new]
            print(
                f"seed {seed}, {way:8s}", *(f"{s:.3f}" for s in curves[way]), flush=True
            )
        gains.append(curves["suggest"][-1] - curves["random"][-1])
    gain = f"{np.median(gains):+.3f}"
    row(f"mIoU at {chosen.stop} masks, suggest - random, median", gain, ">= +0.02")


if __name__ == "__main__":
    main()
