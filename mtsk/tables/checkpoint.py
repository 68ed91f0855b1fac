"""What shards of images gave, and a folder where it is kept for resuming."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import joblib
import numpy as np
from sklearn.base import clone

from mtsk._atomic import atomic_write
from mtsk.data.images import Images
from mtsk.exceptions import CheckpointError
from mtsk.structure.region_graph import Picture
from mtsk.tables.table import TablePart
from mtsk.tasks.task_set import GRANULARITIES, Granularity

__all__ = ["Checkpoint", "ShardPart"]


class ShardPart(NamedTuple):
    """What a shard gave.

    Attributes
    ----------
    tables : dict of {"pixel", "image"} to TablePart
    n_read : int
        Images that could be used.
    skipped : dict of int to str
        The others, and why.
    pictures : dict of int to Picture
        Images that were to be kept whole.
    heads : dict of {"pixel", "image"} to estimator
        Where there are accumulators: heads that have added up the rows, whose tables
        are then left empty.
    n_rows : int
        Of the table of pixels.
    """

    tables: dict[Granularity, TablePart]
    n_read: int
    skipped: dict[int, str]
    pictures: dict[int, Picture]
    heads: dict[Granularity, Any]
    n_rows: int

    def plus(self, other: ShardPart) -> ShardPart:
        """Return the sum of two parts whose rows are in heads; changes ``self``."""
        for kind, head in other.heads.items():
            self.heads[kind].merge(head)
        tables = {
            kind: table._replace(
                labelled_at=table.labelled_at + other.tables[kind].labelled_at,
                blank=np.concatenate([table.blank, other.tables[kind].blank]),
            )
            for kind, table in self.tables.items()
        }
        return self._replace(
            tables=tables,
            n_read=self.n_read + other.n_read,
            skipped=self.skipped | other.skipped,
            n_rows=self.n_rows + other.n_rows,
        )


class Shard(Protocol):
    """What a checkpoint must know of a shard."""

    number: int
    images: Images
    entries: dict[str, list[Any]]
    weight: np.ndarray | None
    keep: set[int]


class Checkpoint:
    """Parts of shards, or their sum so far, each written whole or not at all.

    Parameters
    ----------
    folder : path or None
        None keeps nothing.
    digest : str or None
        Of the extractor that the parts were made by.

    Raises
    ------
    CheckpointError
        Where the folder holds anything else.
    """

    def __init__(self, folder: str | os.PathLike | None, digest: str | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._saved, self._cost = time.monotonic(), 0.0
        self._sources: list[str] = []
        if self.folder is None:
            return
        self.header = self.folder / "mtsk_checkpoint.json"
        self._digest = digest
        try:
            if "\0" in str(self.folder):
                raise ValueError("a null character")
            occupied = self.folder.is_dir() and any(
                not _PARTIAL_HEADER.fullmatch(path.name)
                for path in self.folder.iterdir()
            )
            is_file = self.folder.is_file()
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"`checkpoint` {str(folder)!r} cannot be used ({error})"
            ) from error
        if is_file:
            raise CheckpointError(f"`checkpoint` {str(folder)!r} is a file")
        if self.header.exists():
            if self._read_header()["extractor"] != digest:
                raise CheckpointError(
                    f"`checkpoint` {str(folder)!r} is of a fit with other parameters "
                    "or tasks; delete it, or name another folder"
                )
        elif occupied:
            raise CheckpointError(
                f"`checkpoint` {str(folder)!r} holds files that mtsk did not write; "
                "name an empty folder or a new one"
            )

    def _read_header(self) -> dict[str, Any]:
        try:
            found = dict(json.loads(self.header.read_text(encoding="utf-8")))
            ends = found["ends"]
            whole = all(type(end) is int for end in ends)
            if not whole or not ends or any(b <= a for a, b in pairwise([0, *ends])):
                raise ValueError(f"ends of shards {ends!r:.80}")
            return {"ends": ends, "extractor": found["extractor"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(self.header.parent, error) from error

    def shard_ends(self, wanted: list[int]) -> list[int]:
        """Return where shards end: those that are there, as far as there are images."""
        if self.folder is None:
            return wanted
        if self.header.exists():
            n_images, ends = wanted[-1], self._read_header()["ends"]
            more = range(ends[-1] + ends[0], n_images, ends[0])
            return [end for end in (*ends, *more) if end < n_images] + [n_images]
        text = json.dumps({"ends": wanted, "extractor": self._digest})
        with _writing(self.header) as file:
            file.write(text.encode())
        return wanted

    def _path(self, shard: Shard) -> Path:
        assert self.folder is not None
        return self.folder / f"shard_{shard.number:06d}.npz"

    def has(self, shard: Shard) -> bool:
        """Tell whether a shard is kept, and neither images nor targets changed since.

        Pictures are not kept, and so no shard that has some.
        """
        if self.folder is None or shard.keep or not self._path(shard).exists():
            return False
        with _reading(self._path(shard)) as file:
            return str(file["source"]) == _source_digest(shard)

    def load(self, shard: Shard) -> ShardPart:
        """Return what was kept of a shard that this `has`."""
        with _reading(self._path(shard)) as file:
            return _part_of(file)

    def save(self, shard: Shard, part: ShardPart) -> None:
        """Keep what a shard gave."""
        if self.folder is None or shard.keep:
            return
        with _writing(self._path(shard)) as file:
            arrays: dict[str, Any] = _arrays_of(part)
            np.savez(file, source=np.array(_source_digest(shard)), **arrays)

    def load_total(
        self, accumulators: Mapping[Granularity, Any], shards: Sequence[Shard]
    ) -> tuple[int, ShardPart | None]:
        """Return how many shards were added up, and their sum; 0 if they changed."""
        if self.folder is None or not (self.folder / _TOTAL).exists():
            return 0, None
        with _reading(self.folder / _TOTAL) as file:
            self._sources = [str(source) for source in file["sources"]]
            n_done = len(self._sources)
            if self._sources != [_source_digest(s) for s in shards[:n_done]]:
                self._sources = []
                return 0, None
            part = _part_of(file)
            for kind, unfitted in accumulators.items():
                prefix = f"head_{kind}_"
                state = {
                    name.removeprefix(prefix): file[name]
                    for name in file.files
                    if name.startswith(prefix)
                }
                part.heads[kind] = clone(unfitted).load_sums(state)
            return n_done, part

    def save_total(self, shard: Shard, total: ShardPart, *, last: bool = False) -> None:
        """Keep a sum up to a shard, so often that it costs a twentieth of the time.

        That up to the last shard is kept in any case.
        """
        if self.folder is None:
            return
        self._sources.append(_source_digest(shard))
        now = time.monotonic()
        if now - self._saved < 20 * self._cost and not last:
            return
        with _writing(self.folder / _TOTAL) as file:
            arrays: dict[str, Any] = _arrays_of(total)
            for kind, head in total.heads.items():
                own = head.sums().items()
                arrays |= {f"head_{kind}_{name}": array for name, array in own}
            np.savez(file, sources=np.array(self._sources), **arrays)
        self._saved = time.monotonic()
        self._cost = self._saved - now

    def remove(self) -> None:
        """Delete what was kept, and the folder if nothing else is in it."""
        if self.folder is None or not self.folder.is_dir():
            return
        found = [p for p in self.folder.iterdir() if _CHECKPOINT_FILE.fullmatch(p.name)]
        # The header last: without it nobody knows the others for ours, should this be
        # cut short.
        for path in sorted(found, key=lambda path: path == self.header):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            self.folder.rmdir()


_TOTAL = "total.npz"
_PARTIAL_HEADER = re.compile(r"\.mtsk_checkpoint\.json\.\d+\.\d+")
_CHECKPOINT_FILE = re.compile(
    r"mtsk_checkpoint\.json|total\.npz|shard_\d+\.npz"
    r"|\.(mtsk_checkpoint\.json|total\.npz|shard_\d+\.npz)\.\d+\.\d+"
)


def _arrays_of(part: ShardPart) -> dict[str, np.ndarray]:
    tables = {
        f"{kind}_{name}": getattr(table, name)
        for kind, table in part.tables.items()
        for name in TablePart._fields
    }
    return {
        **tables,
        "n_read": np.array(part.n_read),
        "n_rows": np.array(part.n_rows),
        "skipped": np.array(json.dumps(part.skipped)),
    }


def _part_of(file: Any) -> ShardPart:
    tables = {
        kind: TablePart(*(file[f"{kind}_{name}"] for name in TablePart._fields))
        for kind in GRANULARITIES
    }
    for table in tables.values():
        lengths = {len(table.Y), len(table.images)}
        if lengths != {table.weak.shape[1], table.weights.shape[1]}:
            raise ValueError("tables of unequal lengths")
    skipped = {int(i): s for i, s in json.loads(str(file["skipped"])).items()}
    n_read, n_rows = int(file["n_read"]), int(file["n_rows"])
    return ShardPart(tables, n_read, skipped, {}, {}, n_rows)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield file  # opened here: numpy leaves a damaged file open
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Any]:
    """Give a file to write, put in place once it is whole and on disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            yield file
    except OSError as error:
        raise CheckpointError(
            f"`checkpoint` {str(path.parent)!r} could not be written "
            f"({error.strerror or error}); what was done before is kept"
        ) from error


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    of = "" if path.is_dir() else f"{path.name!r} of "
    folder = str(path if path.is_dir() else path.parent)
    return CheckpointError(
        f"{of}`checkpoint` {folder!r} is damaged ({error}); delete it"
    )


def _source_digest(shard: Shard) -> str:
    """Return a hash of a shard's images and targets, as far as they can be told.

    Arrays and targets by content, files by name, size and time; of other sequences,
    which would have to be read, only how many there are.
    """
    source = shard.images.source
    marks: Any = len(source)
    if isinstance(source, np.ndarray) and source.dtype.kind != "O":
        marks = source
    elif isinstance(source, list | tuple):
        marks = [_item_mark(item) for item in source]
    elif hasattr(source, "paths"):
        marks = [_item_mark(path) for path in source.paths]
    return joblib.hash([marks, shard.entries, shard.weight])


def _item_mark(item: Any) -> Any:
    if not isinstance(item, str | os.PathLike):
        return item
    try:
        status = os.stat(item)
    except OSError:
        return str(item)
    return str(item), status.st_size, status.st_mtime_ns
