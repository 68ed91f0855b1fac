"""DeepFeatures: images in, a frozen network's features out."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from joblib import cpu_count
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import nn

from mtsk._progress import progress_bar
from mtsk._validation import (
    HasMethods,
    Interval,
    SequenceOf,
    StrOptions,
    check_parameters,
    output_container,
)
from mtsk.backbones import BUNDLED, Backbone, choose_device, load_backbone
from mtsk.backbones.engines import ENGINES, with_engine
from mtsk.data.channels import (
    ChannelMixture,
    Channels,
    ChosenChannels,
    ViewMaker,
    view_maker,
)
from mtsk.data.images import Images
from mtsk.exceptions import BackboneError, ImageError, WeightsError
from mtsk.features.cache import (
    CachePart,
    FeatureCache,
    MemoryCache,
    content_digest,
    open_cache,
)
from mtsk.features.channel_mixture import learn_mixture
from mtsk.features.feature_maps import POSITION_NAMES, FeatureMaps
from mtsk.features.forward_pass import ForwardPass
from mtsk.features.pca import TapProjection, spread_evenly

__all__ = ["DeepFeatures"]

# Pixels of one batch through the network. On a CPU the finest maps of about two
# 360 x 480 images just fit the cache, and larger batches were slower (see
# benchmarks/forward.py); a GPU wants many more to be busy.
_BATCH_PIXELS = {"cpu": 2 * 360 * 480, "cuda": 64 * 360 * 480, "mps": 16 * 360 * 480}
_MOST_READERS = 8


class DeepFeatures(TransformerMixin, BaseEstimator):
    """Features of a frozen pretrained network, as maps or as one row an image.

    Parameters
    ----------
    backbone : str, torch.nn.Module or Backbone, default="efficientnet_lite0"
        The bundled network, ``"timm:<name>"``, ``"torchvision:<name>"``, or your own
        module, which is used as it is and never copied.
    weights : path, "random" or None, default=None
        A local file of weights; None takes the bundled or downloaded ones.
    weights_sha256 : str, default=None
        Hash that the file of weights must have.
    taps : sequence of str, default=None
        Modules whose outputs are taken. None takes those of every stride.
    scales : sequence of float, default=(0.5, 1.0, 2.0)
        The image is passed through at each of these sizes. 2 costs four times 1; it
        sees what is thin, 0.5 sees the scene.
    position : bool, default=False
        Whether hypercolumns end with nine functions of the place in the image.
    output : {"maps", "vector"}, default="maps"
        ``"maps"``: a list of FeatureMaps. ``"vector"``: a table with one row an
        image, the mean of every channel, for any scikit-learn pipeline.
    channels : three int, sequence of such triples, "each", "pca" or None, default=None
        Which channels make the network's three. Needed where images have other than 1
        or 3 channels. Several triples mean several passes, whose features stand side by
        side; ``"each"`` passes every channel as grey, in as many passes as there are
        channels, which ``fit`` reads from the first image. ``"pca"`` passes the three
        principal components of the channels, found in up to 32 of the images that
        ``fit`` gets: one pass, which shows most of what differs, but may blur what only
        a faint channel shows.
    n_components : float in (0, 1), int or None, default=None
        Keep, of every tap's channels at every scale, as many principal components as
        hold this share of their variance, or at most this number of them: a smaller
        table, cache and head, found from up to 32 of the images that ``fit`` gets.
        Those pass through the network twice, and a cache keeps what was made with
        other components apart. None keeps all channels.
    dtype : {"float16", "float32"}, default="float16"
        Precision in which maps are kept.
    batch_size : int, default=None
        Images of one size that go through together, at most. None chooses by their
        size. On a CPU features depend on the image alone, to the last bit, so that all
        but the bundled network by torch are given one image after another. On a
        GPU they depend on the others of a batch too, by rounding; with a cache, what
        was computed first is what every later fit gets.
    device : str, default="auto"
        ``"auto"`` takes cuda, then mps, then cpu.
    engine : {"auto", "torch", "onnxruntime", "openvino"}, default="auto"
        What runs the network on a CPU. ``"auto"`` takes onnxruntime for the bundled
        network where it is installed and was found to be faster than torch, in a trial
        of half a second that is made once for this CPU, and torch elsewhere. Engines
        agree but for the rounding of float32.
    cache : None, "memory", path, or MemoryCache, default=None
        Where features are kept for the next fit, fold or candidate. ``"memory"`` is
        shared by the process; a path is shared by processes.
    on_error : {"raise", "skip"}, default="raise"
        With ``"skip"`` an image that cannot be used is reported in a
        SkippedImageWarning; its maps are None, its row is NaN.
    verbose : int, default=0
        Above 0 shows a progress bar.

    Attributes
    ----------
    backbone_digest_ : str
        SHA-256 of the network's weights.
    taps_ : tuple of Tap
        Name, channels and stride of each tap.
    n_features_out_ : int
        Length of a hypercolumn, or of a row.
    channel_mixture_ : ChannelMixture or None
        With ``channels="pca"``, the sums of channels that make the network's three.
    projection_ : TapProjection or None
        With ``n_components``, its matrices, one a scale and tap.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import DeepFeatures
    >>> images = np.zeros((2, 64, 64), np.uint8)
    >>> DeepFeatures(output="vector", scales=[1]).fit_transform(images).shape
    (2, 784)
    """

    def __init__(
        self,
        backbone: str | nn.Module | Backbone = BUNDLED,
        *,
        weights: str | os.PathLike | None = None,
        weights_sha256: str | None = None,
        taps: Sequence[str] | None = None,
        scales: Sequence[float] = (0.5, 1.0, 2.0),
        position: bool = False,
        output: Literal["maps", "vector"] = "maps",
        channels: Channels = None,
        n_components: float | None = None,
        dtype: Literal["float16", "float32"] = "float16",
        batch_size: int | None = None,
        device: str = "auto",
        engine: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto",
        cache: Any = None,
        on_error: Literal["raise", "skip"] = "raise",
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.weights_sha256 = weights_sha256
        self.taps = taps
        self.scales = scales
        self.position = position
        self.output = output
        self.channels = channels
        self.n_components = n_components
        self.dtype = dtype
        self.batch_size = batch_size
        self.device = device
        self.engine = engine
        self.cache = cache
        self.on_error = on_error
        self.verbose = verbose

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Load the network; nothing is learnt but components, where they are wanted.

        Parameters
        ----------
        X : images, default=None
            Needed for ``n_components`` and where ``channels`` is "each" or "pca"; else
            ignored.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, BackboneError, WeightsError
        """
        check_parameters(self, _CONSTRAINTS)
        backbone = self.network()
        self.backbone_digest_ = backbone.digest
        self.taps_ = backbone.taps
        self.channel_mixture_: ChannelMixture | None = None
        if self._is_channels("pca"):
            some = self._some_images(X, "channels='pca'", lambda image, where: image)
            some.on_error = self.on_error
            self.channel_mixture_ = learn_mixture(some)
        self._n_views = self._count_views(X)
        self.projection_: TapProjection | None = None
        if self.n_components is not None:
            self.projection_ = self._find_components(X)
        self.n_features_out_ = len(self.get_feature_names_out())
        return self

    def _is_channels(self, word: str) -> bool:
        return isinstance(self.channels, str) and self.channels == word

    def _count_views(self, X: Any) -> int:
        """Return how many views ``channels`` make of an image."""
        maker = self.view_maker
        if self._is_channels("each"):
            some = self._some_images(X, "channels='each'", maker)
            some.on_error = self.on_error
            return len(next(iter(some))[1])
        return len(maker.triples) if isinstance(maker, ChosenChannels) else 1

    def _some_images(self, X: Any, reason: str, views_of: ViewMaker) -> Images:
        """Return up to 32 of the images of fit, spread over all of them.

        What cannot be read is left to those who read all.
        """
        if X is None:
            raise TypeError(f"DeepFeatures with {reason} needs images: fit(X)")
        images = X if isinstance(X, Images) else Images(X)
        chosen = [images.first + index for index in spread_evenly(len(images))]
        some = images.some(chosen).viewed(views_of)
        some.on_error = "skip"
        return some

    @property
    def view_maker(self) -> ViewMaker:
        """How an image becomes the views that pass through the network."""
        mixture = getattr(self, "channel_mixture_", None)
        return view_maker(self.channels if mixture is None else mixture)

    def images(self, X: Any) -> Images:
        """Return images as these features see them.

        Parameters
        ----------
        X : images, or Images

        Returns
        -------
        Images

        Raises
        ------
        ImageError
            On what is no source of images.
        """
        images = X if isinstance(X, Images) else Images(X, None, self.on_error)
        return images.viewed(self.view_maker)

    def check_views(self, views: np.ndarray, where: str) -> None:
        """Raise where an image has another number of channels than those of fit."""
        if len(views) != self._n_views:
            raise ImageError(
                f"{where} has {len(views)} channels, those of fit had {self._n_views}"
            )

    def transform(self, X: Any) -> list[FeatureMaps | None] | np.ndarray:
        """Return the features of images.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, C), or sequence of images or paths

        Returns
        -------
        list of FeatureMaps, or ndarray of float32 of shape (n, ``n_features_out_``)

        Raises
        ------
        ImageError
            On an image that cannot be used; the message names its index.
        NotFittedError
        ValueError
            Where ``set_output`` asks for a table, and ``output`` is not "vector".
        """
        check_is_fitted(self)
        container = output_container(self)
        if container != "default" and self.output != "vector":
            raise ValueError(
                f'maps of features cannot be a table of {container}: output="vector" '
                "gives one row an image"
            )
        images = self.images(X)
        if self.output == "vector":
            table = np.full((len(images), self.n_features_out_), np.nan, np.float32)
            for index, maps in self.iter_maps(images):
                table[index] = maps.global_mean()
            images.warn_of_skipped()
            return table
        found = dict(self.iter_maps(images, to_host=True))
        images.warn_of_skipped()
        return [found.get(index) for index in range(len(images))]

    def iter_maps(
        self, X: Any, *, desc: str = "features", to_host: bool = False
    ) -> Iterator[tuple[int, FeatureMaps]]:
        """Yield (index, FeatureMaps) in order, holding one batch at a time.

        Parameters
        ----------
        X : images, or Images
            What ``Images`` skips is not yielded.
        desc : str, default="features"
            What the progress bar is called.
        to_host : bool, default=False
            Whether taps are arrays whatever the device. Else on a GPU, where no cache
            keeps them, they are tensors that stay there.

        Yields
        ------
        index : int
        maps : FeatureMaps
        """
        stream = self.iter_views_and_maps(X, desc=desc, to_host=to_host)
        for index, _, maps in stream:
            yield index, maps

    def iter_views_and_maps(
        self,
        X: Any,
        *,
        desc: str = "features",
        bar: Any = None,
        to_host: bool = False,
    ) -> Iterator[tuple[int, np.ndarray, FeatureMaps]]:
        """Yield (index, views, FeatureMaps): with the pictures that were seen.

        Parameters
        ----------
        X : images, or Images
        desc : str, default="features"
        bar : tqdm, optional
            A progress bar of several such passes, in place of one's own.
        to_host : bool, default=False
            As of `iter_maps`.

        Yields
        ------
        index : int
        views : ndarray of float32, shape (n_views, H, W, 3)
            In [0, 1]; one view for each triple of channels.
        maps : FeatureMaps
        """
        check_is_fitted(self)
        images = X if isinstance(X, Images) else self.images(X)
        cache = open_cache(self.cache)
        backbone = self._network_of_fit()
        # Who finds an image in a cache computes on the host; so does who puts it there,
        # for the same digits.
        computes = backbone.keeps_maps
        to_host |= cache is not None or not computes
        readers = min(cpu_count(), _MOST_READERS) if computes else 0
        fingerprint = self.fingerprint(backbone)
        waiting: list[_Waiting] = []
        own = progress_bar(
            total=len(images),
            desc=desc,
            disable=bar is not None or not self.verbose,
            unit="image",
        )
        with own:
            for new in images.each(_Waiting.of, readers):
                (own if bar is None else bar).update()
                self.check_views(new.views, f"image {new.index}")
                new.key = content_digest(new.digest, fingerprint)
                hit = cache.get(new.key) if cache is not None else None
                if waiting and (
                    hit is not None
                    or new.views.shape != waiting[0].views.shape
                    or len(waiting) >= self._batch_limit(backbone, new.views)
                ):
                    yield from self._flush(backbone, waiting, cache, to_host)
                    waiting = []
                if hit is not None:
                    yield new.index, new.views, hit
                else:
                    waiting.append(new)
            yield from self._flush(backbone, waiting, cache, to_host)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return names such as ``"scale2_blocks.3_17"``.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str, shape (``n_features_out_``,)
        """
        check_is_fitted(self, "taps_")
        views = [""] if self._n_views == 1 else [f"v{v}_" for v in range(self._n_views)]
        layers = [f"scale{s:g}_{tap.name}" for s in self.scales for tap in self.taps_]
        if self.projection_ is not None:
            layers = [f"{layer}_pc" for layer in layers]
        names = [
            f"{view}{layer}_{channel}"
            for view in views
            for layer, size in zip(layers, self.forward_pass.layer_sizes, strict=True)
            for channel in range(size)
        ]
        if self.position and self.output == "maps":
            names += [f"position_{name}" for name in POSITION_NAMES]
        return np.array(names, dtype=object)

    @property
    def forward_pass(self) -> ForwardPass:
        """How images go through the backbone."""
        check_is_fitted(self, "taps_")
        scales = tuple(float(scale) for scale in self.scales)
        return ForwardPass(
            self.taps_, scales, self.position, self.dtype, self.projection_
        )

    def quiet(self) -> Self:
        """Return the same fitted features without a progress bar, as for workers."""
        return copy.copy(self).set_params(verbose=0) if self.verbose else self

    @property
    def n_views(self) -> int:
        """How many views of an image there are: one for each triple of channels."""
        check_is_fitted(self)
        return self._n_views

    def memo(self, name: str) -> CachePart | None:
        """Return a place for what is derived from these features, for the next fit.

        Parameters
        ----------
        name : str
            Of what the derived is about, such as the digest of a table.

        Returns
        -------
        CachePart or None
            None where ``cache`` is not kept in memory.
        """
        cache = open_cache(self.cache)
        if not isinstance(cache, MemoryCache):
            return None
        return CachePart(cache, content_digest(name, self.fingerprint()))

    def __sklearn_clone__(self) -> Self:
        """Clone without copying a network."""
        params = {
            name: value if name == "backbone" else clone(value, safe=False)
            for name, value in self.get_params(deep=False).items()
        }
        return type(self)(**params)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = False
        return tags

    def network(self) -> Backbone:
        """Return the backbone, on its device, run by its engine."""
        backbone = load_backbone(
            self.backbone,
            weights=self.weights,
            weights_sha256=self.weights_sha256,
            taps=self.taps,
        )
        device = choose_device(self.device)
        if device.type == "cpu":
            return with_engine(backbone.to(device), self.engine)
        if self.engine not in ("auto", "torch"):
            raise BackboneError(
                f"engine={self.engine!r} runs on the CPU, and the device is {device}: "
                "set device='cpu', or engine='auto'"
            )
        return backbone.to(device)

    def _network_of_fit(self) -> Backbone:
        """Return the backbone that there was in fit."""
        backbone = self.network()
        if backbone.digest != self.backbone_digest_:
            raise WeightsError(
                f"the weights of {backbone.name} changed since fit: their SHA-256 was "
                f"{self.backbone_digest_[:12]}…, is {backbone.digest[:12]}…"
            )
        return backbone

    def with_backbone(self, backbone: Backbone) -> Self:
        """Return fitted features that differ in their backbone alone.

        Parameters
        ----------
        backbone : Backbone

        Returns
        -------
        DeepFeatures
        """
        other = copy.copy(self).set_params(
            backbone=backbone, weights=None, weights_sha256=None, taps=None
        )
        other.backbone_digest_, other.taps_ = backbone.digest, backbone.taps
        return other

    def fingerprint(self, backbone: Backbone | None = None) -> tuple:
        """Return everything but the image's views that shapes its features.

        Parameters
        ----------
        backbone : Backbone, default=None
            What `network` gives, where it is at hand: to make it of a module takes two
            passes.

        Returns
        -------
        tuple
        """
        device = choose_device(self.device).type
        names = tuple(tap.name for tap in self.taps_)
        scales = tuple(float(s) for s in self.scales)
        parts: tuple = self.backbone_digest_, names, scales, self.position, self.dtype
        if self.projection_ is not None:
            parts += (content_digest(*self.projection_.matrices),)
        runs_on = device if device != "cpu" else (backbone or self.network()).engine
        return parts if runs_on == "torch" else (*parts, runs_on)

    def _find_components(self, X: Any) -> TapProjection:
        """Find components in some of the images, spread over all of them."""
        some = self._some_images(X, "`n_components`", self.view_maker)
        plain = copy.copy(self).set_params(n_components=None, verbose=0)
        return TapProjection.learn(
            (maps.taps for _, maps in plain.iter_maps(some, to_host=True)),
            len(self.scales) * len(self.taps_),
            self.n_components or 1,
        )

    def _batch_limit(self, backbone: Backbone, views: np.ndarray) -> int:
        device = backbone.device.type
        if device == "cpu" and not backbone.batch_invariant:
            return 1
        if self.batch_size is not None:
            return self.batch_size
        pixels = views[..., 0].size * max(self.scales) ** 2
        return max(1, int(_BATCH_PIXELS.get(device, _BATCH_PIXELS["cpu"]) // pixels))

    def _flush(
        self,
        backbone: Backbone,
        waiting: list[_Waiting],
        cache: FeatureCache | None,
        to_host: bool,
    ) -> Iterator[tuple[int, np.ndarray, FeatureMaps]]:
        if not waiting:
            return
        views = np.stack([w.views for w in waiting])
        made = self.forward_pass.maps_of(backbone, views, to_host=to_host)
        for new, maps in zip(waiting, made, strict=True):
            maps.digest = new.digest
            if cache is not None:
                cache.put(new.key, maps)
            yield new.index, new.views, maps


@dataclass
class _Waiting:
    """An image on its way through the network."""

    index: int
    views: np.ndarray
    digest: str
    key: str = ""

    @classmethod
    def of(cls, index: int, views: np.ndarray) -> Self:
        return cls(index, views, content_digest(views))


_CONSTRAINTS: dict[str, list] = {
    "backbone": [str, nn.Module, Backbone],
    "weights": [str, os.PathLike, None],
    "weights_sha256": [str, None],
    "taps": [SequenceOf(str), None],
    "scales": [SequenceOf(Interval(Real, 0, None, closed="neither"))],
    "position": ["boolean"],
    "output": [StrOptions({"maps", "vector"})],
    "n_components": [
        Interval(Real, 0, 1, closed="neither"),
        Interval(Integral, 1, None, closed="left"),
        None,
    ],
    "dtype": [StrOptions({"float16", "float32"})],
    "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    "engine": [StrOptions(set(ENGINES))],
    "cache": [None, str, os.PathLike, HasMethods(["get", "put"])],
    "on_error": [StrOptions({"raise", "skip"})],
    "verbose": ["verbose"],
}
