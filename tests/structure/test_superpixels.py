"""Superpixels: connected, complete, at edges; regions as arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.data import astronaut
from skimage.segmentation import slic as skimage_slic

from mtsk.structure.superpixels import (
    best_labelling,
    neighbours,
    over_segment,
    region_means,
    relabel,
    slic,
    to_lab,
)


@pytest.fixture(scope="module")
def photo():
    return astronaut()[:180, 100:340].astype(np.float32) / 255


def assert_regions(segments, shape):
    """Numbered without gaps, each one connected."""
    assert segments.shape == shape
    n = segments.max() + 1
    assert np.array_equal(np.unique(segments), np.arange(n))
    for region in range(n):
        assert ndimage.label(segments == region)[1] == 1


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_slic_makes_connected_regions_of_any_image(height, width, n, seed):
    image = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    assert_regions(slic(image, n), (height, width))


def test_slic_finds_as_many_as_asked_and_follows_edges(photo):
    segments = slic(photo, 200)
    assert 150 <= segments.max() + 1 <= 260
    assert_regions(segments, photo.shape[:2])
    halves = np.zeros((60, 60, 3), np.float32)
    halves[:, 31:] = 0.8
    regions = slic(halves, 9)
    left, right = set(regions[:, :31].flat), set(regions[:, 31:].flat)
    assert not left & right


def test_slic_is_no_worse_than_scikit_images(photo):
    gray = photo.mean(axis=2)
    ours = slic(photo, 150)
    theirs = skimage_slic(photo, 150, compactness=10, start_label=0)
    theirs = relabel(theirs)

    def unexplained(segments):
        return ((gray - region_means(segments, gray)[segments]) ** 2).mean()

    assert unexplained(ours) <= 1.1 * unexplained(theirs)


def test_slic_of_a_batch_is_that_of_each(photo):
    pair = np.stack([photo, photo[::-1]])
    both = slic(pair, 100)
    np.testing.assert_array_equal(both[0], slic(photo, 100))
    np.testing.assert_array_equal(both[1], slic(photo[::-1].copy(), 100))


def test_more_compact_regions_have_shorter_borders(photo):
    borders = [neighbours(slic(photo, 100, compactness=c))[1].sum() for c in (2, 40)]
    assert borders[1] < borders[0]


@pytest.mark.parametrize("method", ["slic", "skimage_slic", "felzenszwalb"])
def test_every_method_gives_connected_regions(photo, method):
    assert_regions(over_segment(photo[:80, :90], method, 40), (80, 90))


def test_a_callable_may_give_any_integer_map(photo):
    segments = over_segment(photo, lambda image: (image[..., 0] > 0.5) * 7 - 3)
    assert_regions(segments, photo.shape[:2])
    with pytest.raises(ValueError, match=r"integer map of shape \(180, 240\), got"):
        over_segment(photo, lambda image: image[..., 0])
    with pytest.raises(ValueError, match="integer map"):
        over_segment(photo, lambda image: np.zeros((3, 3), int))
    with pytest.raises(ValueError, match=r"superpixels.*over_segment.*'seeds'"):
        over_segment(photo, "seeds")


def test_default_regions_have_a_size_not_a_number(photo):
    small, large = over_segment(photo[:90, :120]), over_segment(photo)
    assert large.max() / small.max() == pytest.approx(4, rel=0.3)


def test_relabel_parts_what_does_not_touch():
    segments = np.array([[5, 1, 5], [1, 5, 1]])
    assert relabel(segments).max() == 5
    assert relabel(np.array([[-1, -1], [-1, 0]])).tolist() == [[0, 0], [0, 1]]


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_neighbours_by_brute_force(seed):
    segments = relabel(np.random.default_rng(seed).integers(0, 3, (5, 6)))
    found = {}
    for y in range(5):
        for x in range(6):
            for down, right in ((0, 1), (1, 0)):
                if y + down < 5 and x + right < 6:
                    a, b = sorted((segments[y, x], segments[y + down, x + right]))
                    if a != b:
                        found[a, b] = found.get((a, b), 0) + 1
    edges, lengths = neighbours(segments)
    assert {tuple(e): n for e, n in zip(edges.tolist(), lengths, strict=True)} == found


def test_one_region_has_no_neighbour():
    edges, lengths = neighbours(np.zeros((4, 4), int))
    assert edges.shape == (0, 2)
    assert lengths.shape == (0,)


def test_means_of_regions(photo):
    segments = slic(photo, 50)
    means = region_means(segments, photo)
    for region in (0, 7, segments.max()):
        np.testing.assert_allclose(
            means[region], photo[segments == region].mean(axis=0), rtol=1e-5
        )
    np.testing.assert_allclose(
        region_means(segments, photo[..., 0]), means[:, 0], rtol=1e-5
    )


def test_colours_are_those_of_scikit_image(photo):
    from skimage.color import rgb2lab

    segments = slic(photo, 30)
    theirs = region_means(segments, rgb2lab(photo))
    np.testing.assert_allclose(region_means(segments, to_lab(photo)), theirs, atol=0.5)


def test_the_oracle_by_hand():
    segments = np.array([[0, 0, 1, 2]])
    truth = np.array([[1, 1, -1, 3]])
    assert best_labelling(segments, truth).tolist() == [[1, 1, -1, 3]]
    assert best_labelling(np.zeros((1, 3), int), np.array([[2, 0, 2]])).tolist() == [
        [2, 2, 2]
    ]
    assert best_labelling(segments, np.full((1, 4), -1)).tolist() == [[-1] * 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: slic(i[..., 0]), r"be \(H, W, 3\).*got \(8, 8\)"),
        (lambda i: slic(i[:0]), "none of them 0"),
        (lambda i: slic(i[None, :0]), "none of them 0"),
        (lambda i: slic(np.concatenate([i, i[..., :1]], axis=2)), "got .8, 8, 4"),
        (lambda i: slic(i * np.nan), "got values from nan"),
        (lambda i: slic(i * 255), "got values from 0 to 255"),
        (lambda i: slic(i, 0), "n_segments must be an int >= 1, got 0"),
        (lambda i: slic(i, 2.5), "n_segments must be an int >= 1, got 2.5"),
        (lambda i: slic(i, "a"), "n_segments must be an int >= 1, got 'a'"),
        (lambda i: slic(i, n_iter=-1), "n_iter must be an int >= 0"),
        (lambda i: slic(i, compactness=-1), "compactness must be > 0"),
        (
            lambda i: over_segment(i, "felzenszwalb", 0),
            "n_segments must be an int >= 1",
        ),
        (lambda i: over_segment(i * np.nan, "felzenszwalb"), "got values from nan"),
        (lambda i: relabel(i[..., 0]), "segments must be an integer map"),
        (
            lambda i: best_labelling(np.zeros((8, 8), int), np.zeros((3, 3), int)),
            "the other map",
        ),
        (lambda i: best_labelling(np.zeros((8, 8), int), i[..., 0]), "integers"),
        (lambda i: to_lab(i * 255), "got values from 0 to 255"),
        (lambda i: slic(i, device="nope"), "device='nope' cannot be used"),
    ],
)
def test_bad_input_is_refused(call, message):
    image = np.ones((8, 8, 3), np.float32)
    image[0] = 0
    with pytest.raises(ValueError, match=message):
        call(image)
