"""SharedDecoder: convolutions that all tasks share, trained by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mtsk._resources import one_blas_thread
from mtsk._validation import Interval, StrOptions, check_parameters
from mtsk.backbones import choose_device
from mtsk.data.augmentation import Augmentation
from mtsk.decoders.batches import BatchLoader, TrainingSettings
from mtsk.decoders.networks import FCN, Decoder, UNet
from mtsk.decoders.pyramid import Pyramid, stack_pyramids
from mtsk.decoders.training_set import TrainingSet
from mtsk.features import DeepFeatures, FeatureMaps
from mtsk.heads import TaskWeighting
from mtsk.heads.capabilities import Capabilities
from mtsk.heads.class_weights import CLASS_WEIGHT, ClassWeight
from mtsk.heads.training import Trainer, numpy_state
from mtsk.heads.weighting import make_weighting

__all__ = ["SharedDecoder"]


class SharedDecoder(BaseEstimator):
    """A convolutional decoder that all tasks share, with a small output for each.

    A head of `MultiTaskSegmenter` that uses spatial context, which heads on tables
    cannot. It reads the taps of the backbone and is trained by stochastic gradient
    descent on the tasks' losses, each divided by that of the null model, with AdamW and
    one cycle of the learning rate, as `SharedLayerNetwork` is.

    Parameters
    ----------
    architecture : {"fcn", "unet"}, default="fcn"
        ``"fcn"``: all taps brought to one grid, then dilated convolutions. ``"unet"``:
        from the coarsest taps to the finest, stride by stride.
    width : int, default=128
        Channels of the convolutions that the tasks share.
    n_blocks : int, default=3
        Residual blocks; of ``"unet"``, at each stride.
    stride : int, default=2
        Pixels per cell of the score maps, which are then interpolated. The blocks of
        ``"fcn"`` work at twice this stride.
    dropout : float in [0, 1), default=0.2
        Share of channels left out in training.
    learning_rate : float, default=2e-3
        Maximum of the cycle.
    weight_decay : float, default=1e-2
    n_epochs : int, default=12
        Passes over the images. At least 300 steps are made, however few the images.
    batch_size : int, default=4
        Images of one size per step.
    n_points : int, default=8192
        Labelled pixels per image and step over which a task's loss is computed, drawn
        with replacement; at most as many as there are.
    augment : Augmentation, bool or "flip", default=False
        Random views of the images; True is ``Augmentation()``. Images then pass through
        the backbone in every epoch, not once. ``"flip"`` mirrors the taps instead, with
        probability ½, at no cost and nearly equivalently: backbones are trained on
        images and their mirror images.
    finetune : {None, "last", "all"}, default=None
        Which backbone parameters are trained too: none; those that only its coarsest
        taps depend on; or all. Normalisation keeps its statistics. Images pass through
        the backbone in every epoch; one scale (``features__scales=(1,)``) is then
        advisable.
    backbone_learning_rate : float, default=2e-4
        Maximum of the cycle, for fine-tuned parameters.
    task_weights : str, TaskWeighting, sequence or mapping of float, default="equal"
        As for `SharedLayerNetwork`: pixel tasks come before tasks of whole images.
    class_weight : {"sqrt", "balanced"}, float in [0, 1] or None, default="sqrt"
        Classes and labels of frequency f weigh ∝ 1/√f, 1/f, f to the power of minus
        this number, or 1.
    device : str, default="auto"
        ``"auto"`` takes cuda, then mps, then cpu.
    random_state : int, RandomState or None, default=None
        Initial weights, order of images, views, pixels, dropout. On one CPU, an integer
        gives bitwise identical results.
    verbose : int, default=0
        Above 0 shows a progress bar.

    Attributes
    ----------
    network_ : dict of str to ndarray
        The decoder's parameters.
    features_ : DeepFeatures
        With the fine-tuned backbone, or the one that was given.
    taps_ : list of TapInfo
    losses_ : list of ndarray of shape (n_groups,)
        Mean training loss of each group, by epoch; 1 is the null model's.
    prior_corrections_ : ndarray of float32, shape (n_scores,)
        Added to scores before they become probabilities at the classes' frequencies.
    n_iter_ : int
        Epochs.

    See Also
    --------
    SharedLayerNetwork : Shared layers over single pixels; faster.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import DeepFeatures, MultiTaskSegmenter, SharedDecoder
    >>> images = np.zeros((4, 32, 32), np.uint8)
    >>> images[:, 8:24, 8:24] = 200
    >>> model = MultiTaskSegmenter(
    ...     features=DeepFeatures(scales=(1,)),
    ...     head=SharedDecoder(width=8, n_blocks=1, n_points=64),
    ...     random_state=0,
    ... ).fit(images, images > 100)
    >>> bool(model.predict(images[:1])[0, 16, 16])
    True
    """

    min_steps: ClassVar[int] = 300  # of training, however few the images

    def __init__(
        self,
        architecture: str = "fcn",
        *,
        width: int = 128,
        n_blocks: int = 3,
        stride: int = 2,
        dropout: float = 0.2,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        n_epochs: int = 12,
        batch_size: int = 4,
        n_points: int = 8192,
        augment: Augmentation | bool | str = False,
        finetune: str | None = None,
        backbone_learning_rate: float = 2e-4,
        task_weights: str | TaskWeighting | Sequence[float] | Mapping[int, float] = (
            "equal"
        ),
        class_weight: ClassWeight = "sqrt",
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.architecture = architecture
        self.width = width
        self.n_blocks = n_blocks
        self.stride = stride
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.n_points = n_points
        self.augment = augment
        self.finetune = finetune
        self.backbone_learning_rate = backbone_learning_rate
        self.task_weights = task_weights
        self.class_weight = class_weight
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def capabilities(self) -> Capabilities:
        """What the head can do."""
        return Capabilities(is_joint=True, is_convolutional=True, weighs_tasks=True)

    def check_parameters(self) -> None:
        """Raise ``InvalidParameterError`` on an invalid parameter."""
        check_parameters(self, _CONSTRAINTS)
        choose_device(self.device)
        if isinstance(self.augment, Augmentation):
            self.augment.check_parameters()

    def fit(self, training_set: TrainingSet, features: DeepFeatures) -> Self:
        """Train the decoder.

        Parameters
        ----------
        training_set : TrainingSet
        features : DeepFeatures
            Fitted.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, TargetError, ValueError
        """
        self.check_parameters()
        self.groups_ = [*training_set.pixel_groups, *training_set.image_groups]
        self.n_maps_ = len(training_set.pixel_groups)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        weighting = make_weighting(self.task_weights, len(self.groups_), self)
        with (
            torch.random.fork_rng(devices=[]),
            one_blas_thread(),
        ):
            torch.manual_seed(seed)
            settings = self._settings(seed)
            loader = BatchLoader(training_set, features, settings)
            self.taps_ = loader.taps
            self.units_ = [(loss.scale, loss.shift) for loss in loader.group_losses]
            self.prior_corrections_ = np.concatenate(
                [loss.prior_correction for loss in loader.group_losses]
            ).astype(np.float32)
            network = self._network()
            loader.standardise(network)
            self._train(network.to(settings.device), loader, weighting, seed)
        self.features_ = loader.tuned_features()
        return self

    @property
    def prior_corrections(self) -> np.ndarray:
        """What is added to scores before they become probabilities, (n_scores,)."""
        return self.prior_corrections_

    def scores(
        self, maps: FeatureMaps, points: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores of every task for one image.

        Parameters
        ----------
        maps : FeatureMaps
            Feature maps of ``features_``.
        points : ndarray of int, shape (n, 2), optional
            Pixels to evaluate. None: all.

        Returns
        -------
        maps : ndarray of float32, shape (H, W, pixel scores) or (n, pixel scores)
        labels : ndarray of float32, shape (image scores,)
        """
        check_is_fitted(self)
        device = choose_device(self.device)
        batch = stack_pyramids([Pyramid.of_maps(maps, self.stride)], device)
        with torch.inference_mode():
            planes, labels = self.to_torch().to(device)(
                batch.taps, batch.strides, batch.shape
            )
        whole = labels[0].cpu().numpy()
        if planes is None:
            return np.empty((*maps.shape, 0), np.float32), whole
        coarse = planes[0].permute(1, 2, 0).contiguous().cpu().numpy()
        grid = FeatureMaps([coarse], [(self.stride, self.stride)], maps.shape)
        if points is not None:
            return grid.at(points), whole
        return grid.scores(np.eye(coarse.shape[2], dtype=np.float32)), whole

    def to_torch(self) -> DecoderScores:
        """Return what was trained, as a module in evaluation mode."""
        check_is_fitted(self)
        network = self._network()
        network.load_state_dict(
            {k: torch.from_numpy(v) for k, v in self.network_.items()}
        )
        return DecoderScores(network, self.units_, self.n_maps_).eval()

    def receptive_radius(self) -> int:
        """Return the distance in pixels from a score to the furthest cell it uses."""
        check_is_fitted(self)
        return self._network().receptive_radius()

    def _settings(self, seed: int) -> TrainingSettings:
        augment = self.augment if isinstance(self.augment, Augmentation) else None
        if self.augment is True:
            augment = Augmentation()
        return TrainingSettings(
            self.stride,
            self.batch_size,
            self.n_points,
            augment,
            self.augment == "flip",
            self.finetune,
            self.class_weight,
            choose_device(self.device),
            seed,
        )

    def _network(self) -> Decoder:
        network = _ARCHITECTURES[self.architecture](
            self.taps_,
            self.stride,
            self.width,
            self.n_blocks,
            self.dropout,
            self.groups_[: self.n_maps_],
            self.groups_[self.n_maps_ :],
        )
        return network.to(memory_format=torch.channels_last)

    def _train(
        self, network: Decoder, loader: BatchLoader, weighting: TaskWeighting, seed: int
    ) -> None:
        trainer = Trainer(
            weighting,
            len(self.groups_),
            max(self.n_epochs, -(-self.min_steps // loader.n_steps)),
            loader.n_steps,
            self.learning_rate,
            self.weight_decay,
            seed,
            "decoder",
            self.verbose,
        )
        self.losses_ = list(
            trainer.epochs(
                network,
                loader.tuned + network.shared_parameters(),
                loader.batches,
                partial(loader.losses, network),
                loader.tuned,
                self.backbone_learning_rate,
            )
        )
        self.n_iter_ = len(self.losses_)
        self.network_ = numpy_state(network)


_ARCHITECTURES: dict[str, Callable[..., Decoder]] = {"fcn": FCN, "unet": UNet}
_COUNT = Interval(Integral, 1, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_CONSTRAINTS: dict[str, list] = {
    "architecture": [StrOptions(set(_ARCHITECTURES))],
    "width": [_COUNT],
    "n_blocks": [_COUNT],
    "stride": [_COUNT],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "learning_rate": [_POSITIVE],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "n_epochs": [_COUNT],
    "batch_size": [_COUNT],
    "n_points": [_COUNT],
    "augment": [Augmentation, "boolean", StrOptions({"flip"})],
    "finetune": [StrOptions({"last", "all"}), None],
    "backbone_learning_rate": [_POSITIVE],
    "task_weights": [str, TaskWeighting, "array-like", Mapping],
    "class_weight": CLASS_WEIGHT,
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


class DecoderScores(nn.Module):
    """A decoder whose numbers are in the targets' units.

    Parameters
    ----------
    network : Decoder
    units : sequence of (ndarray, ndarray)
        Scale and shift of the scores of each group of columns.
    n_maps : int
        How many of them are of pixels.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: Decoder,
        units: Sequence[tuple[np.ndarray, np.ndarray]],
        n_maps: int,
    ) -> None:
        super().__init__()
        self.network = network
        scales, shifts = zip(*units, strict=True)
        self.register_buffer("scale", torch.from_numpy(np.concatenate(scales)))
        self.register_buffer("shift", torch.from_numpy(np.concatenate(shifts)))
        self.n_scores = sum(len(scale) for scale in scales[:n_maps])  # of a pixel

    def forward(
        self, taps: Sequence[Tensor], strides: Sequence[Any], shape: Any
    ) -> tuple[Tensor | None, Tensor]:
        """Return scores of pixels (n, k, h, w), None where k is 0, and of images."""
        planes, labels = self.network(taps, strides, shape)
        n = self.n_scores
        maps = None
        if planes:
            beside = (slice(None, n), None, None)
            maps = torch.cat(planes, dim=1) * self.scale[beside] + self.shift[beside]
        if not labels:
            return maps, self.scale.new_empty((len(taps[0]), 0))
        return maps, torch.cat(labels, dim=1) * self.scale[n:] + self.shift[n:]
