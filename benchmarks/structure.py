"""CamVid or MSRC-21: structure learnt against none, and what regions could do at best.

Every seed masks other images (with --masks) and chooses other pixels. Both models have
the same features and, but for the folds of the CRF, the same head.
"""

from __future__ import annotations

import time

import numpy as np
from common import load_masks, options, report_machine, row, semantic

from mtsk import DeepFeatures, MultiTaskSegmenter
from mtsk.features import MemoryCache
from mtsk.metrics import confusion, mean_iou
from mtsk.structure.superpixels import best_labelling, over_segment


def main() -> None:
    chosen = options(
        __doc__ or "",
        dataset={"choices": ["camvid", "msrc21"], "default": "msrc21"},
        masks={"type": int, "default": 0},
        seeds={"type": int, "default": 3},
    )
    report_machine()
    X, Y = load_masks(chosen.data, chosen.dataset, "train")
    X_val, Y_val = load_masks(chosen.data, chosen.dataset, "val")
    features = DeepFeatures(cache=MemoryCache())
    results = []
    for seed in range(chosen.seeds):
        some = np.random.default_rng(seed).permutation(len(X))[: chosen.masks or None]
        X_some, Y_some = [X[i] for i in some], [Y[i] for i in some]
        one = []
        for structure in (None, "crf"):
            model = MultiTaskSegmenter(
                semantic(chosen.dataset),
                features=features,
                head="logistic",
                structure=structure,
                random_state=seed,
            ).fit(X_some, Y_some)
            kept = model.features_.cache
            model.features_.set_params(cache=None)
            start = time.perf_counter()
            model.predict(X_val[:20])
            seconds = (time.perf_counter() - start) / 20
            model.features_.set_params(cache=kept)
            metrics = ("miou", "boundary_f1")
            scores = [
                model.score_tasks(X_val, {"target": Y_val}, {"target": m})
                for m in metrics
            ]
            one.append([*(s["target"] for s in scores), seconds])
        learnt = model.structures_["target"]
        crf = learnt.regions
        print(
            f"seed {seed}: mIoU {one[0][0]:.4f} -> {one[1][0]:.4f}, boundary F1 "
            f"{one[0][1]:.4f} -> {one[1][1]:.4f}, seconds an image {one[0][2]:.3f} -> "
            f"{one[1][2]:.3f}, strength {crf.strength_}, temperature "
            f"{crf.temperature_}, palette {crf.palette_}, pixels "
            f"{learnt.pixels.strength_}",
            flush=True,
        )
        results.append(one)
    none, crf = np.median(results, axis=0)
    gain = np.median([b[0] - a[0] for a, b in results])
    edges = np.median([b[1] - a[1] for a, b in results])
    asked = ">= +0.02" if chosen.masks else ">= 0"
    row("mIoU, structure − none", f"{gain:+.4f}", asked)
    row("boundary F1, structure − none", f"{edges:+.4f}", ">= +0.02")
    row("prediction, structure ÷ none", f"{crf[2] / none[2]:.2f}", "<= 1.5")
    row(
        "upper bound of mIoU by these superpixels",
        f"{upper_bound(model, X_val, Y_val):.4f}",
        "-",
    )


def upper_bound(model, X, Y) -> float:
    """Return the mIoU of the best labelling of the regions."""
    task = model.tasks_["target"]
    counts = np.zeros((task.group_.size + 1,) * 2, int)
    for index, views, maps in model.features_.iter_views_and_maps(X):
        truth = task.encode(Y[index], maps.shape, unseen=True)[..., 0]
        known = truth >= 0
        best = best_labelling(
            over_segment(views[0]), np.where(known, truth, -1).astype(int)
        )
        found = confusion(truth[known], best[known], task.group_.size + 1)
        counts += found[: len(counts), : len(counts)]
    return mean_iou(counts)


if __name__ == "__main__":
    main()
