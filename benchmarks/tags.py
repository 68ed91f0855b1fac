"""MSRC-21: masks on a few images, tags on all. What do the tags give the pixels?

Each seed masks other images. "Without": the same images, tags left out. "True tags":
scores of classes that an image does not have are struck out, which no model can know;
it tells what is left to gain at prediction.
"""

from __future__ import annotations

import numpy as np
from common import VOID, load_masks, options, report_machine, row

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.features import MemoryCache
from mtsk.metrics import confusion, mean_iou
from mtsk.tasks import MultiLabel, SemanticSegmentation

ASKED = {20: ">= +0.10", 50: ">= +0.06"}


def main() -> None:
    chosen = options(
        __doc__ or "",
        masks={"type": int, "nargs": "+", "default": [20, 50]},
        seeds={"type": int, "default": 3},
    )
    report_machine()
    X, Y = load_masks(chosen.data, "msrc21", "train")
    X_val, Y_val = load_masks(chosen.data, "msrc21", "val")
    every = np.unique(np.concatenate([np.unique(y) for y in Y]))
    classes = np.setdiff1d(every, VOID["msrc21"])
    tags = [set(np.intersect1d(y, classes).tolist()) for y in Y]
    features = DeepFeatures(cache=MemoryCache())
    tasks = {
        "semantic": SemanticSegmentation(void=VOID["msrc21"], classes=classes),
        "tags": MultiLabel(classes.tolist()),
    }
    for n_masks in chosen.masks:
        scores = []
        for seed in range(chosen.seeds):
            masked = np.random.default_rng(seed).permutation(len(X))[:n_masks]
            some = [y if i in set(masked) else None for i, y in enumerate(Y)]
            model = MultiTaskSegmenter(
                tasks, features=features, head="logistic", random_state=seed
            )
            together = model.fit(X, Targets(semantic=some, tags=tags))
            joint = together.score_tasks(X_val, {"semantic": Y_val})["semantic"]
            ceiling = with_true_tags(together, X_val, Y_val, classes)
            alone = MultiTaskSegmenter(
                tasks["semantic"], features=features, head="logistic", random_state=seed
            ).fit([X[i] for i in masked], [Y[i] for i in masked])
            scores.append((alone.score(X_val, Y_val), joint, ceiling))
            print(f"{n_masks} masks, seed {seed}: " + _line(scores[-1]), flush=True)
        median = np.median(scores, axis=0)
        print(f"{n_masks} masks, median: " + _line(median))
        gain = np.median([joint - alone for alone, joint, _ in scores])
        row(
            f"mIoU, {n_masks} masks, with tags − without",
            f"{gain:+.3f}",
            ASKED[n_masks],
        )


def with_true_tags(model, X, Y, classes) -> float:
    """Return the mIoU where classes that are not in an image cannot be predicted."""
    counts = np.zeros((len(classes), len(classes)), int)
    scores = model.decision_function(X, tasks=["semantic"])["semantic"]
    for score, y in zip(scores, Y, strict=True):
        truth = np.searchsorted(classes, y).astype(float)
        truth[~np.isin(y, classes)] = np.nan
        allowed = np.where(np.isin(classes, y), score, -np.inf)
        counts += confusion(truth, allowed.argmax(axis=2), len(classes))
    return mean_iou(counts)


def _line(scores) -> str:
    alone, joint, ceiling = scores
    return f"without {alone:.4f}, with {joint:.4f}, with true tags {ceiling:.4f}"


if __name__ == "__main__":
    main()
