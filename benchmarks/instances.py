"""Nuclei: every one found, touching ones apart; AP = TP / (TP + FP + FN).

python benchmarks/instances.py
"""

from __future__ import annotations

import statistics

import numpy as np
from common import clock, options, peak_gigabytes, report_machine, row
from skimage.io import imread

from mtsk import DeepFeatures, MultiTaskSegmenter, SharedDecoder
from mtsk.decoders import Augmentation
from mtsk.metrics import Matches, instance_iou, match_instances
from mtsk.tasks import InstanceSegmentation


def main() -> None:
    chosen = options(
        __doc__ or "",
        architecture={"choices": ["fcn", "unet"], "default": "fcn"},
        scales={"type": float, "nargs": "+", "default": [0.5, 1, 2]},
        stride={"type": int, "default": 2},
        width={"type": int, "default": 128},
        crop={"type": int, "default": 192},
        epochs={"type": int, "default": 40},
        class_weight={"type": float, "default": 0.25},
        threshold={"type": float, "default": 0.5},
        separation={"type": float, "default": 1.0},
        seeds={"type": int, "default": 3},
    )
    report_machine()
    print(vars(chosen))
    X, Y = load_nuclei(chosen.data, "train")
    X_val, Y_val = load_nuclei(chosen.data, "val")
    found = []
    for seed in range(chosen.seeds):
        times: dict[str, float] = {}
        model = MultiTaskSegmenter(
            InstanceSegmentation(
                threshold=chosen.threshold, separation=chosen.separation
            ),
            features=DeepFeatures(scales=chosen.scales),
            head=SharedDecoder(
                chosen.architecture,
                stride=chosen.stride,
                width=chosen.width,
                n_epochs=chosen.epochs,
                class_weight=chosen.class_weight,
                augment=Augmentation(
                    vertical_flip=0.5,
                    zoom=(0.7, 1.4),
                    crop=(chosen.crop, chosen.crop),
                ),
            ),
            random_state=seed,
            verbose=1,
        )
        with clock(times, "fit"):
            model.fit(X, Y)
        with clock(times, "predict"):
            guesses = model.predict(X_val)
        overlaps = [instance_iou(y, g) for y, g in zip(Y_val, guesses, strict=True)]
        scores = {}
        for least in (0.5, 0.7):
            each = [match_instances(iou, least) for iou in overlaps]
            total = Matches(0, 0, 0, 0.0)
            for one in each:
                total = total.plus(one)
            scores |= {
                f"all {least}": total.threat_score,
                f"mean {least}": float(np.mean([one.threat_score for one in each])),
            }
            if least == 0.5:
                scores["pq"] = total.panoptic_quality
        scores |= {"fit": times["fit"], "predict": times["predict"] / len(X_val)}
        print(f"seed {seed}:", {k: round(v, 4) for k, v in scores.items()}, flush=True)
        found.append(scores)
    middle = {k: statistics.median(s[k] for s in found) for k in found[0]}
    row("AP at IoU 0.5, all nuclei of val", f"{middle['all 0.5']:.3f}", ">= 0.70")
    row("AP at IoU 0.7, all nuclei of val", f"{middle['all 0.7']:.3f}", ">= 0.50")
    row("AP at IoU 0.5, mean over images", f"{middle['mean 0.5']:.3f}", "-")
    row("AP at IoU 0.7, mean over images", f"{middle['mean 0.7']:.3f}", "-")
    row("panoptic quality", f"{middle['pq']:.3f}", "-")
    row("fit, seconds, features included", f"{middle['fit']:.0f}", "-")
    row("prediction, seconds an image", f"{middle['predict']:.2f}", "-")
    row("peak memory, GB", f"{peak_gigabytes():.2f}", "-")


def load_nuclei(data, split: str) -> tuple[list, list[np.ndarray]]:
    """Return the images' paths and maps of ids."""
    images = sorted((data / "nuclei" / split / "images").iterdir())
    folder = data / "nuclei" / split / "instances"
    return images, [imread(folder / p.name).astype(int) for p in images]


if __name__ == "__main__":
    main()
