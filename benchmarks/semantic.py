"""CamVid or MSRC-21 with default settings: accuracy at full resolution, time, memory.

python benchmarks/semantic.py --dataset camvid
python benchmarks/semantic.py --dataset msrc21
python benchmarks/semantic.py --dataset camvid --head logistic
python benchmarks/semantic.py --dataset camvid --head network
python benchmarks/semantic.py --dataset camvid --backbone efficientnet_lite0_int8
"""

from __future__ import annotations

import statistics

from common import (
    clock,
    load_masks,
    options,
    peak_gigabytes,
    report_machine,
    row,
    semantic,
)

from mtsk import DeepFeatures, MultiTaskSegmenter
from mtsk.backbones import BUNDLED
from mtsk.metrics import class_table, task_metric

ASKED = {
    ("camvid", "automatic"): (">= 0.745", ">= 0.945", "-", "-", "<= 3.5"),
    ("msrc21", "automatic"): (">= 0.87", "-", "-", "-", "-"),
    ("camvid", "logistic"): (">= 0.66", ">= 0.91", "<= 240", "<= 0.40", "<= 4"),
    ("camvid", "network"): (">= 0.73", ">= 0.93", "<= 360", "-", "-"),
    ("msrc21", "logistic"): (">= 0.83", "-", "-", "-", "-"),
    ("msrc21", "network"): ("-", "-", "-", "-", "-"),
}


def main() -> None:
    chosen = options(
        __doc__ or "",
        dataset={"choices": ["camvid", "msrc21"], "default": "camvid"},
        head={
            "choices": ["automatic", "logistic", "network"],
            "default": "automatic",
        },
        backbone={"default": BUNDLED},
        seeds={"type": int, "default": 3},
    )
    report_machine()
    X, Y = load_masks(chosen.data, chosen.dataset, "train")
    X_val, Y_val = load_masks(chosen.data, chosen.dataset, "val")
    print(f"{chosen.dataset}: {len(X)} train, {len(X_val)} val, {chosen.seeds} seeds")
    found: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        times: dict[str, float] = {}
        model = MultiTaskSegmenter(
            semantic(chosen.dataset),
            features=DeepFeatures(chosen.backbone),
            head=None if chosen.head == "automatic" else chosen.head,
            random_state=seed,
        )
        with clock(times, "fit"):
            model.fit(X, Y)
        with clock(times, "predict"):
            model.predict(X_val)
        for choice in model.head_choices_.values():
            print(choice)
        task = model.tasks_["target"]
        meters = {name: task_metric(task, name) for name in task.metrics}
        for index, (path, truth) in enumerate(zip(X_val, Y_val, strict=True)):
            columns = model.tasks_.encode("target", truth, index, truth.shape)
            (scores,) = model.decision_function([path])
            for meter in meters.values():
                meter.update(columns, scores)
        values = {name: meter.compute() for name, meter in meters.items()}
        values |= {"fit": times["fit"], "predict": times["predict"] / len(X_val)}
        print(f"seed {seed}:", {k: round(v, 4) for k, v in values.items()}, flush=True)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    table = class_table(meters["miou"].counts, task.classes_.tolist())
    print(
        "IoU by class (last seed):",
        dict(zip(table["class"], [round(v, 3) for v in table["iou"]], strict=True)),
    )
    middle = {name: statistics.median(values) for name, values in found.items()}
    miou, accuracy, *limits = ASKED[chosen.dataset, chosen.head]
    row("mIoU, val, full resolution, median", f"{middle['miou']:.4f}", miou)
    row("global accuracy", f"{middle['accuracy']:.4f}", accuracy)
    row("class accuracy", f"{middle['class_accuracy']:.4f}", "-")
    row("boundary F1", f"{middle['boundary_f1']:.4f}", "-")
    row("fit, wall seconds, features included", f"{middle['fit']:.1f}", limits[0])
    row("prediction, seconds an image", f"{middle['predict']:.3f}", limits[1])
    row("peak memory, GB", f"{peak_gigabytes():.2f}", limits[2])


if __name__ == "__main__":
    main()
