"""Images of many channels: every channel is seen where channels="each"."""

import numpy as np
import pytest

import mtsk
from mtsk import DeepFeatures, MultiTaskSegmenter, predict_tiled
from mtsk.exceptions import ImageError


def stained(n, shape=(48, 64), seed=0):
    """Five stains, each of a kind of disc of its own; label k is stain k − 1."""
    rng = np.random.default_rng(seed)
    images = rng.integers(20, 40, (n, *shape, 5)).astype(np.uint8)
    labels = np.zeros((n, *shape), int)
    rows, columns = np.indices(shape)
    for i in range(n):
        for k in range(5):
            y, x = 10 + 26 * (k // 3), 10 + 20 * (k % 3)
            y, x = y + rng.integers(-2, 3), x + rng.integers(-2, 3)
            disc = (rows - y) ** 2 + (columns - x) ** 2 < 49
            kind = int(rng.integers(5))
            images[i, disc, kind] += 150
            labels[i][disc] = kind + 1
    return images, labels


def model(channels):
    features = DeepFeatures(scales=[1], channels=channels)
    return MultiTaskSegmenter(features=features, head="logistic", random_state=0)


def recalls(fitted, X, Y):
    found = fitted.predict(X)
    return np.array([(found == k)[k == Y].mean() for k in range(1, 6)])


def test_each_channel_is_seen(tmp_path):
    X, Y = stained(8)
    X_new, Y_new = stained(4, seed=1)
    every = model("each").fit(X, Y)
    three = model((0, 1, 2)).fit(X, Y)
    # Stains 3 and 4 are in no channel of the triple.
    assert (recalls(every, X_new, Y_new) > 0.8).all()
    assert (recalls(three, X_new, Y_new)[3:] < 0.6).all()
    with pytest.raises(ImageError, match="has 4 channels, those of fit had 5"):
        every.predict(X_new[..., :4])
    every.save(tmp_path / "m.mtsk")
    again = mtsk.load(tmp_path / "m.mtsk")
    np.testing.assert_array_equal(again.predict(X_new), every.predict(X_new))
    tiles = predict_tiled(every, X_new[0], tmp_path / "out.zarr", tile_size=32)
    whole = every.predict(X_new[:1])[0]
    assert (np.asarray(tiles) == whole).mean() > 0.98
    with pytest.raises(ImageError, match="has 4 channels, those of fit had 5"):
        predict_tiled(every, X_new[0, ..., :4], tmp_path / "other.zarr", tile_size=32)


def test_three_mixtures_of_the_channels(tmp_path):
    X, Y = stained(8)
    X_new, Y_new = stained(4, seed=1)
    mixed = model("pca").fit(X, Y)
    three = model((0, 1, 2)).fit(X, Y)
    assert mixed.features_.n_views == 1
    found, triple = recalls(mixed, X_new, Y_new), recalls(three, X_new, Y_new)
    assert found.mean() > triple.mean() + 0.1
    # The matrix spans the leading eigenvectors of the pixels' covariance.
    matrix = mixed.features_.channel_mixture_.matrix.astype(float)
    pixels = X.reshape(-1, 5) / 255
    vectors = np.linalg.eigh(np.cov(pixels.T))[1][:, :-4:-1]
    cosines = np.abs((matrix / np.linalg.norm(matrix, axis=0) * vectors).sum(axis=0))
    np.testing.assert_allclose(cosines, 1, atol=1e-3)
    views = mixed.features_.images(X)[0]
    assert views.min() >= 0
    assert views.max() <= 1
    with pytest.raises(ImageError, match="has 4 channels, those of fit had 5"):
        mixed.predict(X_new[..., :4])
    mixed.save(tmp_path / "m.mtsk")
    again = mtsk.load(tmp_path / "m.mtsk")
    np.testing.assert_array_equal(again.predict(X_new), mixed.predict(X_new))
    tiles = predict_tiled(mixed, X_new[0], tmp_path / "out.zarr", tile_size=32)
    assert (np.asarray(tiles) == mixed.predict(X_new[:1])[0]).mean() > 0.98


def test_mixtures_of_few_or_constant_channels_and_of_images_of_weight_0():
    grey = np.random.default_rng(0).random((4, 40, 48, 2)).astype(np.float32)
    fitted = DeepFeatures(scales=[1], channels="pca").fit(grey)
    assert fitted.channel_mixture_.matrix.shape == (2, 3)
    assert (fitted.channel_mixture_.matrix[:, 2] == 0).all()
    flat = DeepFeatures(scales=[1], channels="pca").fit(np.full((2, 40, 48, 4), 0.5))
    assert np.isfinite(flat.transform(np.full((2, 40, 48, 4), 0.5))[0].taps[0]).all()
    X, Y = stained(4)
    bad = np.concatenate([X, np.zeros_like(X[:1])])
    weight = [1, 1, 1, 1, 0]
    labels = np.concatenate([Y, Y[:1]])
    with_0 = model("pca").fit(bad, labels, sample_weight=weight)
    without = model("pca").fit(X, Y)
    np.testing.assert_array_equal(with_0.predict(X), without.predict(X))
    with pytest.raises(TypeError, match="channels='pca' needs images"):
        DeepFeatures(channels="pca").fit()
    with pytest.raises(ImageError, match="image 1 has 4 channels, others have 5"):
        DeepFeatures(channels="pca").fit([X[0], X[1][..., :4]])
