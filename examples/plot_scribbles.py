"""
A photograph and five strokes
=============================

One picture, no mask, a minute of patience: a few strokes say what is cat and what is
not. What nobody labelled is −1. The model learns from the strokes, and the rest of this
page asks it how sure it is, and why.
"""

# %%
# The strokes
# -----------
# A label map of −1, with lines drawn into it: 1 on the cat, 0 beside it.

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import chelsea
from skimage.draw import line

from mtsk import MultiTaskSegmenter, SegmentationDisplay
from mtsk.displays import AttributionDisplay, UncertaintyDisplay
from mtsk.inspection import layer_attribution

photo = chelsea()
strokes = np.full(photo.shape[:2], -1)
CAT = [(60, 130, 250, 200), (110, 250, 290, 330), (200, 60, 260, 150)]
BESIDE = [(5, 5, 40, 200), (10, 330, 120, 440)]
for lines, label in ((CAT, 1), (BESIDE, 0)):
    for y0, x0, y1, x1 in lines:
        strokes[line(y0, x0, y1, x1)] = label
print(f"{(strokes >= 0).mean():.2%} of the pixels are labelled")

# %%
# Fit and look
# ------------
# Targets are one map an image, here one map of one image. The picture shows strokes as
# drawn, and counts differences where there are labels.

names = {0: "not the cat", 1: "cat"}
model = MultiTaskSegmenter(random_state=0).fit([photo], [strokes])
SegmentationDisplay.from_estimator(model, photo, strokes, class_names=names)

# %%
# Where it is in doubt
# --------------------
# Entropy of the two classes, 1 where both are as likely. A sixth stroke should go
# where it is light.

UncertaintyDisplay.from_estimator(model, photo)

# %%
# Why it says so
# --------------
# A linear head's score is a sum over layers of the network, so what each of them says
# can be drawn: purple speaks for the cat.

AttributionDisplay.from_predictions(
    photo, layer_attribution(model, photo, label=1), label="cat"
)
plt.show()

# %%
# Most of what varies comes from layers that see large parts of the picture: they know
# a cat from a cushion, but not where exactly it ends. The finer layers draw its border.
