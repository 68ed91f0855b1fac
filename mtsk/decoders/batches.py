"""Training batches of a decoder: images, taps and targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mtsk._resources import fast_bfloat16
from mtsk.data.augmentation import Augmentation
from mtsk.decoders.losses import GroupLoss, scores_at
from mtsk.decoders.networks import Decoder, TapInfo
from mtsk.decoders.pyramid import Pyramid, stack_pyramids
from mtsk.decoders.training_set import TrainingSet
from mtsk.decoders.tuning import trainable
from mtsk.exceptions import TargetError
from mtsk.features import DeepFeatures
from mtsk.heads.class_weights import ClassWeight
from mtsk.heads.statistics import inverse_std
from mtsk.tasks.columns import column_slices

__all__ = ["BatchLoader", "TrainingSettings"]

_MIRROR = np.array([[1.0, 0.0], [0.0, -1.0]])
_N_STANDARDISED = (
    64  # images by which taps are standardised, where they are not all kept
)


@dataclass
class TrainingSettings:
    """How a decoder is trained; see `SharedDecoder`."""

    stride: int
    batch_size: int
    n_points: int
    augment: Augmentation | None
    mirror: bool
    finetune: str | None
    class_weight: ClassWeight
    device: torch.device
    seed: int


@dataclass
class _Example:
    """One image in one view."""

    pyramid: Pyramid | None  # None: `views` go through the backbone
    views: np.ndarray | None
    pixels: Tensor  # (H, W, columns)
    whole: Tensor  # (columns,)
    weight: float


class BatchLoader:
    """Batches of examples, and the losses of a decoder on them.

    Parameters
    ----------
    training_set : TrainingSet
    features : DeepFeatures
        Fitted.
    settings : TrainingSettings

    Attributes
    ----------
    taps : list of TapInfo
    tuned : list of Parameter
        Parameters of the backbone to be trained too.
    group_losses : list of GroupLoss
    n_steps : int
        Batches of an epoch.
    """

    max_kept_bytes: ClassVar[int] = 4 * 2**30  # of taps; others are recomputed

    def __init__(
        self,
        training_set: TrainingSet,
        features: DeepFeatures,
        settings: TrainingSettings,
    ) -> None:
        self.training_set = training_set
        self.features, self.settings = features, settings
        self.backbone = features.network()
        self.tuned: list[Any] = []
        if settings.finetune is not None:
            self.backbone = self.backbone.copy()
            self.tuned = trainable(self.backbone, settings.finetune)
        on_cpu = settings.device.type == "cpu"
        self._half = fast_bfloat16() if on_cpu else settings.device.type == "cuda"
        pixel, image = training_set.pixel_groups, training_set.image_groups
        slices = [*column_slices(pixel), *column_slices(image)]
        self.group_losses = [
            GroupLoss(group, columns, settings.class_weight)
            for group, columns in zip([*pixel, *image], slices, strict=True)
        ]
        self.shapes: dict[int, tuple[int, int]] = {}
        self._kept: dict[int, Pyramid] = {}
        with torch.no_grad():
            self._count_and_standardise()

    # -- first pass -----------------------------------------------------------

    def _count_and_standardise(self) -> None:
        """Read every image once, for its shape, targets and tap statistics."""
        live = self.settings.augment is not None or self.settings.finetune is not None
        spread = _Spread()
        for index, pyramid in self._each_image() if live else self._each_kept_image():
            pixels, whole = self.training_set.encode(index, self.shapes[index])
            flat = pixels.reshape(pixels.shape[0] * pixels.shape[1], pixels.shape[2])
            if np.isnan(flat).all() and np.isnan(whole).all():  # no labels
                del self.shapes[index]
                self._kept.pop(index, None)
                continue
            if pyramid is not None:
                spread.add(pyramid)
            for t, loss in enumerate(self.group_losses):
                own = flat if t < len(self.training_set.pixel_groups) else whole[None]
                loss.count(own, self.training_set.weights[index])
        self.training_set.images.warn_of_skipped()
        if not self.shapes:
            raise TargetError("no image with a label was read: nothing to learn from")
        if not spread.taps:  # no image passed through has a label
            views = self.training_set.images[next(iter(self.shapes))]
            spread.add(self._through(views[None]))
        total = sum(float(self.training_set.weights[i]) for i in self.shapes)
        for name, loss in zip(self.training_set.owners, self.group_losses, strict=True):
            if not loss.labelled:
                raise TargetError(f"task {name!r}: no pixel of any image is labelled")
            loss.settle(total)
        self.taps = spread.taps
        self.mean, self.scale = spread.standards()
        alike = Counter(self._size(index) for index in self.shapes)
        self.n_steps = sum(-(-n // self.settings.batch_size) for n in alike.values())

    def _each_kept_image(self) -> Iterator[tuple[int, Pyramid]]:
        """Pass every image through the backbone; keep taps up to a memory limit."""
        n_bytes = 0
        for index, maps in self.features.iter_maps(
            self.training_set.images, to_host=True
        ):
            pyramid = Pyramid.of_maps(maps, self.settings.stride)
            self.shapes[index] = maps.shape
            n_bytes += pyramid.nbytes
            if n_bytes < self.max_kept_bytes:
                self._kept[index] = pyramid
            yield index, pyramid

    def _each_image(self) -> Iterator[tuple[int, Pyramid | None]]:
        """Read every image; pass some of them through the backbone."""
        step = max(1, len(self.training_set.images) // _N_STANDARDISED)
        for index, views in self.training_set.images:
            self.shapes[index] = views.shape[1], views.shape[2]
            yield index, self._through(views[None]) if index % step == 0 else None

    def standardise(self, network: Decoder) -> None:
        """Set the mean and scale of a decoder's taps."""
        network.mean.copy_(self.mean)
        network.scale.copy_(self.scale)

    # -- batches ----------------------------------------------------------------

    def batches(self, epoch: int) -> Iterator[list[_Example]]:
        """Yield the examples of an epoch, those of one size together."""
        settings = self.settings
        order = np.random.default_rng([settings.seed, epoch]).permutation(
            list(self.shapes)
        )
        waiting: dict[tuple[int, int], list[int]] = {}
        batches = []
        for index in order.tolist():
            size = self._size(index)
            waiting.setdefault(size, []).append(index)
            if len(waiting[size]) == settings.batch_size:
                batches.append(waiting.pop(size))
        for batch in [*batches, *waiting.values()]:
            yield [self._example(index, epoch) for index in batch]

    def _size(self, index: int) -> tuple[int, int]:
        """Return the size that an image has in a batch."""
        crop = self.settings.augment.crop if self.settings.augment is not None else None
        return self.shapes[index] if crop is None else (int(crop[0]), int(crop[1]))

    def _example(self, index: int, epoch: int) -> _Example:
        pixels, whole = self.training_set.encode(index, self.shapes[index])
        rng = np.random.default_rng([self.settings.seed, epoch, index])
        views, pyramid = None, self._kept.get(index)
        if pyramid is None:
            views = self.training_set.images[index]
        if self.settings.augment is not None and views is not None:
            move = self.training_set.transform_columns
            views, pixels = self.settings.augment(views, pixels, rng, move)
        elif self.settings.mirror and rng.random() < 0.5:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
            pixels = self.training_set.transform_columns(pixels, _MIRROR)
            views = None if views is None else np.ascontiguousarray(views[:, :, ::-1])
            pyramid = None if pyramid is None else pyramid.mirrored()
        return _Example(
            pyramid,
            views,
            torch.from_numpy(pixels),
            torch.from_numpy(whole),
            float(self.training_set.weights[index]),
        )

    def _through(self, views: np.ndarray) -> Pyramid:
        """Pass images (n, views, H, W, 3) of one size through the backbone."""
        shape = views.shape[2], views.shape[3]
        with torch.set_grad_enabled(bool(self.tuned) and torch.is_grad_enabled()):
            outputs = self.features.forward_pass.passes(
                self.backbone, torch.from_numpy(views)
            )
            return Pyramid.of(outputs, shape, self.settings.stride)

    def _pyramid(self, batch: list[_Example]) -> Pyramid:
        views = [e.views for e in batch if e.views is not None]
        parts = [e.pyramid for e in batch if e.pyramid is not None]
        if views:
            parts.append(self._through(np.stack(views)))
        return stack_pyramids(parts, self.settings.device)

    # -- losses -----------------------------------------------------------------

    def losses(self, network: Decoder, batch: list[_Example]) -> tuple[Tensor, Tensor]:
        """Return the losses of the groups labelled in a batch, and their indices."""
        batch = sorted(batch, key=lambda e: e.pyramid is None)  # as `_pyramid` stacks
        pyramid = self._pyramid(batch)
        device = self.settings.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._half):
            maps, labels = network(pyramid.taps, pyramid.strides, pyramid.shape)
        found: dict[int, Tensor] = {}
        for i, example in enumerate(batch):
            for t, loss in enumerate(self.group_losses):
                if t < len(maps):
                    chosen = loss.choose(example.pixels, self.settings.n_points)
                    if chosen is None:
                        continue
                    places, targets = (part.to(device) for part in chosen)
                    scores = scores_at(maps[t][i], places, network.stride)
                else:
                    targets = example.whole[None, loss.columns].to(device)
                    scores = labels[t - len(maps)][i : i + 1]
                    if targets.isnan().all():
                        continue
                part = loss.of(scores, targets) * (example.weight / len(batch))
                found[t] = found[t] + part if t in found else part
        tasks = sorted(found)
        losses = torch.stack([found[t] for t in tasks]) if tasks else torch.empty(0)
        return losses, torch.tensor(tasks, dtype=torch.long)

    def tuned_features(self) -> DeepFeatures:
        """Return the features with the trained backbone."""
        if not self.tuned:
            return self.features
        for weight in self.backbone.network.parameters():
            weight.requires_grad_(False)
        self.backbone.renew_digest()
        return self.features.with_backbone(self.backbone)


class _Spread:
    """Mean and standard deviation of every channel, over images."""

    def __init__(self) -> None:
        self.taps: list[TapInfo] = []
        self._sums = [torch.tensor(0.0), torch.tensor(0.0)]
        self._n = 0

    def add(self, pyramid: Pyramid) -> None:
        self.taps = [
            TapInfo(tap.shape[1], float(np.sqrt(down * across)))
            for tap, (down, across) in zip(pyramid.taps, pyramid.strides, strict=True)
        ]
        taps = [tap[0].float().cpu() for tap in pyramid.taps]
        self._sums = [
            total + torch.cat([(t**power).mean(dim=(1, 2)) for t in taps]).double()
            for power, total in zip((1, 2), self._sums, strict=True)
        ]
        self._n += 1

    def standards(self) -> tuple[Tensor, Tensor]:
        mean, square = (total / self._n for total in self._sums)
        variance = (square - mean**2).clamp(min=0).numpy()
        scale = inverse_std(variance, mean.numpy())
        return mean.float(), torch.from_numpy(scale).float()
