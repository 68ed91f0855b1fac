"""Drawing over images: what is coloured, and what is left."""

import numpy as np
import pytest

from mtsk.displays import drawing

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
GREY = IMAGE.mean(axis=2) / 255


def coloured(drawn):
    """Where an image is not grey."""
    return np.ptp(drawn, axis=2) > 1e-9


def test_colours_differ_in_grey_too():
    assert len(set(drawing.COLOURS)) == 8
    grey = [np.dot(drawing.rgb(c), [0.3, 0.59, 0.11]) for c in drawing.COLOURS]
    assert np.abs(np.diff(grey)).min() > 0.08


@pytest.mark.parametrize("n", [0, 1, 8, 9, 150])
def test_every_class_has_a_colour_of_its_own(n):
    colours = drawing.class_colours(n)
    assert colours.shape == (n, 3)
    assert len(np.unique(colours, axis=0)) == n


def test_class_nought_is_a_class_like_the_others():
    codes = np.zeros((20, 30), int)
    assert coloured(drawing.paint_classes(IMAGE, codes, drawing.class_colours(2))).all()
    codes[:, 10:] = -1
    drawn = drawing.paint_classes(IMAGE, codes, drawing.class_colours(2))
    np.testing.assert_allclose(drawn[:, 10:], np.stack([GREY[:, 10:]] * 3, axis=2))


def test_rims_lie_inside_objects_and_keep_neighbours_apart():
    ids = np.zeros((20, 30), int)
    ids[2:10, 2:10], ids[2:10, 10:18] = 1, 2
    found = coloured(drawing.paint_ids(IMAGE, ids))
    assert not found[ids == 0].any()
    assert found[5, [2, 9, 10, 17]].all()
    assert not found[5, [4, 6, 13, 15]].any()
    ids[ids == 0] = -1  # unlabelled
    np.testing.assert_array_equal(coloured(drawing.paint_ids(IMAGE, ids)), found)


def test_a_frame_is_the_rim_of_what_the_box_holds():
    boxes, labels = [[3, 2, 10, 8]], ["a"]
    found = coloured(drawing.paint_boxes(IMAGE, boxes, labels))
    expected = np.zeros((20, 30), bool)
    expected[2:8, 3:10] = True
    expected[3:7, 4:9] = False
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "boxes", [[[-5, -5, 100, 100]], [[0, 0, 1, 1]], [[29, 19, 30, 20]], []]
)
def test_frames_at_the_border(boxes):
    drawn = drawing.paint_boxes(IMAGE, boxes, ["a"] * len(boxes))
    assert drawn.shape == (20, 30, 3)
    assert coloured(drawn).any() == bool(boxes)


def test_labels_of_boxes_differ_in_colour():
    drawn = drawing.paint_boxes(IMAGE, [[0, 0, 5, 5], [9, 9, 15, 15]], [7, 3])
    assert tuple(drawn[0, 0]) == drawing.rgb(drawing.COLOURS[0])
    assert tuple(drawn[9, 9]) == drawing.rgb(drawing.COLOURS[1])


def test_numbers_run_from_dark_to_light():
    values = np.linspace(-3, 8, 600).reshape(20, 30)
    values[0, 0] = np.nan
    drawn = drawing.paint_values(values)
    np.testing.assert_array_equal(drawn[0, 0], 1)
    lightness = (drawn @ [0.3, 0.59, 0.11]).ravel()[1:]
    assert (np.diff(lightness) > -1e-3).all()
    assert lightness[-1] - lightness[0] > 0.5
    assert np.isfinite(drawing.paint_values(np.full((2, 2), 4.0))).all()
    np.testing.assert_array_equal(drawing.paint_values(np.full((2, 2), np.nan)), 1)


@pytest.mark.parametrize(
    "image",
    [
        IMAGE[..., 0],
        IMAGE.astype(np.uint16) * 257,
        IMAGE / 255.0,
        IMAGE[..., :2],
        np.concatenate([IMAGE, IMAGE], axis=2),
    ],
    ids=["grey", "uint16", "float", "two channels", "six channels"],
)
def test_any_image_is_drawn_in_its_range(image):
    before = image.copy()
    drawn = drawing.paint_mask(image, np.eye(20, 30))
    assert drawn.shape == (20, 30, 3)
    assert 0 <= drawn.min() < drawn.max() <= 1
    np.testing.assert_array_equal(image, before)
