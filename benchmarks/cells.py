"""Cells (wbc): their class, from the image; with outlines of some cells, and without.

The class is learnt alone, or with masks of nucleus and cytoplasm on 20 images. Linear
heads: with masks, the class looks where the parts are found (``region_pooling``). A
decoder: with masks, its layers learn from them too. Stratified folds, repeated; the
same images, labels, settings and seeds for both kinds. Two intervals of the gain: one
over folds, which says what another training set of this size might give, and one over
images, which says what other images might.

python benchmarks/cells.py
python benchmarks/cells.py --head decoder --repeats 1 --epochs 30 --scales 1 2 4 \
    --class-weight 0
"""

from __future__ import annotations

import csv
import time

import numpy as np
from common import options, report_machine, row
from scipy.stats import t as student
from skimage.io import imread
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import RepeatedStratifiedKFold

from mtsk import DeepFeatures, JointLogistic, MultiTaskSegmenter, SharedDecoder, Targets
from mtsk.features import MemoryCache
from mtsk.links import Links
from mtsk.metrics import confusion, iou_per_class

MASKED = 20
CYTOPLASM, NUCLEUS = 1, 2


def main() -> None:
    chosen = options(
        __doc__ or "",
        head={"choices": ["linear", "decoder"], "default": "linear"},
        structure={"choices": ["crf"], "default": None},
        repeats={"type": int, "default": 10},
        folds={"type": int, "default": 5},
        masks={"type": int, "default": MASKED},
        labels={"type": int, "default": 0},  # classes known of so many; 0 is all
        width={"type": int, "default": 64},
        blocks={"type": int, "default": 2},
        epochs={"type": int, "default": 15},
        scales={"type": float, "nargs": "+", "default": [0.5, 1.0, 2.0]},
        dropout={"type": float, "default": 0.2},
        stride={"type": int, "default": 2},
        class_weight={"type": float, "default": 0.5},
    )
    report_machine()
    X, classes, masks = load_cells(chosen.data)
    folds = RepeatedStratifiedKFold(
        n_splits=chosen.folds, n_repeats=chosen.repeats, random_state=0
    )
    features = DeepFeatures(scales=chosen.scales, cache=MemoryCache())
    kinds_of_model = models(chosen, features)
    found = []
    counts = np.zeros((3, 3), int)
    right = {name: np.zeros(len(X)) for name in ("alone", "joint")}
    for fold, (train, held) in enumerate(folds.split(X, classes)):
        rng = np.random.default_rng(fold)
        labelled = set(rng.permutation(train)[: chosen.labels or None].tolist())
        masked = set(rng.permutation(train)[: chosen.masks].tolist())
        kinds = [classes[i] if i in labelled else None for i in train]
        outlines = [masks[i] if i in masked else None for i in train]
        scores, start = {}, time.perf_counter()
        for name, targets in (
            ("alone", {"class": kinds}),
            ("joint", {"class": kinds, "parts": outlines}),
        ):
            model = clone(kinds_of_model[name]).set_params(random_state=fold)
            model.fit([X[i] for i in train], Targets(targets))
            guess = model.predict([X[i] for i in held], tasks=["class"])["class"]
            truth = [classes[i] for i in held]
            right[name][held] += np.array(truth) == np.array(guess)
            scores[name] = balanced_accuracy_score(truth, guess)
            if name == "joint":
                found_parts = model.predict([X[i] for i in held], tasks=["parts"])
                for i, parts in zip(held, found_parts["parts"], strict=True):
                    counts += confusion(masks[i], parts, 3)
        print(
            f"fold {fold}:",
            {k: round(v, 4) for k, v in scores.items()},
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
        found.append(list(scores.values()))
    alone, joint = np.mean(found, axis=0)
    gains = np.array([j - a for a, j in found])
    # Folds share most of what they learn from (Nadeau & Bengio, 2003).
    spread = gains.std(ddof=1) * np.sqrt(1 / len(gains) + 1 / (chosen.folds - 1))
    reach = student.ppf(0.975, len(gains) - 1) * spread
    plain = student.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / len(gains) ** 0.5
    row("balanced accuracy, class alone", f"{alone:.4f}", ">= 0.85")
    row(f"balanced accuracy, with masks on {chosen.masks}", f"{joint:.4f}", "better")
    row("gain", f"{gains.mean():+.4f} ± {reach:.4f}", "interval excludes 0")
    row("the same, were folds independent", f"± {plain:.4f}", "-")
    low, high = over_images((right["joint"] - right["alone"]) / chosen.repeats, classes)
    row(
        "the same by a bootstrap over images",
        f"{low:+.4f} to {high:+.4f}",
        "excludes 0",
    )
    _, cytoplasm, nucleus = iou_per_class(counts)
    row("IoU of the nucleus", f"{nucleus:.4f}", ">= 0.92")
    row("IoU of the cytoplasm", f"{cytoplasm:.4f}", ">= 0.80")


def over_images(gains: np.ndarray, classes: list) -> tuple[float, float]:
    """Return the 95 % interval of the mean over classes of the mean over images.

    Each image's gain is how much more often it was rightly classed, over repeats, when
    it was held out; images are drawn again within each class.
    """
    rng = np.random.default_rng(0)
    kinds = np.array(classes)
    means = np.zeros(10_000)
    for kind in np.unique(kinds):
        own = gains[kinds == kind]
        means += own[rng.integers(len(own), size=(len(means), len(own)))].mean(axis=1)
    low, high = np.quantile(means / len(np.unique(kinds)), [0.025, 0.975])
    return float(low), float(high)


def models(chosen, features) -> dict[str, MultiTaskSegmenter]:  # type: ignore[no-untyped-def]
    """Return the model that learns the class alone, and that of class and parts."""
    if chosen.head == "linear":
        # Both kinds were best with this penalty, of 0.01, 0.1, 1, 10 and 100.
        classes = JointLogistic(alpha=10, class_weight="balanced")
        alone = MultiTaskSegmenter(features=features, head={"class": classes})
        parts = {"links": Links(region_pooling=("parts", [CYTOPLASM, NUCLEUS]))}
        return {
            "alone": alone,
            "joint": clone(alone).set_params(**parts, structure=chosen.structure),
        }
    head = SharedDecoder(
        width=chosen.width,
        n_blocks=chosen.blocks,
        n_epochs=chosen.epochs,
        dropout=chosen.dropout,
        n_points=2048,
        stride=chosen.stride,
        class_weight=chosen.class_weight,
    )
    return dict.fromkeys(
        ("alone", "joint"), MultiTaskSegmenter(features=features, head=head)
    )


def load_cells(data) -> tuple[list, list[str], list[np.ndarray]]:
    """Return images, class of each cell, and maps of its parts."""
    images = sorted((data / "wbc" / "images").iterdir())
    with open(data / "wbc" / "cell_class.csv", newline="") as file:
        of = {line["image"]: line["cell_class"] for line in csv.DictReader(file)}
    masks = [imread(data / "wbc" / "labels" / p.name) for p in images]
    return images, [of[p.stem] for p in images], masks


if __name__ == "__main__":
    main()
