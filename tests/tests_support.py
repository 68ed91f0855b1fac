"""A small network that counts the images it sees."""

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


KILLS = int(os.environ.get("MTSK_KILLS", "3"))  # more where there is time


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
