"""
Superpixels and a CRF, step by step
===================================

This page shows the steps behind ``structure="crf"``. An image is segmented into
superpixels that follow its edges. The head's scores are averaged over them. A pairwise
potential favours equal labels for similar neighbours.
"""

# %%
# Superpixels
# -----------
# `~mtsk.structure.over_segment` cuts an image into about the given number of regions.
# The best score of any labelling of these is an upper bound. It should be near 1.

import matplotlib.pyplot as plt
import numpy as np
from skimage.segmentation import mark_boundaries
from skimage.util import img_as_float

from mtsk import DeepFeatures, MultiTaskSegmenter
from mtsk.datasets import make_digit_scenes
from mtsk.inspection import superpixel_upper_bound
from mtsk.structure.superpixels import over_segment

looks = {"size": (96, 128), "digit_size": (40, 64), "n_digits": (2, 4)}
train = make_digit_scenes(24, random_state=0, **looks)
test = make_digit_scenes(12, subset="test", random_state=0, **looks)
ink = [labels != 10 for labels in train.targets["semantic"]]
ink_test = [labels != 10 for labels in test.targets["semantic"]]

picture = img_as_float(test.images[0])
figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
for axis, n_segments in zip(axes, (20, 70, 300), strict=True):
    regions = over_segment(picture, n_segments=n_segments)
    axis.imshow(mark_boundaries(picture, regions))
    axis.set_title(f"{regions.max() + 1} regions")
    axis.axis("off")

# %%
# Predictions without and with structure
# --------------------------------------
# The strength of the pairwise term is learnt from scores of held-out images. 0 means
# that it does not help on these.

features = DeepFeatures(scales=(1,), cache="memory")
shared = {"features": features, "head": "ridge", "random_state": 0}
models = {
    "pixels alone": MultiTaskSegmenter(**shared),
    "with structure": MultiTaskSegmenter(structure="crf", **shared),
}
for name, model in models.items():
    model.fit(train.images, ink)
    iou = model.score_tasks(test.images, {"target": ink_test}, {"target": "iou"})
    print(f"{name}: IoU {iou['target']:.3f}")
bound = superpixel_upper_bound(
    models["with structure"], test.images, {"target": ink_test}
)
print(f"best labels of the regions: IoU {bound['target']:.3f}")
learnt = models["with structure"].structures_["target"]
print(f"strength between regions {np.round(learnt.regions.strength_, 2)}")
print(f"strength between pixels {np.round(learnt.pixels.strength_, 2)}")

# %%
# What it changes
# ---------------

figure, axes = plt.subplots(2, 3, figsize=(10, 5.2), layout="constrained")
for row, index in zip(axes, (0, 3), strict=True):
    row[0].imshow(test.images[index])
    for axis, (name, model) in zip(row[1:], models.items(), strict=True):
        axis.imshow(model.predict(test.images[index : index + 1])[0], cmap="gray_r")
        axis.set_title(name)
    for axis in row:
        axis.axis("off")
plt.show()

# %%
# Small spurious regions are removed, and boundaries follow image edges. A CRF uses only
# the scores and the colours: a digit that the head missed stays missed.
