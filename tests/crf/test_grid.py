"""PixelCRF: messages between pixels, against a graph that says the same."""

import numpy as np
import pytest
from scipy.special import softmax

from mtsk.crf import PixelCRF


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    guide = rng.normal(0, 4, (13, 17, 3)).astype(np.float32)
    scores = rng.normal(0, 1, (13, 17, 4)).astype(np.float32)
    return scores, guide


def crf(**parameters):
    model = PixelCRF(
        **{"strength": 0.7, "distances": (1, 3), "stride": 1, **parameters}
    )
    return model.fit([], [])


def by_loops(scores, guide, strength, contrast, distances, n_sweeps):
    """Parallel mean field, pixel by pixel."""
    height, width, _ = scores.shape
    told = np.zeros(scores.shape)
    for _ in range(n_sweeps):
        q = softmax(scores + told, axis=2)
        told = np.zeros(scores.shape)
        for y in range(height):
            for x in range(width):
                for r in distances:
                    for dy, dx in np.ndindex(3, 3):
                        v, u = y + r * (dy - 1), x + r * (dx - 1)
                        if (v, u) == (y, x) or not (0 <= v < height and 0 <= u < width):
                            continue
                        apart = ((guide[y, x] - guide[v, u]) ** 2).sum()
                        weight = np.exp(-apart / 2 / contrast**2)
                        told[y, x] += strength * weight * q[v, u]
    return told


def test_messages_are_those_of_mean_field_by_loops(photo):
    scores, guide = photo
    found = crf(contrast=5.0, n_sweeps=2).messages(scores, guide)
    theirs = by_loops(scores.astype(float), guide, 0.7, 5.0, (1, 3), 2)
    np.testing.assert_allclose(found, theirs, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_bands_give_what_the_whole_gives(photo, stride, monkeypatch):
    scores, guide = photo
    model = crf(stride=stride)
    whole = model.messages(scores, guide)
    assert whole.shape == scores.shape
    monkeypatch.setattr(PixelCRF, "pixels_at_once", 40)
    np.testing.assert_allclose(model.messages(scores, guide), whole, atol=1e-5)


def test_labels_and_sides_may_be_permuted(photo):
    scores, guide = photo
    model = crf()
    whole = model.messages(scores, guide)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(
        model.messages(scores[..., order], guide), whole[..., order], atol=1e-5
    )
    flipped = model.messages(scores[:, ::-1], guide[:, ::-1])
    np.testing.assert_allclose(flipped[:, ::-1], whole, atol=1e-5)


def test_a_line_of_one_pixel_survives_and_specks_do_not():
    truth = np.zeros((32, 32), int)
    truth[:, 15] = 1
    guide = np.where(truth == 1, 60.0, 0.0)[..., None]
    scores = np.stack([np.zeros((32, 32)), np.where(truth == 1, 1.0, -1.0)], axis=2)
    scores[4, 4, 1] = scores[20, 25, 1] = 0.5  # looks like all around it
    found = scores + crf(distances=(1, 2, 4)).messages(scores, guide)
    np.testing.assert_array_equal(found.argmax(axis=2), truth)


def test_the_strength_is_found_and_may_be_0():
    rng = np.random.default_rng(0)
    truth = np.zeros((24, 24))
    truth[:, 12:] = 1
    scores = np.stack([np.zeros((24, 24)), 2 * truth - 1], axis=2)
    noisy = scores + rng.normal(0, 2, scores.shape)
    guide = 50 * truth[..., None]
    helped = PixelCRF(stride=1).fit([(noisy, guide)] * 2, [truth] * 2)
    assert helped.strength_ > 0
    assert helped.search_[helped.strength_] > helped.search_[0.0]
    salt = rng.integers(0, 2, (24, 24)).astype(float)
    sure = np.stack([np.zeros((24, 24)), 2 * salt - 1], axis=2) / 5
    alone = PixelCRF(stride=1).fit([(sure, guide)], [salt])
    assert alone.strength_ == 0
    assert not alone.messages(noisy, guide).any()


def test_tiny_images(photo):
    scores, guide = photo
    model = PixelCRF(strength=1).fit([], [])
    assert model.messages(scores[:1, :1], guide[:1, :1]).shape == (1, 1, 4)
    assert np.isfinite(model.messages(scores[:2, :5], guide[:2, :5])).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"strength": -1}, "`strength` of PixelCRF"),
        ({"contrast": 0}, "`contrast` of PixelCRF"),
        ({"distances": ()}, "`distances` of PixelCRF"),
        ({"distances": (0, 2)}, "`distances` of PixelCRF"),
        ({"distances": 3}, "`distances` parameter|`distances` of PixelCRF"),
        ({"stride": 0}, "`stride` of PixelCRF"),
        ({"n_sweeps": 0}, "`n_sweeps` of PixelCRF"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        crf(**parameters)


def test_bad_maps(photo):
    scores, guide = photo
    with pytest.raises(ValueError, match="maps of one size"):
        crf().messages(scores, guide[:5])
    with pytest.raises(ValueError, match="at least one image"):
        PixelCRF().fit([], [])
