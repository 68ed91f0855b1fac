"""What several test files share: small networks, and runs that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn


class Counting(nn.Module):
    """Two strides; ``images`` counts inputs as small as toys, not probes of taps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.images = 0

    def forward(self, x):
        self.images += len(x) if x.shape[2] < 100 else 0
        return self.second(torch.relu(self.first(x)))


class Slight(nn.Module):
    """Strides 2 and 4, and a small field: a network for tiles of toy size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 6, 5, stride=2, padding=2)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


class Worldly(Slight):
    """The same, but every place knows the mean of the image."""

    def forward(self, x):
        return super().forward(x - x.mean(dim=(2, 3), keepdim=True))


KILLS = int(os.environ.get("MTSK_KILLS", "2"))  # more where there is time


def run_until_done(script: str, longest: float, seed: int = 0) -> None:
    """Run a script that says "ready" and "done"; kill -9 it KILLS times before."""
    random = np.random.default_rng(seed)
    kills, finished = 0, False
    while not finished:
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as run:
            assert run.stdout.readline() == "ready\n"
            if kills < KILLS:
                time.sleep(random.uniform(0.02, longest))
                run.send_signal(signal.SIGKILL)
            finished = "done" in run.stdout.read()
        assert finished or kills < KILLS, "left alone, it did not end"
        kills += 1


def shake(network):
    """Give normalisations statistics worth folding, as after training."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.data = torch.rand(tensor.shape, generator=generator) - 0.3
            module.running_var = (
                torch.rand(module.running_var.shape, generator=generator) + 0.5
            )
    return network


class Tiny(nn.Module):
    """Strides 2 and 4, a module that never runs, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.body = nn.Sequential(
            nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.unused = nn.Conv2d(6, 6, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.pool(self.body(self.stem(x))).flatten(1))


def tiny():
    torch.manual_seed(0)
    return shake(Tiny())


def noise(height=64, width=64, n=2):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(2))


def n_hooks(network):
    return sum(len(m._forward_hooks) for m in network.modules())
