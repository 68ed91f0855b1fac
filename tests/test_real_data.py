"""Real photographs, where ../shared/data lies beside the checkout (as in CI)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread

from mtsk import DeepFeatures, MultiTaskSegmenter, Targets
from mtsk.features import MemoryCache
from mtsk.tasks import BinaryMask, SemanticSegmentation

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"real images are not at {DATA}"
)
FEATURES = DeepFeatures(scales=[1], cache=MemoryCache(2**29))


def labelled(folder: str, n: int, step: int) -> tuple[list[Path], list[np.ndarray]]:
    images = sorted((DATA / folder / "images").iterdir())[::step][:n]
    labels = {p.stem: p for p in (DATA / folder / "labels").iterdir()}
    return images, [imread(labels[p.stem]).astype(int) for p in images]


def test_road_scenes():
    X, Y = labelled("camvid/train", 12, 30)
    X_val, Y_val = labelled("camvid/val", 4, 25)
    model = MultiTaskSegmenter(
        SemanticSegmentation(void=11), features=FEATURES, random_state=0
    )
    model.fit(X, Y)
    metrics = model.score_tasks(X_val, Y_val, {"target": "accuracy"})
    assert metrics["target"] > 0.75
    guess = model.predict(X_val[:1])[0]
    assert guess.shape == (360, 480)
    assert 11 not in guess


def test_law_1_on_a_photograph_of_odd_size():
    X, Y = labelled("msrc21/train", 6, 40)
    task = SemanticSegmentation(void=(0, 5, 8))
    model = MultiTaskSegmenter(task, features=FEATURES, random_state=0).fit(X, Y)
    maps = model.features_.transform(X[:1])[0]
    points = np.random.default_rng(0).integers(0, maps.shape, (300, 2))
    scores = model.decision_function(X[:1])[0][points[:, 0], points[:, 1]]
    expected = model.pixel_head_.decision_function(maps.at(points))
    np.testing.assert_allclose(scores, expected, atol=2e-3 * np.abs(expected).max())


def test_six_overlapping_masks_with_labels_missing():
    folder = DATA / "epfl6" / "train"
    names = ["membranes", "mitochondrion", "vesicles"]
    X = sorted((folder / "images").iterdir())[:3]
    masks = {n: [imread(p) for p in sorted((folder / n).iterdir())[:3]] for n in names}
    masks["vesicles"][0] = None
    tasks = {name: BinaryMask(positive=255) for name in names}
    model = MultiTaskSegmenter(tasks, features=FEATURES, random_state=0)
    scores = model.fit(X, Targets(masks)).score_tasks(X, Targets(masks))
    assert scores["membranes"] > 0.5
    assert scores["mitochondrion"] > 0.5
    assert set(np.unique(model.predict(X[:1])["membranes"][0])) <= {0, 255}


def test_cell_classes_in_a_pipeline():
    import csv

    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with open(DATA / "wbc" / "cell_class.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    images = sorted((DATA / "wbc" / "images").iterdir())[:60]
    of_name = {Path(row[0]).stem: row[1] for row in rows}
    classes = np.array([of_name[p.stem] for p in images])
    kept = np.isin(classes, [c for c in set(classes) if (classes == c).sum() >= 6])
    pipeline = make_pipeline(
        DeepFeatures(output="vector", scales=[1], cache=MemoryCache(2**28)),
        StandardScaler(),
        LogisticRegression(max_iter=1000),
    )
    some = [p for p, keep in zip(images, kept, strict=True) if keep]
    scores = cross_val_score(pipeline, some, classes[kept], cv=3)
    assert scores.mean() > 1.3 / len(set(classes[kept]))
