"""
Several tasks, each labelled on scenes of its own
=================================================

Masks take long to draw; whether a picture shows a seven is seen at a glance. So a real
set of labels has holes: some pictures have a mask, others a list of tags, a few have
both. ``fit`` takes such a set as it is. Here four tasks are learnt together, and no
scene has a label of all four.
"""

# %%
# The scenes
# ----------
# Handwritten digits on photographs, with every kind of label. For training, most of
# the labels are taken away below.

import matplotlib.pyplot as plt
import numpy as np

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.datasets import make_digit_scenes

looks = {"size": (96, 128), "digit_size": (28, 48)}
train = make_digit_scenes(32, random_state=0, **looks)
test = make_digit_scenes(12, subset="test", random_state=0, **looks)
BACKGROUND = 10


def every_label(targets):
    return {
        "ink": [labels != BACKGROUND for labels in targets["semantic"]],
        "depth": targets["depth"],
        "tags": targets["tags"],
        "count": targets["count"],
    }


# %%
# What may be missing
# -------------------
# A label that is missing altogether is ``None``. Inside a map, −1 in an integer map and
# NaN in a map of floats are pixels that nobody labelled. The tasks need not overlap:
#
# - ``ink`` is an integer map, known on ten scenes, and there only on scribbles: one row
#   of pixels in six;
# - ``depth`` is a float map, known on ten other scenes, in the left half;
# - ``tags``, the digits that occur, are known on every second scene;
# - ``count``, the number of digits, on the scenes between them.

full = every_label(train.targets)
scribbles, halves = [], []
for ink, depth in zip(full["ink"], full["depth"], strict=True):
    scribble = np.where(ink, 1, 0)
    scribble[np.arange(len(ink)) % 6 > 0] = -1
    scribbles.append(scribble)
    half = depth.copy()
    half[:, half.shape[1] // 2 :] = np.nan
    halves.append(half)

index = np.arange(len(train.images))
known = {
    "ink": index < 10,
    "depth": (index >= 10) & (index < 20),
    "tags": index % 2 == 0,
    "count": index % 2 == 1,
}
labels = {**full, "ink": scribbles, "depth": halves}
Y = Targets(
    {
        task: [label if k else None for label, k in zip(labels[task], known[task])]
        for task in known
    }
)
Y

# %%
# A row of the picture is a task, a column a scene. No column is full.

figure, axis = plt.subplots(figsize=(8, 1.8), layout="constrained")
axis.imshow(np.array(list(known.values())), cmap="Greens", vmax=1.6, aspect="auto")
axis.set(yticks=range(4), yticklabels=known, xlabel="scene", title="labelled (green)")
axis.set_xticks(index - 0.5, minor=True)
axis.set_yticks(np.arange(4) - 0.5, minor=True)
axis.grid(which="minor", color="white", linewidth=1.5)
axis.tick_params(which="minor", length=0)

# %%
# One fit
# -------
# The integer map of 0, 1 and −1 would be read as two classes; a
# :class:`~mtsk.tasks.BinaryMask` says that it means yes, no and unknown. The other tasks
# are read from the dtype and the number of axes of their labels.

from mtsk.tasks import BinaryMask

features = DeepFeatures(scales=(1,), cache="memory")
model = MultiTaskSegmenter(
    {"ink": BinaryMask()}, features=features, head="ridge", n_pixels=200, random_state=0
)
model.fit(train.images, Y)
truth = Targets(every_label(test.targets))
joint = model.score_tasks(test.images, truth)

# %%
# Each task once more by itself, on its own labelled scenes only. The features come from
# the cache.

print("task    metric               together   alone")
for task, codec in model.tasks_.items():
    rows = Y.labelled(task)
    single = MultiTaskSegmenter(
        {"ink": BinaryMask()} if task == "ink" else None,
        features=features,
        head="ridge",
        n_pixels=200,
        random_state=0,
    ).fit(train.images[rows], Y[rows].subset([task]))
    alone = single.score_tasks(test.images, truth.subset([task]))[task]
    print(f"{task:7} {codec.metrics[0]:20} {joint[task]:8.3f} {alone:7.3f}")

# %%
# What it predicts
# ----------------

shown = test.images[:3]
depth = model.predict(shown)["depth"]
ink = model.predict_proba(shown)["ink"]
tags = model.predict_proba(shown)["tags"]

figure, axes = plt.subplots(3, 4, figsize=(9, 5.6), layout="constrained")
for i, row in enumerate(axes):
    row[0].imshow(shown[i])
    row[1].imshow(ink[i], cmap="gray_r", vmin=0, vmax=1)
    row[2].imshow(depth[i], cmap="viridis", vmin=0.2, vmax=1)
    row[3].bar(range(10), tags[i], color="lightgray")
    there = np.flatnonzero(truth["tags"][i])
    row[3].bar(there, tags[i][there], color="seagreen")
    row[3].set(ylim=(0, 1), xticks=range(10))
    for axis in row[:3]:
        axis.set(xticks=[], yticks=[])
titles = ("scene", "P(ink)", "depth", "P(tag), green: true")
for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title)

# %%
# PLACEHOLDER

# sphinx_gallery_thumbnail_number = 2
