"""
What to label next
==================

Labels cost more than fits. :func:`~mtsk.suggest_labels` suggests which images to label
next, for which task, and in which region to begin.
"""

# %%
# Initial labels
# --------------
# Forty scenes; five have masks of ink, ten are counted.

import matplotlib.pyplot as plt
import numpy as np

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets, suggest_labels
from mtsk.datasets import make_digit_scenes

looks = {"size": (96, 128), "digit_size": (28, 48)}
scenes = make_digit_scenes(40, random_state=0, **looks)
test = make_digit_scenes(16, subset="test", random_state=0, **looks)
masks, numbers = scenes.targets["semantic"], scenes.targets["count"]
ink = [labels != 10 for labels in masks]
Y = Targets(
    ink=[mask if i < 5 else None for i, mask in enumerate(ink)],
    many=[bool(count > 3) if i < 10 else None for i, count in enumerate(numbers)],
)
features = DeepFeatures(scales=(1,), cache="memory")
model = MultiTaskSegmenter(features=features, random_state=0).fit(scenes.images, Y)

# %%
# Suggestions
# -----------
# ``Y`` gives the existing labels. Suggestions are selected greedily: each takes into
# account the gain of those before it.

asked = suggest_labels(model, scenes.images, 8, Y)
for image, task, gain, box in asked:
    print(f"scene {image:2d}, {task:4s}, gain {gain:.4f}", "" if box is None else box)

# %%
# Both tasks are suggested. If the model is uncertain about a whole scene, one label
# covers all similar scenes. Regions in which masks should begin, perhaps as scribbles:

pixels = suggest_labels(model, scenes.images, 4, Y, tasks=["ink"])
figure, axes = plt.subplots(1, 4, figsize=(11, 2.4), layout="constrained")
for axis, (image, _, _, (x0, y0, x1, y1)) in zip(axes, pixels, strict=True):
    axis.imshow(scenes.images[image])
    corner = (x0 - 0.5, y0 - 0.5)
    frame = plt.Rectangle(corner, x1 - x0, y1 - y0, fill=False, edgecolor="yellow")
    axis.add_patch(frame)
    axis.set_title(f"scene {image}")
    axis.axis("off")

# %%
# Comparison with random selection
# --------------------------------
# Score of ink after ten more masks: the ten suggested, and ten chosen at random, five
# times.

truth = {"ink": [labels != 10 for labels in test.targets["semantic"]]}


def score(labelled):
    own = {"ink": [mask if i in labelled else None for i, mask in enumerate(ink)]}
    found = MultiTaskSegmenter(features=features, random_state=0)
    found.fit(scenes.images, own)
    return found.score_tasks(test.images, truth)["ink"]


chosen = {s.image for s in suggest_labels(model, scenes.images, 10, Y, tasks=["ink"])}
by_chance = []
for seed in range(5):
    others = np.random.default_rng(seed).permutation(np.arange(5, 40))[:10]
    by_chance.append(score({*range(5), *others.tolist()}))
print(f"with 5 masks {score(set(range(5))):.3f}")
print(f"with 10 more, suggested {score({*range(5), *chosen}):.3f}")
print(f"with 10 more, by chance {np.mean(by_chance):.3f} ± {np.std(by_chance):.3f}")
plt.show()

# %%
# These scenes are all similar, so random selection does well. ``benchmarks/suggest.py``
# makes the same comparison on photographs of 21 classes.
