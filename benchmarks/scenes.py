"""Digits on photographs: classes, instances, boxes, tags and counts, all at once.

The founding papers' own example. Scenes are made (`mtsk.datasets.make_digit_scenes`);
those for judging have other digits, by other hands, on other halves of the photographs.
One fit of all tasks is timed against a fit of each alone, in the same run.

python benchmarks/scenes.py
"""

from __future__ import annotations

import statistics

from common import clock, options, peak_gigabytes, report_machine, row

from mtsk import DeepFeatures, MultiTaskSegmenter, SharedDecoder
from mtsk.datasets import make_digit_scenes
from mtsk.decoders import Augmentation
from mtsk.tasks import Count, Detection, InstanceSegmentation, SemanticSegmentation

ASKED = {
    ("boxes", "box_ap50"): ">= 0.95",
    ("tags", "average_precision"): ">= 0.98",
    ("semantic", "miou"): ">= 0.90",
    ("instances", "threat_score_50"): "-",
    ("count", "mae"): "-",
}


def main() -> None:
    chosen = options(
        __doc__ or "",
        scenes={"type": int, "default": 1200},
        judged={"type": int, "default": 100},
        architecture={"choices": ["fcn", "unet"], "default": "fcn"},
        scales={"type": float, "nargs": "+", "default": [0.5, 1, 2]},
        epochs={"type": int, "default": 10},
        width={"type": int, "default": 128},
        blocks={"type": int, "default": 4},
        class_weight={"type": float, "default": 0.25},
        views={"type": int, "default": 0},
        finetune={"choices": ["none", "last", "all"], "default": "none"},
        seeds={"type": int, "default": 1},
        ratio={"type": int, "default": 0},  # scenes of the timing; 0 is no timing
    )
    report_machine()
    print(vars(chosen))
    train = make_digit_scenes(chosen.scenes, random_state=0)
    test = make_digit_scenes(chosen.judged, subset="test", random_state=1)
    tasks = {
        "semantic": SemanticSegmentation(),
        "instances": InstanceSegmentation(),
        "boxes": Detection(),
        "count": Count(),
    }
    views = Augmentation(flip=0.0, zoom=(0.8, 1.25), hue=0.2)
    augment = views if chosen.views else False

    def model(names: tuple[str, ...], seed: int) -> MultiTaskSegmenter:
        head = SharedDecoder(
            chosen.architecture,
            width=chosen.width,
            n_blocks=chosen.blocks,
            class_weight=chosen.class_weight,
            n_epochs=chosen.epochs,
            augment=augment,
            finetune=None if chosen.finetune == "none" else chosen.finetune,
        )
        return MultiTaskSegmenter(
            {n: t for n, t in tasks.items() if n in names},
            features=DeepFeatures(scales=chosen.scales),
            head=head,
            random_state=seed,
            verbose=1,
        )

    every = ("semantic", "instances", "boxes", "tags", "count")
    if chosen.ratio:
        compare_times(model, train, every, chosen.ratio)
        return
    found: dict[tuple[str, str], list[float]] = {key: [] for key in ASKED}
    times: dict[str, float] = {}
    for seed in range(chosen.seeds):
        joint = model(every, seed)
        with clock(times, "fit"):
            joint.fit(train.images, train.targets.subset(list(every)))
        for name, metric in ASKED:
            truth = {name: test.targets[name]}
            score = joint.score_tasks(test.images, truth, {name: metric})[name]
            found[name, metric].append(score)
            print(f"seed {seed}: {name} {metric} {score:.4f}", flush=True)
    for (name, metric), asked in ASKED.items():
        row(f"{name}, {metric}", f"{statistics.median(found[name, metric]):.4f}", asked)
    row("fit, seconds, features included", f"{times['fit']:.0f}", "-")
    row("peak memory, GB", f"{peak_gigabytes():.2f}", "-")


def compare_times(model, train, every: tuple[str, ...], n: int) -> None:
    """Time a joint fit against a fit of each task alone."""
    times: dict[str, float] = {}
    for names in (every, *((name,) for name in every)):
        label = "+".join(names)
        with clock(times, label):
            model(names, 0).fit(train.images[:n], train.targets[:n].subset(list(names)))
        print(label, f"{times[label]:.1f} s", flush=True)
    joint = times.pop("+".join(every))
    ratio = joint / max(times.values())
    row("joint fit / the dearest task alone", f"{ratio:.2f}", "<= 1.5")


if __name__ == "__main__":
    main()
