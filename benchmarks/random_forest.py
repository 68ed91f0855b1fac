"""Against scikit-image's multiscale features and a random forest, 50 MSRC-21 masks.

Same images, same pixels, same run. The forest's settings are those of scikit-image's
own example of trainable segmentation (50 trees, depth 10, 5 % of the rows a tree),
and, so that it is not starved, also scikit-learn's defaults with 100 trees.
"""

from __future__ import annotations

import statistics
from functools import partial

import numpy as np
from common import clock, load_masks, options, report_machine, row, semantic
from skimage.feature import multiscale_basic_features
from skimage.io import imread
from sklearn.ensemble import RandomForestClassifier

from mtsk import MultiTaskSegmenter
from mtsk.data.images import Images
from mtsk.features.cache import content_digest
from mtsk.metrics import confusion, mean_iou
from mtsk.tables.table import choose_pixels

PIXELS = 500  # of each image, for ours and theirs
FORESTS = {
    "scikit-image's example": {
        "n_estimators": 50,
        "max_depth": 10,
        "max_samples": 0.05,
    },
    "scikit-learn's defaults": {"n_estimators": 100},
}


def main() -> None:
    chosen = options(
        __doc__ or "",
        masks={"type": int, "default": 50},
        seeds={"type": int, "default": 3},
    )
    report_machine()
    X, Y = load_masks(chosen.data, "msrc21", "train")
    X_val, Y_val = load_masks(chosen.data, "msrc21", "val")
    features = partial(multiscale_basic_features, channel_axis=-1)
    miou: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        some = np.random.default_rng(seed).permutation(len(X))[: chosen.masks]
        images, masks = [X[i] for i in some], [Y[i] for i in some]
        times: dict[str, float] = {}
        model = MultiTaskSegmenter(
            semantic("msrc21"),
            head="logistic",
            max_pixels_per_image=PIXELS,
            random_state=seed,
        )
        with clock(times, "fit"):
            model.fit(images, masks)
        with clock(times, "predict"):
            guesses = model.predict(X_val)
        task = model.tasks_["target"]
        table = same_pixels(model, images, masks, features)
        results = {"mtsk": (guesses, times)}
        for name, settings in FORESTS.items():
            forest = RandomForestClassifier(
                n_jobs=-1, class_weight=None, random_state=seed, **settings
            ).fit(*table)
            times = {}
            with clock(times, "predict"):
                guesses = [segment(forest, features, path) for path in X_val]
            results[name] = guesses, times
        for name, (guesses, times) in results.items():
            counts = sum(
                pad(
                    confusion(
                        task.encode(t, t.shape, unseen=True)[..., 0],
                        np.searchsorted(task.classes_, g),
                        task.group_.size,
                    )
                )
                for t, g in zip(Y_val, guesses, strict=True)
            )
            miou.setdefault(name, []).append(mean_iou(counts))
            seconds.setdefault(name, []).append(times["predict"] / len(X_val))
        print(
            f"seed {seed}:", {k: round(v[-1], 4) for k, v in miou.items()}, flush=True
        )
    middle = {name: statistics.median(values) for name, values in miou.items()}
    speed = {name: statistics.median(values) for name, values in seconds.items()}
    for name in middle:
        print(
            f"{name:26s} mIoU {middle[name]:.4f}  "
            f"prediction {speed[name]:.3f} s an image"
        )
    best = max(FORESTS, key=middle.__getitem__)
    row(
        "mIoU, ours ÷ the better forest", f"{middle['mtsk'] / middle[best]:.2f}", ">= 3"
    )
    fastest = min(speed[name] for name in FORESTS)
    row(
        "prediction, ours ÷ the faster forest", f"{speed['mtsk'] / fastest:.2f}", "<= 1"
    )


def pad(counts: np.ndarray) -> np.ndarray:
    """Give every image's counts one size: classes, and one for those unseen."""
    out = np.zeros((22, 22), int)
    out[: len(counts), : len(counts)] = counts
    return out


def same_pixels(model, images, masks, features) -> tuple[np.ndarray, np.ndarray]:
    """Return the peer's features at the pixels that the model learnt from."""
    rows, labels = [], []
    task = model.tasks_["target"]
    for (_, views), path, mask in zip(Images(images), images, masks, strict=True):
        columns = task.encode(mask, mask.shape)[..., 0]
        labelled = ~np.isnan(columns).reshape(1, -1)
        digest = content_digest(views)
        mine = choose_pixels(labelled, PIXELS, model.predictor_.seed, digest)[0]
        rows.append(features(imread(path)).reshape(mask.size, -1)[mine])
        labels.append(mask.ravel()[mine])
    return np.concatenate(rows), np.concatenate(labels)


def segment(forest, features, path) -> np.ndarray:
    image = imread(path)
    table = features(image)
    guess = forest.predict(table.reshape(-1, table.shape[-1]))
    return guess.reshape(image.shape[:2])


if __name__ == "__main__":
    main()
