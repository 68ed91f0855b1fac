"""
A custom backbone
=================

Any module that computes feature maps can be a backbone. Here a bank of oriented
filters, a classical texture descriptor, is compared with the bundled network.
"""

# %%
# Filters as a network
# --------------------
# The input of the ``torch.nn.Module`` has shape (n, 3, H, W). The filters are the real
# and imaginary parts of Gabor functions, at two wavelengths and eight orientations.
# Their energy is averaged over some pixels.

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.data import brick, grass, gravel
from skimage.filters import gabor_kernel
from torch import nn

from mtsk import DeepFeatures, MultiTaskSegmenter, SegmentationDisplay


class GaborEnergy(nn.Module):
    def __init__(self, wavelengths=(4, 8), n_angles=8, size=25):
        super().__init__()
        bank = [
            gabor_kernel(1 / length, theta=np.pi * i / n_angles)
            for length in wavelengths
            for i in range(n_angles)
        ]
        parts = [part for kernel in bank for part in (kernel.real, kernel.imag)]
        weight = np.stack([self._centred(part, size) for part in parts])
        self.register_buffer("weight", torch.from_numpy(weight[:, None]).float())
        self.energy = nn.AvgPool2d(16, stride=8, padding=4)

    @staticmethod
    def _centred(kernel, size):
        canvas = np.zeros((size, size))
        rows, cols = (min(size, n) for n in kernel.shape)
        inner = [(n - m) // 2 for n, m in zip(kernel.shape, (rows, cols), strict=True)]
        outer = (size - rows) // 2, (size - cols) // 2
        cut = kernel[inner[0] : inner[0] + rows, inner[1] : inner[1] + cols]
        canvas[outer[0] : outer[0] + rows, outer[1] : outer[1] + cols] = cut
        return canvas

    def forward(self, x):
        grey = x.mean(dim=1, keepdim=True)
        found = nn.functional.conv2d(grey, self.weight, padding="same")
        energy = found[:, 0::2] ** 2 + found[:, 1::2] ** 2
        return self.energy(energy.sqrt())


# %%
# A collage of three textures
# ---------------------------
# The left halves are the training images. The test image is a collage of pieces from
# the right halves.

textures = [brick(), grass(), gravel()]
train = [texture[:256, :256] for texture in textures]
labels = [np.full((256, 256), i) for i in range(3)]
truth = np.zeros((256, 256), int)
truth[:, 90:] = 1
truth[np.hypot(*np.indices((256, 256)) - 128.0 * np.ones((2, 1, 1))) < 70] = 2
pieces = np.stack([texture[256:, 256:] for texture in textures])
collage = np.take_along_axis(pieces, truth[None], axis=0)[0]

# %%
# Two backbones
# -------------
# ``taps=`` names the modules whose outputs are taken. Inputs are normalised by the
# ImageNet mean and deviation, which most networks expect.

own = DeepFeatures(GaborEnergy(), taps=["energy"], scales=(1,))
bundled = DeepFeatures(scales=(1,))
for name, features in {"Gabor energy": own, "EfficientNet-Lite0": bundled}.items():
    model = MultiTaskSegmenter(features=features, random_state=0).fit(train, labels)
    right = (model.predict([collage])[0] == truth).mean()
    print(f"{name}: {features.fit().n_features_out_} features, {right:.1%} right")
    display = SegmentationDisplay.from_estimator(
        model, collage, truth, class_names=["brick", "grass", "gravel"]
    )
    display.figure_.suptitle(name)
plt.show()

# %%
# The rest of the library is independent of the backbone: heads, structure, tiles and
# model files (`mtsk.load` needs the module as ``backbone=``) work with either.
