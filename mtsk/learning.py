"""How the segmenter learns: pictures to tables, heads, tags, structure."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
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
from mtsk.context import ContextLink, find_context
from mtsk.crf import Coupling, PixelCRF, SuperpixelCRF
from mtsk.decoder_learning import decoder_order, fit_decoder
from mtsk.decoders import SharedDecoder
from mtsk.exceptions import TargetError, UnknownTaskError
from mtsk.feature_maps import FeatureMaps
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
from mtsk.nested import HEADS, NestedDefaults
from mtsk.pictures import Picture
from mtsk.structure import (
    Seen,
    Structure,
    TaskStructure,
    has_structure,
    learn_structures,
)
from mtsk.superpixels import SUPERPIXELS, Segmentation
from mtsk.tables import Table, TableBuilder, encode_entry
from mtsk.targets import Targets, as_targets
from mtsk.task_scores import task_scores
from mtsk.tasks import Boundary, Task, infer_task
from mtsk.tasks.columns import ColumnGroup, joined_score_slices, joined_slices
from mtsk.weak_labels import TagLink, claim_pixels, find_links

__all__ = ["Learning"]


class Learning(NestedDefaults):
    """What ``MultiTaskSegmenter.fit`` is made of, step by step."""

    n_pixels: int | None
    head_stride: int
    tag_rounds: int
    superpixels: str | Segmentation
    n_segments: int | None
    n_jobs: int | None
    random_state: Any
    verbose: int
    features_: DeepFeatures
    pixel_head_: Any
    links_: list[TagLink]
    structures_: dict[str, TaskStructure]
    couplings_: list[Coupling]
    contexts_: list[ContextLink]

    def _check(self) -> None:
        check_parameters(self, _CONSTRAINTS)
        for name, task in self.given_tasks().items():
            if not isinstance(task, Task):
                allowed = "a Task, a mapping of task names to Tasks, or None"
                raise parameter_error(f"tasks[{name!r}]", self, allowed, task)
        if self.n_jobs == 0:
            raise parameter_error("n_jobs", self, "an int other than 0, or None", 0)
        if isinstance(self.structure, BaseEstimator):
            self.structure.check_parameters()
        if isinstance(self.head, str) and self.head not in HEADS:
            allowed = f"one of {list(HEADS)}, an estimator or a mapping"
            raise parameter_error("head", self, allowed, self.head)
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
        if self.structure is not None:
            allowed = "None with a SharedDecoder, which sees places side by side itself"
            raise parameter_error("structure", self, allowed, self.structure)

    def _decoder(self) -> SharedDecoder | None:
        """Return the decoder that was asked for, if one was."""
        head = self.default_parts().get("head", self.head)
        return head if isinstance(head, SharedDecoder) else None

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
                self._n_pixels(),
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

    def _n_pixels(self) -> int:
        if self.n_pixels is not None:
            return int(self.n_pixels)
        network = self.head == "network" or isinstance(self.head, SharedLayerNetwork)
        return _NETWORK_PIXELS if network else _PIXELS

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

    def _images_for_structure(self, targets: Targets) -> list[int]:
        """Return images with a task that has structure, evenly spread."""
        if self.structure is None:
            return []
        names = [n for n, t in self.tasks_.items() if has_structure(t)]
        some = sorted({int(i) for n in names for i in targets.labelled(n)})
        step = max(1, -(-len(some) // _MOST_KEPT))
        return some[::step]

    def _learn_structures(
        self, tables: Mapping[str, Table], targets: Targets, weight: np.ndarray
    ) -> None:
        """Learn structure from scores of heads that did not see the image."""
        kept, self._kept = self._kept, {}
        self.structures_, self.couplings_, self.contexts_ = {}, [], []
        wanted = {n: t for n, t in self.tasks_.items() if has_structure(t)}
        if self.structure is None or not wanted:
            return
        codes = {i: self._codes(i, wanted, targets, p) for i, p in kept.items()}
        for name in list(wanted):
            if sum(name in own for own in codes.values()) < _FEWEST_KEPT:
                warnings.warn(
                    f"task {name!r} is labelled on fewer than {_FEWEST_KEPT} images: "
                    "its structure cannot be learnt and is left out",
                    UserWarning,
                    stacklevel=3,
                )
                del wanted[name]
        if not wanted:
            return
        structure = self._given_structure()
        if structure.regions is not None:
            links = find_context(self.tasks_, targets, self.links_)
            self.contexts_ = [link for link in links if link.pixels in wanted]
        scores = self._held_out_scores(tables, targets, weight, kept)
        seen = [
            Seen(kept[i], own, codes[i], self._boundary(own), self._context(own))
            for i, own in scores.items()
        ]
        self.structures_, self.couplings_ = learn_structures(
            structure, wanted, seen, self._seed
        )

    def _codes(
        self, i: int, tasks: Mapping[str, Task], targets: Targets, picture: Picture
    ) -> dict[str, np.ndarray]:
        """Return an image's codes (H, W) in the tasks that it has a label of."""
        out = {}
        for name, task in tasks.items():
            code = encode_entry(name, task, targets[name][i], i, picture.maps.shape)
            if (code >= 0).any():  # False for NaN
                out[name] = code[..., 0]
        return out

    def _given_structure(self) -> Structure:
        given = self.default_parts().get("structure", self.structure)
        if isinstance(given, SuperpixelCRF):
            return Structure(given)
        return Structure(pixels=given) if isinstance(given, PixelCRF) else given

    def _held_out_scores(
        self,
        tables: Mapping[str, Table],
        targets: Targets,
        weight: np.ndarray,
        kept: Mapping[int, Picture],
    ) -> dict[int, dict[str, np.ndarray]]:
        """Return scores of kept images by heads fitted to the others.

        One fit where the others are the more; else three, each without a third.
        """
        sources = {link.source for link in self.contexts_}
        names = {
            "pixel": self._names("pixel"),
            "image": self._names("image") if sources else [],
        }
        labelled = {int(i) for n in names["pixel"] for i in targets.labelled(n)}
        n_folds = 1 if len(labelled) > 2 * len(kept) else 3
        out: dict[int, dict[str, np.ndarray]] = {}
        for fold in range(n_folds):
            held = list(kept)[fold::n_folds]
            heads = {
                kind: self._fit_head(kind, self._without(held, kind, table), weight)
                for kind, table in tables.items()
                if names[kind]
            }
            for i in held:
                out[i] = task_scores(
                    kept[i].maps,
                    self.tasks_,
                    heads,
                    [*names["pixel"], *sources],
                    self.head_stride,
                )
        return dict(sorted(out.items()))

    def _without(self, held: Collection[int], kind: str, table: Table) -> Table:
        """Return a table in which some images have no label."""
        Y = table.Y.copy()
        rows = np.isin(table.images, list(held))
        owners = [self.tasks_[n].groups_ for n in self._names(kind)]
        for columns in joined_slices(owners):
            known = ~np.isnan(Y[:, columns]).all(axis=1)
            if (known & ~rows).any():  # else the task would have no label left
                Y[rows, columns] = np.nan
        return table._replace(Y=Y)

    def _context(self, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what an image's own labels say of the classes of its regions."""
        out: dict[str, np.ndarray] = {}
        for link in self.contexts_:
            if link.source in scores:
                told = link.context(self.tasks_[link.source], scores[link.source])
                out[link.pixels] = out.get(link.pixels, 0) + told
        return out

    def _picture(self, views: np.ndarray, maps: FeatureMaps) -> Picture:
        return Picture(views[0], maps, self.superpixels, self.n_segments)

    def _boundary(self, scores: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Return the logits of the first boundary task among some scores."""
        for name, task in self.tasks_.items():
            if isinstance(task, Boundary) and name in scores:
                return scores[name][..., 0]
        return None

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
            chosen = [head.get(name, JointLogistic()) for name in names]
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
        given: Any = head.task_weights
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


_PIXELS, _NETWORK_PIXELS = 500, 1000  # that an image gives to a task
_KEPT_BYTES = 2**29  # of pictures that structure is learnt from
_MOST_KEPT, _FEWEST_KEPT = 60, 3
_CONSTRAINTS: dict[str, list] = {
    "tasks": [Task, Mapping, None],
    "features": [DeepFeatures, None],
    "head": [str, BaseEstimator, Mapping, None],
    "n_pixels": [Interval(Integral, 1, None, closed="left"), None],
    "head_stride": [Interval(Integral, 1, None, closed="left")],
    "tag_rounds": [Interval(Integral, 0, None, closed="left")],
    "structure": [Structure, SuperpixelCRF, PixelCRF, StrOptions({"crf"}), None],
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
