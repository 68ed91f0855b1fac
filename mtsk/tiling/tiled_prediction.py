"""Prediction of images too large for memory, tile by tile, as they were whole."""

from __future__ import annotations

import copy
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import joblib
import numpy as np

from mtsk._progress import progress_bar
from mtsk._resources import release_freed_memory
from mtsk._validation import MIN_SIDE, parameter_error
from mtsk.backbones import receptive_radius
from mtsk.exceptions import ImageError, TilingError
from mtsk.segmenter import MultiTaskSegmenter, Predictor, predictor_of
from mtsk.tasks import Detection, InstanceSegmentation, PixelTask, Task
from mtsk.tiling.geometry import Rectangle, tiles_of
from mtsk.tiling.tile_store import TileStore, check_names, put
from mtsk.tiling.windows import WindowReader

__all__ = ["predict_tiled"]


def predict_tiled(
    model: MultiTaskSegmenter,
    image: Any,
    out: str | os.PathLike | None = None,
    *,
    tasks: Sequence[str] | None = None,
    tile_size: int = 2048,
    halo: int | None = None,
    overlap: int = 128,
    overwrite: bool = False,
) -> Any:
    """Predict one image of any size in memory that does not grow with it.

    The answer is that of ``model.predict([image])[0]``: every tile is passed through
    the network with as much around it as the network looks at, and its cells lie where
    they lie in the whole image. Objects are found in tiles that overlap; the tile that
    an object's middle lies in has it whole.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Fitted, without ``structure``.
    image : array-like of shape (H, W) or (H, W, C)
        An array, a memory map, a zarr or dask array: anything with ``shape`` that gives
        an array when cut by slices. Only what a tile needs is read.
    out : path, default=None
        Where predictions are written as they come: a zarr group, whose name ends in
        ``.zarr``, with a journal (needs the extra ``[large]``). Run again
        after it was stopped, by whatever, the prediction goes on from there. None keeps
        it in memory.
    tasks : sequence of str, default=None
        The tasks wanted. None is all.
    tile_size : int, default=2048
        Side of a tile in pixels, brought up to a multiple of 512. Larger tiles waste
        less on their surroundings and need more memory.
    halo : int, default=None
        Pixels of the network's input, at each scale, that are passed through around a
        tile. None is as far as the network looks, for an answer that equals the whole
        image's to rounding; 128 is faster, and differs in what is nearly undecided.
    overlap : int, default=128
        By how many pixels tiles overlap where objects are found. At least the largest
        object's diameter, or it may come out in parts.
    overwrite : bool, default=False
        Whether an ``out`` of another model or setting, or of an image of another size,
        is replaced. Where pixels of tiles that are done have changed, that is an error:
        their hashes are kept, and compared before a prediction goes on.

    Returns
    -------
    dict of str to array, dict, or value; or one of these
        As ``predict`` gives for one image: maps as ndarray or zarr
        array; boxes as a mapping; labels of the whole image as they are. Without the
        dict where ``fit`` got bare targets. Ids of objects are numbered tile by tile.

    Raises
    ------
    TilingError
        Where a task or a head needs the whole image, with the remedy; where ``out``
        holds something else, or the disk is full.
    ImageError
        Where a tile cannot be read or is no image; the message names its pixels. What
        is done is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from mtsk import MultiTaskSegmenter, predict_tiled
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 100, (4, 64, 64), dtype=np.uint8)
    >>> images[:, :, 32:] += 150
    >>> model = MultiTaskSegmenter(random_state=0).fit(images, images > 120)
    >>> whole = model.predict(images[:1])[0]
    >>> bool((predict_tiled(model, images[0]) == whole).all())
    True
    """
    predictor = predictor_of(model, "predict_tiled")
    for name, value, least in (
        ("tile_size", tile_size, 1),
        ("overlap", overlap, 0),
        ("halo", 0 if halo is None else halo, 0),
    ):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            allowed = f"an int >= {least}" + (", or None" * (name == "halo"))
            raise parameter_error(name, "predict_tiled", allowed, value)
    if not isinstance(overwrite, bool):
        raise parameter_error("overwrite", "predict_tiled", "a bool", overwrite)
    if tasks is not None and not isinstance(tasks, str | Iterable):
        allowed = "a sequence of names, or None"
        raise parameter_error("tasks", "predict_tiled", allowed, tasks)
    _check_image(image)
    names = predictor.tasks.choose(tasks)
    _check_tasks(predictor, names)
    if out is not None:
        check_names(names)
    job = _Job(predictor, image, names, int(tile_size), halo, int(overlap))
    store = TileStore(out, job.fingerprint, len(job.tiles), overwrite)
    job.check_pixels(store)
    return predictor.tasks.unwrap(job.run(store, int(model.verbose)), tasks)


class _Job:
    """One image, one model, and how its tiles are cut."""

    def __init__(
        self,
        predictor: Predictor,
        image: Any,
        names: list[str],
        tile_size: int,
        halo: int | None,
        overlap: int,
    ) -> None:
        self.predictor, self.image, self.names = predictor, image, names
        self.tasks = {name: predictor.tasks[name] for name in names}
        self.of_pixels = [n for n in names if predictor.tasks.is_of_pixels(n)]
        self.of_images = [n for n in names if n not in self.of_pixels]
        if halo is None:
            halo = receptive_radius(predictor.features.network())
            if halo is None:
                raise TilingError(
                    f"{predictor.features.network().name} sees the whole image at "
                    "every place, so tiles cannot give what the whole image gives; "
                    "pass halo=, such as 256, for an answer that differs a little"
                )
        self.reader = WindowReader(predictor.features, image, int(halo))
        self.shape = self.reader.shape
        side = -(-tile_size // TileStore.chunk) * TileStore.chunk
        self.tiles = tiles_of(self.shape, side)
        self.unit = int(np.lcm(self.reader.unit, predictor.prediction_stride))
        self.halo, self.overlap = int(halo), overlap
        self.margin = max(self._head_margin(), self.reader.unit)

    def _head_margin(self) -> int:
        """Return how far around a pixel a head looks."""
        able = self.predictor.capabilities("pixel")
        if able.is_convolutional:
            if not self.reader.exact:
                raise TilingError(
                    f"an image of {self.shape} cannot be shown to a SharedDecoder in "
                    "tiles: its sides times the scales "
                    f"{self.predictor.features.scales} are no whole numbers; crop it "
                    f"to {self.reader.exact_shape()}"
                )
            decoder = self.predictor.heads["pixel"]
            return decoder.receptive_radius() + self.reader.unit
        return 0 if able.is_linear else 2 * self.predictor.prediction_stride

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the predictions depend on."""
        predictor = self.predictor
        return {
            "image": [list(self.image.shape), str(getattr(self.image, "dtype", ""))],
            "model": joblib.hash(
                [
                    (predictor.features.fingerprint(), predictor.features.view_maker),
                    predictor.prediction_stride,
                    list(predictor.tasks.items()),
                    list(predictor.heads.values()),
                ]
            ),
            "tasks": self.names,
            "tile_size": self.tiles[0].shape,
            "halo": self.halo,
            "overlap": self.overlap,
        }

    def check_pixels(self, store: TileStore) -> None:
        """Refuse to go on with an image whose finished tiles were of another."""
        for index, note in store.done.items():
            if note.get("pixels") != self._pixels(index):
                tile = self.tiles[index]
                raise TilingError(
                    f"{str(store.folder)!r} holds a prediction of another image (of "
                    f"rows {tile.top} to {tile.bottom}, columns {tile.left} to "
                    f"{tile.right}); choose another place, or pass overwrite=True"
                )

    def _pixels(self, index: int) -> str:
        """Return a hash of a tile's pixels."""
        pixels = np.ascontiguousarray(self.reader.read(*self.tiles[index].slices))
        return hashlib.blake2b(pixels.tobytes(), digest_size=8).hexdigest()

    def run(self, store: TileStore, verbose: int) -> dict[str, Any]:
        waiting = [i for i in range(len(self.tiles)) if i not in store.done]
        bar = progress_bar(
            waiting,
            desc="tiles",
            total=len(self.tiles),
            initial=len(self.tiles) - len(waiting),
            disable=not verbose,
            unit="tile",
        )
        for index in bar:
            store.finish_tile(index, self._tile(store, index))
        return self._collect(store)

    def _tile(self, store: TileStore, index: int) -> dict[str, Any]:
        """Predict a tile, write its maps, and return what is to be noted of it."""
        tile = self.tiles[index]
        decoded = {name: self._decode_margin(t) for name, t in self.tasks.items()}
        radius = max(decoded.values(), default=0)
        window = tile.grown(self.margin + radius, self.unit, self.shape)
        try:
            maps, sums, counts = self.reader.maps(window, tile)
        except ImageError as error:
            kept = "; what was done before is kept" * bool(store.folder and store.done)
            raise ImageError(
                f"the tile of rows {tile.top} to {tile.bottom}, columns {tile.left} to "
                f"{tile.right}, with what surrounds it: {error}{kept}"
            ) from error
        notes: dict[str, Any] = {}
        if store.folder is not None:
            notes["pixels"] = self._pixels(index)
        if self.of_images:
            notes["sums"], notes["counts"] = sums.tolist(), counts.tolist()
        for some in self._held_at_once():
            scores = self.predictor.head_scores(maps, some)
            for name in some:
                area = tile.grown(decoded[name], 1, self.shape)
                seen = _ScoredTile(tile, area, scores[name][area.within(window).slices])
                note = self._write(store, name, seen)
                if note is not None:
                    notes[name] = note
            del scores, seen
            release_freed_memory()
        return notes

    def _held_at_once(self) -> list[list[str]]:
        """Return which tasks' scores to hold at once.

        A linear head makes those of one task for the price of one; others make all.
        """
        if self.predictor.capabilities("pixel").is_linear:
            return [[name] for name in self.of_pixels]
        return [self.of_pixels] if self.of_pixels else []

    def _decode_margin(self, task: Task) -> int:
        if isinstance(task, Detection | InstanceSegmentation):
            return self.overlap
        return (task.decode_radius or 0) if isinstance(task, PixelTask) else 0

    def _write(self, store: TileStore, name: str, seen: _ScoredTile) -> Any:
        task = self.tasks[name]
        if isinstance(task, Detection):
            return _own_boxes(task, seen)
        if isinstance(task, InstanceSegmentation):
            first = 1 + max((e.get(name, 0) for e in store.done.values()), default=0)
            return self._write_ids(store, name, task, seen, first)
        values = task.decode(seen.scores)
        values = values[seen.tile.within(seen.area).slices]
        store.write(name, seen.tile.slices, values, self.shape)
        return None

    def _write_ids(
        self,
        store: TileStore,
        name: str,
        task: InstanceSegmentation,
        seen: _ScoredTile,
        first: int,
    ) -> int:
        """Write the objects whose middles lie in a tile; return the last id given.

        Where another tile's object already is, it stays. What a broken run left of
        this very tile has ids from ``first`` on, and is written over.
        """
        ids = task.decode(seen.scores)
        target = store.array(name, self.shape, ids.dtype)
        there = np.asarray(target[seen.area.slices])
        there = np.where(there >= first, 0, there)
        n = int(ids.max(initial=0))
        rows, cols = np.nonzero(ids)
        own = ids[rows, cols]
        area = np.bincount(own, minlength=n + 1).clip(min=1)
        inner = seen.tile.within(seen.area)
        keep = np.ones(n + 1, bool)
        for places, low, high in (
            (rows, inner.top, inner.bottom),
            (cols, inner.left, inner.right),
        ):
            middle = np.bincount(own, places + 0.5, minlength=n + 1) / area
            keep &= (middle >= low) & (middle < high)
        keep[0] = False
        name_of = np.zeros(n + 1, ids.dtype)
        name_of[keep] = first + np.arange(np.count_nonzero(keep))
        mine = name_of[ids]
        put(target, seen.area.slices, np.where(there == 0, mine, there))
        return first + int(np.count_nonzero(keep)) - 1

    def _collect(self, store: TileStore) -> dict[str, Any]:
        """Return what was asked for, from the store and the notes of all tiles."""
        notes = [store.done[i] for i in range(len(self.tiles))]
        out: dict[str, Any] = {}
        labels = self._image_scores(notes)
        for name, task in self.tasks.items():
            if name in self.of_images:
                out[name] = task.decode(labels[name])
            elif isinstance(task, Detection):
                out[name] = _joined_boxes(task, [note[name] for note in notes])
            else:
                out[name] = store.array(name, self.shape, np.dtype(np.int32))
        return out

    def _image_scores(self, notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if not self.of_images:
            return {}
        sums, counts = (
            np.sum([note[key] for note in notes], axis=0) for key in ("sums", "counts")
        )
        row = (sums / counts).astype(np.float32)
        return self.predictor.image_scores(row, self.of_images)


@dataclass
class _ScoredTile:
    """What is known of a tile: scores of an area, and which part of it is the tile."""

    tile: Rectangle
    area: Rectangle
    scores: np.ndarray


def _own_boxes(task: Detection, seen: _ScoredTile) -> dict[str, list]:
    """Return the boxes whose centres lie in a tile, in pixels of the whole image."""
    every = copy.copy(task)
    every.max_boxes = sys.maxsize  # the cap is for the whole image
    found = every.detect(seen.scores)
    boxes = found["boxes"] + np.array([seen.area.left, seen.area.top] * 2)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = np.array([seen.tile.left, seen.tile.top])
    high = np.array([seen.tile.right, seen.tile.bottom])
    own = ((centre >= low) & (centre < high)).all(axis=1)
    return {
        "boxes": boxes[own].tolist(),
        "codes": found["codes"][own].tolist(),
        "scores": found["scores"][own].tolist(),
    }


def _joined_boxes(
    task: Detection, notes: Sequence[Mapping[str, list]]
) -> dict[str, np.ndarray]:
    """Return the boxes of all tiles, best first."""
    boxes = np.array([b for n in notes for b in n["boxes"]], float).reshape(-1, 4)
    codes = np.array([c for n in notes for c in n["codes"]], int)
    scores = np.array([s for n in notes for s in n["scores"]], float)
    order = np.argsort(-scores, kind="stable")[: task.max_boxes]
    return task.as_target(
        {"boxes": boxes[order], "codes": codes[order], "scores": scores[order]}
    )


def _check_image(image: Any) -> None:
    shape = getattr(image, "shape", None)
    if shape is None or not hasattr(image, "__getitem__"):
        raise ImageError(
            "predict_tiled takes one image, an array (H, W) or (H, W, C), a memory "
            f"map, zarr or dask array, got {type(image).__name__}"
        )
    whole = all(isinstance(n, Integral) for n in shape)
    if len(shape) not in (2, 3) or not whole:
        raise ImageError(
            f"predict_tiled takes one image, (H, W) or (H, W, C), got shape {shape}"
            + ("" if whole else "; sizes must be known (dask: compute_chunk_sizes())")
        )
    if min(shape) < 1 or min(shape[:2]) < MIN_SIDE:
        raise ImageError(
            f"an image must be at least {MIN_SIDE} x {MIN_SIDE} pixels, got shape "
            f"{tuple(shape)}"
        )


def _check_tasks(predictor: Predictor, names: Sequence[str]) -> None:
    """Refuse what cannot be told from tiles."""
    structure = predictor.structure
    active = [n for n, s in structure.tasks.items() if s.is_active and n in names]
    if active or structure.couplings:
        raise TilingError(
            f"`structure` of {active or names} lets all parts of an image speak to one "
            "another, which tiles cannot; fit with structure=None"
        )
    for name in names:
        task = predictor.tasks[name]
        of_pixels = predictor.tasks.is_of_pixels(name)
        pooling = predictor.region_pooling
        if not of_pixels and pooling is not None:
            raise TilingError(
                f"task {name!r} looks where {pooling.name!r} is found in the "
                "whole image (`region_pooling`), which tiles cannot tell; leave it out "
                "with `tasks`"
            )
        if isinstance(task, Detection | InstanceSegmentation):
            continue
        radius = getattr(task, "decode_radius", None)
        if radius is not None and (not isinstance(radius, Integral) or radius < 0):
            raise TilingError(
                f"`decode_radius` of task {name!r} must be an int >= 0, or None, got "
                f"{radius!r}"
            )
        if isinstance(task, PixelTask) and radius is None:
            raise TilingError(
                f"task {name!r} decodes a whole image at once (`postprocess`, or a "
                "task of your own without `decode_radius`): leave it out of `tasks`, "
                "or predict without and apply the steps to the result"
            )
        if not of_pixels and predictor.capabilities("image").is_convolutional:
            raise TilingError(
                f"task {name!r} of whole images is read from all of a decoder's "
                "channels at once: leave it out of `tasks`"
            )
