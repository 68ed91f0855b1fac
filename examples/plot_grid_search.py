"""
Model selection: the estimator is scikit-learn's
================================================

``GridSearchCV``, ``learning_curve`` and their like take a
:class:`~mtsk.MultiTaskSegmenter` as they take any estimator. With a cache each image
passes through the network once, however many fits there are.
"""

# %%
# Images, and a cache
# -------------------

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV, LearningCurveDisplay

from mtsk import DeepFeatures, JointLogistic, MultiTaskSegmenter, make_task_scorer
from mtsk.datasets import make_digit_scenes

looks = {"size": (96, 128), "digit_size": (28, 48)}
scenes = make_digit_scenes(30, random_state=0, **looks)
ink = [labels != 10 for labels in scenes.targets["semantic"]]
model = MultiTaskSegmenter(
    features=DeepFeatures(scales=(1,), cache="memory"),
    head=JointLogistic(),
    random_state=0,
)

# %%
# A search
# --------
# Parameters of the head, of the features and of the task itself, by scikit-learn's
# double underscore. ``make_task_scorer`` chooses the task (a bare target is called
# ``"target"``) and the metric; ``max_pixels_per_image`` scores some pixels of every
# image, which is enough to compare.

search = GridSearchCV(
    model,
    {"head__alpha": [1e-3, 0.1, 10.0], "max_pixels_per_image": [50, 500]},
    scoring=make_task_scorer("target", "iou", max_pixels_per_image=500),
    cv=3,
)
search.fit(scenes.images, ink)
results = search.cv_results_
for params, mean, std in zip(
    results["params"],
    results["mean_test_score"],
    results["std_test_score"],
    strict=True,
):
    print(f"{params}: IoU {mean:.3f} ± {std:.3f}")

# %%
# How many labels?
# ----------------
# The curve that tells whether to label more images: scores on held-out folds against
# the number of images to learn from. scikit-learn draws it.

figure, axis = plt.subplots(layout="constrained")
LearningCurveDisplay.from_estimator(
    search.best_estimator_,
    scenes.images,
    ink,
    train_sizes=[0.1, 0.2, 0.5, 1.0],
    scoring=make_task_scorer("target", "iou", max_pixels_per_image=500),
    cv=3,
    score_name="IoU",
    ax=axis,
)
plt.show()

# %%
# Where the curve of the held-out images still rises, more labels will help; where both
# curves have met, they will not, and another head or backbone might.
