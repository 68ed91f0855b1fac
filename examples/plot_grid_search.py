"""
Model selection with scikit-learn
=================================

``GridSearchCV``, ``learning_curve`` and similar tools accept a
:class:`~mtsk.MultiTaskSegmenter` like any estimator. With a cache each image passes
through the network once, whatever the number of fits.
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
# The search covers parameters of the head, the features and the task, with
# scikit-learn's double underscore. ``make_task_scorer`` selects the task (a bare target
# is called ``"target"``) and the metric. ``max_pixels_per_image`` scores a sample of
# the pixels of every image, which is enough for a comparison.

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
# Learning curve
# --------------
# The curve shows scores on held-out folds against the number of training images. It
# indicates whether more labelled images would help. scikit-learn draws it.

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
# If the held-out curve still rises, more labels will help. If both curves have met,
# they will not, and another head or backbone might.
