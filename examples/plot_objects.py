"""
Detection, instance segmentation and counting in one fit
========================================================

Object detection, instance segmentation and counting usually need three models. Here
they are three tasks of one decoder. It reads the features of the pretrained network and
learns all tasks jointly, from scenes of handwritten digits.
"""

# %%
# The scenes and their labels
# ---------------------------
# Every second scene has boxes, the others have outlines: no scene has both. The number
# of digits is known for all.

import matplotlib.pyplot as plt
import numpy as np
from skimage.segmentation import mark_boundaries

from mtsk import DeepFeatures, MultiTaskSegmenter, SharedDecoder, Targets
from mtsk.datasets import make_digit_scenes
from mtsk.tasks import Count, Detection, InstanceSegmentation

looks = {"size": (96, 128), "digit_size": (32, 56), "n_digits": (1, 3)}
train = make_digit_scenes(60, random_state=0, **looks)
test = make_digit_scenes(20, subset="test", random_state=1, **looks)
n = len(train.images)
given = train.targets
Y = Targets(
    boxes=[boxes if i % 2 else None for i, boxes in enumerate(given["boxes"])],
    digits=[ids if i % 2 == 0 else None for i, ids in enumerate(given["instances"])],
    count=given["count"],
)
print(Y)

# %%
# One fit
# -------
# `~mtsk.SharedDecoder` uses spatial context, which object tasks need. It is small here,
# so that this page builds in seconds.

model = MultiTaskSegmenter(
    {
        "boxes": Detection(threshold=0.25),
        "digits": InstanceSegmentation(min_size=60),
        "count": Count(),
    },
    features=DeepFeatures(scales=(1, 2)),
    head=SharedDecoder(width=48, n_blocks=2, n_epochs=24),
    random_state=0,
).fit(train.images, Y)

truth = Targets(
    boxes=test.targets["boxes"],
    digits=test.targets["instances"],
    count=test.targets["count"],
)
for name, score in model.score_tasks(test.images, truth).items():
    print(f"{name}: {model.tasks_[name].metrics[0]} {score:.2f}")

# %%
# Predictions on test scenes
# --------------------------
# Outlines of the detected objects, each with its number; boxes with the predicted digit
# and its score.

guess = model.predict(test.images[:4])
figure, axes = plt.subplots(2, 4, figsize=(11, 4.6), layout="constrained")
for i, (upper, lower) in enumerate(axes.T):
    ids, found = guess["digits"][i], guess["boxes"][i]
    upper.imshow(mark_boundaries(test.images[i], ids, color=(1, 1, 0), mode="thick"))
    for number in range(1, ids.max() + 1):
        row, column = np.argwhere(ids == number).mean(axis=0)
        upper.text(column, row, number, color="yellow", weight="bold", ha="center")
    upper.set_title(f"{ids.max()} outlined, {guess['count'][i]} counted", fontsize=9)
    lower.imshow(test.images[i])
    for box, label, score in zip(*found.values(), strict=True):
        low, sides = box[:2], box[2:] - box[:2]
        lower.add_patch(plt.Rectangle(low, *sides, fill=False, color="cyan"))
        text = f"{label}: {score:.1f}"
        lower.text(*low, text, color="black", backgroundcolor="cyan", fontsize=7)
    true = ", ".join(map(str, test.targets["boxes"][i]["labels"]))
    lower.set_title(f"true: {true}", fontsize=9)
    upper.axis("off"), lower.axis("off")

# %%
# Localisation is learnt from few scenes; classification of the digits needs more than
# sixty. ``benchmarks/scenes.py`` has the figures for four hundred.
