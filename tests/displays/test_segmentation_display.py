"""SegmentationDisplay: what its panels hold."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from mtsk import DeepFeatures, MultiTaskSegmenter, SegmentationDisplay, Targets
from mtsk.displays import drawing
from mtsk.tasks import (
    Boundary,
    Detection,
    InstanceSegmentation,
    SemanticSegmentation,
    SurfaceNormals,
)
from mtsk.testing import toy_images

mpl.use("Agg")
X, MASKS = toy_images(4, (32, 40))
WRONG = MASKS[0].copy()
WRONG[:4, :10] = 7


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def pixels(display, name):
    return np.asarray(display.images_[name].get_array(), float)


def test_four_panels_and_a_legend():
    display = SegmentationDisplay.from_predictions(X[0], WRONG, MASKS[0])
    assert list(display.axes_) == ["image", "truth", "prediction", "difference"]
    assert [ax.get_title() for ax in display.axes_.values()][:3] == list(display.axes_)[
        :3
    ]
    assert [t.get_text() for t in display.legend_.get_texts()] == ["3", "7"]
    for image in display.images_.values():
        assert image.get_array().shape[:2] == MASKS[0].shape


def test_difference_marks_what_is_wrong_and_counts_it():
    display = SegmentationDisplay.from_predictions(X[0], WRONG, MASKS[0])
    wrong = MASKS[0] != WRONG
    red = np.isclose(pixels(display, "difference"), drawing.rgb(drawing.WRONG)).all(-1)
    np.testing.assert_array_equal(red, wrong)
    title = display.axes_["difference"].get_title()
    assert title == f"difference: {100 * wrong.mean():.1f} %"


@pytest.mark.parametrize("kind", ["classes", "mask"])
def test_titles_tell_how_much_strokes_label(kind):
    strokes = np.full(MASKS[0].shape, -1)
    strokes[4:6, :10] = MASKS[0][4:6, :10] if kind == "classes" else 1
    found = WRONG if kind == "classes" else np.ones_like(WRONG)
    display = SegmentationDisplay.from_predictions(X[0], found, strokes, kind=kind)
    titles = [ax.get_title() for ax in display.axes_.values()]
    assert titles[1] == f"truth: {2000 / strokes.size:.1f} % labelled"
    assert titles[3] == "difference: 0.0 % of labelled pixels"


def test_unlabelled_pixels_are_neither_right_nor_wrong():
    truth = MASKS[0].copy()
    truth[:4] = -1
    display = SegmentationDisplay.from_predictions(X[0], WRONG, truth)
    assert display.axes_["difference"].get_title() == "difference: 0.0 %"
    assert [t.get_text() for t in display.legend_.get_texts()] == ["3", "7"]


def test_scribbles_are_drawn_on_the_image_wide_enough_to_see():
    truth = np.full_like(MASKS[0], -1)
    truth[10, 5:20] = 3
    display = SegmentationDisplay.from_predictions(X[0], MASKS[0], truth)
    coloured = np.ptp(pixels(display, "truth"), axis=-1) > 0
    assert 15 < coloured.sum() <= 3 * 17
    assert coloured[10, 5:20].all()


def test_without_truth_there_are_two_panels():
    display = SegmentationDisplay.from_predictions(X[0], MASKS[0])
    assert list(display.axes_) == ["image", "prediction"]


@pytest.mark.parametrize("names", [{3: "ground", 7: "disc"}, ["ground", "disc"]])
def test_classes_have_names(names):
    display = SegmentationDisplay.from_predictions(
        X[0], MASKS[0], class_names=names, classes=[3, 7]
    )
    assert [t.get_text() for t in display.legend_.get_texts()] == ["ground", "disc"]


def test_a_class_has_one_colour_in_every_picture():
    some = np.where(MASKS[0] == 7, 7, -1)
    one = SegmentationDisplay.from_predictions(X[0], some, classes=[3, 7])
    both = SegmentationDisplay.from_predictions(X[0], MASKS[0], classes=[3, 7])
    disc = MASKS[0] == 7
    np.testing.assert_allclose(
        pixels(one, "prediction")[disc], pixels(both, "prediction")[disc]
    )


def test_many_classes_differ_in_lightness():
    many = np.arange(30).repeat(40).reshape(30, 40)
    display = SegmentationDisplay.from_predictions(np.zeros((30, 40)), many)
    lightness = pixels(display, "prediction") @ [0.3, 0.59, 0.11]
    assert (np.diff(lightness[:, 0]) > 0).all()


def test_objects_are_outlined_and_counted():
    ids = np.zeros((32, 40), int)
    ids[4:12, 4:12], ids[12:20, 4:12] = 1, 2
    display = SegmentationDisplay.from_predictions(X[0], ids, kind="ids")
    assert display.axes_["prediction"].get_title() == "prediction: 2 objects"
    drawn = np.ptp(pixels(display, "prediction"), axis=-1) > 0
    assert drawn[4, 4]
    assert not drawn[7, 7]
    assert display.legend_ is None


def test_numbers_have_one_scale():
    depth = np.linspace(0, 1, 32 * 40).reshape(32, 40)
    display = SegmentationDisplay.from_predictions(
        X[0], 2 * depth, depth, kind="values"
    )
    limits = {display.images_[n].get_clim() for n in ("truth", "prediction")}
    assert limits == {(0, 2)}
    low, high = display.images_["difference"].get_clim()
    assert low == -high == -1


def test_boxes_are_frames_with_labels():
    found = {
        "boxes": np.array([[2, 3, 12, 20], [5, 5, 9, 9]]),
        "labels": ["cat", "dog"],
    }
    display = SegmentationDisplay.from_predictions(X[0], found, found, kind="boxes")
    ax = display.axes_["prediction"]
    assert [p.get_width() for p in ax.patches] == [10, 4]
    assert [t.get_text() for t in ax.texts] == ["cat", "dog"]
    assert len({p.get_edgecolor() for p in ax.patches}) == 2


@pytest.mark.parametrize("format", ["xyxy", "xywh", "yxyx"])
def test_boxes_of_every_format_are_drawn_where_they_are(format):
    truth = {"xyxy": [4, 6, 20, 18], "xywh": [4, 6, 16, 12], "yxyx": [6, 4, 18, 20]}
    model = MultiTaskSegmenter(
        Detection(format=format, threshold=0.0),
        features=DeepFeatures(scales=(0.5,)),
        random_state=0,
    ).fit(X, [np.array([truth[format]])] * 4)
    display = SegmentationDisplay.from_estimator(model, X[0], [truth[format]])
    (frame,) = display.axes_["truth"].patches
    found = (*frame.get_xy(), frame.get_width(), frame.get_height())
    assert found == (3.5, 5.5, 16, 12)
    found = model.predict(X[:1])[0]
    widths = [p.get_width() for p in display.axes_["prediction"].patches]
    corners = model.tasks_["target"].corners(found)["boxes"]
    np.testing.assert_allclose(widths, corners[:, 2] - corners[:, 0], atol=1e-4)


def test_every_task_of_pixels_is_drawn_from_a_model():
    normals = np.zeros((*MASKS.shape, 3))
    normals[..., 2] = 1
    Y = Targets(
        semantic=MASKS,
        words=np.where(MASKS == 7, "disc", "ground"),
        mask=MASKS == 7,
        edges=MASKS,
        depth=MASKS / 2.0,
        objects=(MASKS == 7).astype(int),
        boxes=[np.array([[5, 5, 18, 18]])] * 4,
        normals=normals,
        kind=["a", "b"] * 2,
    )
    tasks = {
        "edges": Boundary(),
        "objects": InstanceSegmentation(),
        "boxes": Detection(),
        "normals": SurfaceNormals(),
    }
    model = MultiTaskSegmenter(
        tasks, features=DeepFeatures(scales=(0.5,)), head="ridge", random_state=0
    ).fit(X, Y)
    for task in set(Y.task_names) - {"kind"}:
        truth = Y[task][0]
        display = SegmentationDisplay.from_estimator(model, X[0], truth, task=task)
        display.figure_.canvas.draw()
        assert set(display.images_) == set(display.axes_)
    with pytest.raises(ValueError, match="`task` must be one that can be drawn"):
        SegmentationDisplay.from_estimator(model, X[0], task="kind")
    with pytest.raises(ValueError, match="`task` must be one that can be drawn"):
        SegmentationDisplay.from_estimator(model, X[0])


@pytest.mark.parametrize(
    "image",
    [X[0], X[0, ..., 0], X[0] / 255, X[0].astype(np.uint16) * 257, X[0, ..., :1]],
)
def test_images_of_every_form(image):
    display = SegmentationDisplay.from_predictions(image, MASKS[0], MASKS[0])
    display.figure_.canvas.draw()
    shown = pixels(display, "prediction")
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_axes_of_your_own():
    _, axes = plt.subplots(2, 2)
    display = SegmentationDisplay(X[0], WRONG, MASKS[0]).plot(axes=axes, legend=False)
    assert list(display.axes_.values()) == axes.ravel().tolist()
    assert display.legend_ is None
    with pytest.raises(ValueError, match="`axes` must be 4"):
        SegmentationDisplay(X[0], WRONG, MASKS[0]).plot(axes=axes[0])


def boxes(prediction):
    return {"kind": "boxes", "prediction": prediction, "truth": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": MASKS[0, :5]}, r"prediction must be of the image's height"),
        ({"truth": MASKS[0].T}, r"truth must be of the image's height"),
        ({"kind": "cake"}, r"`kind` of SegmentationDisplay must be one of"),
        (
            {"image": X},
            r"image must be .*; of 4 images draw .*, images\[0\]",
        ),
        ({"image": [X[0], X[1, :9]]}, r"image must be .*; of 2 images draw one at a"),
        ({"image": X[:0]}, r"image must be \(H, W\) or \(H, W, C\)"),
        ({"class_names": ["a"]}, r"`class_names` must name 2 classes"),
        ({"class_names": 3}, r"`class_names` of SegmentationDisplay"),
        ({"classes": [3]}, r"prediction has \[7\]; `classes` are \[3\]"),
        ({"kind": "boxes"}, r"prediction: boxes must have shape \(n, 4\)"),
        (boxes([[2, 3, np.nan, 9]]), r"prediction: box 0 is not finite"),
        (boxes([[2, 3, 9, 9], [9, 3, 2, 9]]), r"prediction: box 1 has no area"),
        (boxes([[2, 3, 900, 9]]), r"prediction: box 0 .* reaches beyond"),
        (boxes({"labels": [1]}), r"prediction has no key 'boxes'"),
        (boxes({"boxes": [[2, 3, 9, 9]], "labels": []}), "1 boxes, 0 labels"),
        (
            {"kind": "values", "prediction": np.full(MASKS[0].shape, "1.5")},
            r"prediction must be numbers to be drawn as 'values', got dtype",
        ),
    ],
)
def test_what_cannot_be_drawn(change, message):
    given = {"image": X[0], "prediction": MASKS[0], "truth": MASKS[0], **change}
    with pytest.raises(ValueError, match=message):
        SegmentationDisplay(**given).plot()


@pytest.mark.parametrize("kind", ["classes", "mask", "ids", "values"])
def test_where_nothing_is_labelled_nothing_differs(kind):
    truth = np.full(MASKS[0].shape, np.nan if kind in ("mask", "values") else -1)
    display = SegmentationDisplay.from_predictions(
        X[0], MASKS[0], truth, kind=kind, classes=[3, 7]
    )
    assert display.axes_["difference"].get_title() == "difference: nothing is labelled"


def test_unlabelled_pixels_of_objects_do_not_differ():
    truth, found = np.zeros((2, 40, 40), int)
    truth[:20], found[2:18, 2:18] = -1, 1
    display = SegmentationDisplay.from_predictions(
        np.zeros((40, 40), np.uint8), found, truth, kind="ids"
    )
    assert display.axes_["difference"].get_title() == "difference: 0.0 %"


def test_a_model_that_is_not_fitted():
    with pytest.raises(NotFittedError):
        SegmentationDisplay.from_estimator(MultiTaskSegmenter(), X[0])


def test_truth_of_a_class_that_the_model_does_not_know_is_told():
    model = MultiTaskSegmenter(
        SemanticSegmentation(void=255), features=DeepFeatures(scales=(1,))
    ).fit(X, MASKS)
    truth = MASKS[0].copy()
    truth[:4] = 255  # unlabelled, to this task
    display = SegmentationDisplay.from_estimator(model, X[0], truth)
    np.testing.assert_array_equal(pixels(display, "difference")[:4], 1)
    truth[5] = 99
    with pytest.raises(ValueError, match="99"):
        SegmentationDisplay.from_estimator(model, X[0], truth)
    with pytest.raises(ValueError, match=r"truth has \[99\]"):
        SegmentationDisplay.from_predictions(
            X[0], MASKS[0], np.where(truth == 255, 3, truth), classes=[3, 7]
        )


def test_words_as_classes():
    words = np.where(MASKS[0] == 7, "cat", "mat")
    truth = np.where(np.arange(32)[:, None] < 4, "", words)
    display = SegmentationDisplay.from_predictions(X[0], words, truth)
    assert display.axes_["difference"].get_title() == "difference: 0.0 %"
    assert [t.get_text() for t in display.legend_.get_texts()] == ["cat", "mat"]


@pytest.mark.parametrize("kind", ["classes", "mask", "ids", "values"])
def test_maps_of_three_axes_are_refused(kind):
    cube = np.zeros((32, 40, 3), int)
    with pytest.raises(ValueError, match="prediction must be of the image's height"):
        SegmentationDisplay.from_predictions(X[0], cube, kind=kind)
    with pytest.raises(ValueError, match="truth must be of the image's height"):
        SegmentationDisplay.from_predictions(X[0], cube[..., 0], cube, kind=kind)


def test_very_many_classes_have_no_legend():
    many = np.arange(32 * 40).reshape(32, 40) % 300
    assert SegmentationDisplay.from_predictions(X[0], many).legend_ is None


@pytest.mark.parametrize("axes", [[1, 2], ["a", "b"]])
def test_axes_that_are_none(axes):
    with pytest.raises(ValueError, match="`axes` must be 2"):
        SegmentationDisplay.from_predictions(X[0], MASKS[0], axes=axes)
