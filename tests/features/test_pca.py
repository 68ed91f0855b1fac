"""n_components: principal components of every tap, found from some images."""

import numpy as np
import pytest
from numpy.linalg import eigh, norm
from skimage.data import astronaut
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from tests_support import Slight

from mtsk import DeepFeatures, JointRidge, MultiTaskSegmenter, SharedDecoder
from mtsk.backbones import load_backbone
from mtsk.data.images import Images
from mtsk.exceptions import CheckpointError, ImageError
from mtsk.features.pca import SAMPLE, TapProjection, spread_evenly

SLIGHT = load_backbone(Slight(), taps=["first", "second"])
PICTURE = astronaut()
IMAGES = [PICTURE[i : i + 40, i : i + 48] for i in range(0, 240, 40)]
MASKS = [image[..., 0] // 86 for image in IMAGES]


def components(n, **more):
    return DeepFeatures(
        SLIGHT, scales=[0.5, 1], dtype="float32", n_components=n, **more
    )


def test_components_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    tap = rng.normal(size=(9, 8, 4)) @ np.diag([3, 1, 0.3, 0.1]) + 5
    (matrix,) = TapProjection.learn([[tap]], 1, 2).matrices
    _, vectors = eigh(np.cov(tap.reshape(-1, 4).T, bias=True))
    for found, known in zip(matrix.T, vectors.T[::-1], strict=False):
        assert abs(found @ known) == pytest.approx(1, abs=1e-5)
    assert norm(matrix, axis=0) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("share", "n"), [(0.5, 1), (0.95, 2), (0.9999, 4)])
def test_a_share_keeps_as_many_as_hold_it(share, n):
    tap = np.zeros((4, 4, 4))
    tap.reshape(16, 4)[np.arange(4), np.arange(4)] = [10, 3, 1, 0.5]
    (size,) = TapProjection.learn([[tap]], 1, share).sizes
    assert size == n


def test_a_constant_tap_keeps_one():
    assert TapProjection.learn([[np.ones((3, 3, 5))]], 1, 0.9).sizes == [1]


def test_images_are_spread_over_all():
    assert spread_evenly(3) == [0, 1, 2]
    some = spread_evenly(1000)
    assert len(some) == SAMPLE
    assert (some[0], some[-1]) == (0, 999)


def test_all_components_keep_every_distance():
    points = np.argwhere(np.ones((10, 12)))
    (plain,), (turned,) = (
        components(n).fit(IMAGES).transform(IMAGES[:1]) for n in (None, 1000)
    )
    one, other = plain.at(points).astype(float), turned.at(points).astype(float)
    assert one.shape == other.shape
    for of_point in (0, 57):
        np.testing.assert_allclose(
            norm(other - other[of_point], axis=1),
            norm(one - one[of_point], axis=1),
            atol=1e-4,
        )


def test_names_sizes_and_taps_agree():
    features = components(2).fit(IMAGES)
    (maps,) = features.transform(IMAGES[:1])
    assert [tap.shape[2] for tap in maps.taps] == [2, 2, 2, 2]
    assert features.n_features_out_ == maps.n_features == 8
    names = features.get_feature_names_out()
    assert names[0] == "scale0.5_first_pc_0"
    assert len(set(names)) == 8


def test_a_cache_tells_components_apart():
    features = components(2, cache="memory").fit(IMAGES)
    other = components(2, cache="memory").fit([255 - IMAGES[0]])
    (a,), (b,) = (f.transform(IMAGES[:1]) for f in (features, other))
    assert np.abs(a.taps[0] - b.taps[0]).max() > 0
    np.testing.assert_array_equal(a.taps[0], features.transform(IMAGES[:1])[0].taps[0])


def test_views_share_components():
    features = components(2, channels=[(0, 1, 2), (2, 1, 0)]).fit(IMAGES)
    (maps,) = features.transform(IMAGES[:1])
    assert len(maps.taps) == 8
    assert len(features.projection_.matrices) == 4
    assert len(features.get_feature_names_out()) == maps.n_features


def test_images_that_cannot_be_read_are_left_to_the_fit(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    assert components(2).fit([*IMAGES, broken]).projection_.sizes == [2] * 4
    with pytest.raises(ValueError, match="needs images to find components in"):
        components(2).fit([broken])


def test_without_images_there_are_no_components():
    with pytest.raises(TypeError, match=r"n_components. needs images: fit\(X\)"):
        components(2).fit()


@pytest.mark.parametrize("wanted", [0, 0.0, -1, 1.5, "all", True])
def test_what_cannot_be_wanted(wanted):
    with pytest.raises(ValueError, match="`n_components` of DeepFeatures"):
        components(wanted).fit(IMAGES)


def test_a_search_over_components():
    model = MultiTaskSegmenter(features=components(None), random_state=0)
    grid = {"features__n_components": [None, 2, 0.9]}
    search = GridSearchCV(model, grid, cv=2).fit(IMAGES, MASKS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("finetune", [None, "all"])
def test_a_decoder_learns_from_components(finetune):
    head = SharedDecoder(width=8, n_epochs=1, finetune=finetune)
    model = MultiTaskSegmenter(features=components(2), head=head, random_state=0)
    model.fit(IMAGES, MASKS)
    assert model.features_.projection_ is not None
    assert model.predict(IMAGES[:1])[0].shape == MASKS[0].shape


def test_no_more_than_an_image_is_open_at_a_time():
    class Lazy(list):
        opened = 0

        def __getitem__(self, index):
            Lazy.opened += 1
            return super().__getitem__(index)

    source = Lazy(IMAGES * 20)
    some = Images(source).some(spread_evenly(len(source)))
    assert (len(some), Lazy.opened) == (SAMPLE, 0)
    np.testing.assert_allclose(some[SAMPLE - 1][0] * 255, IMAGES[-1], atol=1e-3)
    assert Lazy.opened == 1


@pytest.mark.parametrize("verbose", [0, 1])
def test_workers_know_the_components(verbose):
    model = MultiTaskSegmenter(
        features=components(2), head=JointRidge(1e-3), random_state=0, verbose=verbose
    )
    images, masks = IMAGES * 2, MASKS * 2
    one = model.fit(images, masks).pixel_head_.coef_
    two = clone(model).set_params(n_jobs=2).fit(images, masks).pixel_head_.coef_
    np.testing.assert_array_equal(one, two)


def test_a_checkpoint_of_other_components_is_refused(tmp_path):
    model = MultiTaskSegmenter(
        features=components(2), random_state=0, checkpoint=tmp_path / "kept"
    )
    broken = [*IMAGES * 4, np.zeros(3, np.uint8)]
    with pytest.raises(ImageError):
        model.fit(broken, [*MASKS * 4, MASKS[0]])
    others = [255 - image // 2 for image in IMAGES * 2] + broken[12:]
    with pytest.raises(CheckpointError, match="other parameters"):
        model.fit(others, [*MASKS * 4, MASKS[0]])
