"""Images read a shard at a time: here, on workers, or from a checkpoint.

A shard is a run of neighbouring images. What it gives depends on nothing but its own
images and targets, so shards may be read anywhere and in any order, one that was lost
with its worker is read again, and those that a run has left on disk need not be.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, cast

import joblib
import numpy as np
from sklearn.base import clone
from tqdm.auto import tqdm

from mtsk._progress import progress_bar
from mtsk._resources import call_and_release
from mtsk.data.images import Images
from mtsk.features import DeepFeatures
from mtsk.structure import Picture, Superpixels
from mtsk.tables.checkpoint import Checkpoint, ShardPart
from mtsk.tables.table import TableBuilder, weights_of_entries
from mtsk.tasks.task_set import GRANULARITIES, Granularity, TaskSet

__all__ = ["RowExtractor", "ShardSizes", "TableReader", "in_this_process", "shard_ends"]


@dataclass(frozen=True)
class RowExtractor:
    """How images become rows; all that a worker must know.

    Attributes
    ----------
    features : DeepFeatures
        Fitted.
    tasks : TaskSet
    max_pixels, seed : int
        As of `TableBuilder`.
    pseudo_labelled : tuple of (str, str)
        Tasks of pixels, each with the task of tags by which images without a target of
        the former are given rows all the same.
    superpixels : Superpixels
        Of the pictures that are kept.
    by_class : bool
        As of `TableBuilder`: for heads that take weights of entries.
    accumulators : dict of {"pixel", "image"} to estimator
        Unfitted heads with ``add_rows``, which take the rows in where they are made.
    """

    features: DeepFeatures
    tasks: TaskSet
    max_pixels: int
    seed: int
    pseudo_labelled: tuple[tuple[str, str], ...] = ()
    superpixels: Superpixels = field(default_factory=Superpixels)
    by_class: bool = True
    accumulators: dict[Granularity, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Return a hash of all that shapes rows but the images and their targets."""
        features = self.features
        params = features.get_params(deep=False)
        for name in ("backbone", "cache", "verbose", "batch_size"):
            del params[name]
        return joblib.hash(
            [
                features.fingerprint(),
                features.view_maker,  # mixtures of channels, learnt from all images
                sorted(params.items(), key=lambda item: item[0]),
                [(n, type(t).__name__, vars(t)) for n, t in self.tasks.items()],
                (self.max_pixels, self.seed, self.pseudo_labelled, self.by_class),
                [
                    (kind, type(head).__name__, head.get_params())
                    for kind, head in self.accumulators.items()
                ],
            ]
        )

    def extract(
        self,
        images: Images,
        entries: Mapping[str, Sequence[Any]],
        weight: np.ndarray | None = None,
        keep: Collection[int] = (),
        bar: Any = None,
    ) -> ShardPart:
        """Return the rows of one shard.

        Parameters
        ----------
        images : Images
            A part of all, with the indices it has among them.
        entries : mapping of str to sequence
            The targets of these images.
        weight : ndarray of shape (n_images,), optional
            Of these images, for accumulators.
        keep : collection of int
            Images whose pictures are wanted.
        bar : tqdm, optional
            Moved on by every image.
        """
        builders = {
            kind: TableBuilder(
                self.tasks, kind, self.max_pixels, self.seed, by_class=self.by_class
            )
            for kind in GRANULARITIES
        }
        n_read, pictures = 0, {}
        for index, views, maps in self.features.iter_views_and_maps(images, bar=bar):
            n_read += 1
            if index in keep:
                pictures[index] = Picture(views[0], maps.to_host(), self.superpixels)
            own = {name: e[index - images.first] for name, e in entries.items()}
            weak = [
                pixels
                for pixels, tags in self.pseudo_labelled
                if own[pixels] is None and own[tags] is not None
            ]
            for builder in builders.values():
                builder.add(index, maps, own, weak)
        tables = {kind: builder.part() for kind, builder in builders.items()}
        n_rows = len(tables["pixel"].X)
        heads: dict[Granularity, Any] = {}
        for kind, unfitted in self.accumulators.items():
            heads[kind], table = clone(unfitted), tables[kind]
            if len(table.X):
                by_image = None
                if weight is not None:
                    by_image = weight[table.images - images.first]
                entry_weights = weights_of_entries(
                    table.weights, self.tasks.layout(kind), by_image
                )
                heads[kind].add_rows(table.X, table.Y, entry_weights)
            tables[kind] = table._replace(
                X=table.X[:0],
                Y=table.Y[:0],
                images=table.images[:0],
                weak=table.weak[:, :0],
                weights=table.weights[:, :0],
            )
        skipped = dict(images.skipped)
        return ShardPart(tables, n_read, skipped, pictures, heads, n_rows)


@dataclass
class _Shard:
    """Neighbouring images, their targets and weights."""

    number: int
    images: Images
    entries: dict[str, list[Any]]
    weight: np.ndarray | None
    keep: set[int]


class ShardSizes(NamedTuple):
    """How many images a shard has.

    Attributes
    ----------
    fewest, most : int
        At least and at most.
    most_summed : int
        At most, where only sums come back of a shard.
    """

    fewest: int = 4
    most: int = 16
    most_summed: int = 64


@dataclass
class TableReader:
    """All images and targets of a fit, and how they are to be read.

    Attributes
    ----------
    extractor : RowExtractor
    images : Images
    entries : dict of str to sequence
        Of each task, one entry an image.
    weight : ndarray of shape (n_images,), optional
        For the accumulators of the extractor.
    keep : collection of int
        Images whose pictures are wanted.
    n_jobs : int, optional
        Workers of the joblib backend that is in force. 1 reads in this process, and so
        does a cache in this process's memory, which workers could not share.
    checkpoint : path, optional
        A folder where what was read is kept until `discard_checkpoint`.
    verbose : int
    """

    sizes: ClassVar[ShardSizes] = ShardSizes()

    extractor: RowExtractor
    images: Images
    entries: Mapping[str, Sequence[Any]]
    weight: np.ndarray | None = None
    keep: Collection[int] = ()
    n_jobs: int | None = None
    checkpoint: str | os.PathLike | None = None
    verbose: int = 0

    def parts(self) -> Iterator[ShardPart]:
        """Yield what every shard gives, in order.

        Raises
        ------
        CheckpointError
            Where the folder holds something else.
        """
        kept = self._checkpoint()
        shards = self._cut(kept)
        there = {s.number for s in shards if kept.has(s)}
        with self._bar() as bar:
            made = self._read([s for s in shards if s.number not in there], bar)
            for shard in shards:
                if shard.number in there:
                    bar.update(len(shard.images))
                    yield kept.load(shard)
                    continue
                part = next(made)
                kept.save(shard, part)
                yield part

    def total(self) -> ShardPart:
        """Return the sum of what all shards give: heads that have seen every row."""
        kept = self._checkpoint()
        shards = self._cut(kept)
        n_done, total = kept.load_total(self.extractor.accumulators, shards)
        with self._bar() as bar:
            bar.update(sum(len(s.images) for s in shards[:n_done]))
            parts = self._read(shards[n_done:], bar)
            for shard, part in zip(shards[n_done:], parts, strict=True):
                total = part if total is None else total.plus(part)
                kept.save_total(shard, total, last=shard is shards[-1])
        return cast(ShardPart, total)

    def discard_checkpoint(self) -> None:
        """Delete what was kept on disk: the fit is done."""
        self._checkpoint().remove()

    def _bar(self) -> tqdm:
        return progress_bar(
            total=len(self.images),
            desc="features",
            disable=not self.verbose,
            unit="image",
        )

    def _checkpoint(self) -> Checkpoint:
        digest = None if self.checkpoint is None else self.extractor.digest()
        return Checkpoint(self.checkpoint, digest)

    def _cut(self, kept: Checkpoint) -> list[_Shard]:
        """Cut images into shards: few are in work at a time, all workers have some."""
        n = len(self.images)
        if self.extractor.accumulators:
            # How sums round must not depend on who makes them.
            ends = _ends(n, _SUMS, self.sizes.most_summed, self.sizes.fewest)
        else:
            n_jobs = 1 if self._here() else self.n_jobs
            ends = shard_ends(n, n_jobs, self.sizes.most, self.sizes.fewest)
        ends = kept.shard_ends(ends)
        return [
            _Shard(
                number,
                self.images.part(start, end),
                {
                    name: list(column[start:end])
                    for name, column in self.entries.items()
                },
                None if self.weight is None else self.weight[start:end],
                {i for i in self.keep if start <= i < end},
            )
            for number, (start, end) in enumerate(pairwise([0, *ends]))
        ]

    def _here(self) -> bool:
        return in_this_process(self.extractor.features, self.n_jobs)

    def _read(self, shards: Sequence[_Shard], bar: tqdm) -> Iterator[ShardPart]:
        """Read shards in this process, or on the workers of joblib's backend.

        The backend says what becomes of a shard whose worker died: dask gives it to
        another, loky stops, and a checkpoint keeps what was done.
        """
        if self._here() or len(shards) < 2:
            for s in shards:
                yield self.extractor.extract(s.images, s.entries, s.weight, s.keep, bar)
            return
        quiet = replace(self.extractor, features=self.extractor.features.quiet())
        parts = joblib.Parallel(n_jobs=self.n_jobs, return_as="generator")(
            joblib.delayed(call_and_release)(
                quiet.extract, s.images, _smallest_dtypes(s.entries), s.weight, s.keep
            )
            for s in shards
        )
        for shard, part in zip(shards, parts, strict=True):
            bar.update(len(shard.images))
            yield part


_PER_WORKER = 12  # shards of a worker, in case it is slower than others
_SUMS = 16  # shards that sums are made of, or a multiple where they would be large


def in_this_process(features: DeepFeatures, n_jobs: int | None) -> bool:
    """Tell whether images are read here: with one worker, or a cache not to be shared.

    Parameters
    ----------
    features : DeepFeatures
    n_jobs : int or None
        As joblib has it.
    """
    cache = features.cache
    on_disk = isinstance(cache, str | os.PathLike) and cache != "memory"
    if cache is not None and not on_disk:
        return True
    return joblib.effective_n_jobs(n_jobs) == 1


def shard_ends(
    n_images: int, n_jobs: int | None, most: int, fewest: int = ShardSizes().fewest
) -> list[int]:
    """Cut images into shards, so that all workers end at about one time.

    Parameters
    ----------
    n_images : int
    n_jobs : int or None
        As joblib has it.
    most, fewest : int
        Images of a shard.

    Returns
    -------
    list of int
        Where shards end: before which image.
    """
    n_workers = joblib.effective_n_jobs(n_jobs)
    if n_workers == 1:
        return _ends(n_images, 1, most, fewest)
    n_each = min(_PER_WORKER, max(1, n_images // (fewest * n_workers)))
    return _ends(n_images, n_each * n_workers, most, fewest)


def _ends(n_images: int, n_shards: int, most: int, fewest: int) -> list[int]:
    """Cut images into a multiple of so many shards, all of about one size.

    They are cut between pairs, so that images that go through the network in pairs are
    the same pairs. The larger ones come first, which makes for an even end.
    """
    n_pairs = -(-n_images // 2)
    times = -(-n_images // (n_shards * most))
    n_shards = max(1, min(times * n_shards, n_images // fewest))
    larger = n_pairs % n_shards
    sizes = [n_pairs // n_shards + (i < larger) for i in range(n_shards)]
    return np.minimum(2 * np.cumsum(sizes), n_images).tolist()


def _smallest_dtypes(entries: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return targets as they travel: maps of integers in the least bytes."""
    return {name: [smallest_dtype(e) for e in own] for name, own in entries.items()}


def smallest_dtype(entry: Any) -> Any:
    """Return an array of integers in the smallest dtype that holds its values."""
    if not isinstance(entry, np.ndarray) or entry.dtype.kind not in "iu":
        return entry
    low, high = entry.min(initial=0), entry.max(initial=0)
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return entry.astype(dtype)
    return entry
