"""Learn several tasks of a few images, with every kind of head: python tools/smoke.py.

For environments without the tests' tools, such as that of the oldest versions.
"""

from importlib.metadata import version

import numpy as np

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter, Targets
from mtsk.testing import toy_images

PACKAGES = ("numpy", "scipy", "scikit-learn", "scikit-image", "torch", "timm")


def main() -> None:
    print({name: version(name) for name in PACKAGES})
    X, masks = toy_images(8)
    Y = Targets(
        semantic=masks,
        disc=[mask == 7 for mask in masks],
        depth=[mask * 0.5 for mask in masks],
        kind=["a", "b"] * 4,
    )
    heads = {
        "logistic": None,
        "ridge": "ridge",
        "sums": JointRidge(alpha=1e-2, calibrate=False),
        "network": "network",
        "fcn": "fcn",
    }
    for name, head in heads.items():
        features = DeepFeatures(scales=(1,))
        model = MultiTaskSegmenter(features=features, head=head, random_state=0)
        scores = model.fit(X[:6], Y[:6]).score_tasks(X[6:], Y[6:])
        print(name, {task: round(score, 3) for task, score in scores.items()})
        assert scores["semantic"] > 0.8, name
        assert np.shape(model.predict(X)["depth"]) == masks.shape
    model = MultiTaskSegmenter(structure="crf", random_state=0).fit(X, masks)
    assert model.score(X, masks) > 0.8


if __name__ == "__main__":
    main()
