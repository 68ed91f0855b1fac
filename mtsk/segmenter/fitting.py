"""Fitting: functions from images, targets and settings to a Predictor.

`fit` chooses one of three ways: a table of rows that heads learn from (`_fit_tables`),
sums over rows where no table is needed (`_fit_sums`), or a decoder that learns from
images (`_fit_decoder`). `fit_more` goes on from a fit by sums.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mtsk.data import Images, Targets
from mtsk.decoders import TrainingSet
from mtsk.exceptions import ImageError, TargetError
from mtsk.features import DeepFeatures
from mtsk.features.cache import content_digest
from mtsk.links import RegionPooling, TagLink, find_tag_links
from mtsk.segmenter.head_choice import HeadChoice, choose_heads
from mtsk.segmenter.head_factory import HeadFactory, HeadFitter
from mtsk.segmenter.predictor import Predictor
from mtsk.segmenter.structure_fitting import fit_structure, images_for_structure
from mtsk.segmenter.tag_supervision import fit_pixel_head
from mtsk.structure import Picture, Structure, Superpixels
from mtsk.tables import (
    RowExtractor,
    Table,
    TableJoiner,
    TableReader,
    require_labels,
)
from mtsk.tables.table import weights_of_entries
from mtsk.tasks.task_set import GRANULARITIES, Granularity, TaskSet

__all__ = [
    "FitResult",
    "FitSettings",
    "fit",
    "fit_more",
    "pixels_per_image",
    "read_tables",
]

_MAX_KEPT_BYTES = 2**29  # of pictures that structure is learnt from


@dataclass(frozen=True)
class FitSettings:
    """The settings of a fit: everything but its images and targets.

    Attributes
    ----------
    features : DeepFeatures
        Fitted.
    tasks : TaskSet
    heads : HeadFactory
    seed : int
        Of all random choices.
    max_pixels_per_image, prediction_stride, structure, n_jobs, checkpoint, verbose
        As of `MultiTaskSegmenter`.
    n_pseudo_label_rounds : int
        As of `Links`.
    region_pooling : RegionPooling or None
        What `Links` asks for, of these tasks.
    """

    features: DeepFeatures
    tasks: TaskSet
    heads: HeadFactory
    seed: int
    max_pixels_per_image: int | None = None
    prediction_stride: int = 4
    n_pseudo_label_rounds: int = 2
    region_pooling: RegionPooling | None = None
    structure: Structure | None = None
    n_jobs: int | None = None
    checkpoint: str | os.PathLike | None = None
    verbose: int = 0

    @property
    def learns_from_sums(self) -> bool:
        """Whether no table is needed: heads only add up, and only once."""
        refits = bool(self.tag_links_to_learn_from)
        pools = self.region_pooling is not None
        needs_table = refits or pools or self.structure is not None
        return self.heads.capabilities.learns_from_sums and not needs_table

    @property
    def tag_links_to_learn_from(self) -> list[TagLink]:
        """The links by which tags teach pixels; none where there are no rounds."""
        return find_tag_links(self.tasks) if self.n_pseudo_label_rounds else []

    def predictor_without_heads(self) -> Predictor:
        """Return a Predictor of these settings whose heads are not fitted yet."""
        return Predictor(
            self.features,
            self.tasks,
            dict.fromkeys(GRANULARITIES),
            self.prediction_stride,
            self.seed,
            find_tag_links(self.tasks),
            self.region_pooling,
        )

    def reader(
        self,
        images: Images,
        targets: Targets,
        *,
        tag_links: Collection[TagLink] = (),
        accumulators: Mapping[Granularity, Any] | None = None,
        weight: np.ndarray | None = None,
        keep: Collection[int] = (),
        resumable: bool = True,
    ) -> TableReader:
        """Return a `TableReader` of images and targets.

        Parameters
        ----------
        images : Images
        targets : Targets
        tag_links : collection of TagLink
            By which images that have tags but no mask get rows all the same.
        accumulators, weight, keep
            As of `RowExtractor` and `TableReader`.
        resumable : bool, default=True
            Whether the checkpoint is used.
        """
        most = self.max_pixels_per_image
        if most is None:
            n_labelled = [len(targets.labelled(n)) for n in self.tasks.names("pixel")]
            most = self.heads.rows_per_image(max(n_labelled, default=0))
            if not self.learns_from_sums:
                most = pixels_per_image(most, max(1, len(targets.any_labelled())))
        structure = self.structure
        extractor = RowExtractor(
            self.features,
            self.tasks,
            most,
            self.seed,
            tuple((link.pixels, link.tags) for link in tag_links),
            Superpixels() if structure is None else structure.segmentation(),
            self.heads.capabilities.takes_entry_weights,
            dict(accumulators or {}),
        )
        return TableReader(
            extractor,
            images,
            {name: targets[name] for name in self.tasks},
            weight,
            keep,
            self.n_jobs,
            self.checkpoint if resumable else None,
            self.verbose,
        )


class FitResult(NamedTuple):
    """A fitted Predictor, and what it was fitted to.

    Attributes
    ----------
    predictor : Predictor
    n_images : int
        Images that were read.
    n_rows : int
        Rows of the table of pixels.
    can_continue : bool
        Whether `fit_more` can add images to it.
    """

    predictor: Predictor
    n_images: int
    n_rows: int
    can_continue: bool


def pixels_per_image(
    most: int, n_images: int, n_full: int = 400, fewest: int = 10
) -> int:
    """Return how many labelled pixels of an image become rows for a task.

    Parameters
    ----------
    most : int
        Of few images.
    n_images : int
    n_full : int, default=400
        Of more images each gives fewer, so that the table does not grow.
    fewest : int, default=10

    Returns
    -------
    int
    """
    return max(fewest, min(most, most * n_full // n_images))


def fit(
    settings: FitSettings, images: Images, targets: Targets, weight: np.ndarray
) -> FitResult:
    """Learn all tasks.

    Parameters
    ----------
    settings : FitSettings
    images : Images
    targets : Targets
    weight : ndarray of shape (n_images,)
        Of each image, >= 0.

    Returns
    -------
    FitResult

    Raises
    ------
    TargetError, ImageError, CheckpointError, MemoryError
    """
    if settings.heads.capabilities.is_convolutional:
        return _fit_decoder(settings, images, targets, weight)
    if settings.learns_from_sums:
        return _fit_sums(settings, images, targets, weight)
    return _fit_tables(settings, images, targets, weight)


def fit_more(
    settings: FitSettings,
    before: FitResult | None,
    images: Images,
    targets: Targets,
    weight: np.ndarray,
) -> FitResult:
    """Add images to those that heads have seen.

    Parameters
    ----------
    settings : FitSettings
    before : FitResult or None
        Its heads learn on, in place.
    images, targets, weight
        As of `fit`.

    Returns
    -------
    FitResult
    """
    reader = settings.reader(images, targets, resumable=False)
    tables, _, n_read = _read(reader, partial=True)
    predictor = (
        settings.predictor_without_heads() if before is None else before.predictor
    )
    heads = dict(predictor.heads)
    for kind, table in tables.items():
        if len(table.X):
            if heads[kind] is None:
                heads[kind] = settings.heads.make(settings.tasks, kind)
            weights = weights_of_entries(
                table.weights, settings.tasks.layout(kind), weight[table.images]
            )
            heads[kind].partial_fit(table.X, table.Y, sample_weight=weights)
    n_images, n_rows = (0, 0) if before is None else (before.n_images, before.n_rows)
    return FitResult(
        replace(predictor, heads=heads),
        n_images + n_read,
        n_rows + len(tables["pixel"].X),
        True,
    )


def _fit_tables(
    settings: FitSettings, images: Images, targets: Targets, weight: np.ndarray
) -> FitResult:
    """Read a table of rows; fit heads, pseudo-labels, pooling and structure to it."""
    predictor = settings.predictor_without_heads()
    fit_head = HeadFitter(settings.heads, settings.tasks, settings.features, weight)
    keep = images_for_structure(settings.structure, settings.tasks, targets)
    reader = settings.reader(
        images,
        targets,
        tag_links=settings.tag_links_to_learn_from,
        keep=keep,
    )
    tables, pictures, n_read = _read(reader)
    if settings.heads.is_automatic:
        choices, fit_head = _choose_heads(fit_head, tables, settings.seed)
        predictor = replace(predictor, head_choices=choices)
    pixel_head, tables["pixel"], tag_links = fit_pixel_head(
        fit_head,
        tables["pixel"],
        predictor.tag_links,
        targets,
        settings.n_pseudo_label_rounds,
    )
    predictor = replace(
        predictor, heads={"pixel": pixel_head, "image": None}, tag_links=tag_links
    )
    tables["image"] = _pool_regions(predictor, tables["image"], images)
    image_head = fit_head("image", tables["image"])
    predictor = replace(predictor, heads={"pixel": pixel_head, "image": image_head})
    if settings.structure is not None:
        structure = fit_structure(
            settings.structure, predictor, fit_head, tables, targets, pictures
        )
        predictor = replace(predictor, structure=structure)
    reader.discard_checkpoint()
    return FitResult(predictor, n_read, len(tables["pixel"].X), False)


def _choose_heads(
    fit_head: HeadFitter, tables: Mapping[Granularity, Table], seed: int
) -> tuple[dict[Granularity, HeadChoice], HeadFitter]:
    """Return the choice of heads for each table, and what fits the chosen ones."""
    choices = {
        kind: choose_heads(fit_head, kind, table, seed)
        for kind, table in tables.items()
        if len(table.X)
    }
    by_task = {kind: choice.by_task for kind, choice in choices.items()}
    return choices, fit_head.choosing(by_task)


def read_tables(
    settings: FitSettings, images: Images, targets: Targets
) -> dict[Granularity, Table]:
    """Return the tables that heads would learn from; a checkpoint is left alone.

    Parameters
    ----------
    settings : FitSettings
    images : Images
    targets : Targets

    Returns
    -------
    dict of {"pixel", "image"} to Table
    """
    links = settings.tag_links_to_learn_from
    reader = settings.reader(images, targets, tag_links=links, resumable=False)
    return _read(reader)[0]


def _read(
    reader: TableReader, *, partial: bool = False
) -> tuple[dict[Granularity, Table], dict[int, Picture], int]:
    """Pass every image through the network once.

    Return the tables, the pictures of some images, as far as there is room for them,
    and the number of images that could be read.
    """
    tasks, images = reader.extractor.tasks, reader.images
    joiners = {k: TableJoiner(tasks.names(k), len(images)) for k in GRANULARITIES}
    pictures: dict[int, Picture] = {}
    n_bytes = n_read = 0
    for part in reader.parts():
        n_read += part.n_read
        images.skipped.update(part.skipped)
        for kind, joiner in joiners.items():
            joiner.add(part.tables[kind], part.n_read + len(part.skipped))
        for index, picture in part.pictures.items():
            size = picture.maps.nbytes + picture.image.nbytes
            if n_bytes + size < _MAX_KEPT_BYTES:
                pictures[index] = picture
                n_bytes += size
    _check_read(images, n_read)
    tables = {kind: joiner.table(partly=partial) for kind, joiner in joiners.items()}
    _warn_of_blank([pair for joiner in joiners.values() for pair in joiner.blank])
    return tables, pictures, n_read


def _pool_regions(predictor: Predictor, table: Table, images: Images) -> Table:
    """Let rows of images be the means of their regions: a second pass over them."""
    pooling = predictor.region_pooling
    if pooling is None or not len(table.X):
        return table
    wanted = images.some(table.images.tolist())
    rows: list[np.ndarray] = []
    for place, maps in predictor.features.iter_maps(wanted, desc="regions"):
        if place != len(rows):
            raise ImageError(
                f"image {table.images[len(rows)]} could be read once, and not again: "
                f"{wanted.skipped[len(rows)]}"
            )
        scores = predictor.head_scores(maps, [pooling.name])[pooling.name]
        rows.append(pooling.pooled(maps, scores))
    if len(rows) < len(table.images):
        raise ImageError(
            f"image {table.images[len(rows)]} could be read once, and not again: "
            f"{wanted.skipped[len(rows)]}"
        )
    X = np.stack(rows)
    return table._replace(X=X, digest=f"{table.digest} {content_digest(X)}")


def _fit_sums(
    settings: FitSettings, images: Images, targets: Targets, weight: np.ndarray
) -> FitResult:
    """Learn from sums over rows, a shard at a time: no table is ever held."""
    tasks = settings.tasks
    heads = {kind: settings.heads.make(tasks, kind) for kind in GRANULARITIES}
    accumulators = {kind: head for kind, head in heads.items() if head is not None}
    reader = settings.reader(images, targets, accumulators=accumulators, weight=weight)
    total = reader.total()
    images.skipped.update(total.skipped)
    _check_read(images, total.n_read)
    blank: list[tuple[str, int]] = []
    for kind, table in total.tables.items():
        names = tasks.names(kind)
        require_labels(names, table.labelled_at)
        blank += [(names[t], i) for t, i in table.blank.tolist()]
    _warn_of_blank(blank)
    solved = {kind: head.solve() for kind, head in total.heads.items()}
    reader.discard_checkpoint()
    predictor = replace(settings.predictor_without_heads(), heads=heads | solved)
    return FitResult(predictor, total.n_read, total.n_rows, True)


def _fit_decoder(
    settings: FitSettings, images: Images, targets: Targets, weight: np.ndarray
) -> FitResult:
    """Teach one decoder all tasks; it may bring a backbone of its own."""
    tasks = settings.tasks
    decoder = settings.heads.make_decoder(tasks)
    decoder.fit(TrainingSet(images, targets, tasks, weight), settings.features)
    heads = {k: decoder if tasks.names(k) else None for k in GRANULARITIES}
    predictor = replace(
        settings.predictor_without_heads(), features=decoder.features_, heads=heads
    )
    return FitResult(predictor, len(images) - len(images.skipped), 0, False)


def _check_read(images: Images, n_read: int) -> None:
    images.warn_of_skipped()
    if not n_read:
        raise TargetError("every image was skipped: nothing to learn from")


def _warn_of_blank(blank: list[tuple[str, int]]) -> None:
    if blank:
        warnings.warn(
            f"targets that are void everywhere count as missing: {blank[:10]} "
            "(task, image); write None to say so",
            UserWarning,
            stacklevel=6,
        )
