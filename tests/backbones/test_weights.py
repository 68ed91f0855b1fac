"""Weights from files: what is asked for, or an error that says why not."""

import copy
import hashlib
import pickle

import pytest
import torch
from tests_support import tiny

from mtsk.backbones import (
    BUNDLED,
    load_backbone,
)
from mtsk.backbones.weights import check_sha256, load_state, read_weights
from mtsk.exceptions import MtskError, WeightsError


@pytest.fixture
def resnet_state():
    import timm

    return timm.create_model("resnet18").state_dict()


@pytest.fixture
def saved(tmp_path, resnet_state):
    path = tmp_path / "resnet18.pth"
    torch.save(resnet_state, path)
    return path


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_from_a_file(saved, resnet_state):
    one = load_backbone("timm:resnet18", weights=saved)
    two = load_backbone(
        "timm:resnet18", weights=str(saved), weights_sha256=sha256_of(saved)
    )
    assert one.digest == two.digest
    assert one.digest != load_backbone("timm:resnet18", weights="random").digest


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_forms_of_weight_files(tmp_path, wrapper, suffix):
    state, path = tiny().state_dict(), tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save({wrapper: state} if wrapper else state, path)
    got = read_weights(path)
    assert got.keys() == state.keys()
    assert all(torch.equal(got[k], state[k]) for k in state)


def test_wrong_hash(saved):
    with pytest.raises(
        WeightsError, match=r"resnet18\.pth.* have SHA-256 .*expected 00ff"
    ):
        load_backbone("timm:resnet18", weights=saved, weights_sha256="00ff" * 16)
    check_sha256(saved, sha256_of(saved).upper())
    assert issubclass(WeightsError, OSError)
    assert issubclass(WeightsError, MtskError)


@pytest.mark.parametrize("name", [BUNDLED, "timm:resnet18", "torchvision:resnet18"])
def test_missing_file(tmp_path, name):
    with pytest.raises(WeightsError, match=r"no weights file at .*gone\.pth"):
        load_backbone(name, weights=tmp_path / "gone.pth")


def test_hash_of_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot read weights .*gone\.pth"):
        check_sha256(tmp_path / "gone.pth", "00" * 32)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"not weights at all", b"PK\x03\x04 half a zip"]
)
def test_garbage_file(tmp_path, suffix, content):
    path = tmp_path / f"garbage.{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"cannot read weights .*garbage"):
        read_weights(path)


def test_truncated_file(saved):
    saved.write_bytes(saved.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot read weights"):
        read_weights(saved)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('this must never run')",))


def test_nothing_in_a_file_is_run(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(WeightsError, match=r"cannot read weights .*evil"):
        read_weights(path)
    torch.save({"weight": Evil()}, path)
    with pytest.raises(WeightsError, match=r"cannot read weights .*evil"):
        read_weights(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(
        WeightsError, match=r"other\.pth' holds no state dict of tensors"
    ):
        read_weights(path)


def test_weights_of_another_network(saved):
    with pytest.raises(
        WeightsError, match=r"do not fit the network: \d+ tensors missing"
    ):
        load_backbone(weights=saved)


def test_state_of_other_shapes_is_told():
    network, state = tiny(), tiny().state_dict()
    state["head.weight"] = torch.zeros(3, 6)
    state["more"] = state.pop("head.bias")
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(
        WeightsError,
        match=r"weights mine do not fit.*1 tensors missing \['head.bias'\], "
        r"1 unknown \['more'\], 1 of another shape \['head.weight'\]",
    ):
        load_state(network, state, "mine")
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key])
