"""
Segmentation of a photograph from scribbles
===========================================

One image and five scribbles for cat and background. Unlabelled pixels are −1. The model
is fitted to the scribbles. The rest of this page shows its uncertainty and the
contribution of each layer.
"""

# %%
# The scribbles
# -------------
# A label map of −1 with lines drawn into it: 1 on the cat, 0 beside it.

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
# Fit and display
# ---------------
# Targets are one map per image, here one map of one image. The figure shows the
# scribbles as drawn, and counts differences where there are labels.

names = {0: "not the cat", 1: "cat"}
model = MultiTaskSegmenter(random_state=0).fit([photo], [strokes])
SegmentationDisplay.from_estimator(model, photo, strokes, class_names=names)

# %%
# Uncertainty
# -----------
# Entropy of the two classes, 1 where both are equally likely. A sixth scribble should
# go where the map is light.

UncertaintyDisplay.from_estimator(model, photo)

# %%
# Layer attribution
# -----------------
# A linear head's score is a sum over layers of the network, so the contribution of each
# layer can be drawn. Purple is evidence for the cat.

AttributionDisplay.from_predictions(
    photo, layer_attribution(model, photo, label=1), label="cat"
)
plt.show()

# %%
# Most of the variation comes from layers with large receptive fields. These separate
# the cat from the cushion, but localise its border poorly. Finer layers localise it.
