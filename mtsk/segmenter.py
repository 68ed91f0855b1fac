"""The front door: images and targets in, predictions of every task out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mtsk._validation import parameter_error
from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.features import DeepFeatures
from mtsk.flow import flow_of
from mtsk.images import Images, image_weights
from mtsk.metrics import task_metric
from mtsk.predicting import (
    Predicting,
    as_they_are,
    check_n_pixels,
    decoded,
    judge,
    probabilities,
)
from mtsk.structure import Structure
from mtsk.superpixels import Segmentation
from mtsk.tables import encode_entry
from mtsk.targets import as_targets
from mtsk.tasks import Task
from mtsk.tasks.columns import ColumnGroup

__all__ = ["MultiTaskSegmenter"]


class MultiTaskSegmenter(Predicting):
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
    features : DeepFeatures, default=None
        None is ``DeepFeatures()``. Its parameters can be set as ``features__scales``.
    head : {"logistic", "ridge", "network", "fcn", "unet"}, estimator, mapping, or None
        What maps features to scores. None is ``"logistic"``, a `JointLogistic`;
        ``"ridge"`` a `JointRidge`; ``"network"`` a `SharedLayerNetwork`; ``"fcn"`` and
        ``"unet"`` a `SharedDecoder`, which sees places side by side, and learns from
        all labelled pixels without ``tag_rounds`` and ``structure``. Any other
        scikit-learn classifier or regressor will do, fitted to each task on its own
        labelled rows; a mapping of tasks to estimators, ``"logistic"`` or ``"ridge"``
        leaves tasks that it does not name the default. Its parameters can be set as
        ``head__alpha``.
    n_pixels : int, default=None
        Most labelled pixels that an image gives to a task, for each group of columns
        where it has several. None is 500, 1000 for a `SharedLayerNetwork`; of more
        than 400 images each gives fewer, down to 10, so that the table does not grow,
        except where a head learns from sums, such as
        ``JointRidge(alpha=1e-3, calibrate=False)``.
    head_stride : int, default=4
        Heads that are not linear are evaluated at every so many pixels, down and
        across, and interpolated between. 1 evaluates every pixel.
    tag_rounds : int, default=2
        Rounds in which images with tags but no mask teach a task of pixels, where a
        `MultiLabel` is linked to it (its ``of``): their pixels take the likeliest of
        the tags' classes, as the last fit sees them, and the head is fitted anew. 0
        leaves tags to themselves. ``partial_fit`` has no such rounds.
    pool_by : str or (str, sequence of labels), default=None
        A task of pixels, of classes or a mask, by which tasks of whole images look:
        in place of the mean features of the image they see those of the pixels of each
        class that this task finds, or of the labels given; of a mask those inside. So
        masks on a few images tell where to look in all. Labelled images are read
        twice for it, where no cache keeps them.
    structure : None, "crf", Structure, SuperpixelCRF or PixelCRF, default=None
        What the parts of a picture say to one another. For every task of classes or
        masks, a CRF over superpixels (with the picture's own tags and scene, and the
        other tasks at the same region) and one over pixels are learnt from held-out
        scores, and their messages added to the scores. ``"crf"`` is
        ``Structure(SuperpixelCRF(), PixelCRF())``; one of the two alone will do. Its
        parameters can be set as ``structure__regions__strength``; messages are those
        of mean field, whatever ``inference``.
    superpixels : {"slic", "skimage_slic", "felzenszwalb"} or callable, default="slic"
        How regions are made; see `mtsk.superpixels.over_segment`.
    n_segments : int, default=None
        About so many regions an image; None makes regions of about 170 pixels.
    n_jobs : int, default=None
        Workers of joblib's backend that read images and pass them through the network,
        to learn or to predict, and fits at a time of scikit-learn heads. None is 1, or
        what ``joblib.parallel_config`` says: with its ``backend="dask"``, the workers
        of a cluster. A cache in memory stays with this process, which reads alone.
    checkpoint : path, default=None
        A folder where ``fit`` keeps what it has read, and deletes it when done. A fit
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
    tasks_ : dict of str to Task
        The fitted tasks.
    features_ : DeepFeatures
        With the backbone as a `SharedDecoder` tuned it, where one did.
    pixel_head_, image_head_ : estimator or None
        The fitted heads of the pixel and the image tasks; one `SharedDecoder` is both.
    structures_ : dict of str to TaskStructure
        Of each task that has structure: its fitted ``regions`` and ``pixels``.
    couplings_ : list of Coupling
        Pairs of tasks whose labels at one region speak to one another.
    contexts_ : list of ContextLink
        Which tasks of whole images speak of the classes of which tasks of pixels.
    links_ : list of TagLink
        Which tasks of tags teach which tasks of pixels.
    pooling_ : RegionPooling or None
        Where tasks of whole images look.
    n_images_ : int
        Images seen.
    n_rows_ : int
        Rows of the pixel table.
    skipped_ : dict of int to str
        Images left out of ``fit`` and why (``features__on_error="skip"``).

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
        features: DeepFeatures | None = None,
        head: Any = None,
        n_pixels: int | None = None,
        head_stride: int = 4,
        tag_rounds: int = 2,
        pool_by: str | tuple[str, Sequence[Any]] | None = None,
        structure: Structure | SuperpixelCRF | PixelCRF | str | None = None,
        superpixels: str | Segmentation = "slic",
        n_segments: int | None = None,
        n_jobs: int | None = None,
        checkpoint: str | os.PathLike | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.tasks = tasks
        self.features = features
        self.head = head
        self.n_pixels = n_pixels
        self.head_stride = head_stride
        self.tag_rounds = tag_rounds
        self.pool_by = pool_by
        self.structure = structure
        self.superpixels = superpixels
        self.n_segments = n_segments
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.verbose = verbose

    def _sk_visual_block_(self) -> Any:
        return flow_of(self)

    # -- learning -------------------------------------------------------------

    def fit(self, X: Any, Y: Any, sample_weight: Any = None) -> Self:
        """Learn all tasks.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, C), or sequence of images or paths
            uint8, uint16, or float in [0, 1].
        Y : Targets, mapping of task to targets, DataFrame, or one target per image
            None is a missing entry; −1 and NaN inside an entry are unlabelled.
        sample_weight : array-like of shape (n,), default=None
            Weight of each image, >= 0; 0 leaves it out. A head that takes no weights
            takes those of 0 and 1.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, ImageError, TargetError, UnknownTaskError
        """
        self._check()
        images, targets = self._prepare(X, Y)
        self._resolve_tasks(targets)
        weight = image_weights(sample_weight, len(images))
        self._check_weights(targets, weight)
        self._learnt_from_sums = False
        if self._decoder() is not None:
            self._fit_decoder(images, targets, weight)
            return self
        if self._learns_from_sums():
            self._fit_from_sums(images, targets, weight)
            self._learnt_from_sums = True
            return self
        keep = self._images_for_structure(targets)
        pixel, image, pictures = self._read_tables(images, targets, keep=keep)
        self.pixel_head_ = self._fit_head("pixel", pixel, weight)
        pixel = self._learn_from_tags(pixel, targets, weight)
        image = self._look_at_regions(image, images)
        self.image_head_ = self._fit_head("image", image, weight)
        tables = {"pixel": pixel, "image": image}
        self._learn_structures(tables, targets, weight, pictures)
        return self

    def partial_fit(self, X: Any, Y: Any, sample_weight: Any = None) -> Self:
        """Add images to those seen so far.

        For heads with ``partial_fit``, such as
        ``JointRidge(alpha=1e-3, calibrate=False)``: the result then equals one
        ``fit`` of all images, those of a ``fit`` before among them (with an integer
        ``random_state``, and ``tag_rounds=0`` where tags could teach pixels). Classes
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
        self._check()
        head = self._head_for([ColumnGroup("real", 1)], ["any"])
        if not hasattr(head, "partial_fit"):
            raise AttributeError(
                f"partial_fit needs a `head` that has it, got {self.head!r}; use "
                "head=JointRidge(alpha=1e-3, calibrate=False)"
            )
        for name in ("structure", "pool_by"):
            if getattr(self, name) is not None:
                raise AttributeError(f"partial_fit cannot do `{name}`; set None")
        if not getattr(self, "_learnt_from_sums", True):
            raise AttributeError(
                "partial_fit cannot go on from this fit, in which tags taught pixels, "
                "regions were pooled, structure was learnt, or a head chose something "
                "by all rows at once; fit all images together, or fit the first ones "
                "with tag_rounds=0, structure=None, pool_by=None and this head"
            )
        images, targets = self._prepare(X, Y, again=hasattr(self, "tasks_"))
        if not hasattr(self, "tasks_"):
            self._learnt_from_sums = True
            self._resolve_tasks(targets)
            self.pixel_head_ = self.image_head_ = None
            self.structures_, self.couplings_, self.contexts_ = {}, [], []
        if targets.task_names != list(self.tasks_):
            raise UnknownTaskError(
                f"Y has the tasks {targets.task_names}, the first call had "
                f"{list(self.tasks_)}"
            )
        before = self.n_images_ if hasattr(self, "n_images_") else 0
        rows_before = getattr(self, "n_rows_", 0)
        pixel, image, _ = self._read_tables(images, targets, partly=True)
        self.n_images_ += before
        self.n_rows_ += rows_before
        weight = image_weights(sample_weight, len(images))
        for granularity, table in {"pixel": pixel, "image": image}.items():
            names = self._names(granularity)
            if not names or not len(table.X):
                continue
            head = getattr(self, f"{granularity}_head_")
            if head is None:
                head = self._new_head(names)
            head.partial_fit(table.X, table.Y, sample_weight=weight[table.images])
            setattr(self, f"{granularity}_head_", head)
        return self

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
        return self._map_scores(X, tasks, decoded)

    def predict_proba(self, X: Any, tasks: Sequence[str] | None = None) -> Any:
        """Return probabilities: (H, W, K) or (K,) of classes, (H, W) of a mask.

        Parameters
        ----------
        X : images
        tasks : sequence of str, default=None

        Returns
        -------
        As ``predict``. For tasks of numbers, the numbers themselves; for tasks of
        several groups of columns, such as boxes, all of these, (H, W, n_scores).
        """
        return self._map_scores(X, tasks, probabilities)

    def decision_function(self, X: Any, tasks: Sequence[str] | None = None) -> Any:
        """Return scores: logits of classes and labels, numbers of real tasks.

        Parameters
        ----------
        X : images
        tasks : sequence of str, default=None

        Returns
        -------
        As ``predict``, each entry of shape (H, W, size) or (size,).
        """
        return self._map_scores(X, tasks, as_they_are)

    def score(self, X: Any, Y: Any) -> float:
        """Return the mean of the tasks' default metrics.

        Tasks do not count where ``Y`` has no label of them, or their metric is not
        defined, as average precision is not for an empty mask.

        Parameters
        ----------
        X : images
        Y : targets, as for ``fit``

        Returns
        -------
        float
            TargetError where no task counts.
        """
        scores = self.score_tasks(X, Y)
        values = np.array(list(scores.values()))
        if np.isnan(values).all():
            raise TargetError(
                f"nothing in Y is labelled of {list(scores)}, or their metrics are not "
                "defined (average precision needs something positive)"
            )
        return float(np.nanmean(values))

    def score_tasks(
        self,
        X: Any,
        Y: Any,
        metrics: Mapping[str, str | None] | None = None,
        n_pixels: int | None = None,
    ) -> dict[str, float]:
        """Score every task that ``Y`` has a column of.

        Parameters
        ----------
        X : images
        Y : targets, as for ``fit``
        metrics : mapping of task to metric, default=None
            Which metric of which task. None is each task's own.
        n_pixels : int, default=None
            Judge pixel tasks by at most so many labelled pixels of each image, chosen
            as ``fit`` chooses them: an estimate, many times faster, good enough to
            compare candidates. None is every pixel. Metrics of boundaries need that.

        Returns
        -------
        dict of str to float
            NaN for a task without a label in ``Y``.

        Warns
        -----
        UserWarning
            Where ``Y`` has classes or tags that ``fit`` did not see: classes count as
            wrong, of tags only those that the model knows are judged.

        Raises
        ------
        UnknownTaskError, TargetError, ImageError
        """
        check_is_fitted(self)
        images = Images(X, self.features_.channels, self.features_.on_error)
        targets, _ = as_targets(Y, len(images))
        if metrics is not None and not isinstance(metrics, Mapping):
            allowed = "a mapping of task to metric, or None"
            raise parameter_error("metrics", self, allowed, metrics)
        wanted = dict.fromkeys(targets.task_names) if metrics is None else dict(metrics)
        for name in self.wanted_tasks(list(wanted)):
            if name not in targets.task_names:
                raise UnknownTaskError(
                    f"`metrics` names {name!r}, but Y has {targets.task_names}"
                )
        names = self.wanted_tasks(list(wanted))
        columns = {name: targets[name] for name in names}
        meters = {name: task_metric(self.tasks_[name], wanted[name]) for name in names}
        if n_pixels is not None:
            check_n_pixels(self, n_pixels, meters)
        strange: dict[str, str] = {}
        for index, views, maps in self.features_.iter_views_and_maps(
            images, desc="score"
        ):
            given = {n: c[index] for n, c in columns.items() if c[index] is not None}
            truths = {}
            for name, entry in given.items():
                about = name, self.tasks_[name], entry, index, maps.shape
                try:
                    truths[name] = encode_entry(*about)
                except TargetError as error:  # of labels, it may be, new since fit
                    truths[name] = encode_entry(*about, unseen=True)
                    strange.setdefault(name, str(error))
            for name, truth, scores in self._truths_and_scores(
                views, maps, truths, n_pixels
            ):
                judge(meters[name], name, index, given[name], truth, scores)
        images.warn_of_skipped()
        for told in strange.values():
            warnings.warn(
                f"{told}. Labels that are never predicted count as wrong; tags that no "
                "score is about are left out",
                UserWarning,
                stacklevel=2,
            )
        return {name: meter.result() for name, meter in meters.items()}

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
