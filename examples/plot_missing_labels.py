"""
Several tasks with partly missing labels
========================================

Masks take long to draw; the number of objects in an image is quick to label. Real label
sets are therefore incomplete: some images have a mask, others a number, a few have
both. ``fit`` accepts such sets directly. Here three tasks are learnt jointly, and no
scene has labels of all three.
"""

# %%
# The scenes
# ----------
# Handwritten digits on photographs, with every kind of label. Most training labels are
# removed below.

import matplotlib.pyplot as plt
import numpy as np

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter, Targets
from mtsk.datasets import make_digit_scenes
from mtsk.tasks import BinaryMask

looks = {"size": (96, 128), "digit_size": (28, 48)}
train = make_digit_scenes(32, random_state=0, **looks)
test = make_digit_scenes(12, subset="test", random_state=0, **looks)
BACKGROUND = 10


def every_label(targets):
    return {
        "ink": [labels != BACKGROUND for labels in targets["semantic"]],
        "depth": targets["depth"],
        "count": targets["count"],
    }


# %%
# What may be missing
# -------------------
# A missing label is ``None``. Inside a map, −1 (integer maps) or NaN (float maps) marks
# unlabelled pixels. The labelled scenes of the tasks need not overlap:
#
# - ``ink`` is an integer map, known on ten scenes, and there only on scribbles: one row
#   of pixels in six;
# - ``depth`` is a float map, known on ten other scenes, in the left half;
# - ``count``, the number of digits, is known on every second scene.

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
    "count": index % 2 == 0,
}
labels = {**full, "ink": scribbles, "depth": halves}
columns = {
    task: [labels[task][i] if known[task][i] else None for i in index] for task in known
}
Y = Targets(columns)
print(Y)

# %%
# Each row of the figure is a task, each column a scene. No column is complete.

figure, axis = plt.subplots(figsize=(8, 1.6), layout="constrained")
axis.imshow(np.array(list(known.values())), cmap="Greens", vmax=1.6, aspect="auto")
axis.set(yticks=range(3), yticklabels=known, xlabel="scene", title="labelled (green)")
axis.set_xticks(index - 0.5, minor=True)
axis.set_yticks(np.arange(3) - 0.5, minor=True)
axis.grid(which="minor", color="white", linewidth=1.5)
axis.tick_params(which="minor", length=0)

# %%
# One fit
# -------
# The integer map of 0, 1 and −1 would be inferred as two classes. A
# :class:`~mtsk.tasks.BinaryMask` declares it as positive, negative and unlabelled. The
# other tasks are inferred from the dtype and the number of axes of their labels.

features = DeepFeatures(scales=(1,), cache="memory")
shared = {
    "features": features,
    "head": JointRidge(alpha=[0.03, 0.3]),
    "max_pixels_per_image": 200,
    "random_state": 0,
}
model = MultiTaskSegmenter({"ink": BinaryMask()}, **shared).fit(train.images, Y)
truth = Targets(every_label(test.targets))
joint = model.score_tasks(test.images, truth)

# %%
# Each task is also fitted alone, on its own labelled scenes. The features come from the
# cache.

print("task    metric             together  alone")
for task, codec in model.tasks_.items():
    rows = Y.labelled(task)
    own = {"ink": BinaryMask()} if task == "ink" else None
    single = MultiTaskSegmenter(own, **shared)
    single.fit(train.images[rows], Y[rows].subset([task]))
    alone = single.score_tasks(test.images, truth.subset([task]))[task]
    print(f"{task:7} {codec.metrics[0]:18} {joint[task]:8.3f} {alone:6.3f}")

# %%
# Predictions
# -----------

shown = test.images[:3]
guess = model.predict(shown)
ink = model.predict_proba(shown)["ink"]

figure, axes = plt.subplots(3, 4, figsize=(9, 5.6), layout="constrained")
for i, row in enumerate(axes):
    row[0].imshow(shown[i])
    count = f"{truth['count'][i]:.0f} digits, predicted {guess['count'][i]:.1f}"
    row[0].set_xlabel(count)
    row[1].imshow(ink[i], cmap="gray_r", vmin=0, vmax=1)
    row[2].imshow(guess["depth"][i], cmap="viridis", vmin=0.2, vmax=1)
    row[3].imshow(truth["depth"][i], cmap="viridis", vmin=0.2, vmax=1)
    for axis in row:
        axis.set(xticks=[], yticks=[])
titles = ("scene", "probability of ink", "depth", "true depth")
for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title)

# %%
# The ink is segmented although no mask was complete: one row of pixels in six on ten
# scenes is sufficient. The depth map shows where digits lie, but rarely which of them
# is on top (compare the last column). The network's features indicate a digit, not its
# depth order, and ten half maps do not change that. Its r2 is low for that reason. The
# count error is largest where digits occlude one another, in the third scene.
#
# Both columns of the table agree. The head shares computation between tasks, not
# parameters. A scene without a mask therefore does not affect the mask task, and a task
# with few labels can be added without affecting the others.

# sphinx_gallery_thumbnail_number = 2
