"""Augmentation: an image and its targets arrive at the same place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from mtsk._validation import InvalidParameterError
from mtsk.decoders import Augmentation

STILL = {"brightness": 0, "contrast": 0, "saturation": 0}
PLAIN = {"flip": 0, "zoom": (1, 1), **STILL}


def scene(height=40, width=60, marks=((12, 30), (30, 9))):
    """An image with bright discs of radius 3, and maps of which disc is where."""
    y, x = np.indices((height, width))
    views = np.zeros((1, height, width, 3), np.float32)
    codes = np.zeros((height, width), np.float32)
    for number, (row, col) in enumerate(marks, start=1):
        disc = (y - row) ** 2 + (x - col) ** 2 <= 9
        views[0, disc] = number / len(marks)
        codes[disc] = number
    return views, np.stack([codes, codes / 10], axis=-1)


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([None, (32, 32), (50, 70), (33, 47)]),
    st.sampled_from([0.0, 30.0, 180.0]),
    st.sampled_from([(1.0, 1.0), (0.6, 1.7)]),
)
def test_marks_land_on_their_marks(seed, crop, rotate, zoom):
    augment = Augmentation(
        flip=0.5, vertical_flip=0.5, crop=crop, rotate=rotate, zoom=zoom, **STILL
    )
    views, columns = augment(*scene(), rng(seed))
    assert columns.shape[:2] == views.shape[1:3] == (crop or (40, 60))
    known = ~np.isnan(columns[..., 0])
    light = views[0, ..., 0]
    # A label is that of the nearest pixel, so a quarter of its light or more is seen
    # there; and where nothing but dark was interpolated, no disc is labelled.
    for number in (1, 2):
        here = known & (columns[..., 0] == number)
        assert (light[here] >= 0.25 * number / 2 - 1e-3).all()
        assert (light[here] <= number / 2 + 1e-3).all()
    assert (np.nan_to_num(columns[..., 0])[light < 1e-6] == 0).all()
    np.testing.assert_allclose(columns[..., 1][known], columns[..., 0][known] / 10)


def test_the_middle_of_a_disc_is_where_its_label_is():
    for seed in range(20):
        augment = Augmentation(vertical_flip=0.5, rotate=45, zoom=(0.8, 1.4), **STILL)
        views, columns = augment(*scene(marks=((20, 28),)), rng(seed))
        y, x = np.indices(columns.shape[:2])
        light, label = views[0, ..., 0], np.nan_to_num(columns[..., 0])
        for axis in (y, x):
            a = (axis * light).sum() / light.sum()
            b = (axis * label).sum() / label.sum()
            assert abs(a - b) < 0.4  # labels are those of whole pixels


def test_nothing_asked_for_is_nothing_done():
    views, columns = scene()
    seen, coded = Augmentation(**PLAIN)(views, columns, rng())
    np.testing.assert_array_equal(seen, views)
    np.testing.assert_array_equal(coded, columns.astype(np.float32))


def test_flips_are_flips():
    views, columns = scene()
    seen, coded = Augmentation(**{**PLAIN, "flip": 1})(views, columns, rng())
    np.testing.assert_array_equal(seen, views[:, :, ::-1])
    np.testing.assert_array_equal(coded, columns[:, ::-1].astype(np.float32))
    both = Augmentation(**{**PLAIN, "flip": 1, "vertical_flip": 1})
    np.testing.assert_array_equal(both(views, columns, rng())[0], views[:, ::-1, ::-1])


def test_a_crop_is_a_part():
    noise = rng(3).random((1, 41, 60, 3)).astype(np.float32)
    columns = rng(4).integers(0, 5, (41, 60, 1)).astype(np.float32)
    for seed in range(5):
        seen, coded = Augmentation(crop=(16, 17), **PLAIN)(noise, columns, rng(seed))
        found = [
            (i, j)
            for i in range(26)
            for j in range(44)
            if np.array_equal(noise[:, i : i + 16, j : j + 17], seen)
        ]
        assert len(found) == 1
        (i, j) = found[0]
        np.testing.assert_array_equal(columns[i : i + 16, j : j + 17], coded)


def test_beyond_the_border_nothing_is_labelled():
    views, columns = np.ones((1, 20, 20, 3), np.float32), np.ones((20, 20, 1))
    seen, coded = Augmentation(crop=(40, 40), **PLAIN)(views, columns, rng())
    assert (seen == 1).all()  # the border is repeated
    assert np.isnan(coded).sum() == 40 * 40 - 20 * 20


def test_missing_labels_stay_missing():
    views, columns = scene()
    columns[:20] = np.nan
    coded = Augmentation(**{**PLAIN, "flip": 1})(views, columns, rng())[1]
    assert np.isnan(coded[:20]).all()
    assert not np.isnan(coded[20:]).any()


def test_light_moves_no_label():
    views, columns = scene()
    views = views * 0.5 + 0.2
    augment = Augmentation(flip=0, zoom=(1, 1), brightness=0.5, contrast=0.5, hue=0.3)
    seen, coded = augment(views, columns, rng(1))
    np.testing.assert_array_equal(coded, columns.astype(np.float32))
    assert not np.allclose(seen, views)
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_every_view_of_an_image_moves_alike():
    views, columns = scene()
    both = np.concatenate([views, views])
    seen, _ = Augmentation(rotate=20, **STILL)(both, columns, rng(2))
    np.testing.assert_array_equal(seen[0], seen[1])


def test_a_seed_gives_the_same_view():
    augment = Augmentation(rotate=10, crop=(24, 24), hue=0.1)
    a, b, c = (augment(*scene(), rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])
    assert not np.array_equal(a[0], c[0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"flip": 2}, "`flip` of Augmentation"),
        ({"vertical_flip": -0.1}, "`vertical_flip` of Augmentation"),
        ({"zoom": (2, 1)}, "the least and the most"),
        ({"zoom": (0, 1)}, "`zoom` of Augmentation"),
        ({"zoom": 1.5}, "`zoom` of Augmentation"),
        ({"zoom": (1, 1, 1)}, "the least and the most"),
        ({"rotate": 200}, "`rotate` of Augmentation"),
        ({"crop": 32}, "`crop` of Augmentation"),
        ({"crop": (32, 0)}, "`crop` of Augmentation"),
        ({"crop": (32,)}, r"\(height, width\) or None"),
        ({"brightness": 1}, "`brightness` of Augmentation"),
        ({"hue": 0.6}, "`hue` of Augmentation"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(InvalidParameterError, match=message):
        Augmentation(**parameters)(*scene(), rng())


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda v, c, r: (v, c[:-1], r), ValueError, "columns must have shape"),
        (lambda v, c, r: (v, c[..., 0], r), ValueError, "columns must have shape"),
        (lambda v, c, r: (v[0], c, r), ValueError, "views must be float32 of shape"),
        (
            lambda v, c, r: (v[..., :2], c, r),
            ValueError,
            r"got dtype.*\(1, 40, 60, 2\)",
        ),
        (lambda v, c, r: (v.astype(float), c, r), ValueError, "dtype float64"),
        (lambda v, c, r: (v.astype(np.uint8), c, r), ValueError, "dtype uint8"),
        (lambda v, c, r: (v, c, 0), TypeError, r"rng must be a numpy\.random\.Gen"),
    ],
)
def test_bad_input(change, kind, message):
    with pytest.raises(kind, match=message):
        Augmentation()(*change(*scene(), rng()))


def test_views_need_not_be_contiguous():
    views, columns = scene()
    back = np.ascontiguousarray(views[:, ::-1])
    for augment in (Augmentation(rotate=20), Augmentation(**PLAIN)):
        a, b = (augment(v, columns, rng(1))[0] for v in (views, back[:, ::-1]))
        np.testing.assert_array_equal(a, b)


def test_it_is_an_estimator_by_its_parameters():
    augment = Augmentation(rotate=5).set_params(flip=0.25)
    assert clone(augment).get_params() == augment.get_params()


@pytest.mark.parametrize("seed", range(5))
def test_vectors_turn_with_the_view(seed):
    # Every pixel says which way the image's first pixel is. Turned with the view, what
    # neighbours say differs by how far apart they are in the view.
    shape = (40, 50)
    columns = -np.stack(np.indices(shape), axis=-1).astype(np.float32)
    views = np.zeros((1, *shape, 3), np.float32)
    augment = Augmentation(zoom=(0.7, 1.6), rotate=90, vertical_flip=0.5, crop=(20, 24))
    rng = np.random.default_rng(seed)
    _, seen = augment(views, columns, rng, lambda c, matrix: c @ matrix.T)
    origin = seen + np.stack(np.indices((20, 24)), axis=-1)
    assert np.isfinite(origin).any()
    spread = np.nanmax(origin, axis=(0, 1)) - np.nanmin(origin, axis=(0, 1))
    assert (spread < 2.5).all()  # of nearest pixels, enlarged by at most 1.6
