"""Loss of a column group over pixels of images, normalised beforehand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtsk.heads.class_weights import ClassWeight, class_power, log_priors
from mtsk.heads.losses import each_loss, null_loss
from mtsk.tasks.columns import ColumnGroup

__all__ = ["GroupLoss", "scores_at"]


class GroupLoss:
    """Losses divided by the null model's, entries weighted by their class.

    Every labelled image counts the same, however many of its pixels are labelled.

    Parameters
    ----------
    group : ColumnGroup
    columns : slice
        Where the group's columns lie in the coded targets.
    class_weight : {"sqrt", "balanced", None}
    """

    def __init__(
        self, group: ColumnGroup, columns: slice, class_weight: ClassWeight
    ) -> None:
        self.group, self.columns = group, columns
        self.power = class_power(class_weight)
        n_classes = {"nominal": group.size, "binary": 2, "real": 1}[group.kind]
        self.counts = np.zeros((group.n_columns, n_classes))
        self.sums = np.zeros((2, group.n_columns))
        self.labelled = 0.0  # images, by weight

    def count(self, targets: np.ndarray, weight: float) -> None:
        """Count the targets of an image, (n, all columns)."""
        own = targets[:, self.columns]
        known = ~np.isnan(own)
        if not known.any() or not weight:
            return
        self.labelled += weight
        share = weight / known.sum()
        if self.group.kind == "real":
            self.counts[:, 0] += share * known.sum(axis=0)
            self.sums += share * np.stack([np.nansum(own**p, axis=0) for p in (1, 2)])
            return
        for j, column in enumerate(own.T):
            codes = column[known[:, j]].astype(np.intp)
            self.counts[j] += share * np.bincount(codes, minlength=self.counts.shape[1])

    def settle(self, total: float) -> None:
        """Compute the class weights and the null model's loss.

        Parameters
        ----------
        total : float
            Weight of all images, labelled or not.
        """
        mass = self.counts.sum(axis=1, keepdims=True)
        prior = self.counts / np.maximum(mass, 1e-300)
        self.prior_correction = self.power * log_priors(self.group, prior)
        unit = np.where(prior > 0, prior.clip(1e-300) ** -self.power, 0.0)
        unit /= np.maximum((unit * prior).sum(axis=1, keepdims=True), 1e-300)
        self.shift = np.zeros(self.group.size, np.float32)
        self.scale = np.ones(self.group.size, np.float32)
        if self.group.kind == "real":
            unit = np.ones_like(prior)
            mean, square = self.sums / np.maximum(mass[:, 0], 1e-300)
            variance = square - mean**2
            self.shift = mean.astype(np.float32)
            varies = variance > 1e-12 * np.maximum(square, 1e-300)
            std = np.sqrt(np.where(varies, variance, 1.0))
            self.scale = std.astype(np.float32)
        null = null_loss(self.group, unit * self.counts / self.counts.sum())
        unit *= total / self.labelled / null
        self.unit = torch.from_numpy(unit.astype(np.float32))

    def choose(self, targets: Tensor, n_points: int) -> tuple[Tensor, Tensor] | None:
        """Return places and targets of some labelled pixels of an image.

        Parameters
        ----------
        targets : tensor of shape (H, W, all columns)
        n_points : int
            How many, at most as many as are labelled; drawn with replacement.

        Returns
        -------
        places : tensor of int, shape (n, 2)
        targets : tensor of shape (n, n_columns)
        """
        own = targets[..., self.columns]
        known = torch.nonzero(~own.isnan().all(dim=-1))
        if not len(known):
            return None
        n = min(n_points, len(known))
        places = known[torch.randint(len(known), (n,))]
        return places, own[places[:, 0], places[:, 1]]

    def of(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of some entries.

        Parameters
        ----------
        scores : tensor of shape (n, size)
        targets : tensor of shape (n, n_columns)
            NaN missing.
        """
        known = ~targets.isnan()
        codes = torch.where(known, targets, 0.0)
        if self.group.kind == "real":
            shift, scale = torch.from_numpy(self.shift), torch.from_numpy(self.scale)
            codes = (codes - shift.to(codes)) / scale.to(codes)
            unit = self.unit.to(scores)[:, 0].expand_as(codes)
        else:
            columns = torch.arange(codes.shape[1], device=codes.device)
            unit = self.unit.to(scores)[columns, codes.long()]
        losses = each_loss(self.group, scores, codes)
        return (losses * unit * known).sum() / known.sum().clamp(min=1)


def scores_at(maps: Tensor, places: Tensor, stride: float) -> Tensor:
    """Return score maps at pixels, interpolated as upsampling would.

    Parameters
    ----------
    maps : tensor of shape (K, h, w)
    places : tensor of int, shape (n, 2)
        Rows and columns of pixels.
    stride : float
        Pixels per cell.

    Returns
    -------
    tensor of shape (n, K)
    """
    size = torch.tensor(maps.shape[1:], device=maps.device)
    grid = ((places + 0.5) / stride * 2 / size - 1).flip(-1)
    found = functional.grid_sample(
        maps[None],
        grid[None, None].to(maps),
        padding_mode="border",
        align_corners=False,
    )
    return found[0, :, 0].T
