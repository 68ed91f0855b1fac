"""Folding: normalisations become part of convolutions, where that is the same."""

import copy

import numpy as np
import pytest
import torch
from tests_support import n_hooks, noise, shake, tiny
from torch import nn

from mtsk.backbones.fold import fold_batch_norm


def equal_after_folding(network, atol=1e-5):
    network = shake(network).eval()
    folded = fold_batch_norm(network)
    x = noise()
    with torch.inference_mode():
        np.testing.assert_allclose(folded(x), network(x), atol=atol)
    return folded


def n_norms(network):
    return sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_folding_leaves_the_original_alone():
    network = tiny().eval()
    before = copy.deepcopy(network.state_dict())
    folded = equal_after_folding(network)
    assert n_norms(folded) == 0
    assert n_norms(network) == 2
    assert before.keys() == network.state_dict().keys()
    assert n_hooks(network) == n_hooks(folded) == 0


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.other = nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU()


class ReadTwiceByModules(Norms):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + self.other(y)


class ReadTwiceByFunctions(Norms):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + torch.relu(y)


class ConvolutionUsedTwice(Norms):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.other(self.conv(x.flip(3)))


class NormUsedTwice(Norms):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm(self.other(self.norm(self.conv(x))))


class NormAlsoUsedElsewhere(Norms):
    def forward(self, x):
        return self.norm(self.act(self.norm(self.conv(x))))


class ActivationBetween(Norms):
    def forward(self, x):
        return self.norm(self.act(self.conv(x)))


class ActivationBetweenInPlace(Norms):
    def forward(self, x):
        return self.norm(nn.functional.relu_(self.conv(x)))


class OutputIsTheConvolution(Norms):
    def forward(self, x):
        y = self.conv(x)
        return torch.cat([self.norm(y), y], dim=1)


@pytest.mark.parametrize(
    "make",
    [
        ReadTwiceByModules,
        ReadTwiceByFunctions,
        ConvolutionUsedTwice,
        NormUsedTwice,
        NormAlsoUsedElsewhere,
        ActivationBetween,
        ActivationBetweenInPlace,
        OutputIsTheConvolution,
    ],
)
def test_what_must_not_be_folded(make):
    torch.manual_seed(0)
    folded = equal_after_folding(make())
    assert n_norms(folded) == 1


def test_a_normalisation_with_its_activation_keeps_it():
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4))
    folded = equal_after_folding(network)
    assert n_norms(folded) == 0
    with torch.inference_mode():
        assert folded(noise()).min() == 0


@pytest.mark.parametrize("groups", [1, 4])
def test_grouped_and_biased_convolutions(groups):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 8, 3, groups=groups),
        nn.BatchNorm2d(8, affine=True),
    )
    assert n_norms(equal_after_folding(network)) == 0
