"""Task weighting: combines several losses into one step of shared parameters.

Independent studies (Kurin et al., NeurIPS 2022; Xin et al., NeurIPS 2022) found that a
plain sum, well regularised, is hard to beat; `Equal` is the default here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from mtsk._validation import parameter_error

__all__ = [
    "FAMO",
    "DynamicWeightAverage",
    "Equal",
    "Fixed",
    "GeometricMean",
    "GradNorm",
    "PCGrad",
    "TaskWeighting",
    "Uncertainty",
    "make_weighting",
]


class TaskWeighting:
    """Base of the strategies; subclasses override what they need, often `weights`.

    Losses are divided by those of the null model, which predicts each task's prior and
    so has loss 1. Tasks without a label in the batch are left out.
    """

    def start(self, n_tasks: int, seed: int) -> list[nn.Parameter]:
        """Prepare for a fit; return parameters that are learnt with the network's.

        Parameters
        ----------
        n_tasks : int
        seed : int
        """
        self.n_tasks = n_tasks
        return []

    def weights(self, losses: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """Return the weight of each loss of this batch.

        Parameters
        ----------
        losses : tensor of shape (m,)
            Detached.
        tasks : tensor of int, shape (m,)
            Indices of the tasks, 0 … n_tasks − 1.

        Returns
        -------
        tensor of shape (m,)
        """
        return torch.ones_like(losses)

    def backward(
        self, losses: torch.Tensor, tasks: torch.Tensor, shared: Sequence[nn.Parameter]
    ) -> None:
        """Put gradients into all parameters.

        Parameters
        ----------
        losses : tensor of shape (m,)
        tasks : tensor of int, shape (m,)
        shared : sequence of Parameter
            Parameters that all tasks share.
        """
        (self.weights(losses.detach(), tasks) * losses).sum().backward()

    def after_epoch(self, losses: np.ndarray) -> None:
        """Update from each task's mean loss over an epoch, NaN where it had none.

        Parameters
        ----------
        losses : ndarray of shape (n_tasks,)
        """


class Equal(TaskWeighting):
    """The plain sum of the normalised losses."""


class Fixed(TaskWeighting):
    """Weights that the user gives.

    Parameters
    ----------
    values : sequence of float >= 0
        One per task.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.values = torch.tensor([float(v) for v in values])

    def weights(self, losses: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        return self.values.to(losses)[tasks]


class Uncertainty(TaskWeighting):
    """Σ exp(−s_t) L_t + s_t, s_t learnt (Kendall, Gal & Cipolla, CVPR 2018, eq. 7)."""

    def start(self, n_tasks: int, seed: int) -> list[nn.Parameter]:
        super().start(n_tasks, seed)
        self.log_variance = nn.Parameter(torch.zeros(n_tasks))
        return [self.log_variance]

    def backward(
        self, losses: torch.Tensor, tasks: torch.Tensor, shared: Sequence[nn.Parameter]
    ) -> None:
        s = self.log_variance.to(losses.device)[tasks]
        (torch.exp(-s) * losses + s).sum().backward()


class GeometricMean(TaskWeighting):
    """The geometric mean of the losses (Chennupati et al., CVPRW 2019)."""

    def weights(self, losses: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        positive = losses.clamp(min=1e-8)
        return positive.log().mean().exp() / positive


class DynamicWeightAverage(TaskWeighting):
    """Losses that fall slower weigh more (Liu, Johns & Davison, CVPR 2019, eq. 7).

    Parameters
    ----------
    temperature : float, default=2.0
    """

    def __init__(self, temperature: float = 2.0) -> None:
        self.temperature = temperature

    def start(self, n_tasks: int, seed: int) -> list[nn.Parameter]:
        self.before, self.last = np.full(n_tasks, np.nan), np.full(n_tasks, np.nan)
        return super().start(n_tasks, seed)

    def weights(self, losses: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        rate = self.last / self.before
        rate = torch.from_numpy(np.where(np.isfinite(rate), rate, 1.0)).to(losses)
        return self.n_tasks * torch.softmax(rate / self.temperature, dim=0)[tasks]

    def after_epoch(self, losses: np.ndarray) -> None:
        self.before, self.last = self.last, losses


class GradNorm(TaskWeighting):
    """Weights that equalise gradient norms (Chen et al., ICML 2018, algorithm 1).

    Norms are those of the last shared layer.

    Parameters
    ----------
    alpha : float, default=1.5
        Exponent that favours tasks that train more slowly than the others.
    rate : float, default=0.025
        Learning rate of the weights.
    """

    def __init__(self, alpha: float = 1.5, rate: float = 0.025) -> None:
        self.alpha, self.rate = alpha, rate

    def start(self, n_tasks: int, seed: int) -> list[nn.Parameter]:
        self.values = torch.ones(n_tasks)
        self.first = torch.full((n_tasks,), torch.nan)
        return super().start(n_tasks, seed)

    def backward(
        self, losses: torch.Tensor, tasks: torch.Tensor, shared: Sequence[nn.Parameter]
    ) -> None:
        now = losses.detach().cpu()
        first = self.first[tasks]
        self.first[tasks] = torch.where(first.isnan(), now.clamp(min=1e-8), first)
        last = [p for p in shared if p.ndim > 1][-1]
        norms = torch.stack(
            [
                torch.autograd.grad(loss, last, retain_graph=True)[0].norm().cpu()
                for loss in losses
            ]
        )
        weights = self.values[tasks]
        rate = now / self.first[tasks]
        rate = rate / rate.mean().clamp(min=1e-8)
        goal = (weights * norms).mean() * rate**self.alpha
        # d/dw Σ |w g − goal|, the goal held fixed
        slope = torch.sign(weights * norms - goal) * norms
        self.values[tasks] = (weights - self.rate * slope).clamp(min=1e-3)
        self.values *= self.n_tasks / self.values.sum()
        (self.values[tasks].to(losses) * losses).sum().backward()


class FAMO(TaskWeighting):
    """Fast adaptive multitask optimisation (Liu et al., NeurIPS 2023, algorithm 1).

    Weights are softmax(ξ); after each step ξ moves so that all log-losses fall equally.
    The decrease is measured from one batch to the next; the paper evaluates the same
    batch twice.

    Parameters
    ----------
    rate : float, default=0.025
    decay : float, default=1e-3
    """

    def __init__(self, rate: float = 0.025, decay: float = 1e-3) -> None:
        self.rate, self.decay = rate, decay

    def start(self, n_tasks: int, seed: int) -> list[nn.Parameter]:
        self.xi = torch.zeros(n_tasks)
        self.last = torch.full((n_tasks,), torch.nan)
        return super().start(n_tasks, seed)

    def weights(self, losses: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        now = losses.cpu().clamp(min=1e-8).log()
        fall = torch.zeros_like(self.xi)
        fall[tasks] = (self.last[tasks] - now).nan_to_num(0.0)
        share = torch.softmax(self.xi, 0)
        slope = share * (fall - (share * fall).sum())  # Jacobian of softmax × fall
        self.xi = (1 - self.rate * self.decay) * self.xi - self.rate * slope
        self.last[tasks] = now
        share = torch.softmax(self.xi, 0)[tasks]
        inverse = share / losses.cpu().clamp(min=1e-8)
        return (len(share) * inverse / inverse.sum()).to(losses)


class PCGrad(TaskWeighting):
    """Removes the conflicting components of the tasks' gradients.

    Gradient surgery (Yu et al., NeurIPS 2020, algorithm 1), on the shared parameters.
    """

    def start(self, n_tasks: int, seed: int) -> list[nn.Parameter]:
        self.random = np.random.default_rng(seed)
        return super().start(n_tasks, seed)

    def backward(
        self, losses: torch.Tensor, tasks: torch.Tensor, shared: Sequence[nn.Parameter]
    ) -> None:
        params = list(shared)
        grads = [
            torch.cat(
                [
                    g.reshape(-1)
                    for g in torch.autograd.grad(loss, params, retain_graph=True)
                ]
            )
            for loss in losses
        ]
        total = torch.zeros_like(grads[0])
        for i, own in enumerate(grads):
            kept = own.clone()
            for j in self.random.permutation(len(grads)):
                dot = kept @ grads[j]
                if j != i and dot < 0:
                    kept -= dot / (grads[j] @ grads[j]) * grads[j]
            total += kept
        losses.sum().backward()  # for parameters of a single task
        start = 0
        for p in params:
            p.grad = total[start : start + p.numel()].view_as(p).clone()
            start += p.numel()


STRATEGIES: dict[str, type[TaskWeighting]] = {
    "equal": Equal,
    "uncertainty": Uncertainty,
    "geometric": GeometricMean,
    "gradnorm": GradNorm,
    "dwa": DynamicWeightAverage,
    "famo": FAMO,
    "pcgrad": PCGrad,
}
"""Strategies with a name."""


_GREATEST = 1e6  # of a weight: keeps float32 gradients far from overflow


def make_weighting(given: Any, n_tasks: int, owner: object) -> TaskWeighting:
    """Return the strategy given by a parameter ``task_weights``.

    Parameters
    ----------
    given : str, TaskWeighting, sequence of float, or mapping of int to float
        Tasks that a mapping does not name get weight 1.
    n_tasks : int
    owner : object
        Named in errors.

    Returns
    -------
    TaskWeighting

    Raises
    ------
    InvalidParameterError
    """
    allowed = (
        f"one of {sorted(STRATEGIES)}, a TaskWeighting, or numbers from 0 to "
        f"{_GREATEST:g}, not all 0, one for each of {n_tasks} tasks"
    )
    if isinstance(given, str) and given in STRATEGIES:
        return STRATEGIES[given]()
    if isinstance(given, TaskWeighting):
        return deepcopy(given)  # fit modifies it, and must not modify a parameter
    if isinstance(given, Mapping):
        if any(k not in range(n_tasks) for k in given):
            raise parameter_error("task_weights", owner, allowed, given)
        given = [given.get(t, 1.0) for t in range(n_tasks)]
    try:
        values = np.asarray(given)
    except ValueError:
        raise parameter_error("task_weights", owner, allowed, given) from None
    good = values.shape == (n_tasks,) and values.dtype.kind in "iuf" and values.any()
    if not good or not ((values >= 0) & (values <= _GREATEST)).all():
        raise parameter_error("task_weights", owner, allowed, given)
    return Fixed(values.tolist())
