"""Stochastic gradient descent on the losses of several tasks at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mtsk._progress import progress_bar
from mtsk.heads.weighting import TaskWeighting

__all__ = ["Trainer", "numpy_state"]

B = TypeVar("B")


@dataclass(frozen=True)
class Trainer:
    """AdamW with one cycle of the learning rate (Smith & Topin, 2018).

    Attributes
    ----------
    weighting : TaskWeighting
        Combines several losses into one step of shared parameters.
    n_tasks, n_epochs, n_steps : int
        Numbers of tasks, of epochs, and of steps per epoch.
    learning_rate : float
        Maximum of the cycle, reached after a fifth of the steps.
    weight_decay : float
    seed : int
    desc : str
        Label of the progress bar.
    verbose : int
        Above 0 shows the progress bar.
    """

    weighting: TaskWeighting
    n_tasks: int
    n_epochs: int
    n_steps: int
    learning_rate: float
    weight_decay: float
    seed: int
    desc: str
    verbose: int = 0

    def epochs(
        self,
        network: nn.Module,
        shared: Sequence[nn.Parameter],
        batches: Callable[[int], Iterable[B]],
        losses: Callable[[B], tuple[Tensor, Tensor]],
        tuned: Sequence[nn.Parameter] = (),
        tuned_learning_rate: float = 0.0,
    ) -> Iterator[np.ndarray]:
        """Train; yield the mean loss of each task after every epoch.

        Parameters
        ----------
        network : Module
        shared : sequence of Parameter
            Parameters updated by several tasks' losses.
        batches : callable
            Takes the index of an epoch; returns its ``n_steps`` batches.
        losses : callable
            Takes a batch; returns the losses of the tasks labelled in it and their
            indices.
        tuned : sequence of Parameter, default=()
            Other parameters to train, at ``tuned_learning_rate``.
        tuned_learning_rate : float, default=0

        Yields
        ------
        ndarray of shape (n_tasks,)
            NaN for a task that had no label.

        Raises
        ------
        ValueError
            Where training diverges.
        """
        own = self.weighting.start(self.n_tasks, self.seed)
        decay = {"weight_decay": self.weight_decay}
        groups: list[tuple[dict[str, Any], float]] = [
            ({"params": list(network.parameters()), **decay}, self.learning_rate),
            ({"params": list(tuned), **decay}, tuned_learning_rate),
            ({"params": own, "weight_decay": 0.0}, self.learning_rate),
        ]
        optimiser = torch.optim.AdamW(
            [group for group, _ in groups], lr=self.learning_rate
        )
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            [rate for _, rate in groups],
            total_steps=self.n_epochs * self.n_steps,
            pct_start=0.2,
        )
        bar = progress_bar(
            range(self.n_epochs), desc=self.desc, disable=not self.verbose, unit="epoch"
        )
        for epoch in bar:
            network.train()
            sums = np.zeros((2, self.n_tasks))
            for batch in batches(epoch):
                found, tasks = losses(batch)
                if len(tasks):
                    optimiser.zero_grad()
                    self.weighting.backward(found, tasks, shared)
                    optimiser.step()
                    sums[0, tasks.numpy()] += found.detach().cpu().numpy()
                    sums[1, tasks.numpy()] += 1
                cycle.step()
            means = np.where(sums[1] > 0, sums[0] / np.maximum(sums[1], 1), np.nan)
            if not np.isfinite(means[sums[1] > 0]).all():
                raise ValueError(
                    f"training diverged in epoch {epoch + 1}; lower `learning_rate` "
                    f"(now {self.learning_rate}), or bring the targets' numbers to a "
                    "common scale"
                )
            self.weighting.after_epoch(means)
            yield means


def numpy_state(network: nn.Module) -> dict[str, np.ndarray]:
    """Return a copy of a network's parameters as arrays."""
    state = network.state_dict().items()
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state}
