"""Law 6: what a network gives for an image does not depend on the rest of a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support import Slight, Worldly
from timm.layers import Conv2dSame
from torch import nn

from mtsk import DeepFeatures
from mtsk.backbones import Backbone, load_backbone
from mtsk.backbones.hooks import HookedTaps
from mtsk.backbones.onednn import OneDNNConv2d, use_onednn
from mtsk.testing import toy_images


@pytest.fixture
def threads():
    """Set torch's threads; they are as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@given(
    st.tuples(st.integers(1, 130), st.integers(1, 130)),
    st.sampled_from([2, 3, 8, 15, 16, 17]),
    st.integers(0, 100),
)
@settings(max_examples=25, deadline=None)
def test_the_bundled_network_sees_each_image_alone(size, n, seed):
    backbone = load_backbone()
    if not backbone.batch_invariant:
        pytest.skip("on this machine images go through one by one")
    noise = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, *size, generator=noise)
    together = backbone(images)
    for i in (0, n // 2, n - 1):
        alone = backbone(images[i : i + 1])
        for batch, tap in zip(together, alone, strict=True):
            assert torch.equal(batch[i], tap[0])


@pytest.mark.parametrize("size", [(32, 40), (96, 96), (180, 240)])
def test_the_number_of_threads_changes_nothing(size, threads):
    backbone = load_backbone()
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    threads(1)
    one = backbone(images)
    threads(2)
    assert all(torch.equal(a, b) for a, b in zip(one, backbone(images), strict=True))


def test_the_bundled_network_takes_batches_where_it_can():
    kinds = ("AVX2", "AVX512")
    if torch.backends.cpu.get_cpu_capability() not in kinds:
        pytest.skip("known for processors with AVX2 and AVX-512 alone")
    assert load_backbone().batch_invariant


def wrapped(network, **more):
    names = ["first", "second"]
    return Backbone("mine", network, HookedTaps(tuple(names)), names, **more)


class Sociable(Slight):
    """An image is changed, by a little, by the mean of its batch."""

    def forward(self, x):
        return super().forward(x + 1e-6 * x.mean())


def test_a_network_that_only_says_so_is_found_out():
    honest, sociable = Slight(), Sociable()
    for network in (honest, sociable):
        use_onednn(network)
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert wrapped(honest, takes_batches=True).batch_invariant
    assert not wrapped(honest).batch_invariant
    assert not wrapped(sociable, takes_batches=True).batch_invariant


@pytest.mark.parametrize("network", [Slight, Worldly])
@pytest.mark.parametrize("batch_size", [None, 2, 5])
def test_any_network_gives_the_same_in_any_company(network, batch_size):
    images, _ = toy_images(5)
    features = DeepFeatures(
        network(), taps=["first", "second"], scales=[1, 2], batch_size=batch_size
    ).fit()
    together = features.transform(images)
    for image, maps in zip(images, together, strict=True):
        (alone,) = features.transform(image[None])
        for a, b in zip(alone.taps, maps.taps, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_components", [1, 3, 0.9])
def test_components_of_an_image_are_the_same_in_any_company(n_components):
    images, _ = toy_images(5, (32, 40))
    features = DeepFeatures(
        n_components=n_components, dtype="float32", scales=[1], batch_size=5
    ).fit(images)
    for image, maps in zip(images, features.transform(images), strict=True):
        (alone,) = features.transform(image[None])
        for a, b in zip(alone.taps, maps.taps, strict=True):
            np.testing.assert_array_equal(a, b)


# -- the convolution ----------------------------------------------------------


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.Conv2d(6, 12, 1, bias=False),
        nn.Conv2d(6, 6, 5, padding=2, groups=6),
        nn.Conv2d(6, 4, 3, padding=2, dilation=2),
        Conv2dSame(6, 8, 3, stride=2),
        Conv2dSame(6, 6, 5, stride=2, groups=6),
    ],
)
@pytest.mark.parametrize("size", [(7, 9), (8, 8)])
def test_onednns_convolution_is_torchs(conv, size):
    x = torch.rand(2, 6, *size, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(conv)
    use_onednn(network)
    if torch.backends.mkldnn.is_available():
        assert isinstance(network[0], OneDNNConv2d)
    assert set(network.state_dict()) == {f"0.{name}" for name in conv.state_dict()}
    with torch.inference_mode():
        # Two libraries round sums of 150 products of about 0.1 each.
        torch.testing.assert_close(network(x), conv(x), rtol=1e-5, atol=1e-6)
    network(x).sum().backward()  # with gradients it is torch's own
    assert network[0].weight.grad.abs().sum() > 0
