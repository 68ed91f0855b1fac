"""What the command line writes of predictions."""

import csv

import numpy as np
from skimage.io import imread, imsave

import mtsk
from mtsk.cli.writing import PredictionWriter
from mtsk.tasks import DenseRegression, Detection, InstanceSegmentation
from mtsk.testing import toy_images

X, MASKS = toy_images(6, (32, 40))


def test_overlays_of_objects_boxes_and_numbers(tmp_path):
    ids = [(mask == 7).astype(int) for mask in MASKS]
    boxes = [{"boxes": [[2.0, 3.0, 12.0, 13.0]], "labels": ["a"]} for _ in X]
    depth = [image.mean(axis=2) for image in X]
    tasks = {
        "ids": InstanceSegmentation(),
        "boxes": Detection(),
        "depth": DenseRegression(),
    }
    model = mtsk.MultiTaskSegmenter(
        tasks, features=mtsk.DeepFeatures(scales=(0.5,)), head="ridge", random_state=0
    ).fit(X, mtsk.Targets(ids=ids, boxes=boxes, depth=depth))
    found = {"ids": ids[0], "boxes": {**boxes[0], "scores": [0.9]}, "depth": depth[0]}
    imsave(tmp_path / "one.png", X[0], check_contrast=False)
    writer = PredictionWriter(tmp_path / "out", model.tasks_, overlays=True)
    writer.write(tmp_path / "one.png", found)
    for name in tasks:
        drawn = imread(tmp_path / "out" / f"{name}_overlay" / "one.png")
        assert drawn.shape == X[0].shape
        assert np.ptp(drawn, axis=2).any()


def test_boxes_are_written_as_corners_whatever_their_format(tmp_path):
    boxes = [{"boxes": [[2.0, 3.0, 10.0, 10.0]], "labels": ["a"]} for _ in X]
    model = mtsk.MultiTaskSegmenter(
        {"boxes": Detection(format="xywh")},
        features=mtsk.DeepFeatures(scales=(0.5,)),
        head="ridge",
        random_state=0,
    ).fit(X, mtsk.Targets(boxes=boxes))
    imsave(tmp_path / "one.png", X[0], check_contrast=False)
    writer = PredictionWriter(tmp_path / "out", model.tasks_, overlays=True)
    writer.write(tmp_path / "one.png", {"boxes": {**boxes[0], "scores": [0.9]}})
    with (tmp_path / "out" / "boxes.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [float(row[k]) for k in ("x0", "y0", "x1", "y1")] == [2, 3, 12, 13]
    drawn = imread(tmp_path / "out" / "boxes_overlay" / "one.png")
    rows, columns = np.nonzero(np.ptp(drawn, axis=2))
    assert (rows.max(), columns.max()) == (12, 11)
