"""
Pseudo-labels from image tags
=============================

Tags take a second per image, masks a minute. Here three images have masks, and forty
have tags: the set of textures in them. A tag task with ``of`` provides pseudo-labels
for the pixels of tagged images, even of a class that no mask has.
"""

# %%
# Images of textures
# ------------------
# Each is divided into five pieces, and contains three of six textures.

import numpy as np
from skimage.data import brick, camera, coins, grass, gravel, page

from mtsk import DeepFeatures, MultiTaskSegmenter, SegmentationDisplay, Targets
from mtsk.displays import ConfusionDisplay
from mtsk.tasks import MultiLabel, SemanticSegmentation

SIDE = 128
textures = {
    "brick": brick(),
    "grass": grass(),
    "gravel": gravel(),
    "page": page(),
    "coins": coins(),
    "camera": camera(),
}
names = list(textures)


def collages(n, half, seed):
    """Yield images from the left halves of the textures (0) or from the right (1)."""
    rng = np.random.default_rng(seed)
    grid = np.moveaxis(np.indices((SIDE, SIDE)), 0, -1)
    for _ in range(n):
        centres = rng.integers(0, SIDE, (5, 2))
        piece = ((grid[:, :, None] - centres) ** 2).sum(axis=-1).argmin(axis=-1)
        chosen = rng.choice(len(names), 3, replace=False)
        classes = chosen[rng.integers(0, 3, 5)][piece]
        image = np.zeros((SIDE, SIDE), np.uint8)
        for code in chosen:
            texture = textures[names[code]]
            middle = texture.shape[1] // 2
            own = texture[:, half * middle : (half + 1) * middle]
            top, left = (rng.integers(0, n - SIDE + 1) for n in own.shape)
            patch = own[top : top + SIDE, left : left + SIDE]
            image[classes == code] = patch[classes == code]
        yield image, np.array(names)[classes]


train, test = (list(collages(40, half, seed=half)) for half in (0, 1))
images, masks = (list(column) for column in zip(*train, strict=True))
images_test, masks_test = (list(column) for column in zip(*test, strict=True))

# %%
# The labels
# ----------

Y = Targets(
    texture=[mask if i < 3 else None for i, mask in enumerate(masks)],
    tags=[set(np.unique(mask).tolist()) for mask in masks],
)
print(Y)
print("in the masks:", np.unique(masks[:3]).tolist())

# %%
# With and without tags
# ---------------------
# Pixels of a tagged image take the likeliest class among its tags, and the head is
# refitted. This is done twice (``n_pseudo_label_rounds``).

tasks = {
    "texture": SemanticSegmentation(classes=names),
    "tags": MultiLabel(names, of="texture"),
}
shared = {"features": DeepFeatures(scales=(1,), cache="memory"), "random_state": 0}
truth = {"texture": masks_test}

alone = MultiTaskSegmenter({"texture": tasks["texture"]}, **shared)
alone.fit(images[:3], {"texture": masks[:3]})
together = MultiTaskSegmenter(tasks, **shared).fit(images, Y)
for name, model in (("three masks", alone), ("three masks and 40 tags", together)):
    print(f"{name}: mIoU {model.score_tasks(images_test, truth)['texture']:.3f}")

# %%
# What changed
# ------------

for model in (alone, together):
    SegmentationDisplay.from_estimator(
        model, images_test[1], masks_test[1], task="texture"
    )

# %%
# Confusion of textures
# ---------------------
# Row-normalised confusion matrices, without and with tags.

for model in (alone, together):
    ConfusionDisplay.from_estimator(
        model,
        images_test,
        truth,
        task="texture",
        normalize="true",
        values_format=".2f",
        cmap="Blues",
    )

# %%
# Tags are weaker supervision than masks: if two textures always occurred together, they
# could not be distinguished. ``benchmarks/tags.py`` has the gain on photographs.
