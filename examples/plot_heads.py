"""
Four heads on the same features
===============================

The network is frozen. Only the head, which maps features to scores, is learnt. Here two
heads of mtsk and two of scikit-learn are trained to segment the ink of digits on
photographs, from the same pixels of the same scenes.
"""

# %%
# Scenes, and features in a cache
# -------------------------------
# Features are computed before timing starts, so the times below are those of the heads.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import LinearSVC

from mtsk import DeepFeatures, JointLogistic, JointRidge, MultiTaskSegmenter
from mtsk.datasets import make_digit_scenes

looks = {"size": (96, 128), "digit_size": (28, 48)}
train = make_digit_scenes(32, random_state=0, **looks)
test = make_digit_scenes(12, subset="test", random_state=0, **looks)
BACKGROUND = 10
ink = [labels != BACKGROUND for labels in train.targets["semantic"]]
ink_test = [labels != BACKGROUND for labels in test.targets["semantic"]]

features = DeepFeatures(scales=(1,), cache="memory").fit()
for scenes in (train, test):
    features.transform(scenes.images)

# %%
# Four fits
# ---------
# ``head=`` accepts any scikit-learn classifier. mtsk's linear heads are applied to
# whole feature maps. Any other head is evaluated at every fourth pixel, down and across
# (``prediction_stride=4``), and its scores are interpolated.

heads = {
    "JointLogistic": JointLogistic(),
    "JointRidge": JointRidge(),
    "RandomForest": RandomForestClassifier(
        n_estimators=50, class_weight="balanced", min_samples_leaf=3, random_state=0
    ),
    "LinearSVC": LinearSVC(C=1e-5),
}
names = list(heads)
iou, fit_time, predict_time, maps = [], [], [], []
for head in heads.values():
    model = MultiTaskSegmenter(
        features=features, head=head, max_pixels_per_image=200, random_state=0
    )
    start = time.perf_counter()
    model.fit(train.images, ink)
    fit_time.append(time.perf_counter() - start)
    start = time.perf_counter()
    iou.append(model.score(test.images, ink_test))
    predict_time.append(time.perf_counter() - start)
    maps.append(model.decision_function(test.images[:3])[..., 0])

for name, score, seconds in zip(names, iou, fit_time, strict=True):
    print(f"{name:14} IoU {score:.3f}   fit {seconds:5.2f} s")

# %%
# Scores and times
# ----------------

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained", sharey=True)
place = np.arange(len(names))
bars = axes[0].barh(place, iou, color="seagreen")
axes[0].bar_label(bars, fmt="%.3f", padding=3)
axes[0].set(yticks=place, yticklabels=names, xlim=(0, 1.15), title="IoU")
axes[0].invert_yaxis()
axes[1].barh(place - 0.2, fit_time, 0.4, color="steelblue", label="fit")
axes[1].barh(
    place + 0.2, predict_time, 0.4, color="lightsteelblue", label="score 12 scenes"
)
axes[1].set(title="seconds", xscale="log")
axes[1].legend(frameon=False)

# %%
# Score maps
# ----------
# Scores above 0 (dark) mean ink. Their scales differ between heads: an SVM's scores are
# distances to its hyperplane, not log-odds. Each column therefore has its own grey
# range.

figure, axes = plt.subplots(3, 5, figsize=(9, 4.6), layout="constrained")
for i, row in enumerate(axes):
    row[0].imshow(test.images[i])
    for axis, scores in zip(row[1:], maps, strict=True):
        reach = np.quantile(np.abs(scores), 0.9)
        axis.imshow(scores[i], cmap="gray_r", vmin=-reach, vmax=reach)
    for axis in row:
        axis.set(xticks=[], yticks=[])
for axis, title in zip(axes[0], ["scene", *names], strict=True):
    axis.set_title(title)

# %%
# The three linear heads agree nearly everywhere. The features are thus close to
# linearly separable for this task. Weak regions, such as the purple digit in the second
# scene, are weak for all three. The forest scores lower: each split uses one of the 784
# features, while the information is spread over many. Where no tree predicts ink, its
# score drops abruptly (the white areas in the last two rows).
#
# ``LinearSVC`` does as well as ``JointLogistic`` here, but its ``C`` had to be chosen
# for the range of these features, and it learns one task at a time. The joint heads
# standardise the features themselves, and one pass over the table serves all tasks.
# Part of ``JointRidge``'s time is the cross-validation of ``alpha``.

# sphinx_gallery_thumbnail_number = 2
