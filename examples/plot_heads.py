"""
Four heads on the same features
===============================

The network is frozen; what is learnt is the head, which maps features to scores. Two
heads of mtsk and two of scikit-learn learn here to tell the ink of digits from the
photograph behind it, from the same pixels of the same scenes.
"""

# %%
# Scenes, and features in a cache
# -------------------------------
# The features are made once, before the clock runs, so that the times below are those
# of the heads.

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
# ``head=`` takes any scikit-learn classifier. Linear heads of mtsk are applied to whole
# maps of features; for any other head, scores are made at every fourth pixel, down and
# across (``prediction_stride=4``), and interpolated between.

heads = {
    "JointLogistic": JointLogistic(),
    "JointRidge": JointRidge(),
    "RandomForest": RandomForestClassifier(
        n_estimators=50, class_weight="balanced", min_samples_leaf=3, random_state=0
    ),
    "LinearSVC": LinearSVC(C=1e-5),
}
names = list(heads)
precision, fit_time, predict_time, maps = [], [], [], []
for head in heads.values():
    model = MultiTaskSegmenter(
        features=features, head=head, max_pixels_per_image=200, random_state=0
    )
    start = time.perf_counter()
    model.fit(train.images, ink)
    fit_time.append(time.perf_counter() - start)
    start = time.perf_counter()
    precision.append(model.score(test.images, ink_test))
    predict_time.append(time.perf_counter() - start)
    maps.append(model.decision_function(test.images[:3])[..., 0])

for name, score, seconds in zip(names, precision, fit_time, strict=True):
    print(f"{name:14} average precision {score:.3f}   fit {seconds:5.2f} s")

# %%
# Scores and times
# ----------------

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained", sharey=True)
place = np.arange(len(names))
bars = axes[0].barh(place, precision, color="seagreen")
axes[0].bar_label(bars, fmt="%.3f", padding=3)
axes[0].set(yticks=place, yticklabels=names, xlim=(0, 1.15), title="average precision")
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
# Scores above 0 (dark) mean ink. Their scales differ from head to head: an SVM's are
# distances to its plane, not log-odds. So each column has its own range of grey.

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
# The three linear heads agree nearly everywhere, which says that the features already
# separate ink from background by a plane; what is weak, such as the purple digit in the
# second scene, is weak for all three. The forest scores lower: each split of its trees
# looks at one of the 784 features, while the answer is spread over many. Where no tree
# says ink, its score falls off a cliff (the white blots in the last two rows).
#
# ``LinearSVC`` does as well as ``JointLogistic`` here, but its ``C`` had to be chosen
# for the range of these features, and it learns one task at a time; the joint heads
# standardise for themselves, and one pass over the table serves all tasks. Part of
# ``JointRidge``'s time goes into choosing ``alpha`` by cross-validation.

# sphinx_gallery_thumbnail_number = 2
