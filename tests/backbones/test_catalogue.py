"""Networks with short names, and what happens where weights cannot be fetched."""

import socket
import urllib.request

import pytest

from mtsk import DeepFeatures
from mtsk.backbones import CATALOGUE, known_backbones, load_backbone
from mtsk.exceptions import WeightsError


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_is_known_to_timm(name):
    entry = CATALOGUE[name]
    assert name in known_backbones()
    assert entry.licence
    assert entry.repository.startswith("timm/")
    assert entry.n_parameters > 1e7


@pytest.mark.parametrize("name", ["dinov2-small", "dinov3-small", "sam2-tiny"])
def test_strides_are_those_of_the_taps(name):
    backbone = load_backbone(name, weights="random")
    strides = tuple(sorted({tap.stride for tap in backbone.taps}))
    assert strides == CATALOGUE[name].strides


@pytest.mark.parametrize("name", ["dinov3-small", "torchvision:regnet_y_400mf"])
def test_without_a_network_a_download_fails_once(name, monkeypatch, tmp_path):
    tried = []

    def unreachable(address, timeout=None):
        tried.append(address)
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"cannot be reached .*weights=."):
        DeepFeatures(name).fit()
    assert len(tried) == 1
