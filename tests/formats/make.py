"""Write a file of this version for the tests: python tests/formats/make.py FORMAT CPU.

CPU is the kind of processor that it was fitted on: "avx2", "avx512". A file is made
once for every format that is released and every kind, and is never made again.
"""

import sys
from pathlib import Path

import numpy as np
from torch.backends.cpu import get_cpu_capability

import mtsk
from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.testing import toy_images

EACH = 16  # scores are kept at every so many pixels, down and across


def main(name: str, cpu: str) -> None:
    capability = get_cpu_capability()
    if capability.lower() != cpu:
        sys.exit(f"this processor is of the kind {capability}")
    colour, masks = toy_images(2, (240, 320))
    X = colour.mean(axis=-1).astype(np.uint8)
    model = MultiTaskSegmenter(
        features=DeepFeatures(scales=(0.5, 1)), random_state=0, max_pixels_per_image=200
    ).fit(X, Targets(semantic=masks, depth=masks / 2.0, bright=X.mean(axis=(1, 2))))
    out = Path(__file__).with_name(f"{name}_{cpu}.mtsk")
    mtsk.save(model, out, description=f"Discs on noise, fitted with {capability}.")
    scores = model.decision_function(X)
    np.savez_compressed(
        out.with_suffix(".npz"),
        X=X,
        semantic=np.stack(model.predict(X)["semantic"]).astype(np.uint8),
        scores=np.stack(scores["semantic"])[:, ::EACH, ::EACH],
        depth=np.stack(scores["depth"])[:, ::EACH, ::EACH],
        bright=np.stack(scores["bright"]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
