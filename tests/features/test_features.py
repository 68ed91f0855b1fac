"""DeepFeatures: laws 6 and 8, the forms of input, the cache, errors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from torch import nn

from mtsk import DeepFeatures
from mtsk.backbones import module_backbone
from mtsk.exceptions import (
    BackboneError,
    ImageError,
    SkippedImageWarning,
    WeightsError,
)
from mtsk.features import MemoryCache
from mtsk.testing import toy_images


class Tiny(nn.Module):
    """Two strides, few channels, and a count of the images that went through."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.second(torch.relu(self.first(x)))


def tiny(**keywords) -> DeepFeatures:
    keywords.setdefault("backbone", Tiny())
    keywords.setdefault("scales", [1, 2])
    return DeepFeatures(taps=["first", "second"], **keywords)


def same_maps(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.taps, b.taps, strict=True))


def test_maps_have_the_taps_strides_and_sizes():
    images, _ = toy_images(2, size=(41, 50))
    (maps, _) = tiny(scales=[1, 0.5]).fit_transform(images)
    assert [tap.shape for tap in maps.taps] == [
        (21, 25, 4),
        (11, 13, 6),
        (10, 13, 4),
        (5, 7, 6),
    ]
    assert maps.strides[0] == (2, 2)
    np.testing.assert_allclose(maps.strides[2], (2 / (20 / 41), 4))
    assert maps.shape == (41, 50)
    assert maps.n_features == 20


def test_hypercolumns_follow_the_image_when_it_shifts():
    """A pixel moved by one coarse cell takes its features with it."""
    random = np.random.default_rng(0)
    large = random.integers(0, 255, (80, 80, 3), dtype=np.uint8)
    features = tiny(scales=[1], dtype="float32").fit()
    here, there = features.transform([large[:64, :64], large[4:68, 8:72]])
    points = np.array([[30.0, 30.0], [22.5, 41.0]])
    np.testing.assert_allclose(here.at(points), there.at(points - [4, 8]), atol=1e-5)


def test_vector_is_a_table_with_names():
    images, labels = toy_images(6)
    features = tiny(output="vector", scales=[1, 2], position=True)
    table = features.fit_transform(images)
    assert table.shape == (6, 20)
    names = features.get_feature_names_out()
    assert len(names) == len(set(names)) == 20
    assert names[0] == "scale1_first_0"
    assert names[-1] == "scale2_second_5"
    tags = np.stack([labels[:, 0, 0] == 3, np.arange(6) % 2 == 0], axis=1)
    tags[0, 0] = False
    pipeline = make_pipeline(
        tiny(output="vector"), MultiOutputClassifier(LogisticRegression())
    )
    assert pipeline.fit(images, tags).predict(images).shape == (6, 2)


def test_maps_are_no_rows_of_a_table():
    model = make_pipeline(tiny(), LogisticRegression())
    with pytest.raises(TypeError, match=r'take DeepFeatures\(output="vector"\)'):
        model.fit(*toy_images(4)[:1], [0, 1, 0, 1])


def test_set_output_gives_a_dataframe():
    images, _ = toy_images(2)
    frame = tiny(output="vector").set_output(transform="pandas").fit_transform(images)
    assert list(frame.columns)[:2] == ["scale1_first_0", "scale1_first_1"]
    with pytest.raises(ValueError, match=r'maps.*cannot be.*pandas.*output="vector"'):
        tiny().set_output(transform="pandas").fit_transform(images)


def test_names_of_maps_count_the_position():
    features = tiny(position=True).fit()
    assert features.n_features_out_ == 2 * 10 + 9
    assert features.get_feature_names_out()[-1] == "position_cos(pi x)"


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cached_equals_uncached_bit_for_bit(kind, tmp_path):
    images, _ = toy_images(3)
    cache = MemoryCache() if kind == "memory" else tmp_path / "cache"
    plain = tiny().fit_transform(images)
    network = Tiny()
    cached = tiny(backbone=network, cache=cache).fit()
    before = network.seen
    cached.transform(images[:1])
    probes = network.seen - before - 2  # taps are probed; the image has two scales
    first = cached.transform(images)
    assert network.seen - before == 2 * 3 + 2 * probes
    second = cached.transform(images)
    assert network.seen - before == 2 * 3 + 3 * probes, "the network ran again"
    for a, b, c in zip(plain, first, second, strict=True):
        assert same_maps(a, b)
        assert same_maps(a, c)


def test_cache_tells_recipes_and_images_apart():
    images, _ = toy_images(2)
    cache = MemoryCache()
    one = tiny(cache=cache, scales=[1]).fit_transform(images)[0]
    two = tiny(cache=cache, scales=[2]).fit_transform(images)[0]
    assert one.taps[0].shape != two.taps[0].shape
    assert len(cache) == 4
    other = Tiny()
    with torch.no_grad():
        other.first.weight += 1
    three = tiny(cache=cache, scales=[1], backbone=other).fit_transform(images)[0]
    assert not same_maps(one, three)


def test_a_cut_cache_file_is_made_again(tmp_path):
    images, _ = toy_images(1)
    features = tiny(cache=tmp_path).fit()
    expected = features.transform(images)[0]
    (entry,) = tmp_path.glob("*.npz")
    entry.write_bytes(entry.read_bytes()[:-200])
    assert same_maps(features.transform(images)[0], expected)
    assert same_maps(features.transform(images)[0], expected)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("make", [tiny, DeepFeatures])
def test_batch_size_changes_nothing(make, size):
    images, _ = toy_images(5)
    whole = make(dtype="float32", batch_size=5).fit_transform(images)
    parts = make(dtype="float32", batch_size=size).fit_transform(images)
    assert all(same_maps(a, b) for a, b in zip(whole, parts, strict=True))


def test_order_is_kept_among_sizes_and_cache_hits():
    sizes = [(40 + 4 * (i % 3), 48) for i in range(7)]
    images = [toy_images(1, size=size, seed=i)[0][0] for i, size in enumerate(sizes)]
    cache = MemoryCache()
    features = tiny(cache=cache, batch_size=3).fit()
    features.transform([images[2], images[5]])
    mixed = features.transform(images)
    for image, maps in zip(images, mixed, strict=True):
        assert maps.shape == image.shape[:2]
        assert same_maps(tiny().fit_transform([image])[0], maps)


def test_clone_and_pickle():
    network = Tiny()
    features = tiny(backbone=network, output="vector").fit()
    assert clone(features).backbone is network
    images, _ = toy_images(2)
    bundled = DeepFeatures(scales=[1], output="vector").fit()
    size = len(pickle.dumps(bundled))
    assert size < 10_000, "a named network must not be pickled"
    again = pickle.loads(pickle.dumps(bundled))
    np.testing.assert_array_equal(again.transform(images), bundled.transform(images))


def test_a_network_that_changed_since_fit_is_refused():
    network = Tiny()
    features = tiny(backbone=network).fit()
    with torch.no_grad():
        network.first.weight += 1
    with pytest.raises(WeightsError, match="changed since fit"):
        features.transform(toy_images(1)[0])


def test_channels():
    images = np.random.default_rng(0).random((2, 40, 40, 5))
    with pytest.raises(ImageError, match=r"image 0 has 5 channels.*channels="):
        tiny().fit_transform(images)
    picked = tiny(channels=(4, 0, 2)).fit_transform(images)[0]
    plain = tiny().fit_transform(images[..., [4, 0, 2]])[0]
    assert same_maps(picked, plain)
    twice = tiny(channels=[(4, 0, 2), (1, 1, 1)]).fit()
    assert twice.n_features_out_ == 40
    assert twice.get_feature_names_out()[-1].startswith("v1_")
    assert twice.transform(images)[0].n_features == 40
    each = tiny(channels="each").fit(images)
    triples = tiny(channels=[(c, c, c) for c in range(5)]).fit()
    assert same_maps(each.transform(images)[0], triples.transform(images)[0])
    assert each.n_features_out_ == 5 * 20
    with pytest.raises(ImageError, match=r"image 0 has 3 channels, those of fit had 5"):
        each.transform(images[..., :3])
    with pytest.raises(TypeError, match="needs images"):
        tiny(channels="each").fit()
    with pytest.raises(ImageError, match="asks for channel 7"):
        tiny(channels=(0, 0, 7)).fit_transform(images)
    with pytest.raises(ValueError, match=r"`channels`.*three channel indices"):
        tiny(channels=(0, 1)).fit(images)


def test_grey_is_repeated():
    grey = np.random.default_rng(0).integers(0, 255, (1, 40, 40), dtype=np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=3)
    assert same_maps(tiny().fit_transform(grey)[0], tiny().fit_transform(rgb)[0])


def test_depths_agree():
    eight = np.random.default_rng(0).integers(0, 255, (1, 40, 40, 3), dtype=np.uint8)
    sixteen = eight.astype(np.uint16) * 257
    maps = [
        tiny(dtype="float32").fit_transform(x)[0]
        for x in (eight, sixteen, eight / 255, (eight / 255).astype(np.float32))
    ]
    for other in maps[1:]:
        for a, b in zip(maps[0].taps, other.taps, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_skipping_reports_and_keeps_the_rest(tmp_path):
    images, _ = toy_images(3)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    source = [images[0], str(broken), images[2]]
    with pytest.raises(ImageError, match=r"image 1 .*broken\.png"):
        tiny().fit_transform(source)
    features = tiny(on_error="skip").fit()
    with pytest.warns(SkippedImageWarning, match=r"1 of 3.*broken\.png"):
        first, nothing, last = features.transform(source)
    assert nothing is None
    assert same_maps(first, tiny().fit_transform(images[:1])[0])
    assert last.shape == (40, 48)
    vector = tiny(on_error="skip", output="vector").fit()
    with pytest.warns(SkippedImageWarning):
        table = vector.transform(source)
    assert np.isnan(table).all(axis=1).tolist() == [False, True, False]


def test_overflow_of_half_precision_is_an_error():
    class Loud(Tiny):
        def forward(self, x):
            return self.second(1e6 * self.first(x))

    images, _ = toy_images(1)
    with pytest.raises(BackboneError, match='dtype="float32"'):
        tiny(backbone=Loud()).fit_transform(images)
    assert tiny(backbone=Loud(), dtype="float32").fit_transform(images)


def test_a_network_that_gives_nan_is_told_apart_from_overflow():
    class Lost(Tiny):
        def forward(self, x):
            return self.second(np.nan * self.first(x))

    images, _ = toy_images(1)
    with pytest.raises(BackboneError, match="the network gives NaN"):
        tiny(backbone=Lost()).fit_transform(images)


@pytest.mark.parametrize("module", [nn.Conv2d(1, 4, 3), nn.Linear(3, 3)])
@pytest.mark.parametrize("taps", [None, ["0"]])
def test_a_network_that_takes_no_images_is_named(module, taps):
    images, _ = toy_images(1)
    features = DeepFeatures(nn.Sequential(module), taps=taps, scales=(1,))
    with pytest.raises(BackboneError, match="cannot take images of shape"):
        features.fit(images)


def test_out_of_memory_names_the_knobs():
    class Greedy(Tiny):
        def forward(self, x):
            if x.shape[-1] < 200:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return super().forward(x)

    with pytest.raises(MemoryError, match=r"`batch_size`.*`scales`"):
        tiny(backbone=Greedy()).fit_transform(toy_images(1)[0])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"scales": [0]}, r"`scales` of DeepFeatures must be .* got \[0\]"),
        ({"scales": 2}, "`scales` of DeepFeatures"),
        ({"scales": []}, "`scales` of DeepFeatures"),
        ({"output": "rows"}, "`output` of DeepFeatures must be .*got 'rows'"),
        ({"dtype": "float64"}, "`dtype`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"cache": 3}, "`cache`"),
        ({"channels": "zz"}, "`channels` of DeepFeatures"),
        ({"on_error": "ignore"}, "`on_error`"),
        ({"backbone": 7}, "`backbone` of DeepFeatures"),
        ({"device": "abacus"}, "`device`='abacus' cannot be used"),
        ({"device": "meta"}, "`device`='meta' cannot be used"),
        ({"device": None}, "`device`='None' cannot be used"),
    ],
)
def test_bad_parameters(keywords, message):
    with pytest.raises(ValueError, match=message):
        tiny(**keywords).fit()


def test_a_device_without_numbers_leaves_the_network_alone():
    images, _ = toy_images(1)
    with pytest.raises(BackboneError, match="'meta' cannot be used"):
        DeepFeatures(device="meta").fit()
    assert DeepFeatures(scales=[1]).fit_transform(images)


def test_the_current_folder_is_no_cache_by_chance():
    features = tiny(cache="").fit()
    with pytest.raises(ValueError, match="`cache` of DeepFeatures must be"):
        features.transform(toy_images(1)[0])


def test_a_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    features = tiny(cache=tmp_path / "file" / "cache").fit()
    with pytest.raises(ValueError, match="`cache` of DeepFeatures must be"):
        features.transform(toy_images(1)[0])


def test_a_device_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackboneError, match="'cuda' cannot be used"):
        tiny(device="cuda").fit()


def test_own_backbone_with_its_own_normalisation():
    network = Tiny()
    backbone = module_backbone(network, ["first"], mean=[0, 0, 0], std=[1, 1, 1])
    image = np.random.default_rng(0).random((1, 40, 40, 3)).astype(np.float32)
    maps = DeepFeatures(backbone, scales=[1], dtype="float32").fit_transform(image)[0]
    x = torch.from_numpy(image).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network.first(x)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(maps.taps[0], expected, atol=1e-5)
