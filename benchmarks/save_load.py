"""Models of every kind, saved and loaded: do they predict the same, to the bit?

The table is generated: every head of mtsk, and every classifier and regressor that
scikit-learn lists, with each kind of task that it can learn; and every structure with
the heads and tasks that take one. A combination that ``fit`` refuses is counted apart.

python benchmarks/save_load.py
python benchmarks/save_load.py --every 10    # a tenth of the table
"""

from __future__ import annotations

import re
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import options, report_machine, row
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits

import mtsk
from mtsk import (
    DeepFeatures,
    JointLogistic,
    JointRidge,
    MultiTaskSegmenter,
    SharedDecoder,
    SharedLayerNetwork,
    Targets,
)
from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.exceptions import ModelFileError
from mtsk.heads import RelatedRidge
from mtsk.tasks import (
    BinaryMask,
    Boundary,
    Classification,
    Count,
    DenseRegression,
    DensityCount,
    Detection,
    ImageToImage,
    InstanceSegmentation,
    MultiLabel,
    Ordinal,
    Regression,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtsk.testing import toy_images

X, MASKS = toy_images(6, (24, 28))
STRUCTURES = {"crf": "crf", "superpixels": SuperpixelCRF(), "pixels": PixelCRF()}
OURS = {
    "logistic": JointLogistic(),
    "ridge": JointRidge(),
    "related": RelatedRidge(class_weight=None),
    "network": SharedLayerNetwork((8,), n_epochs=1),
    "fcn": SharedDecoder(width=4, n_blocks=1, n_epochs=1),
    "unet": SharedDecoder("unet", width=4, n_epochs=1),
}


def targets() -> dict[str, tuple[Any, Any]]:
    """Return a task of every kind and targets for it."""
    n, height, width = MASKS.shape
    normals = np.zeros((n, height, width, 3))
    normals[..., 2] = 1
    discs = (MASKS == 7).astype(int)
    tags = np.arange(2 * n).reshape(n, 2) % 3 > 0
    return {
        "classes of pixels": (SemanticSegmentation(), MASKS),
        "a mask": (BinaryMask(), MASKS == 7),
        "boundaries": (Boundary(), discs),
        "depth": (DenseRegression(), MASKS / 2.0),
        "normals": (SurfaceNormals(), normals),
        "density": (DensityCount(sigma=3), [np.array([[12, 14]])] * n),
        "pictures": (ImageToImage(), X[..., ::-1] / 255),
        "objects": (InstanceSegmentation(), discs),
        "boxes": (Detection(), [np.array([[5, 5, 18, 18]])] * n),
        "class": (Classification(), ["a", "b"] * (n // 2)),
        "tags": (MultiLabel(), tags),
        "number": (Regression(), np.arange(n) / 2),
        "count": (Count(), np.arange(n)),
        "grade": (Ordinal(), [0, 1, 2] * (n // 3)),
    }


def combinations() -> list[tuple[str, Any, str, Any]]:
    """Return (name of head, head, name of task, structure)."""
    heads: dict[str, Any] = dict(OURS)
    for kind in ("classifier", "regressor"):
        for name, made in all_estimators(kind):
            try:
                heads[name] = made()
            except TypeError:  # one that wraps another
                continue
    every = [(h, head, t, None) for h, head in heads.items() for t in targets()]
    structured = ("classes of pixels", "a mask")
    return every + [
        (f"{h} with {s}", head, t, structure)
        for h, head in heads.items()
        for t in structured
        for s, structure in STRUCTURES.items()
    ]


def main() -> None:
    chosen = options(__doc__ or "", every={"type": int, "default": 1})
    report_machine()
    warnings.simplefilter("ignore")
    features = DeepFeatures(scales=(1,), cache=mtsk.features.MemoryCache())
    outcomes: Counter[str] = Counter()
    kinds = targets()
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        path = Path(folder) / "model.mtsk"
        for name, head, task, structure in combinations()[:: chosen.every]:
            kind, Y = kinds[task]
            model = MultiTaskSegmenter(
                {"it": kind},
                features=features,
                head=head,
                structure=structure,
                max_pixels_per_image=30,
                random_state=0,
            )
            try:
                model.fit(X, Targets(it=Y))
                found = model.predict(X[:2])
            except Exception:  # heads of scikit-learn raise what they like
                outcomes["refused"] += 1
                continue
            try:
                outcome = "the same" if same(found, twin(model, path)) else "differs"
            except Exception:
                traceback.print_exc()
                outcome = "failed"
            outcomes[outcome] += 1
            if outcome != "the same":
                print(f"{name}, {task}: {outcome}", flush=True)
    print("outcomes:", dict(outcomes))
    n = sum(outcomes.values()) - outcomes["refused"]
    share = outcomes["the same"] / n
    row(f"of {n} models, saved and loaded, the same", f"{100 * share:.1f} %", "100 %")


def twin(model: MultiTaskSegmenter, path: Path) -> Any:
    """Return the predictions of a model that was saved and loaded."""
    mtsk.save(model, path)
    try:
        loaded = mtsk.load(path)
    except ModelFileError as error:  # what it names is scikit-learn's own
        names = re.findall(r"\b((?:sklearn|scipy|numpy)[\w.]+)", str(error))
        loaded = mtsk.load(path, allow=names)
    return loaded.predict(X[:2])


def same(a: Any, b: Any) -> bool:
    """Tell whether two predictions are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set):
        return a == b
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


if __name__ == "__main__":
    main()
