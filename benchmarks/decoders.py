"""CamVid or MSRC-21 with a shared decoder: accuracy at full resolution, training time.

python benchmarks/decoders.py
python benchmarks/decoders.py --finetune all --augment views --scales 1 2 --epochs 16
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

from mtsk import DeepFeatures, MultiTaskSegmenter, SharedDecoder
from mtsk.decoders import Augmentation
from mtsk.metrics import task_metric


def main() -> None:
    chosen = options(
        __doc__ or "",
        dataset={"choices": ["camvid", "msrc21"], "default": "camvid"},
        architecture={"choices": ["fcn", "unet"], "default": "fcn"},
        finetune={"choices": ["none", "last", "all"], "default": "none"},
        scales={"type": float, "nargs": "+", "default": [0.5, 1, 2]},
        augment={"choices": ["none", "flip", "views"], "default": "flip"},
        crop={"type": int, "nargs": 2, "default": [192, 256]},
        zoom={"type": float, "nargs": 2, "default": [0.75, 1.5]},
        stride={"type": int, "default": 2},
        dropout={"type": float, "default": 0.2},
        epochs={"type": int, "default": 16},
        width={"type": int, "default": 128},
        rate={"type": float, "default": 2e-3},
        backbone_rate={"type": float, "default": 2e-4},
        class_weight={"type": float, "default": 0.25},
        seeds={"type": int, "default": 3},
        first_seed={"type": int, "default": 0},
    )
    report_machine()
    print(vars(chosen))
    X, Y = load_masks(chosen.data, chosen.dataset, "train")
    X_val, Y_val = load_masks(chosen.data, chosen.dataset, "val")
    augment = {"none": False, "flip": "flip"}.get(
        chosen.augment, Augmentation(zoom=chosen.zoom, crop=chosen.crop)
    )
    found: dict[str, list[float]] = {}
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        times: dict[str, float] = {}
        model = MultiTaskSegmenter(
            semantic(chosen.dataset),
            features=DeepFeatures(scales=chosen.scales),
            head=SharedDecoder(
                chosen.architecture,
                width=chosen.width,
                n_epochs=chosen.epochs,
                learning_rate=chosen.rate,
                finetune=None if chosen.finetune == "none" else chosen.finetune,
                backbone_learning_rate=chosen.backbone_rate,
                augment=augment,
                stride=chosen.stride,
                dropout=chosen.dropout,
                class_weight=chosen.class_weight,
            ),
            random_state=seed,
            verbose=1,
        )
        with clock(times, "fit"):
            model.fit(X, Y)
        print(
            "training loss:", [round(float(v[0]), 4) for v in model.pixel_head_.losses_]
        )
        task = model.tasks_["target"]
        meters = {name: task_metric(task, name) for name in task.metrics}
        with clock(times, "predict"):
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
    middle = {name: statistics.median(values) for name, values in found.items()}
    asked = ">= 0.76" if chosen.dataset == "camvid" else "-"
    row("mIoU, val, full resolution, median", f"{middle['miou']:.4f}", asked)
    row("global accuracy", f"{middle['accuracy']:.4f}", "-")
    row("boundary F1", f"{middle['boundary_f1']:.4f}", "-")
    row("fit, wall seconds, features included", f"{middle['fit']:.1f}", "stated")
    row("prediction and scoring, s an image", f"{middle['predict']:.3f}", "-")
    row("peak memory, GB", f"{peak_gigabytes():.2f}", "-")


if __name__ == "__main__":
    main()
