"""FeatureMaps: three ways out of the same hypercolumns, which must agree."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtsk.features.feature_maps import POSITION_NAMES, FeatureMaps, position_columns

FEW = settings(max_examples=25, deadline=None)


def upsampled(tap, stride, shape):
    """Brute force: bilinear on half-pixel centres, the border repeated."""
    tap = tap.astype(float)
    out = np.empty((*shape, tap.shape[2]))
    for y in range(shape[0]):
        for x in range(shape[1]):
            i = np.clip((y + 0.5) / stride[0] - 0.5, 0, tap.shape[0] - 1)
            j = np.clip((x + 0.5) / stride[1] - 0.5, 0, tap.shape[1] - 1)
            i0, j0 = int(i), int(j)
            i1, j1 = min(i0 + 1, tap.shape[0] - 1), min(j0 + 1, tap.shape[1] - 1)
            fy, fx = i - i0, j - j0
            out[y, x] = (1 - fy) * ((1 - fx) * tap[i0, j0] + fx * tap[i0, j1]) + fy * (
                (1 - fx) * tap[i1, j0] + fx * tap[i1, j1]
            )
    return out


def hypercolumns(maps):
    """Brute force: the full-resolution stack that FeatureMaps never builds."""
    parts = [
        upsampled(tap, stride, maps.shape)
        for tap, stride in zip(maps.taps, maps.strides, strict=True)
    ]
    if maps.position:
        y, x = np.mgrid[: maps.shape[0], : maps.shape[1]]
        parts.append(position_columns(y, x, maps.shape))
    return np.concatenate(parts, axis=2)


@st.composite
def feature_maps(draw):
    """Odd sizes; whole and broken strides; taps that reach beyond the image."""
    shape = draw(st.integers(5, 23)), draw(st.integers(5, 23))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    taps, strides = [], []
    for _ in range(draw(st.integers(1, 4))):
        stride = draw(
            st.sampled_from(
                [
                    (1, 1),
                    (2, 2),
                    (4, 4),
                    (8, 8),
                    (3, 3),
                    (0.5, 0.5),
                    (2.3, 2.3),
                    (16 / 3, 4.7),
                    (40, 40),
                    (1, 2),
                ]
            )
        )
        size = [max(1, int(np.ceil(n / s))) for n, s in zip(shape, stride, strict=True)]
        taps.append(random.normal(size=(*size, draw(st.integers(1, 3)))).astype(dtype))
        strides.append(stride)
    return FeatureMaps(taps, strides, shape, draw(st.booleans()))


def every_pixel(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(
        -1, 2
    )


# -- the ways out -------------------------------------------------------------


@given(feature_maps())
@FEW
def test_at_is_bilinear_interpolation(maps):
    expected = hypercolumns(maps).reshape(-1, maps.n_features)
    got = maps.at(every_pixel(maps.shape))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


@given(feature_maps(), st.integers(1, 4))
@FEW
def test_scores_at_stride_are_scores_of_upsampled_features(maps, n_scores):
    random = np.random.default_rng(0)
    coef = random.normal(size=(maps.n_features, n_scores))
    intercept = random.normal(size=n_scores)
    got = maps.scores(coef, intercept)
    assert got.shape == (*maps.shape, n_scores)
    assert got.dtype == np.float32
    by_at = maps.at(every_pixel(maps.shape)) @ coef + intercept
    np.testing.assert_allclose(got.reshape(-1, n_scores), by_at, atol=1e-4)
    np.testing.assert_allclose(got, hypercolumns(maps) @ coef + intercept, atol=1e-4)


@given(feature_maps(), st.integers(0, 1000))
@FEW
def test_pool_is_the_mean_over_each_region(maps, seed):
    random = np.random.default_rng(seed)
    segments = random.choice(
        [-1, 0, 1, 2, 4, 7], p=[0.2, 0.4, 0.2, 0.1, 0.05, 0.05], size=maps.shape
    )
    full = hypercolumns(maps)
    got = maps.region_means(segments)
    assert got.dtype == np.float32
    assert got.shape == (segments.max() + 1, maps.n_features)
    for region in range(len(got)):
        inside = full[segments == region]
        if len(inside):
            np.testing.assert_allclose(got[region], inside.mean(axis=0), atol=1e-5)
        else:
            assert np.isnan(got[region]).all()


@given(feature_maps(), st.data())
@FEW
def test_block_means_are_means_over_regions(maps, data):
    ends = []
    for size in maps.shape:
        inner = data.draw(st.lists(st.integers(1, size - 1), max_size=3, unique=True))
        ends.append(np.array([0, *sorted(inner), size]))
    rows, columns = (np.repeat(np.arange(len(e) - 1), np.diff(e)) for e in ends)
    segments = rows[:, None] * (len(ends[1]) - 1) + columns
    got = maps.block_means(*ends)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, maps.region_means(segments), atol=1e-5)


@given(feature_maps())
@FEW
def test_single_precision_gives_the_same(maps):
    single = maps.in_single_precision()
    points = every_pixel(maps.shape)
    np.testing.assert_array_equal(single.at(points), maps.at(points))
    np.testing.assert_array_equal(single.at(points[:2]), maps.at(points)[:2])


@given(feature_maps())
@FEW
def test_pooling_single_pixels_is_at(maps):
    segments = np.arange(np.prod(maps.shape)).reshape(maps.shape)
    np.testing.assert_allclose(
        maps.region_means(segments), maps.at(every_pixel(maps.shape)), atol=1e-5
    )


@given(feature_maps(), st.integers(0, 1000))
@FEW
def test_taps_in_tensors_give_what_taps_in_arrays_give(maps, seed):
    random = np.random.default_rng(seed)
    there = replace(maps, taps=[torch.from_numpy(tap) for tap in maps.taps])
    points = random.uniform(-2, 25, (9, 2))
    np.testing.assert_array_equal(there.at(points), maps.at(points))
    coef = random.normal(size=(maps.n_features, 2))
    np.testing.assert_array_equal(there.scores(coef), maps.scores(coef))
    np.testing.assert_allclose(there.global_mean(), maps.global_mean(), atol=1e-5)
    segments = random.choice([-1, 0, 1, 4], size=maps.shape)
    given_segments = segments.copy()
    np.testing.assert_allclose(
        there.region_means(segments), maps.region_means(segments), atol=1e-5
    )
    np.testing.assert_array_equal(segments, given_segments)


def test_taps_in_tensors_of_a_window_and_to_the_host():
    taps = [torch.rand(8, 9, 2), torch.rand(4, 5, 3, dtype=torch.float16)]
    there = FeatureMaps(
        taps, [(2, 2), (4, 4)], (15, 17), True, "d", [(-1, -1), (-2, 0)], (4, 8, 90, 99)
    )
    here = there.to_host()
    assert all(isinstance(tap, np.ndarray) for tap in here.taps)
    assert [tap.dtype for tap in here.taps] == [np.float32, np.float16]
    assert here.to_host() is here
    assert (here.digest, here.place, here.starts) == ("d", there.place, there.starts)
    coef = np.random.default_rng(0).normal(size=(14, 2))
    np.testing.assert_array_equal(there.scores(coef), here.scores(coef))
    segments = np.arange(15 * 17).reshape(15, 17) // 40
    np.testing.assert_allclose(
        there.region_means(segments), here.region_means(segments), atol=1e-5
    )


def test_pooling_tensors_where_no_pixel_has_a_region():
    maps = make()
    there = replace(maps, taps=[torch.from_numpy(tap) for tap in maps.taps])
    assert there.region_means(np.full((15, 17), -1)).shape == (0, 4)


def make(position=False):
    random = np.random.default_rng(0)
    taps = [random.normal(size=(s, s + 1, 2)).astype(np.float32) for s in (8, 4)]
    return FeatureMaps(taps, [(2, 2), (4, 4)], (15, 17), position)


def test_between_pixels():
    maps = FeatureMaps([np.arange(4.0).reshape(2, 2, 1)], [(4, 4)], (8, 8))
    points = [[0, 0], [1.5, 1.5], [3.5, 3.5], [1.5, 3.5], [7, 7], [-9, 99]]
    np.testing.assert_allclose(maps.at(points)[:, 0], [0, 0, 1.5, 0.5, 3, 1])


def test_no_points():
    assert make().at(np.empty((0, 2))).shape == (0, 4)
    assert make(position=True).at([]).shape == (0, 13)


def test_scores_without_intercept():
    coef = np.ones((4, 1))
    np.testing.assert_allclose(
        make().scores(coef), make().scores(coef, np.zeros(1)), atol=1e-6
    )


def test_vector_is_the_mean_of_each_channel():
    maps = make(position=True)
    np.testing.assert_allclose(
        maps.global_mean(),
        np.concatenate([t.mean(axis=(0, 1)) for t in maps.taps]),
        rtol=1e-5,
    )
    assert maps.global_mean().dtype == np.float32


def test_vector_of_half_precision_does_not_overflow():
    tap = np.full((64, 64, 1), 1000, np.float16)
    assert FeatureMaps([tap], [(1, 1)], (64, 64)).global_mean() == 1000


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "uint32", "int64", "uint64"]
)
def test_pool_takes_any_integers(dtype):
    segments = np.zeros((15, 17), dtype)
    segments[5:] = 1
    maps = make()
    np.testing.assert_allclose(
        maps.region_means(segments), maps.region_means(segments.astype(int)), rtol=1e-6
    )


def test_pool_where_no_pixel_belongs_anywhere():
    assert make(position=True).region_means(np.full((15, 17), -1)).shape == (0, 13)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (
            np.zeros((15, 16), int),
            r"map of shape \(15, 17\), got dtype int64, shape \(15, 16",
        ),
        (np.zeros((15, 17)), r"segments must be an integer map.*got dtype float64"),
        (np.zeros((15, 17), bool), "segments must be an integer map.*got dtype bool"),
        (np.zeros(255, int), r"segments must be an integer map.*shape \(255,\)"),
    ],
)
def test_wrong_segments(segments, message):
    with pytest.raises(ValueError, match=message):
        make().region_means(segments)


def test_wrong_coef():
    with pytest.raises(ValueError, match=r"here \(4, K\), got \(3, 2\)"):
        make().scores(np.ones((3, 2)))


@pytest.mark.parametrize("points", [np.zeros((2, 3)), np.zeros((2, 2, 2)), np.zeros(4)])
def test_wrong_points(points):
    with pytest.raises(ValueError, match=r"points.*\(n, 2\).*got"):
        make().at(points)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_no_numbers(bad):
    with pytest.raises(ValueError, match="points must be finite"):
        make().at([[bad, 0.0]])


# -- what it is ---------------------------------------------------------------


def test_counts():
    maps = make(position=True)
    assert maps.n_features == 4 + len(POSITION_NAMES)
    assert make().n_features == 4
    assert maps.nbytes == sum(t.nbytes for t in maps.taps)


def test_position_spans_the_image():
    columns = position_columns(np.array([0, 9]), np.array([0, 4]), (10, 5))
    assert columns.shape == (2, 9)
    assert columns.dtype == np.float32
    first = dict(zip(POSITION_NAMES, columns[0], strict=True))
    assert first["y"] == pytest.approx(-0.9)
    assert first["x"] == pytest.approx(-0.8)
    assert first["y^2"] == pytest.approx(0.81)
    assert first["x^2"] == pytest.approx(0.64)
    assert first["xy"] == pytest.approx(0.72)
    assert first["sin(pi y)"] == pytest.approx(np.sin(-0.9 * np.pi), abs=1e-6)
    assert first["cos(pi y)"] == pytest.approx(np.cos(-0.9 * np.pi), abs=1e-6)
    assert first["sin(pi x)"] == pytest.approx(np.sin(-0.8 * np.pi), abs=1e-6)
    assert first["cos(pi x)"] == pytest.approx(np.cos(-0.8 * np.pi), abs=1e-6)
    np.testing.assert_allclose(columns[1, :2], [0.9, 0.8], atol=1e-6)


def test_pickle_gives_the_same():
    maps = make(position=True)
    again = pickle.loads(pickle.dumps(maps))
    points = [[0, 0], [7.3, 2.1]]
    np.testing.assert_array_equal(again.at(points), maps.at(points))
    assert (again.shape, again.position) == (maps.shape, maps.position)


def test_ways_out_leave_the_taps_alone():
    maps = make(position=True)
    before = [tap.copy() for tap in maps.taps]
    maps.at([[1, 1]])
    maps.scores(np.ones((13, 2)), np.ones(2))
    maps.region_means(np.zeros((15, 17), int))
    maps.global_mean()
    for tap, old in zip(maps.taps, before, strict=True):
        np.testing.assert_array_equal(tap, old)
