"""Recall of a class of few pixels an image, with its rows assured and without.

python benchmarks/rare_classes.py
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from common import options, report_machine, row
from skimage.draw import disk
from skimage.filters import gaussian

from mtsk import JointLogistic, MultiTaskSegmenter
from mtsk.heads.capabilities import Capabilities

SIDE, N_IMAGES = 192, 7


class UniformLogistic(JointLogistic):
    """The same head, whose rows are drawn without a look at classes."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, takes_entry_weights=False)


def main() -> None:
    chosen = options(__doc__ or "", seeds={"type": int, "default": 3})
    report_machine()
    for n_pixels, asked in ((16, ">= 0.9"), (48, "-"), (160, "-")):
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(chosen.seeds):
            rng = np.random.default_rng(seed)
            X, Y = scenes(n_pixels, rng)
            new, truth = scenes(n_pixels, rng)
            for name, head, most in (
                ("assured", JointLogistic(), 500),
                ("uniform", UniformLogistic(), 500),
                ("uniform, 4000 pixels", UniformLogistic(), 4000),
            ):
                model = MultiTaskSegmenter(
                    head=head, max_pixels_per_image=most, random_state=seed
                ).fit(X, Y)
                masks = model.predict(new)
                hit = (masks == 3) & (truth == 3)
                right = masks == truth
                found.setdefault(name, []).append(
                    (hit.sum() / (truth == 3).sum(), right.mean())
                )
        for name, values in found.items():
            recall, accuracy = np.median(values, axis=0)
            label = f"{n_pixels} pixels an image, {name}: recall / accuracy"
            limit = asked if name == "assured" else "-"
            row(label, f"{recall:.2f} / {accuracy:.4f}", limit)


def scenes(n_pixels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return images of three textures with small discs, and their label maps."""
    images = np.empty((N_IMAGES, SIDE, SIDE, 3), np.uint8)
    masks = np.empty((N_IMAGES, SIDE, SIDE), int)
    for image, mask in zip(images, masks, strict=True):
        height = gaussian(rng.normal(size=(SIDE, SIDE)), 24)
        mask[:] = np.digitize(height, np.quantile(height, [0.4, 0.75]))
        colours = np.array([[90, 110, 60], [120, 120, 125], [150, 130, 100]])
        noise = rng.normal(scale=25, size=(SIDE, SIDE, 3))
        image[:] = (colours[mask] + noise).clip(0, 255)
        radius = np.sqrt(n_pixels / np.pi)
        places = disk(rng.integers(20, SIDE - 20, 2), radius, shape=mask.shape)
        mask[places] = 3
        colour = np.array([170, 60, 70]) + rng.normal(
            scale=25, size=(len(places[0]), 3)
        )
        image[places] = colour.clip(0, 255)
    return images, masks


if __name__ == "__main__":
    main()
