"""
Tags teach pixels
=================

Which things a picture shows takes a second to say; where they are takes a minute to
draw. Here six scenes have masks, and fifty-four have tags: the set of digits that lie
in them. A task of tags that says what it is ``of`` teaches the pixels of tagged scenes,
too.
"""

# %%
# The labels
# ----------

import numpy as np

from mtsk import (
    ConfusionDisplay,
    DeepFeatures,
    MultiTaskSegmenter,
    SegmentationDisplay,
    Targets,
)
from mtsk.datasets import make_digit_scenes
from mtsk.tasks import MultiLabel, SemanticSegmentation

N_MASKS, BACKGROUND = 6, 10
looks = {"size": (96, 128), "digit_size": (40, 64), "n_digits": (1, 3)}
train = make_digit_scenes(60, random_state=0, **looks)
test = make_digit_scenes(20, subset="test", random_state=0, **looks)
masks = train.targets["semantic"]
Y = Targets(
    digits=[mask if i < N_MASKS else None for i, mask in enumerate(masks)],
    tags=[set(np.unique(mask).tolist()) for mask in masks],
)
print(Y)

# %%
# With and without tags
# ---------------------
# Pixels of a tagged scene take the likeliest class among its tags, and the head is
# fitted anew; twice (``tag_rounds``).

classes = list(range(11))
tasks = {
    "digits": SemanticSegmentation(classes=classes),
    "tags": MultiLabel(classes, of="digits"),
}
features = DeepFeatures(scales=(1,), cache="memory")
shared = {"features": features, "random_state": 0}
truth = {"digits": test.targets["semantic"]}

alone = MultiTaskSegmenter({"digits": tasks["digits"]}, **shared)
alone.fit(train.images[:N_MASKS], {"digits": masks[:N_MASKS]})
together = MultiTaskSegmenter(tasks, **shared).fit(train.images, Y)
for name, model in (("six masks", alone), ("six masks and 60 tags", together)):
    print(f"{name}: mIoU {model.score_tasks(test.images, truth)['digits']:.3f}")

# %%
# What changed
# ------------

for model in (alone, together):
    SegmentationDisplay.from_estimator(
        model, test.images[1], truth["digits"][1], task="digits"
    )

# %%
# Which digits are taken for which
# --------------------------------
# Shares of each true class. 10 is the photograph behind the digits.

ConfusionDisplay.from_estimator(
    together,
    test.images,
    truth,
    task="digits",
    normalize="true",
    include_values=False,
)

# %%
# Six masks do not even hold every digit; what a class looks like that no mask has, only
# the tags can tell. They are a hint, not a mask: where two digits always came together,
# nothing says which is which. ``benchmarks/tags.py`` has the gain on photographs.
