"""Write a file of this version for the tests: python tests/formats/make.py NAME.

A file is made once for every format that is released, and is never made again.
"""

import sys
from pathlib import Path

import numpy as np

import mtsk
from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter, Targets
from mtsk.testing import toy_images


def main(name: str) -> None:
    X, masks = toy_images(4, (32, 40))
    model = MultiTaskSegmenter(
        features=DeepFeatures(scales=(0.5,), n_components=2),
        head=JointRidge(alpha=1e-2, calibrate=False),
        random_state=0,
        n_pixels=50,
    ).fit(X, Targets(semantic=masks, depth=masks / 2.0, bright=X.mean(axis=(1, 2, 3))))
    out = Path(__file__).with_name(f"{name}.mtsk")
    mtsk.save(model, out, description="Discs on noise.")
    found = {name: np.stack(value) for name, value in model.predict(X).items()}
    np.savez_compressed(out.with_suffix(".npz"), X=X, **found)


if __name__ == "__main__":
    main(sys.argv[1])
