"""Windows have the features of the whole image (Law 3)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut
from tests_support import Slight, Worldly

from mtsk import DeepFeatures
from mtsk.backbones import load_backbone, receptive_radius
from mtsk.features import FeatureMaps
from mtsk.tiling.geometry import Rectangle, resize_rows, tiles_of
from mtsk.tiling.windows import WindowReader

PICTURE = astronaut()
SLIGHT = load_backbone(Slight(), taps=["first", "second"])


def cells_of(whole, window, maps):
    """Pairs of taps: what a window has, and the same cells of the whole."""
    starts = maps.starts or [(0.0, 0.0)] * len(maps.taps)
    corner = window[:2]
    for tap, all_of_it, stride, start in zip(
        maps.taps, whole.taps, maps.strides, starts, strict=True
    ):
        first = [
            round((c + s) / d) for c, s, d in zip(corner, start, stride, strict=True)
        ]
        rows, cols = (slice(f, f + n) for f, n in zip(first, tap.shape, strict=False))
        yield tap, all_of_it[rows, cols]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_cells_of_a_window_are_those_of_the_whole(data):
    shape = tuple(data.draw(st.integers(40, 150), label=side) for side in "HW")
    scales = data.draw(st.sampled_from([(1,), (0.5, 1, 2), (0.75,), (1.5, 0.3)]))
    ends = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2)))
        for n in shape
    ]
    (top, bottom), (left, right) = ([a, max(b, a + 1)] for a, b in ends)
    window = Rectangle(top, left, min(bottom, shape[0]), min(right, shape[1]))
    if 0 in window.shape:
        return
    image = PICTURE[: shape[0], : shape[1]]
    features = DeepFeatures(SLIGHT, scales=scales, dtype="float32").fit()
    (whole,) = features.transform([image])
    reader = WindowReader(features, image, receptive_radius(SLIGHT))
    maps, _, _ = reader.maps(window, window)
    for own, of_whole in cells_of(whole, window, maps):
        np.testing.assert_allclose(own, of_whole, atol=1e-4)


@pytest.mark.parametrize("shape", [(512, 448), (511, 447), (509, 470)])
def test_padding_by_the_parity_of_a_side_is_no_other_in_a_window(shape):
    # The bundled network's first stages; all of it sees 464 pixels, too many here.
    features = DeepFeatures(
        "timm:tf_efficientnet_lite0",
        weights="random",
        scales=[0.5, 1],
        taps=["blocks.0", "blocks.1", "blocks.2", "blocks.3"],
        dtype="float32",
    ).fit()
    radius = receptive_radius(features.network())
    assert radius < 200
    image = PICTURE[: shape[0], : shape[1]]
    (whole,) = features.transform([image])
    window = Rectangle(256, 0, 320, 64)
    maps, _, _ = WindowReader(features, image, radius).maps(window, window)
    for own, of_whole in cells_of(whole, window, maps):
        np.testing.assert_allclose(own, of_whole, atol=1e-4 * np.abs(of_whole).max())


@pytest.mark.parametrize("shape", [(120, 88), (121, 87)])
@pytest.mark.parametrize("position", [False, True])
def test_scores_at_and_pool_agree_with_the_whole_image(shape, position):
    image = PICTURE[: shape[0], : shape[1]]
    features = DeepFeatures(
        SLIGHT, scales=[0.5, 1], dtype="float32", position=position
    ).fit()
    (whole,) = features.transform([image])
    reader = WindowReader(features, image, receptive_radius(SLIGHT))
    own = Rectangle(40, 24, 90, shape[1])
    window = own.grown(reader.unit, reader.unit, shape)
    maps, _, _ = reader.maps(window, own)
    coef = np.random.default_rng(0).normal(size=(whole.n_features, 3))
    inner = own.within(window).slices
    np.testing.assert_allclose(
        maps.scores(coef)[inner], whole.scores(coef)[own.slices], atol=1e-3
    )
    points = np.array([[0, 0], [7, 11], [49, 62]])
    np.testing.assert_allclose(
        maps.at(points + np.subtract(own[:2], window[:2])),
        whole.at(points + own[:2]),
        atol=1e-4,
    )
    regions = np.full(shape, -1)
    regions[50:60, 30:50], regions[70:80, 60:70] = 0, 1
    np.testing.assert_allclose(
        maps.region_means(regions[window.slices]),
        whole.region_means(regions),
        atol=1e-4,
    )


@pytest.mark.parametrize("shape", [(120, 88), (121, 87)])
def test_sums_of_tiles_make_the_mean_of_the_whole(shape):
    image = PICTURE[: shape[0], : shape[1]]
    features = DeepFeatures(SLIGHT, scales=[0.5, 1, 2], dtype="float32").fit()
    (whole,) = features.transform([image])
    reader = WindowReader(features, image, receptive_radius(SLIGHT))
    sums = counts = 0.0
    for tile in tiles_of(shape, 32):
        _, own, n = reader.maps(tile.grown(8, reader.unit, shape), tile)
        sums, counts = sums + own, counts + n
    np.testing.assert_allclose(sums / counts, whole.global_mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [None, (2, 1, 0), [(0, 1, 2), (2, 2, 0)]])
def test_strips_make_up_the_window(monkeypatch, channels):
    image = PICTURE[:181, :143]
    features = DeepFeatures(
        SLIGHT, channels=channels, n_components=3, dtype="float32"
    ).fit([image])
    window = Rectangle(32, 16, 160, 143)
    reader = WindowReader(features, image, receptive_radius(SLIGHT))
    whole, sums, _ = reader.maps(window, window)
    monkeypatch.setattr(WindowReader, "max_pixels", 20_000)
    assert len(reader._blocks(window)) > 3
    maps, again, _ = reader.maps(window, window)
    assert len(maps.taps) == len(whole.taps)
    for tap, other in zip(maps.taps, whole.taps, strict=True):
        np.testing.assert_allclose(tap, other, atol=1e-4)
    np.testing.assert_allclose(sums, again, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("channels", "n_components"),
    [(None, None), ([(0, 1, 2), (2, 2, 0)], None), ([(0, 1, 2), (2, 2, 0)], 5)],
)
@pytest.mark.parametrize("shape", [(224, 160), (213, 171)])
def test_blocks_of_fine_stages_make_up_the_window(
    monkeypatch, shape, channels, n_components
):
    monkeypatch.setattr(WindowReader, "block_side", 64)
    image = PICTURE[: shape[0], : shape[1]]
    features = DeepFeatures(
        scales=[0.5, 1, 1.5],
        channels=channels,
        n_components=n_components,
        dtype="float32",
    ).fit([image])
    (whole,) = features.transform([image])
    reader = WindowReader(features, image, 464)
    window = Rectangle(64, 0, 192, shape[1])
    maps, sums, counts = reader.maps(window, window)
    for own, of_whole in cells_of(whole, window, maps):
        np.testing.assert_allclose(own, of_whole, atol=1e-4 * np.abs(of_whole).max())
    _, again, n = reader.maps(Rectangle(0, 0, *shape), Rectangle(0, 0, *shape))
    np.testing.assert_allclose(again / n, whole.global_mean(), rtol=1e-3, atol=1e-4)
    assert (counts <= n).all()
    assert sums.shape == again.shape


def test_tiles_cover_every_pixel_once():
    seen = np.zeros((70, 45), int)
    for tile in tiles_of(seen.shape, 32):
        seen[tile.slices] += 1
    assert (seen == 1).all()


@given(
    n=st.integers(8, 90),
    scale=st.floats(0.2, 2.5),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(deadline=None, max_examples=60)
def test_some_rows_are_resized_as_torch_resizes_all(n, scale, part):
    scaled = max(1, round(n * scale))
    first, last = sorted(int(p * scaled) for p in part)
    last = min(max(last, first + 1), scaled)
    first = min(first, last - 1)
    signal = torch.from_numpy(np.random.default_rng(n).random((1, 1, n, 5)))
    expected = torch.nn.functional.interpolate(
        signal,
        size=(scaled, 5),
        mode="bilinear",
        align_corners=False,
        antialias=scale < 1,
    )[0, 0, first:last, 0]
    matrix, source = resize_rows(n, scaled, first, last)
    found = matrix @ signal[0, 0, source, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_how_far_a_network_looks():
    # 3 x 3 at stride 1, then 5 x 5 on cells of 2: 1 + 2 * 2 pixels either way
    assert 5 <= receptive_radius(SLIGHT) <= 5 + 4
    assert receptive_radius(load_backbone(Worldly(), taps=["second"])) is None
    assert 400 <= receptive_radius(load_backbone()) <= 480


def test_a_window_of_a_plain_map_starts_with_it():
    maps = FeatureMaps([np.arange(4.0).reshape(2, 2, 1)], [(4, 4)], (8, 8))
    moved = FeatureMaps(
        [np.arange(4.0).reshape(2, 2, 1)],
        [(4, 4)],
        (6, 6),
        starts=[(-2, -2)],
        place=(2, 2, 8, 8),
    )
    eye = np.ones((1, 1))
    np.testing.assert_allclose(moved.scores(eye), maps.scores(eye)[2:, 2:], atol=1e-6)
