"""How the segmenter learns: pictures to tables, heads, tags, structure."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state

from mtsk._validation import (
    Interval,
    StrOptions,
    check_parameters,
    parameter_error,
)
from mtsk.cache import content_digest
from mtsk.checkpoint import KINDS
from mtsk.crf import PixelCRF, SuperpixelCRF
from mtsk.decoder_learning import decoder_order, fit_decoder
from mtsk.decoders import SharedDecoder
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.features import DeepFeatures
from mtsk.heads import (
    JointHead,
    JointLogistic,
    JointRidge,
    PerTaskHead,
    SharedLayerNetwork,
)
from mtsk.heads.sharing_ridge import SharingRidge
from mtsk.images import Images
from mtsk.joining import TableJoiner, require_labels
from mtsk.nested import HEADS
from mtsk.pictures import Picture
from mtsk.region_pooling import RegionPooling
from mtsk.shards import Reading, Recipe
from mtsk.structure import Structure
from mtsk.structure_learning import StructureLearning
from mtsk.superpixels import SUPERPIXELS, Segmentation
from mtsk.tables import Table, encode_entry
from mtsk.targets import Targets, as_targets
from mtsk.task_scores import task_scores
from mtsk.tasks import Task, infer_task
from mtsk.tasks.columns import ColumnGroup, joined_score_slices, joined_slices
from mtsk.tasks.infer import warn_of_classes
from mtsk.weak_labels import claim_pixels, find_links

__all__ = ["Learning"]


class Learning(StructureLearning):
    """What ``MultiTaskSegmenter.fit`` is made of, step by step."""

    n_pixels: int | None
    head_stride: int
    tag_rounds: int
    pool_by: str | tuple[str, Sequence[Any]] | None = None  # older files have none
    pooling_: RegionPooling | None = None
    superpixels: str | Segmentation
    n_segments: int | None
    n_jobs: int | None
    checkpoint: str | os.PathLike | None
    random_state: Any
    verbose: int
    features_: DeepFeatures
    pixel_head_: Any

    def _check(self) -> None:
        check_parameters(self, _CONSTRAINTS)
        for name, task in self.given_tasks().items():
            if not isinstance(task, Task):
                allowed = "a Task, a mapping of task names to Tasks, or None"
                raise parameter_error(f"tasks[{name!r}]", self, allowed, task)
        seeded = isinstance(self.random_state, Integral)
        if self.checkpoint is not None and not seeded:
            allowed = "an int where `checkpoint` is given: the same pixels each time"
            raise parameter_error("random_state", self, allowed, self.random_state)
        if self.checkpoint == "":
            raise parameter_error("checkpoint", self, "a path, or None", "")
        if self.n_jobs == 0:
            raise parameter_error("n_jobs", self, "an int other than 0, or None", 0)
        if isinstance(self.structure, BaseEstimator):
            self.structure.check_parameters()
        if isinstance(self.head, str) and self.head not in HEADS:
            allowed = f"one of {list(HEADS)}, an estimator or a mapping"
            raise parameter_error("head", self, allowed, self.head)
        if isinstance(self.head, Mapping):
            for name, own in self.head.items():
                if own not in _NAMED_OF_ONE if isinstance(own, str) else _no_head(own):
                    allowed = f"estimators, or of {list(_NAMED_OF_ONE)}, by task"
                    raise parameter_error(f"head[{name!r}]", self, allowed, own)
        self._check_decoder()

    def _check_decoder(self) -> None:
        """Refuse what a decoder cannot do."""
        if isinstance(self.head, Mapping) and any(
            isinstance(head, SharedDecoder) for head in self.head.values()
        ):
            allowed = "a SharedDecoder for all tasks, not for one of a mapping"
            raise parameter_error("head", self, allowed, self.head)
        if self._decoder() is None:
            return
        if self.pool_by is not None:
            allowed = "None with a SharedDecoder, whose layers all tasks share"
            raise parameter_error("pool_by", self, allowed, self.pool_by)
        if self.structure is not None:
            allowed = "None with a SharedDecoder, which sees places side by side itself"
            raise parameter_error("structure", self, allowed, self.structure)
        if self.checkpoint is not None:
            allowed = "None with a SharedDecoder, which reads no tables"
            raise parameter_error("checkpoint", self, allowed, self.checkpoint)

    def _decoder(self) -> SharedDecoder | None:
        """Return the decoder that was asked for, if one was."""
        head = self.default_parts().get("head", self.head)
        return head if isinstance(head, SharedDecoder) else None

    def _prepare(
        self, X: Any, Y: Any, *, again: bool = False
    ) -> tuple[Images, Targets]:
        if not again:
            parts = self.default_parts()
            self.features_ = clone(parts.get("features", self.features)).fit(X)
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
            warn_of_classes(name, self.tasks_[name], said=name in given)
        self.links_ = find_links(self.tasks_)
        self.pooling_ = (
            None
            if self.pool_by is None
            else RegionPooling.of(self.pool_by, self.tasks_, self)
        )

    def _read_tables(
        self,
        images: Images,
        targets: Targets,
        *,
        partly: bool = False,
        keep: Collection[int] = (),
    ) -> tuple[Table, Table, dict[int, Picture]]:
        """Pass every image through the network once; return both tables.

        And the pictures of some images, as far as there is room for them.
        """
        joiners = {kind: TableJoiner(self._names(kind), len(images)) for kind in KINDS}
        pictures: dict[int, Picture] = {}
        n_bytes = 0
        reading = self._reading(images, targets, partly=partly, keep=keep)
        self.n_images_ = 0
        for part in reading.parts():
            self.n_images_ += part.n_read
            images.skipped.update(part.skipped)
            for kind, joiner in joiners.items():
                n_images = part.n_read + len(part.skipped)
                joiner.add(part.tables[kind], n_images)
            for index, picture in part.pictures.items():
                n_bytes += picture.maps.nbytes + picture.image.nbytes
                if n_bytes < _KEPT_BYTES:
                    pictures[index] = picture
        self._note_skipped(images)
        pixel, image = (joiner.table(partly=partly) for joiner in joiners.values())
        self.n_rows_ = len(pixel.X)
        _warn_of_blank([pair for joiner in joiners.values() for pair in joiner.blank])
        return pixel, image, pictures

    def _reading(
        self,
        images: Images,
        targets: Targets,
        *,
        partly: bool = False,
        keep: Collection[int] = (),
        learners: Mapping[str, Any] | None = None,
        weight: np.ndarray | None = None,
    ) -> Reading:
        taught = tuple((link.pixels, link.tags) for link in self.links_)
        recipe = Recipe(
            self.features_,
            dict(self.tasks_),
            self._n_pixels(len(images)),
            self._seed,
            () if partly or not self.tag_rounds else taught,
            self.superpixels,
            self.n_segments,
            dict(learners or {}),
        )
        return Reading(
            recipe,
            images,
            {name: targets[name] for name in self.tasks_},
            weight,
            keep,
            self.n_jobs,
            None if partly else self.checkpoint,
            self.verbose,
        )

    def _note_skipped(self, images: Images) -> None:
        images.warn_of_skipped()
        self.skipped_ = dict(images.skipped)
        if not self.n_images_:
            raise TargetError("every image was skipped: nothing to learn from")

    def _learns_from_sums(self) -> bool:
        """Tell whether no table is needed: heads that only add up, and only once."""
        if self.structure is not None or (self.links_ and self.tag_rounds):
            return False
        if self.pool_by is not None:
            return False
        names = list(self.tasks_)
        return hasattr(self._new_head(names), "merge")

    def _fit_from_sums(
        self, images: Images, targets: Targets, weight: np.ndarray
    ) -> None:
        """Learn from sums over rows, a shard at a time: no table is ever held."""
        names = {kind: self._names(kind) for kind in KINDS}
        learners = {kind: self._new_head(own) for kind, own in names.items() if own}
        total = self._reading(images, targets, learners=learners, weight=weight).total()
        self.n_images_, self.n_rows_ = total.n_read, total.n_rows
        images.skipped.update(total.skipped)
        self._note_skipped(images)
        blank: list[tuple[str, int]] = []
        for kind, table in total.tables.items():
            require_labels(names[kind], table.labelled_at)
            blank += [(names[kind][t], i) for t, i in table.blank.tolist()]
        _warn_of_blank(blank)
        heads = {kind: head.solve() for kind, head in total.heads.items()}
        self.pixel_head_, self.image_head_ = (heads.get(kind) for kind in KINDS)
        self.structures_, self.couplings_, self.contexts_ = {}, [], []

    def _fit_decoder(
        self, images: Images, targets: Targets, weight: np.ndarray
    ) -> None:
        """Teach one decoder all tasks; it may bring a backbone of its own."""
        names = decoder_order(self.tasks_)
        head = self._new_head(names)
        fit_decoder(head, images, targets, self.tasks_, self.features_, weight)
        self.features_ = head.features_
        self.pixel_head_ = head if self._names("pixel") else None
        self.image_head_ = head if self._names("image") else None
        self.skipped_ = dict(images.skipped)
        self.n_images_ = len(images) - len(images.skipped)
        self.n_rows_ = 0
        self.structures_, self.couplings_, self.contexts_ = {}, [], []

    def _n_pixels(self, n_images: int) -> int:
        if self.n_pixels is not None:
            return int(self.n_pixels)
        network = self.head == "network" or isinstance(self.head, SharedLayerNetwork)
        most = _NETWORK_PIXELS if network else _PIXELS
        if self._learns_from_sums():
            return most
        return max(_FEWEST_PIXELS, min(most, most * _FULL_IMAGES // n_images))

    def _check_weights(self, targets: Targets, weight: np.ndarray) -> None:
        for name in self.tasks_:
            if not weight[targets.labelled(name)].any():
                raise TargetError(
                    f"sample_weight is 0 for every image that task {name!r} is "
                    "labelled on"
                )

    def _fit_head(
        self,
        granularity: str,
        table: Table,
        weight: np.ndarray,
        settled: Mapping[str, Any] | None = None,
    ) -> Any:
        names = self._names(granularity)
        if not names:
            return None
        head = self._new_head(names)
        if settled:
            head.set_params(**settled)
        extra: dict[str, Any] = {}
        if isinstance(head, JointRidge | PerTaskHead | SharedLayerNetwork):
            extra["groups"] = table.images
        if isinstance(head, JointLogistic | JointRidge):
            extra["memo"] = self.features_.memo(table.digest)
        if (weight != 1).any():
            extra["sample_weight"] = weight[table.images]
        return head.fit(table.X, table.Y, **extra)

    def _learn_from_tags(
        self, table: Table, targets: Targets, weight: np.ndarray
    ) -> Table:
        """Let pixels of tagged images take classes, and fit the pixel head anew."""
        links = [link for link in self.links_ if link.pixels in table.weak]
        names = self._names("pixel")
        owners = [self.tasks_[name].groups_ for name in names]
        parts = dict(zip(names, joined_score_slices(owners), strict=True))
        columns = dict(zip(names, joined_slices(owners), strict=True))
        # How much tasks share is for labels to say, not for guesses made from tags.
        head = self.pixel_head_
        settled = head.settled() if isinstance(head, SharingRidge) else None
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
            self.pixel_head_ = self._fit_head("pixel", table, weight, settled)
        return table

    def _look_at_regions(self, table: Table, images: Images) -> Table:
        """Let rows of images be the means of their regions: a second pass over them."""
        if self.pooling_ is None or not len(table.X):
            return table
        wanted = images.some(table.images.tolist())
        heads = {"pixel": self.pixel_head_}
        rows = []
        for _, maps in self.features_.iter_maps(wanted, desc="regions"):
            found = task_scores(
                maps, self.tasks_, heads, [self.pooling_.name], self.head_stride
            )
            rows.append(self.pooling_.vector(maps, found[self.pooling_.name]))
        X = np.stack(rows)
        return table._replace(X=X, digest=f"{table.digest} {content_digest(X)}")

    def _new_head(self, names: list[str]) -> Any:
        """Return an unfitted head for some tasks."""
        owners = [(name, g) for name in names for g in self.tasks_[name].groups_]
        return self._head_for([g for _, g in owners], [name for name, _ in owners])

    def _head_for(self, groups: list[ColumnGroup], names: list[str]) -> Any:
        """Return an unfitted head for some column groups of named tasks."""
        default = self.default_parts().get("head")
        head = self.head if default is None else default
        if isinstance(head, Mapping):
            for name in head:
                if hasattr(self, "tasks_") and name not in self.tasks_:
                    raise UnknownTaskError(
                        f"`head` names {name!r}; the tasks are {list(self.tasks_)}"
                    )
            chosen = [head.get(name, "logistic") for name in names]
            chosen = [HEADS[h]() if isinstance(h, str) else h for h in chosen]
            return PerTaskHead(chosen, groups, n_jobs=self.n_jobs)
        if not isinstance(head, JointHead | SharedDecoder):
            return PerTaskHead(head, groups, n_jobs=self.n_jobs)
        head = clone(head)
        if isinstance(head, JointHead):
            head.set_params(columns=groups)
        if isinstance(head, SharedLayerNetwork | SharedDecoder):
            self._name_weights(head, names)
        if "random_state" in head.get_params() and head.random_state is None:
            head.set_params(random_state=getattr(self, "_seed", None))
        if self.verbose and "verbose" in head.get_params():
            head.set_params(verbose=self.verbose)
        return head

    def _name_weights(
        self, head: SharedLayerNetwork | SharedDecoder, names: list[str]
    ) -> None:
        """Turn weights by task into weights by place, for the tasks of one head."""
        if not hasattr(self, "tasks_"):  # asked before a fit, what a head can do
            return
        given: Any = head.task_weights
        if len(names) < len(self.tasks_) and np.ndim(given) == 1:
            raise parameter_error(
                "task_weights",
                head,
                "a mapping of names where tasks of pixels and of whole images have a "
                "network each",
                given,
            )
        if not isinstance(given, Mapping) or not any(isinstance(k, str) for k in given):
            return
        for name in given:
            if name not in self.tasks_:
                raise UnknownTaskError(
                    f"`task_weights` names {name!r}; the tasks are {list(self.tasks_)}"
                )
        head.set_params(
            task_weights={i: given[n] for i, n in enumerate(names) if n in given}
        )

    def _names(self, granularity: str) -> list[str]:
        return [n for n, t in self.tasks_.items() if t.granularity == granularity]


_NAMED_OF_ONE = ("logistic", "ridge")  # heads that may be of one task
_PIXELS, _NETWORK_PIXELS = 500, 1000  # that an image gives to a task
_FULL_IMAGES, _FEWEST_PIXELS = 400, 10  # more images give fewer pixels each
_KEPT_BYTES = 2**29  # of pictures that structure is learnt from
_CONSTRAINTS: dict[str, list] = {
    "tasks": [Task, Mapping, None],
    "features": [DeepFeatures, None],
    "head": [str, BaseEstimator, Mapping, None],
    "n_pixels": [Interval(Integral, 1, None, closed="left"), None],
    "head_stride": [Interval(Integral, 1, None, closed="left")],
    "tag_rounds": [Interval(Integral, 0, None, closed="left")],
    "pool_by": [str, tuple, None],
    "structure": [Structure, SuperpixelCRF, PixelCRF, StrOptions({"crf"}), None],
    "superpixels": [StrOptions(set(SUPERPIXELS)), callable],
    "n_segments": [Interval(Integral, 1, None, closed="left"), None],
    "n_jobs": [Integral, None],
    "checkpoint": [str, os.PathLike, None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def _warn_of_blank(blank: list[tuple[str, int]]) -> None:
    if blank:
        warnings.warn(
            f"targets that are void everywhere count as missing: {blank[:10]} "
            "(task, image); write None to say so",
            UserWarning,
            stacklevel=4,
        )


def _with_image(name: str, message: str, labelled: np.ndarray) -> str:
    """Turn "entry i", a place among the labelled ones, into the image's index."""
    found = re.match(r"entry (\d+)", message)
    if not found:
        return f"task {name!r}: {message}"
    return f"task {name!r}, image {labelled[int(found[1])]}{message[found.end() :]}"


def _no_head(value: Any) -> bool:
    return isinstance(value, type) or not hasattr(value, "fit")
