"""CamVid by an exported graph: is it the model, and how long does onnxruntime take?

For a linear head, a network and a decoder, on images of val: pixels whose class
differs, and the time of onnxruntime over that of ``predict``, image by image in turn.

python benchmarks/export.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from common import load_masks, options, report_machine, row, semantic
from skimage.io import imread

from mtsk import MultiTaskSegmenter, SharedDecoder, SharedLayerNetwork
from mtsk.export import export_onnx

HEADS = {
    "logistic": "logistic",
    "network": SharedLayerNetwork(n_epochs=5),
    "decoder": SharedDecoder(n_epochs=3),
}


def main() -> None:
    chosen = options(
        __doc__ or "",
        images={"type": int, "default": 40},
        judged={"type": int, "default": 20},
    )
    report_machine()
    print("onnxruntime", onnxruntime.__version__)
    X, Y = load_masks(chosen.data, "camvid", "train")
    X_val, _ = load_masks(chosen.data, "camvid", "val")
    step = len(X) // chosen.images
    for name, head in HEADS.items():
        model = MultiTaskSegmenter(semantic("camvid"), head=head, random_state=0)
        model.fit(X[::step], Y[::step])
        differ = n_pixels = 0
        ratios = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(model, path)
            size = path.stat().st_size / 2**20
            session = onnxruntime.InferenceSession(path)
            for place in X_val[:: max(1, len(X_val) // chosen.judged)]:
                image = imread(place)
                start = time.perf_counter()
                expected = model.predict(image[None])[0]
                middle = time.perf_counter()
                given = {"image": image.astype(np.float32) / 255}
                (codes,) = session.run(["target"], given)
                ratios.append((time.perf_counter() - middle) / (middle - start))
                found = model.tasks_["target"].classes_[codes]
                differ += int((found != expected).sum())
                n_pixels += expected.size
        row(
            f"{name}: classes that differ, pixels of a hundred thousand",
            f"{1e5 * differ / n_pixels:.2f}",
            "<= 1",
        )
        ratio = f"{statistics.median(ratios):.2f}; {size:.0f}"
        row(f"{name}: time ÷ predict, median; file, MB", ratio, "-")


if __name__ == "__main__":
    main()
