"""Dropout whose random numbers cost little on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Dropout"]

_LEVELS = 256  # values of a random byte


class Dropout(nn.Module):
    """Dropout (Srivastava et al., *JMLR* 15, 2014), one random byte a unit on a CPU.

    Torch draws a random float for each unit, one after another: for the layers of
    `SharedLayerNetwork` that took a third of the time of a training step.

    Parameters
    ----------
    rate : float in [0, 1)
        Share of the units that are set to zero in training; the others are divided by
        ``1 - rate``. On a CPU it is rounded to a multiple of 1/256 below 1.

    Notes
    -----
    On a CPU the generator is seeded by torch's at construction.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._n_dropped = min(round(rate * _LEVELS), _LEVELS - 1)
        seed = int(torch.randint(2**62, ()))
        self._random = np.random.Generator(np.random.SFC64(seed))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.rate)
        drawn = np.frombuffer(self._random.bytes(x.numel()), np.uint8)
        kept = torch.from_numpy(drawn >= self._n_dropped).view(x.shape)
        scale = _LEVELS / (_LEVELS - self._n_dropped)
        return x * (kept.to(x.dtype) * scale)

    def extra_repr(self) -> str:
        """Return the rate, for the repr of a network."""
        return f"rate={self.rate}"
