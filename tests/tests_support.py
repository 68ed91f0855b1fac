"""A small network that counts the images it sees."""

from __future__ import annotations

import torch
from torch import nn


class Counting(nn.Module):
    """Two strides; ``images`` counts inputs that are not the probe of taps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.images = 0

    def forward(self, x):
        probe = x.shape[2:] == (128, 256)
        self.images += 0 if probe else len(x)
        return self.second(torch.relu(self.first(x)))
