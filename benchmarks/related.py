"""RelatedRidge, its strength chosen by cross-validation, against separate ridges.

epfl6: five binary tasks, each labelled on n slices of its own (0: all on all). MSRC-21:
masks on n images and tags on all, or tags alone on n images. One scale of features
(784 numbers): what is compared is the heads. Scores are means over the tasks of average
precision and mIoU. By default classes are not weighted: with weights every column has
statistics of its own, and RelatedRidge takes a minute for 20.

python benchmarks/related.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from common import VOID, load_masks, options, report_machine, row
from sharing import TASKS, labelled_on, load_epfl6

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter, Targets
from mtsk.features import MemoryCache
from mtsk.heads import RelatedRidge
from mtsk.tasks import BinaryMask, MultiLabel, SemanticSegmentation

HEADS = {
    "separate": JointRidge,
    "related": RelatedRidge,
}
FEW = 10  # labelled images: where sharing should pay


def main() -> None:
    chosen = options(
        __doc__ or "",
        seeds={"type": int, "default": 3},
        heads={"nargs": "+", "default": ["related"], "choices": list(HEADS)[1:]},
        class_weight={"choices": ["none", "sqrt"], "default": "none"},
        slices={"type": int, "nargs": "*", "default": [1, 3, 0]},
        masks={"type": int, "nargs": "*", "default": [10, 50]},
        tags={"type": int, "nargs": "*", "default": [10, 50, 276]},
    )
    report_machine()
    features = DeepFeatures(scales=(1,), cache=MemoryCache())
    heads = ["separate", *chosen.heads]
    settings: list[tuple[str, bool, Callable]] = []
    if chosen.slices:
        settings += epfl6_settings(chosen.data, chosen.slices)
    if chosen.masks or chosen.tags:
        settings += msrc21_settings(chosen.data, chosen.masks, chosen.tags)
    for label, few, fit_and_score in settings:
        found: dict[str, list[float]] = {name: [] for name in heads}
        seconds: dict[str, list[float]] = {name: [] for name in heads}
        for seed in range(chosen.seeds):
            for name in heads:
                start = time.perf_counter()
                weight = None if chosen.class_weight == "none" else "sqrt"
                head = HEADS[name](class_weight=weight)
                scores, model = fit_and_score(features, head, seed)
                seconds[name].append(time.perf_counter() - start)
                found[name].append(float(np.mean(list(scores.values()))))
                print(
                    f"{label}, seed {seed}, {name}: {found[name][-1]:.4f}",
                    {k: round(v, 3) for k, v in scores.items()},
                    strengths(model),
                    flush=True,
                )
        for name in heads[1:]:
            gains = np.subtract(found[name], found["separate"])
            row(
                f"{label}: {name} - separate, mean of {chosen.seeds} seeds",
                f"{gains.mean():+.4f} ± {gains.std(ddof=min(1, len(gains) - 1)):.4f}",
                "better" if few else "no worse",
            )
            print(
                f"  separate {np.mean(found['separate']):.4f}; fit and score "
                f"{np.median(seconds[name]):.0f} s, separate "
                f"{np.median(seconds['separate']):.0f} s"
            )


def strengths(model: MultiTaskSegmenter) -> dict[str, float]:
    """Return what was chosen, by table."""
    return {
        kind: getattr(head, name)
        for kind in ("pixel", "image")
        if (head := getattr(model, f"{kind}_head_")) is not None
        for name in ("share_", "rank_", "selection_")
        if hasattr(head, name)
    }


def epfl6_settings(data, slices) -> list:
    X, Y = load_epfl6(data)
    truth = Targets(Y["val"])

    def setting(n: int) -> Callable:
        def fit_and_score(features, head, seed):
            model = MultiTaskSegmenter(
                {name: BinaryMask(positive=255) for name in TASKS},
                features=features,
                head=head,
                max_pixels_per_image=2000,
                random_state=seed,
            ).fit(X["train"], Targets(labelled_on(Y["train"], n, seed)))
            metrics = dict.fromkeys(TASKS, "average_precision")
            scores = model.score_tasks(
                X["val"], truth, metrics, max_pixels_per_image=20_000
            )
            return scores, model

        return fit_and_score

    return [
        (f"epfl6, {n or 'all'} slices a task", 0 < n <= FEW, setting(n)) for n in slices
    ]


def msrc21_settings(data, masks, n_tags) -> list:
    X, Y = load_masks(data, "msrc21", "train")
    X_val, Y_val = load_masks(data, "msrc21", "val")
    every = np.unique(np.concatenate([np.unique(y) for y in Y]))
    classes = np.setdiff1d(every, VOID["msrc21"])
    tags, tags_val = (
        [set(np.intersect1d(y, classes).tolist()) for y in maps] for maps in (Y, Y_val)
    )
    tasks = {
        "semantic": SemanticSegmentation(void=VOID["msrc21"], classes=classes),
        "tags": MultiLabel(classes.tolist()),
    }

    def setting(n_masks: int | None, n_tagged: int) -> Callable:
        def fit_and_score(features, head, seed):
            order = np.random.default_rng(seed).permutation(len(X))
            tagged = set(order[:n_tagged].tolist())
            columns = {"tags": [t if i in tagged else None for i, t in enumerate(tags)]}
            truth: dict = {"tags": tags_val}
            if n_masks is not None:
                masked = set(order[:n_masks].tolist())
                columns["semantic"] = [
                    y if i in masked else None for i, y in enumerate(Y)
                ]
                truth["semantic"] = Y_val
            model = MultiTaskSegmenter(
                {name: tasks[name] for name in columns},
                features=features,
                head=head,
                max_pixels_per_image=200,
                random_state=seed,
            ).fit(X, Targets(columns))
            return model.score_tasks(X_val, truth, max_pixels_per_image=20_000), model

        return fit_and_score

    found = [
        (f"MSRC-21, {n} masks, all tags", n <= FEW, setting(n, len(X))) for n in masks
    ]
    return found + [
        (f"MSRC-21, tags on {n} images", n <= FEW, setting(None, n)) for n in n_tags
    ]


if __name__ == "__main__":
    main()
