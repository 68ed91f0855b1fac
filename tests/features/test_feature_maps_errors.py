"""FeatureMaps made by hand: what is refused, what is not, and how exact they are."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mtsk.features.feature_maps import FeatureMaps

TAP = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
STRIDES, SHAPE = [(4, 4)], (16, 20)


def make(tap=TAP, strides=STRIDES, shape=SHAPE, **more):
    return FeatureMaps([tap], strides, shape, **more)


def every_pixel(shape):
    return np.indices(shape).reshape(2, -1).T


@pytest.mark.parametrize(
    "taps",
    [
        [],
        [TAP[..., 0]],
        [TAP[None]],
        [TAP[:0]],
        [TAP[..., :0]],
        [TAP.astype(int)],
        [TAP.astype(complex)],
        [TAP.astype(">f4")],
        [TAP.tolist()],
        [[[1.0], [1.0, 2.0]]],
        [None],
        [TAP, torch.from_numpy(TAP)],
        [torch.from_numpy(TAP).long()],
        [torch.from_numpy(TAP), torch.empty(4, 5, 2, device="meta")],
    ],
)
def test_taps_that_are_none(taps):
    with pytest.raises(ValueError, match=r"^taps must"):
        FeatureMaps(taps, STRIDES * len(taps), SHAPE)


@pytest.mark.parametrize("taps", [None, 5])
def test_taps_that_are_no_list(taps):
    with pytest.raises(ValueError, match=r"^taps must"):
        FeatureMaps(taps, STRIDES, SHAPE)


@pytest.mark.parametrize(
    "strides",
    [
        [],
        [4],
        [(4, 4), (2, 2)],
        [(4,)],
        [(0, 4)],
        [(-4, 4)],
        [(4, np.inf)],
        [(np.nan, 4)],
        None,
        "ab",
        [("a", "b")],
    ],
)
def test_strides_that_are_none(strides):
    with pytest.raises(ValueError, match=r"^strides must"):
        make(strides=strides)


@pytest.mark.parametrize("starts", [[], [0], [(0, np.nan)], 3])
def test_starts_that_are_none(starts):
    with pytest.raises(ValueError, match=r"^starts must"):
        make(starts=starts)


@pytest.mark.parametrize(
    "shape", [(0, 0), (16.0, 16.0), (16, 16, 3), (-1, 4), 16, None, ("a", "b")]
)
def test_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match=r"^shape must be two integers above 0"):
        make(shape=shape)


@pytest.mark.parametrize("shape", [[16, 20], np.array([16, 20])])
def test_shapes_of_other_types(shape):
    assert make(shape=shape).region_means(np.zeros(SHAPE, int)).shape == (1, 2)


@pytest.mark.parametrize(
    "coef",
    [
        None,
        3.0,
        np.ones(2),
        np.ones((3, 2)),
        np.ones((2, 1, 1)),
        "ab",
        np.ones((2, 1), complex),
        [[np.nan], [1]],
        [[1e300], [1]],
    ],
)
def test_coefficients_that_are_none(coef):
    with pytest.raises(ValueError, match=r"^coef must"):
        make().scores(coef)


@pytest.mark.parametrize(
    "intercept", [[1.0], [1.0, 2.0, 3.0, 4.0], np.ones((1, 3)), "a", [np.nan] * 3]
)
def test_intercepts_that_are_none(intercept):
    with pytest.raises(ValueError, match=r"^intercept must"):
        make().scores(np.ones((2, 3)), intercept)


def test_lists_one_number_and_no_column():
    by_list = make().scores([[1, 0], [0, 1]], 2)
    np.testing.assert_array_equal(by_list, make().scores(np.eye(2), np.full(2, 2.0)))
    assert make().scores(np.ones((2, 0))).shape == (*SHAPE, 0)


@pytest.mark.parametrize("top", [16 * 20, 2**40, 2**64 - 1])
def test_regions_beyond_the_pixels(top):
    segments = np.zeros(SHAPE, np.uint64)
    segments[0, 0] = top
    with pytest.raises(ValueError, match="relabel_sequential"):
        make().region_means(segments)


def test_views_and_read_only_arrays_are_taken():
    flipped = make(TAP[::-1])
    plain = make(np.ascontiguousarray(TAP[::-1]))
    fixed = TAP[::-1].copy()
    fixed.flags.writeable = False
    segments = np.arange(16 * 20).reshape(SHAPE) // 50
    for other in (flipped, make(fixed)):
        np.testing.assert_array_equal(other.scores(np.eye(2)), plain.scores(np.eye(2)))
        np.testing.assert_array_equal(
            other.region_means(segments), plain.region_means(segments)
        )
        np.testing.assert_array_equal(other.global_mean(), plain.global_mean())


def test_tensors_with_gradients_and_of_bfloat16():
    tensor = torch.from_numpy(TAP).bfloat16().requires_grad_()
    maps = make(tensor)
    here = maps.to_host()
    assert here.taps[0].dtype == np.float32
    np.testing.assert_array_equal(maps.scores(np.eye(2)), here.scores(np.eye(2)))
    np.testing.assert_allclose(maps.global_mean(), here.global_mean(), atol=1e-6)
    assert maps != here


# -- exactness ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_mean_of_many_equal_numbers_is_that_number(kind):
    tap = np.full((400, 400, 2), 0.1, np.float32)
    maps = make(kind(tap), [(2, 2)], (800, 800))
    segments = np.zeros((800, 800), int)
    segments[:3] = -1
    np.testing.assert_allclose(maps.region_means(segments), 0.1, rtol=1e-5)
    few = make(kind(tap[:2, :2].copy()), [(1500, 1500)], (3000, 3000))
    np.testing.assert_allclose(
        few.region_means(np.zeros((3000, 3000), int)), 0.1, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("size", "stride", "shape"),
    [
        ((4, 9986), (2, 2.003), (8, 20000)),  # places found in single precision
        ((64, 64), (1.0079, 1.0079), (64, 64)),  # as many cells as pixels
        ((8, 100), (8, 1.01), (64, 100)),
        ((64, 8), (1.01, 8), (64, 64)),
        ((3, 5), (0.5, 0.5), (2, 3)),
        ((40, 4), (0.1, 1), (4, 4)),
        ((1, 1), (32, 32), (63, 63)),  # cells that end before the image does
        ((4, 31), (16, 16), (64, 508)),
    ],
)
def test_scores_are_at_every_pixel(size, stride, shape):
    tap = np.random.default_rng(0).normal(size=(*size, 1)).astype(np.float32)
    maps = make(tap, [stride], shape)
    got = maps.scores([[1.0]]).reshape(-1, 1)
    np.testing.assert_allclose(got, maps.at(every_pixel(shape)), atol=2e-6)


def test_the_operator_is_not_asked_beyond_the_last_cell(monkeypatch):
    """On the CPU it repeats that cell; with CUDA it reads what lies behind."""

    class Strict:
        def __getattr__(self, name):
            raise AssertionError(name)

    monkeypatch.setattr("mtsk.features.interpolation.torch.ops.aten", Strict())
    maps = make(TAP, [(16, 16)], (64, 96))  # 5 cells of 16 pixels
    assert maps.scores(np.eye(2)).shape == (64, 96, 2)
    with pytest.raises(AssertionError, match="upsample_bilinear2d"):
        make(TAP, [(16, 16)], (64, 79)).scores(np.eye(2))


def test_many_scores_in_strips():
    random = np.random.default_rng(0)
    tap = random.normal(size=(20, 100, 3)).astype(np.float32)
    coef = random.normal(size=(3, 700)).astype(np.float32)
    maps = make(tap, [(2, 2)], (39, 199))  # strips of 16 rows
    expected = maps.at(every_pixel((39, 199))) @ coef
    np.testing.assert_allclose(maps.scores(coef).reshape(-1, 700), expected, atol=1e-4)


def test_what_is_said_names_what_was_given():
    with pytest.raises(ValueError, match=re.escape("got [(0, 4)]")):
        make(strides=[(0, 4)])
