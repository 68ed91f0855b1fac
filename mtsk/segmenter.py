"""The front door: images and targets in, predictions of every task out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from mtsk._validation import (
    Interval,
    StrOptions,
    check_parameters,
    parameter_error,
    visual_block,
)
from mtsk.crf import SuperpixelCRF
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.feature_maps import FeatureMaps
from mtsk.features import DeepFeatures
from mtsk.heads import JointLinear, JointLogistic, JointRidge, PerTaskHead
from mtsk.images import Images
from mtsk.metrics import task_metric
from mtsk.nested import HEADS, NestedDefaults
from mtsk.structure import Picture, has_structure, learn_structure, with_messages
from mtsk.superpixels import SUPERPIXELS, Segmentation
from mtsk.tables import Table, TableBuilder, choose_pixels, encode_entry
from mtsk.targets import DEFAULT_TASK, Targets, as_targets
from mtsk.task_scores import task_scores
from mtsk.tasks import Boundary, Task, infer_task
from mtsk.tasks.columns import ColumnGroup, column_slices, score_slices
from mtsk.weak_labels import claim_pixels, find_links

__all__ = ["MultiTaskSegmenter"]


class MultiTaskSegmenter(NestedDefaults):
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
        vector or set of str, ``MultiLabel``.
    features : DeepFeatures, default=None
        None is ``DeepFeatures()``. Its parameters can be set as ``features__scales``.
    head : "logistic", "ridge", estimator, or mapping of task to estimator, default=None
        What maps features to scores. None is ``"logistic"``, a `JointLogistic`;
        ``"ridge"`` a `JointRidge`. Any scikit-learn classifier or regressor will do,
        fitted to each task on its own labelled rows; tasks missing in a mapping get
        the default. Its parameters can be set as ``head__alpha``.
    n_pixels : int, default=500
        Most labelled pixels that an image gives to a task.
    head_stride : int, default=4
        Heads that are not linear are evaluated at every so many pixels, down and
        across, and interpolated between. 1 evaluates every pixel.
    tag_rounds : int, default=2
        Rounds in which images with tags but no mask teach a task of pixels, where a
        `MultiLabel` is linked to it (its ``of``): their pixels take the likeliest of
        the tags' classes, as the last fit sees them, and the head is fitted anew. 0
        leaves tags to themselves. ``partial_fit`` has no such rounds.
    structure : None, "crf" or SuperpixelCRF, default=None
        What neighbouring regions say to one another: for every task of classes or
        masks a CRF over superpixels is learnt, from held-out scores, and its messages
        are added to the scores of the regions' pixels. ``"crf"`` is
        ``SuperpixelCRF()``. Its parameters can be set as ``structure__strength``.
    superpixels : {"slic", "skimage_slic", "felzenszwalb"} or callable, default="slic"
        How regions are made; see `mtsk.superpixels.over_segment`.
    n_segments : int, default=None
        About so many regions an image; None makes regions of about 170 pixels.
    n_jobs : int, default=None
        Fits at a time, of scikit-learn heads.
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
    pixel_head_, image_head_ : estimator or None
        The fitted heads of the pixel and the image tasks.
    structures_ : dict of str to SuperpixelCRF
        Of each task that has structure.
    links_ : list of TagLink
        Which tasks of tags teach which tasks of pixels.
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
        n_pixels: int = 500,
        head_stride: int = 4,
        tag_rounds: int = 2,
        structure: SuperpixelCRF | str | None = None,
        superpixels: str | Segmentation = "slic",
        n_segments: int | None = None,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.tasks = tasks
        self.features = features
        self.head = head
        self.n_pixels = n_pixels
        self.head_stride = head_stride
        self.tag_rounds = tag_rounds
        self.structure = structure
        self.superpixels = superpixels
        self.n_segments = n_segments
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _sk_visual_block_(self) -> Any:
        """Draw the flow: features, then the heads, with the tasks they serve."""
        parts = self.default_parts()
        head = parts.get("head", self.head)
        heads = dict(head) if isinstance(head, Mapping) else {"head": head}
        if hasattr(self, "tasks_"):
            fitted = {"pixel": self.pixel_head_, "image": self.image_head_}
            heads = {
                f"{kind} tasks: {', '.join(self._names(kind))}": head
                for kind, head in fitted.items()
                if head is not None
            }
        return visual_block(parts.get("features", self.features), heads)

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
            Weight of each image.

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
        keep = self._images_for_structure(targets)
        pixel, image = self._read_tables(images, targets, keep=keep)
        weight = _image_weights(sample_weight, len(images))
        self.pixel_head_ = self._fit_head("pixel", pixel, weight)
        pixel = self._learn_from_tags(pixel, targets, weight)
        self.image_head_ = self._fit_head("image", image, weight)
        self._learn_structures(pixel, targets, weight)
        return self

    def partial_fit(self, X: Any, Y: Any, sample_weight: Any = None) -> Self:
        """Add images to those seen so far.

        For heads with ``partial_fit``, such as
        ``JointRidge(alpha=1e-3, calibrate=False)``: the result then equals one
        ``fit`` of all images (with an integer ``random_state``). Classes must occur
        in the first call, or be named in ``tasks``.

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
            Where the head cannot learn in pieces.
        InvalidParameterError, ImageError, TargetError
        """
        self._check()
        head = self._head_for([ColumnGroup("real", 1)], ["any"])
        if not hasattr(head, "partial_fit"):
            raise AttributeError(
                f"partial_fit needs a `head` that has it, got {self.head!r}; use "
                "head=JointRidge(alpha=1e-3, calibrate=False)"
            )
        images, targets = self._prepare(X, Y, again=hasattr(self, "tasks_"))
        if not hasattr(self, "tasks_"):
            if self.structure is not None:
                raise AttributeError("partial_fit cannot learn `structure`; set None")
            self._resolve_tasks(targets)
            self.pixel_head_ = self.image_head_ = None
            self.structures_: dict[str, SuperpixelCRF] = {}
        if targets.task_names != list(self.tasks_):
            raise UnknownTaskError(
                f"Y has the tasks {targets.task_names}, the first call had "
                f"{list(self.tasks_)}"
            )
        before = self.n_images_ if hasattr(self, "n_images_") else 0
        rows_before = getattr(self, "n_rows_", 0)
        pixel, image = self._read_tables(images, targets, partly=True)
        self.n_images_ += before
        self.n_rows_ += rows_before
        weight = _image_weights(sample_weight, len(images))
        for granularity, table in {"pixel": pixel, "image": image}.items():
            names = self._names(granularity)
            if not names or not len(table.X):
                continue
            head = getattr(self, f"{granularity}_head_")
            if head is None:
                head = self._head_for([self.tasks_[n].group_ for n in names], names)
            head.partial_fit(table.X, table.Y, sample_weight=weight[table.images])
            setattr(self, f"{granularity}_head_", head)
        return self

    def _check(self) -> None:
        check_parameters(self, _CONSTRAINTS)
        for name, task in self.given_tasks().items():
            if not isinstance(task, Task):
                allowed = "a Task, a mapping of task names to Tasks, or None"
                raise parameter_error(f"tasks[{name!r}]", self, allowed, task)
        if self.n_jobs == 0:
            raise parameter_error("n_jobs", self, "an int other than 0, or None", 0)
        if isinstance(self.head, str) and self.head not in HEADS:
            allowed = f"one of {list(HEADS)}, an estimator or a mapping"
            raise parameter_error("head", self, allowed, self.head)

    def _prepare(
        self, X: Any, Y: Any, *, again: bool = False
    ) -> tuple[Images, Targets]:
        if not again:
            parts = self.default_parts()
            self.features_ = clone(parts.get("features", self.features)).fit()
            if self.verbose and not self.features_.verbose:
                self.features_.set_params(verbose=self.verbose)
            self._seed = int(
                check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            )
        images = Images(X, self.features_.channels, self.features_.on_error)
        targets, self._bare = as_targets(Y, len(images))
        return images, targets

    def _resolve_tasks(self, targets: Targets) -> None:
        """Fit a codec for every column of targets."""
        given = self.given_tasks()
        for name in given:
            if name not in targets.task_names:
                raise UnknownTaskError(
                    f"`tasks` names {name!r}, but the targets have {targets.task_names}"
                )
        self.tasks_: dict[str, Task] = {}
        for name in targets.task_names:
            entries = targets[name]
            labelled = targets.labelled(name)
            if not len(labelled):
                raise TargetError(f"task {name!r} is labelled on no image")
            task = clone(given[name]) if name in given else infer_task(name, entries)
            try:
                self.tasks_[name] = task.fit([entries[i] for i in labelled])
            except TargetError as error:
                raise TargetError(_with_image(name, str(error), labelled)) from None
        self.links_ = find_links(self.tasks_)

    def _read_tables(
        self,
        images: Images,
        targets: Targets,
        *,
        partly: bool = False,
        keep: Collection[int] = (),
    ) -> tuple[Table, Table]:
        """Pass every image through the network once; return both tables."""
        builders = {
            kind: TableBuilder(
                {n: self.tasks_[n] for n in self._names(kind)},
                self.n_pixels,
                self._seed,
            )
            for kind in ("pixel", "image")
        }
        columns = {name: targets[name] for name in self.tasks_}
        n_read = n_bytes = 0
        self._kept: dict[int, Picture] = {}
        for index, views, maps in self.features_.iter_views_and_maps(images):
            n_read += 1
            if index in keep and n_bytes < _KEPT_BYTES:
                self._kept[index] = self._picture(views, maps)
                n_bytes += maps.nbytes + views[0].nbytes
            entries = {name: column[index] for name, column in columns.items()}
            weak = [] if partly else self._taught_by_tags(entries)
            for builder in builders.values():
                builder.add(index, maps, entries, weak)
        images.warn_of_skipped()
        self.skipped_ = dict(images.skipped)
        if not n_read:
            raise TargetError("every image was skipped: nothing to learn from")
        self.n_images_ = n_read
        pixel, image = (
            b.finish(partly=partly) if b.tasks else Table.empty()
            for b in builders.values()
        )
        self.n_rows_ = len(pixel.X)
        blank = builders["pixel"].blank + builders["image"].blank
        if blank:
            warnings.warn(
                f"targets that are void everywhere count as missing: {blank[:10]} "
                "(task, image); write None to say so",
                UserWarning,
                stacklevel=3,
            )
        return pixel, image

    def _fit_head(self, granularity: str, table: Table, weight: np.ndarray) -> Any:
        names = self._names(granularity)
        if not names:
            return None
        head = self._head_for([self.tasks_[n].group_ for n in names], names)
        extra: dict[str, Any] = {}
        if isinstance(head, JointRidge | PerTaskHead):
            extra["groups"] = table.images
        if isinstance(head, JointLogistic | JointRidge):
            extra["memo"] = self.features_.memo(table.digest)
        if (weight != 1).any():
            extra["sample_weight"] = weight[table.images]
        return head.fit(table.X, table.Y, **extra)

    def _taught_by_tags(self, entries: Mapping[str, Any]) -> list[str]:
        """Return the tasks of pixels that an image has tags for, but no mask."""
        return [
            link.pixels
            for link in self.links_
            if self.tag_rounds
            and entries[link.pixels] is None
            and entries[link.tags] is not None
        ]

    def _learn_from_tags(
        self, table: Table, targets: Targets, weight: np.ndarray
    ) -> Table:
        """Let pixels of tagged images take classes, and fit the pixel head anew."""
        links = [link for link in self.links_ if link.pixels in table.weak]
        names = self._names("pixel")
        groups = [self.tasks_[name].group_ for name in names]
        parts = dict(zip(names, score_slices(groups), strict=True))
        columns = dict(zip(names, column_slices(groups), strict=True))
        for _ in range(self.tag_rounds if links else 0):
            Y = table.Y.copy()
            for link in links:
                rows = np.flatnonzero(table.weak[link.pixels])
                images, of_row = np.unique(table.images[rows], return_inverse=True)
                task, entries = self.tasks_[link.tags], targets[link.tags]
                tags = np.stack(
                    [
                        encode_entry(link.tags, task, entries[i], i, (0, 0))
                        for i in images
                    ]
                )
                scores = self.pixel_head_.decision_function(table.X[rows])
                Y[rows, columns[link.pixels].start] = claim_pixels(
                    scores[:, parts[link.pixels]],
                    link.allowed(tags)[of_row],
                    link.present(tags)[of_row],
                    table.images[rows],
                )
            table = table._replace(Y=Y)
            self.pixel_head_ = self._fit_head("pixel", table, weight)
        return table

    def _images_for_structure(self, targets: Targets) -> list[int]:
        """Return images with a task that has structure, evenly spread."""
        if self.structure is None:
            return []
        names = [n for n, t in self.tasks_.items() if has_structure(t)]
        some = sorted({int(i) for n in names for i in targets.labelled(n)})
        step = max(1, -(-len(some) // _MOST_KEPT))
        return some[::step]

    def _learn_structures(
        self, table: Table, targets: Targets, weight: np.ndarray
    ) -> None:
        """Fit a CRF for each task, to scores of heads that did not see the image."""
        kept, self._kept = self._kept, {}
        self.structures_ = {}
        wanted = [n for n, t in self.tasks_.items() if has_structure(t)]
        if self.structure is None or not wanted:
            return
        scores = self._held_out_scores(table, targets, weight, kept)
        for name in wanted:
            crf = clone(self.default_parts().get("structure", self.structure))
            crf.set_params(random_state=self._seed)
            seen = [i for i in scores if targets[name][i] is not None]
            if len(seen) < _FEWEST_KEPT:
                warnings.warn(
                    f"task {name!r} is labelled on fewer than {_FEWEST_KEPT} images: "
                    "its structure cannot be learnt and is left out",
                    UserWarning,
                    stacklevel=3,
                )
                continue
            codes = [
                encode_entry(name, self.tasks_[name], targets[name][i], i, p.maps.shape)
                for i, p in ((i, kept[i]) for i in seen)
            ]
            self.structures_[name] = learn_structure(
                crf,
                self.tasks_[name],
                [kept[i] for i in seen],
                [scores[i][name] for i in seen],
                [code[..., 0] for code in codes],
                [self._boundary(scores[i]) for i in seen],
            )

    def _held_out_scores(
        self,
        table: Table,
        targets: Targets,
        weight: np.ndarray,
        kept: Mapping[int, Picture],
    ) -> dict[int, dict[str, np.ndarray]]:
        """Return scores of kept images by heads fitted to the others.

        One fit where the others are the more; else three, each without a third.
        """
        names = self._names("pixel")
        labelled = {int(i) for n in names for i in targets.labelled(n)}
        n_folds = 1 if len(labelled) > 2 * len(kept) else 3
        out: dict[int, dict[str, np.ndarray]] = {}
        for fold in range(n_folds):
            held = list(kept)[fold::n_folds]
            Y = table.Y.copy()
            rows = np.isin(table.images, held)
            groups = [self.tasks_[n].group_ for n in names]
            for columns in column_slices(groups):
                known = ~np.isnan(Y[:, columns]).all(axis=1)
                if (known & ~rows).any():  # else the task would have no label left
                    Y[rows, columns] = np.nan
            head = self._fit_head("pixel", table._replace(Y=Y), weight)
            for i in held:
                out[i] = task_scores(
                    kept[i].maps, self.tasks_, {"pixel": head}, names, self.head_stride
                )
        return dict(sorted(out.items()))

    def _picture(self, views: np.ndarray, maps: FeatureMaps) -> Picture:
        return Picture(views[0], maps, self.superpixels, self.n_segments)

    def _boundary(self, scores: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Return the logits of the first boundary task among some scores."""
        for name, task in self.tasks_.items():
            if isinstance(task, Boundary) and name in scores:
                return scores[name][..., 0]
        return None

    def _head_for(self, groups: list[ColumnGroup], names: list[str]) -> Any:
        """Return an unfitted head for some column groups."""
        default = self.default_parts().get("head")
        head = self.head if default is None else default
        if isinstance(head, Mapping):
            for name in head:
                if hasattr(self, "tasks_") and name not in self.tasks_:
                    raise UnknownTaskError(
                        f"`head` names {name!r}; the tasks are {list(self.tasks_)}"
                    )
            chosen = [head.get(name, JointLogistic()) for name in names]
            return PerTaskHead(chosen, groups, n_jobs=self.n_jobs)
        if isinstance(head, JointLinear):
            head = clone(head).set_params(columns=groups)
            if self.verbose and "verbose" in head.get_params():
                head.set_params(verbose=self.verbose)
            return head
        return PerTaskHead(head, groups, n_jobs=self.n_jobs)

    def _names(self, granularity: str) -> list[str]:
        return [n for n, t in self.tasks_.items() if t.granularity == granularity]

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
        return self._map_scores(X, tasks, lambda task, scores: task.decode(scores))

    def predict_proba(self, X: Any, tasks: Sequence[str] | None = None) -> Any:
        """Return probabilities: (H, W, K) or (K,) of classes, (H, W) of a mask.

        Parameters
        ----------
        X : images
        tasks : sequence of str, default=None

        Returns
        -------
        As ``predict``. For tasks of numbers, the numbers themselves.
        """
        return self._map_scores(X, tasks, _probabilities)

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
        return self._map_scores(X, tasks, lambda task, scores: scores)

    def score(self, X: Any, Y: Any) -> float:
        """Return the mean of the tasks' default metrics.

        Tasks without a label in ``Y`` do not count.

        Parameters
        ----------
        X : images
        Y : targets, as for ``fit``

        Returns
        -------
        float
        """
        scores = np.array(list(self.score_tasks(X, Y).values()))
        if np.isnan(scores).all():
            raise TargetError("nothing in Y is labelled: there is nothing to score")
        return float(np.nanmean(scores))

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

        Raises
        ------
        UnknownTaskError, TargetError, ImageError
        """
        check_is_fitted(self)
        images = Images(X, self.features_.channels, self.features_.on_error)
        targets, _ = as_targets(Y, len(images))
        wanted = dict.fromkeys(targets.task_names) if metrics is None else dict(metrics)
        names = self._wanted(list(wanted))
        columns = {name: targets[name] for name in names}
        meters = {name: task_metric(self.tasks_[name], wanted[name]) for name in names}
        if n_pixels is not None:
            _check_n_pixels(self, n_pixels, meters)
        for index, views, maps in self.features_.iter_views_and_maps(
            images, desc="score"
        ):
            truths = {
                name: encode_entry(
                    name,
                    self.tasks_[name],
                    column[index],
                    index,
                    maps.shape,
                    unseen=True,
                )
                for name, column in columns.items()
                if column[index] is not None
            }
            for name, truth, scores in self._truths_and_scores(
                views, maps, truths, n_pixels
            ):
                meters[name].update(truth, scores)
        images.warn_of_skipped()
        return {name: meter.result() for name, meter in meters.items()}

    def _truths_and_scores(
        self,
        views: np.ndarray,
        maps: FeatureMaps,
        truths: Mapping[str, np.ndarray],
        n_pixels: int | None,
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield (task, truth, scores) of an image, whole or at some labelled pixels."""
        if n_pixels is None:
            for name, scores in self._scores(views, maps, list(truths)).items():
                yield name, truths[name], scores
            return
        points: np.ndarray | None
        for name, truth in truths.items():
            points, known = None, truth
            if self.tasks_[name].granularity == "pixel":
                flat = truth.reshape(-1, truth.shape[-1])
                labelled = ~np.isnan(flat).all(axis=1)
                rows = np.flatnonzero(
                    choose_pixels(labelled[None], n_pixels, self._seed, maps.digest)[0]
                )
                points = np.stack(np.unravel_index(rows, maps.shape), axis=1)
                known = flat[rows]
            if known.size:
                yield name, known, self._scores(views, maps, [name], points)[name]

    def _wanted(self, tasks: Sequence[str] | None) -> list[str]:
        check_is_fitted(self)
        if isinstance(tasks, str):
            tasks = [tasks]
        names = list(self.tasks_) if tasks is None else list(tasks)
        for name in names:
            if name not in self.tasks_:
                raise UnknownTaskError(
                    f"no task {name!r}; the tasks are {list(self.tasks_)}"
                )
        return names

    def _scores(
        self,
        views: np.ndarray,
        maps: FeatureMaps,
        names: Sequence[str],
        points: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        heads = {"pixel": self.pixel_head_, "image": self.image_head_}
        crfs = {n: c for n, c in self.structures_.items() if n in names and c.strength_}
        if not crfs:
            return task_scores(
                maps, self.tasks_, heads, names, self.head_stride, points
            )
        edges = [n for n, t in self.tasks_.items() if isinstance(t, Boundary)][:1]
        every = list(dict.fromkeys([*names, *edges]))
        scores = task_scores(maps, self.tasks_, heads, every, self.head_stride)
        found = with_messages(
            self._picture(views, maps),
            self.tasks_,
            scores,
            crfs,
            self._boundary(scores),
        )
        if points is not None:
            found = {
                n: s[tuple(points.T)] if self.tasks_[n].granularity == "pixel" else s
                for n, s in found.items()
            }
        return {name: found[name] for name in self.tasks_ if name in names}

    def _map_scores(self, X: Any, tasks: Sequence[str] | None, decode: Any) -> Any:
        names = self._wanted(tasks)
        images = Images(X, self.features_.channels, self.features_.on_error)
        out: dict[str, list[Any]] = {name: [None] * len(images) for name in names}
        for index, views, maps in self.features_.iter_views_and_maps(
            images, desc="predict"
        ):
            for name, scores in self._scores(views, maps, names).items():
                out[name][index] = decode(self.tasks_[name], scores)
        images.warn_of_skipped()
        stacked = isinstance(X, np.ndarray) and X.ndim >= 3 and not images.skipped
        shaped = {name: _shape_up(column, stacked) for name, column in out.items()}
        return shaped[DEFAULT_TASK] if self._bare and tasks is None else shaped


_KEPT_BYTES = 2**29  # of pictures that structure is learnt from
_MOST_KEPT, _FEWEST_KEPT = 60, 3
_CONSTRAINTS: dict[str, list] = {
    "tasks": [Task, Mapping, None],
    "features": [DeepFeatures, None],
    "head": [str, BaseEstimator, Mapping, None],
    "n_pixels": [Interval(Integral, 1, None, closed="left")],
    "head_stride": [Interval(Integral, 1, None, closed="left")],
    "tag_rounds": [Interval(Integral, 0, None, closed="left")],
    "structure": [SuperpixelCRF, StrOptions({"crf"}), None],
    "superpixels": [StrOptions(set(SUPERPIXELS)), callable],
    "n_segments": [Interval(Integral, 1, None, closed="left"), None],
    "n_jobs": [Integral, None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def _with_image(name: str, message: str, labelled: np.ndarray) -> str:
    """Turn "entry i", a place among the labelled ones, into the image's index."""
    found = re.match(r"entry (\d+)", message)
    if not found:
        return f"task {name!r}: {message}"
    return f"task {name!r}, image {labelled[int(found[1])]}{message[found.end() :]}"


def _image_weights(sample_weight: Any, n_images: int) -> np.ndarray:
    if sample_weight is None:
        return np.ones(n_images)
    weight = np.asarray(sample_weight, float)
    if weight.shape != (n_images,) or not (weight >= 0).all() or not weight.any():
        raise ValueError(
            f"sample_weight must hold {n_images} numbers >= 0, one an image, got shape "
            f"{weight.shape}"
        )
    return weight


def _check_n_pixels(
    model: MultiTaskSegmenter, n_pixels: Any, meters: Mapping[str, Any]
) -> None:
    if not isinstance(n_pixels, Integral) or n_pixels < 1:
        raise parameter_error("n_pixels", model, "an int > 0, or None", n_pixels)
    for name, meter in meters.items():
        if getattr(meter, "needs_maps", False):
            raise ValueError(
                f"the metric of task {name!r} needs whole maps; leave `n_pixels` None"
            )


def _probabilities(task: Task, scores: np.ndarray) -> np.ndarray:
    if task.group_.kind == "real":
        return task.decode(scores)
    probabilities = task.probabilities(scores)
    if task.granularity == "pixel" and task.group_.kind == "binary":
        return probabilities[..., 0]
    return probabilities


def _shape_up(column: list[Any], stacked: bool) -> Any:
    """Return scalars as an array, maps as an array where the images were one."""
    if any(entry is None for entry in column) or isinstance(column[0], set):
        return column
    if stacked or np.ndim(column[0]) < 2:
        return np.array(column)
    return column
