"""The `MultiTaskSegmenter` estimator: parameters, checks, delegation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import ClassifierTags, check_random_state
from sklearn.utils.validation import check_is_fitted

from mtsk._validation import parameter_error
from mtsk.crf import Coupling, PixelCRF, SuperpixelCRF
from mtsk.data import Images, Targets, as_targets
from mtsk.data.images import image_weights
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.features import DeepFeatures
from mtsk.links import ContextLink, Links, RegionPooling, TagLink
from mtsk.metrics import mean_skill
from mtsk.segmenter.conversion import (
    as_array,
    convert_shard,
    decoded,
    has_probabilities,
    probabilities,
    unchanged,
)
from mtsk.segmenter.fitting import FitResult, FitSettings, fit, fit_more
from mtsk.segmenter.head_choice import HeadChoice
from mtsk.segmenter.head_factory import HeadFactory
from mtsk.segmenter.html_repr import visual_block
from mtsk.segmenter.parameters import (
    check_segmenter_parameters,
    default_parts,
    given_links,
    given_structure,
    given_tasks,
    nested_parameters,
    set_nested,
)
from mtsk.segmenter.predictor import Predictor
from mtsk.segmenter.scoring import score_images
from mtsk.structure import Structure, TaskStructure
from mtsk.tasks import Classification, Task
from mtsk.tasks.task_set import Granularity, TaskSet

__all__ = ["MultiTaskSegmenter", "check_is_segmenter", "predictor_of"]


class MultiTaskSegmenter(BaseEstimator):
    """Learn several image tasks at once from one pass through a frozen network.

    Each image goes through the network once, whatever the number of tasks. Pixel
    tasks are learnt from hypercolumns at some labelled pixels of each image, image
    tasks from the means of the channels.

    Parameters
    ----------
    tasks : Task, mapping of str to Task, or None, default=None
        What the targets mean. Tasks not named here are read from the dtype and the
        number of axes of their targets: integer or str map, ``SemanticSegmentation``;
        bool map, ``BinaryMask``; float map, ``DenseRegression``; int, str or bool
        scalar, ``Classification``; float scalar or vector, ``Regression``; bool
        vector or set of str, ``MultiLabel``; dict with ``"boxes"``, ``Detection``.
    features : DeepFeatures or str, default=None
        None is ``DeepFeatures()``, a backbone's name ``DeepFeatures(name)``. Its
        parameters can be set as ``features__scales``.
    head : {"logistic", "ridge", "network", "fcn", "unet"}, estimator, mapping, or None
        What maps features to scores. None chooses ``"logistic"`` or ``"network"`` for
        each task, whichever predicts a held-out fifth of its images better; a task that
        is labelled on fewer than 8 images gets what most others get, ``"logistic"``
        where there are none. ``head_choices_`` says why. ``"logistic"`` is a
        `JointLogistic`; ``"ridge"`` a `JointRidge`; ``"network"`` a
        `SharedLayerNetwork`; ``"fcn"`` and ``"unet"`` a `SharedDecoder`, which sees
        places side by side, and learns from all labelled pixels, without pseudo-labels
        and ``structure``. Any other scikit-learn classifier or regressor will do,
        fitted to each task on its own labelled rows; a mapping of tasks to estimators,
        ``"logistic"`` or ``"ridge"`` leaves tasks that it does not name ``"logistic"``.
        Its parameters can be set as ``head__alpha``; where it is None, they are those
        of a `JointLogistic`, which is then the head.
    max_pixels_per_image : int, default=None
        Most labelled pixels that an image gives to a task, for each group of columns
        where it has several. None is 500, 1000 for a `SharedLayerNetwork` and where it
        is compared with others; of more
        than 400 images each gives fewer, down to 10, so that the table does not grow,
        except where a head learns from sums, such as
        ``JointRidge(alpha=1e-3, calibrate=False)``.
    prediction_stride : int, default=4
        Heads that are not linear are evaluated at every so many pixels, down and
        across, and interpolated between. 1 evaluates every pixel.
    links : Links, default=None
        How one task teaches another: pseudo-labels from tags, and where tasks of whole
        images look. None is ``Links()``. Its parameters can be set as
        ``links__n_pseudo_label_rounds``.
    structure : None, "crf", Structure, SuperpixelCRF or PixelCRF, default=None
        CRFs between the parts of a picture. For every task of classes or
        masks, a CRF over superpixels (with the picture's own tags and scene, and the
        other tasks at the same region) and one over pixels are learnt from held-out
        scores, and their messages added to the scores. ``"crf"`` is
        ``Structure(SuperpixelCRF(), PixelCRF())``; one of the two alone will do. Its
        parameters can be set as ``structure__regions__strength`` where there is one.
    n_jobs : int, default=None
        Workers of joblib's backend that read images and pass them through the network,
        to learn or to predict, and fits at a time of scikit-learn heads. None is 1, or
        what ``joblib.parallel_config`` says: with its ``backend="dask"``, the workers
        of a cluster. A cache in memory stays with this process, which reads alone.
    checkpoint : path, default=None
        A folder where ``fit`` keeps what it has read, and deletes it when done; shards
        with images that ``structure`` is learnt from are not kept. A fit
        that was stopped, by whatever, and is run again with the same parameters and
        data goes on from there and ends as if it had not been. Needs an integer
        ``random_state``, and a head that is no decoder.
    random_state : int, RandomState or None, default=None
        Chooses the pixels. An image's choice depends on nothing but this and the
        image itself.
    verbose : int, default=0
        Above 0 shows progress bars.

    Attributes
    ----------
    predictor_ : Predictor
        All that was learnt: features, tasks, heads, links, structure.
    n_images_ : int
        Images seen.
    n_rows_ : int
        Rows of the pixel table.
    skipped_ : dict of int to str
        Images left out of ``fit`` and why (``features__on_error="skip"``).
    tasks_ : TaskSet
        The fitted tasks, by name.
    classes_ : ndarray
        The classes, where the only task is a `Classification` without a name: to
        scikit-learn the model is then a classifier.
    features_ : DeepFeatures
        With the backbone as a `SharedDecoder` tuned it, where one did.
    pixel_head_, image_head_ : estimator or None
        The fitted heads of the pixel and the image tasks; one `SharedDecoder` is both.
    head_choices_ : dict of {"pixel", "image"} to HeadChoice
        With ``head=None``, the head that was chosen for each task, and the scores on
        held-out images that it was chosen by.
    structures_ : dict of str to TaskStructure
        Of each task that has structure: its fitted ``regions`` and ``pixels``.
    couplings_ : list of Coupling
        Pairs of tasks whose labels at one region are coupled.
    contexts_ : list of ContextLink
        Which tasks of whole images inform which tasks of pixels.
    tag_links_ : list of TagLink
        Which tasks of tags teach which tasks of pixels.
    region_pooling_ : RegionPooling or None
        The regions over which features of tasks of whole images are averaged.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import MultiTaskSegmenter
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 100, (4, 64, 64), dtype=np.uint8)
    >>> images[:, :, 32:] += 150
    >>> masks = np.where(np.arange(64) < 32, 3, 7) * np.ones((4, 64, 64), int)
    >>> model = MultiTaskSegmenter(random_state=0).fit(images, masks)
    >>> np.unique(model.predict(images[:1]))
    array([3, 7])
    """

    def __init__(
        self,
        tasks: Task | Mapping[str, Task] | None = None,
        *,
        features: DeepFeatures | str | None = None,
        head: Any = None,
        max_pixels_per_image: int | None = None,
        prediction_stride: int = 4,
        links: Links | None = None,
        structure: Structure | SuperpixelCRF | PixelCRF | str | None = None,
        n_jobs: int | None = None,
        checkpoint: str | os.PathLike | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.tasks = tasks
        self.features = features
        self.head = head
        self.max_pixels_per_image = max_pixels_per_image
        self.prediction_stride = prediction_stride
        self.links = links
        self.structure = structure
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.verbose = verbose

    def _sk_visual_block_(self) -> Any:
        return visual_block(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        if self._is_classifier():
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags()
        return tags

    def _is_classifier(self) -> bool:
        """Return whether the only task, without a name, is a `Classification`."""
        if "predictor_" not in vars(self):
            return isinstance(self.tasks, Classification)
        tasks = self.predictor_.tasks
        first = next(iter(tasks.values()))
        return not tasks.is_named and isinstance(first, Classification)

    @property
    def classes_(self) -> np.ndarray:
        """The classes of images, where the only task is a bare `Classification`."""
        tasks = self.tasks_
        if not self._is_classifier():
            raise AttributeError(
                "classes_ is for a single `Classification` without a name; see "
                "tasks_[name].classes_"
            )
        task: Any = next(iter(tasks.values()))
        return task.classes_

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with ``deep`` also those of default parts.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        params = super().get_params(deep=deep)
        return params | nested_parameters(self) if deep else params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``head__alpha`` and the like also of default parts.

        Parameters
        ----------
        **params : object

        Returns
        -------
        self

        Raises
        ------
        ValueError
            On a name that is none, and ``structure__…`` where there is no structure.
        """
        super().set_params(**{k: v for k, v in params.items() if "__" not in k})
        nested = {k: v for k, v in params.items() if "__" in k}
        return super().set_params(**set_nested(self, nested))

    # -- what was learnt ------------------------------------------------------

    @property
    def tasks_(self) -> TaskSet:
        """The fitted tasks, by name."""
        return self._fitted().tasks

    @property
    def features_(self) -> DeepFeatures:
        """The fitted features."""
        return self._fitted().features

    @property
    def pixel_head_(self) -> Any:
        """The fitted head of the tasks of pixels, or None."""
        return self._fitted().heads["pixel"]

    @property
    def image_head_(self) -> Any:
        """The fitted head of the tasks of whole images, or None."""
        return self._fitted().heads["image"]

    @property
    def structures_(self) -> dict[str, TaskStructure]:
        """The fitted structure of each task that has some."""
        return self._fitted().structure.tasks

    @property
    def couplings_(self) -> list[Coupling]:
        """Pairs of tasks whose labels at one region are coupled."""
        return self._fitted().structure.couplings

    @property
    def contexts_(self) -> list[ContextLink]:
        """Which tasks of whole images inform which tasks of pixels."""
        return self._fitted().structure.contexts

    @property
    def tag_links_(self) -> list[TagLink]:
        """Which tasks of tags teach which tasks of pixels."""
        return self._fitted().tag_links

    @property
    def head_choices_(self) -> dict[Granularity, HeadChoice]:
        """How heads were chosen, of pixels and of whole images; empty where named."""
        return self._fitted().head_choices

    @property
    def region_pooling_(self) -> RegionPooling | None:
        """The regions over which features of tasks of whole images are averaged."""
        return self._fitted().region_pooling

    def _fitted(self) -> Predictor:
        check_is_fitted(self)
        return self.predictor_

    # -- learning -------------------------------------------------------------

    def fit(self, X: Any, Y: Any, sample_weight: Any = None) -> Self:
        """Learn all tasks.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, C), or sequence of images or paths
            uint8, uint16, or float in [0, 1]. The path of a folder is an `ImageFolder`.
        Y : Targets, mapping of task to targets, DataFrame, or one target per image
            The path of a folder is the label maps in it. None is a missing entry; −1
            and NaN inside an entry are unlabelled.
        sample_weight : array-like of shape (n,), default=None
            Weight of each image, >= 0; 0 leaves it out, as if it had no target. A head
            that takes no weights takes those of 0 and 1.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ImageError, TargetError, UnknownTaskError
        """
        settings, images, targets = self.prepare_fit(X, Y, sample_weight)
        weight = image_weights(sample_weight, len(images))
        return self._keep(fit(settings, images, targets, weight), images)

    def prepare_fit(
        self, X: Any, Y: Any, sample_weight: Any = None
    ) -> tuple[FitSettings, Images, Targets]:
        """Check the parameters and what ``fit`` is given; change nothing.

        Parameters
        ----------
        X, Y, sample_weight
            As for ``fit``.

        Returns
        -------
        settings : FitSettings
            With features and tasks that are fitted.
        images : Images
        targets : Targets
            Images of weight 0 have no entry any more.

        Raises
        ------
        InvalidParameterError, ImageError, TargetError, UnknownTaskError
        """
        check_segmenter_parameters(self)
        parts = default_parts(self)
        features = clone(parts.get("features", self.features))
        images = Images(X, None, features.on_error)
        targets, bare = as_targets(Y, len(images), images.stems)
        weight = image_weights(sample_weight, len(images))
        for name in targets.task_names if sample_weight is not None else ():
            labelled = targets.labelled(name)
            if len(labelled) and not weight[labelled].any():
                raise TargetError(
                    "sample_weight is 0 for every image that it is labelled on", name
                )
        targets = targets.only(weight > 0)
        features.fit(images.some(np.flatnonzero(weight > 0).tolist()))
        images = images.viewed(features.view_maker)
        if self.verbose and not features.verbose:
            features.set_params(verbose=self.verbose)
        seed = int(
            check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        )
        tasks = TaskSet.fit(given_tasks(self), targets, is_named=not bare)
        return self._settings(features, tasks, seed), images, targets

    def _settings(
        self, features: DeepFeatures, tasks: TaskSet, seed: int
    ) -> FitSettings:
        parts = default_parts(self)
        links = given_links(self)
        by = links.region_pooling
        return FitSettings(
            features,
            tasks,
            HeadFactory(
                parts.get("head", self.head),
                seed,
                self.n_jobs,
                int(self.verbose),
                is_automatic=self.head is None,
            ),
            seed,
            self.max_pixels_per_image,
            self.prediction_stride,
            links.n_pseudo_label_rounds,
            None if by is None else RegionPooling.of(by, tasks, links),
            given_structure(self),
            self.n_jobs,
            self.checkpoint,
            int(self.verbose),
        )

    def _keep(self, result: FitResult, images: Images) -> Self:
        """Keep what a fit gave."""
        self.predictor_ = result.predictor
        self.n_images_, self.n_rows_ = result.n_images, result.n_rows
        self.skipped_ = dict(images.skipped)
        self._can_continue = result.can_continue
        return self

    def partial_fit(self, X: Any, Y: Any, sample_weight: Any = None) -> Self:
        """Add images to those seen so far.

        For heads with ``partial_fit``, such as
        ``JointRidge(alpha=1e-3, calibrate=False)``: the result then equals one
        ``fit`` of all images, those of a ``fit`` before among them (with an integer
        ``random_state``, and ``Links(n_pseudo_label_rounds=0)`` where tags could teach
        pixels). Classes
        must occur in the first call, or be named in ``tasks``.

        Parameters
        ----------
        X, Y, sample_weight
            As for ``fit``.

        Returns
        -------
        self

        Raises
        ------
        AttributeError
            Where the head cannot learn in pieces, or the ``fit`` before did what
            cannot be gone on from.
        InvalidParameterError, ImageError, TargetError
        """
        check_segmenter_parameters(self)
        head = default_parts(self).get("head", self.head)
        if not HeadFactory(head).capabilities.learns_from_sums:
            raise AttributeError(
                f"partial_fit needs a `head` that has it, got {head!r}; use "
                "head=JointRidge(alpha=1e-3, calibrate=False)"
            )
        links = given_links(self)
        for name, value in (
            ("structure", self.structure),
            ("links__region_pooling", links.region_pooling),
        ):
            if value is not None:
                raise AttributeError(f"partial_fit cannot do `{name}`; set None")
        if "predictor_" not in vars(self):
            before = None
            settings, images, targets = self.prepare_fit(X, Y, sample_weight)
        else:
            if not self._can_continue:
                raise AttributeError(_CANNOT_CONTINUE)
            predictor = self.predictor_
            before = FitResult(predictor, self.n_images_, self.n_rows_, True)
            features, tasks = predictor.features, predictor.tasks
            settings = self._settings(features, tasks, predictor.seed)
            images = features.images(X)
            targets, _ = as_targets(Y, len(images), images.stems)
            if targets.task_names != list(tasks):
                raise UnknownTaskError(
                    f"Y has the tasks {targets.task_names}, the first call had "
                    f"{list(tasks)}"
                )
        weight = image_weights(sample_weight, len(images))
        targets = targets.only(weight > 0)
        result = fit_more(settings, before, images, targets, weight)
        return self._keep(result, images)

    # -- predicting -----------------------------------------------------------

    def predict(self, X: Any, tasks: Sequence[str] | None = None) -> Any:
        """Predict, in the form that the targets had.

        Parameters
        ----------
        X : images, as for ``fit``
        tasks : sequence of str, default=None
            The tasks wanted. None is all.

        Returns
        -------
        dict of str to list or ndarray, or one of these
            One entry per image; an array where X is one. Without the dict where
            ``fit`` got bare targets. None for images that were skipped.

        Raises
        ------
        UnknownTaskError, ImageError, NotFittedError
        """
        return self._predict(X, tasks, decoded)

    def predict_proba(self, X: Any, tasks: Sequence[str] | None = None) -> Any:
        """Return probabilities: (H, W, K) or (K,) of classes, (H, W) of a mask.

        They are those at the frequencies that classes have in the training data. The
        most probable class need not be that of ``predict``: most heads give rare
        classes a larger weight, and decide by it.

        Parameters
        ----------
        X : images
        tasks : sequence of str, default=None
            The tasks wanted. None is all that have probabilities.

        Returns
        -------
        As ``predict``.

        Raises
        ------
        AttributeError
            For tasks that have no probabilities: those of numbers, and of objects,
            some of whose columns are numbers.
        UnknownTaskError, ImageError, NotFittedError
        """
        fitted = self.tasks_
        having = [name for name, task in fitted.items() if has_probabilities(task)]
        names = fitted.choose(tasks) if tasks is not None or not having else having
        for name in names:
            if name not in having:
                raise AttributeError(
                    f"task {name!r}, a {type(fitted[name]).__name__}, has no "
                    "probabilities: see decision_function"
                )
        found = self._predict(X, names, probabilities)
        return fitted.unwrap(found, tasks)

    def decision_function(self, X: Any, tasks: Sequence[str] | None = None) -> Any:
        """Return scores: logits of classes and labels, numbers of real tasks.

        Parameters
        ----------
        X : images
        tasks : sequence of str, default=None

        Returns
        -------
        As ``predict``, each entry of shape (H, W, size) or (size,). Of a classifier of
        two classes, (n_images,): the logit of the second, as scikit-learn has it.
        """
        found = self._predict(X, tasks, unchanged)
        is_array = tasks is None and isinstance(found, np.ndarray)
        if is_array and self._is_classifier() and len(self.classes_) == 2:
            return found[:, 1] - found[:, 0]
        return found

    def score(self, X: Any, Y: Any, max_pixels_per_image: int | None = None) -> float:
        """Return the default metric of the task, or the mean skill of several.

        Several tasks' metrics, such as an IoU and an R², are not averaged as they are:
        `mtsk.metrics.mean_skill` puts each on a scale where 0 is the best constant
        prediction and 1 is perfect. Tasks do not count where ``Y`` has no label of
        them, or their metric is not defined, as average precision is not where nothing
        is positive.

        Parameters
        ----------
        X : images
        Y : targets, as for ``fit``
        max_pixels_per_image : int, default=None
            As for ``score_tasks``.

        Returns
        -------
        float

        Raises
        ------
        TargetError
            Where no task counts.
        """
        metrics = self._score(X, Y, None, max_pixels_per_image)
        if len(self.tasks_) == 1:
            found = next(iter(metrics.values())).compute()
        else:
            found = mean_skill(metrics.values())
        if np.isnan(found):
            raise TargetError(
                f"nothing in Y is labelled of {list(metrics)}, or the metrics are not "
                "defined (IoU of a mask and average precision need something positive)"
            )
        return found

    def score_tasks(
        self,
        X: Any,
        Y: Any,
        metrics: Mapping[str, str | None] | None = None,
        max_pixels_per_image: int | None = None,
    ) -> dict[str, float]:
        """Score every task that ``Y`` has a column of.

        Parameters
        ----------
        X : images
        Y : targets, as for ``fit``
        metrics : mapping of task to metric, default=None
            Which metric of which task. None is each task's own.
        max_pixels_per_image : int, default=None
            Score pixel tasks by at most so many labelled pixels of each image, chosen
            as ``fit`` chooses them: an estimate, many times faster, good enough to
            compare candidates. None is every pixel. Metrics of boundaries need that.

        Returns
        -------
        dict of str to float
            NaN for a task without a label in ``Y``.

        Raises
        ------
        UnknownTaskError, TargetError, ImageError

        Warns
        -----
        UserWarning
            Where ``Y`` has classes or tags that ``fit`` did not see: classes count as
            wrong, of tags only those that the model knows are scored.
        """
        found = self._score(X, Y, metrics, max_pixels_per_image)
        return {name: metric.compute() for name, metric in found.items()}

    def _score(
        self,
        X: Any,
        Y: Any,
        metrics: Mapping[str, str | None] | None,
        max_pixels_per_image: int | None,
    ) -> dict[str, Any]:
        """Return the metric of every task, an accumulator."""
        predictor = self._current_predictor()
        images = self._images(X)
        targets, _ = as_targets(Y, len(images), images.stems)
        if metrics is not None and not isinstance(metrics, Mapping):
            allowed = "a mapping of task to metric, or None"
            raise parameter_error("metrics", self, allowed, metrics)
        wanted = dict.fromkeys(targets.task_names) if metrics is None else dict(metrics)
        for name in predictor.tasks.choose(list(wanted)):
            if name not in targets.task_names:
                raise UnknownTaskError(
                    f"`metrics` names {name!r}, but Y has {targets.task_names}"
                )
        most = max_pixels_per_image
        if most is not None and (not isinstance(most, Integral) or most < 1):
            allowed = "an int > 0, or None"
            raise parameter_error("max_pixels_per_image", self, allowed, most)
        entries = {name: targets[name] for name in wanted}
        scores = score_images(predictor, images, entries, wanted, most, self.n_jobs)
        images.skipped.update(scores.skipped)
        images.warn_of_skipped()
        for message in scores.unseen.values():
            warnings.warn(
                f"{message}. Labels that are never predicted count as wrong; tags that "
                "no score is about are left out",
                UserWarning,
                stacklevel=2,
            )
        return scores.metrics

    # -- parts of the above ---------------------------------------------------

    def _current_predictor(self) -> Predictor:
        """Return what was learnt, with the parameters of prediction as they are now."""
        check_is_fitted(self)
        return replace(self.predictor_, prediction_stride=self.prediction_stride)

    def _images(self, X: Any) -> Images:
        return self.features_.images(X)

    def _predict(
        self,
        X: Any,
        tasks: Sequence[str] | None,
        convert: Callable[[Predictor, str, np.ndarray], Any],
    ) -> Any:
        """Return every image's scores, converted, by task."""
        predictor = self._current_predictor()
        names = predictor.tasks.choose(tasks)
        images = self._images(X)
        out: dict[str, list[Any]] = {name: [None] * len(images) for name in names}
        work = partial(convert_shard, names=names, convert=convert)
        shards = predictor.map_shards(work, images, {}, self.n_jobs, "predict")
        for found, skipped in shards:
            images.skipped.update(skipped)
            for index, entries in found.items():
                for name, entry in entries.items():
                    out[name][index] = entry
        images.warn_of_skipped()
        stacked = isinstance(X, np.ndarray) and X.ndim >= 3 and not images.skipped
        shaped = {name: as_array(column, stacked) for name, column in out.items()}
        return predictor.tasks.unwrap(shaped, tasks)

    def save(
        self,
        path: str | os.PathLike,
        *,
        scores: Mapping[str, float] | None = None,
        description: str = "",
    ) -> None:
        """Write the fitted model to one file, as `mtsk.save` does.

        Parameters
        ----------
        path : path
        scores : mapping of str to float, optional
        description : str, default=""

        Raises
        ------
        ModelFileError, NotFittedError
        ImportError
            Without skops.
        """
        from mtsk.persistence import save  # needs skops, the extra [io]

        save(self, path, scores=scores, description=description)


def predictor_of(model: Any, caller: str) -> Predictor:
    """Return what a segmenter learnt.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Fitted.
    caller : str
        How messages call who asks.

    Returns
    -------
    Predictor

    Raises
    ------
    TypeError
        Where the model is of another kind.
    NotFittedError
    """
    check_is_segmenter(model, caller)
    check_is_fitted(model)
    return model.predictor_


def check_is_segmenter(model: Any, caller: str) -> None:
    """Raise ``TypeError`` where a model is no `MultiTaskSegmenter`."""
    if not isinstance(model, MultiTaskSegmenter):
        raise TypeError(
            f"{caller} needs a MultiTaskSegmenter, got a {type(model).__name__}; of a "
            "search, give its best_estimator_"
        )


_CANNOT_CONTINUE = (
    "partial_fit cannot go on from this fit, in which tags taught pixels, regions were "
    "pooled, structure was learnt, or a head chose something by all rows at once; fit "
    "all images together, or fit the first ones with "
    "links=Links(n_pseudo_label_rounds=0), structure=None and this head"
)
