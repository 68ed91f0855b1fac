"""
Tiled prediction of a large image
=================================

A slide of 50,000 × 50,000 pixels does not fit in memory, and neither do its scores.
:func:`~mtsk.predict_tiled` predicts it tile by tile, from a file to a file. The result
is that of the whole image. The image here is small enough to verify this.
"""

# %%
# A model from a corner
# ---------------------
# The image is a retina. The vessels are labelled in one corner only, by a filter for
# thin dark lines. In practice a person would draw them.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import retina
from skimage.filters import sato

from mtsk import DeepFeatures, MultiTaskSegmenter, predict_tiled
from mtsk.tasks import BinaryMask

picture = retina()[200:1224, 200:1224]
green = picture[..., 1] / 255
vessels = sato(green, sigmas=[2, 3], black_ridges=True) > 0.02
corner = np.s_[:384, :384]
model = MultiTaskSegmenter(
    BinaryMask(),
    features=DeepFeatures(scales=(1,)),
    max_pixels_per_image=4000,
    random_state=0,
)
model.fit([picture[corner]], [vessels[corner]])

# %%
# From file to file
# -----------------
# The input may be a memory map, a zarr array or a dask array. The output is a zarr
# group. An interrupted prediction resumes when the same call is repeated.

folder = Path(tempfile.mkdtemp())
np.save(folder / "slide.npy", picture)
slide = np.load(folder / "slide.npy", mmap_mode="r")
found = predict_tiled(model, slide, folder / "out.zarr", tile_size=512)
mask = found["target"] if isinstance(found, dict) else found
print(type(mask).__name__, mask.shape, mask.dtype)

# %%
# Comparison with whole-image prediction
# --------------------------------------

whole = model.predict([picture])[0]
print(f"pixels that differ: {(np.asarray(mask) != whole).sum()} of {whole.size}")

figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
axes[0].imshow(picture)
axes[0].add_patch(plt.Rectangle((0, 0), 384, 384, fill=False, edgecolor="white"))
axes[0].set_title("labelled in the corner")
axes[1].imshow(np.asarray(mask), cmap="gray_r")
axes[1].set_title("found in tiles of 512")
for axis in axes:
    axis.axis("off")
plt.show()

# %%
# Each tile is read with the network's receptive field around it. Tiles are aligned so
# that feature cells have the same positions as in the whole image. There are therefore
# no seams. Any differing pixel has a score of 0 up to rounding.
