"""Where tiled predictions are written as they come, and the journal of what is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtsk.exceptions import TilingError

__all__ = ["TileStore", "put"]


class TileStore:
    """Maps of several tasks, in memory, in files, or in a zarr group.

    A tile counts as done once its line stands in the journal, which is written after
    its pixels are. So whatever stops a prediction, going on repeats at most one tile.

    Parameters
    ----------
    out : path or None
        None keeps everything in memory. A path that ends in ``.zarr`` is a zarr group,
        any other a folder with one ``.npy`` a task.
    recipe : mapping
        What the predictions depend on, as JSON: a store of another recipe is refused.
    overwrite : bool
        Whether what is there of another recipe is thrown away.

    Attributes
    ----------
    done : dict of int to dict
        The finished tiles and what was noted of each.

    Raises
    ------
    TilingError
    """

    def __init__(
        self, out: str | os.PathLike | None, recipe: Mapping[str, Any], overwrite: bool
    ) -> None:
        self.arrays: dict[str, Any] = {}
        self.done: dict[int, dict[str, Any]] = {}
        self.folder = None if out is None else Path(out)
        if self.folder is None:
            return
        self._zarr = _import_zarr() if self.folder.suffix == ".zarr" else None
        self.journal = self.folder / "mtsk_tiles.jsonl"
        wanted = json.loads(json.dumps(dict(recipe)))
        found = self._read_journal()
        if found == wanted:
            return
        if found is not None and not overwrite:
            raise TilingError(
                f"{str(self.folder)!r} holds a prediction that differs in "
                f"{_differences(found, wanted)}; choose another place, or pass "
                "overwrite=True"
            )
        if found is None and _occupied(self.folder):
            raise TilingError(
                f"{str(self.folder)!r} exists, and mtsk did not make it: it is left "
                "alone; choose another place"
            )
        self._begin(wanted)

    def _begin(self, recipe: Mapping[str, Any]) -> None:
        assert self.folder is not None
        self.done = {}
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._write_line({"recipe": recipe}, "w")
        if self._zarr is not None:
            self._zarr.open_group(str(self.folder), mode="a")

    def _read_journal(self) -> dict[str, Any] | None:
        """Return the recipe that a journal began with; note its tiles."""
        if not self.journal.exists():
            return None
        lines = self.journal.read_bytes().split(b"\n")
        whole = lines[:-1]  # after the last newline stands what a kill cut short
        if not whole:
            return None
        entries = [json.loads(line) for line in whole]
        if lines[-1]:
            with open(self.journal, "r+b") as file:
                file.truncate(sum(len(line) + 1 for line in whole))
        self.done = {entry["tile"]: entry for entry in entries[1:]}
        return entries[0]["recipe"]

    def _write_line(self, entry: Mapping[str, Any], mode: str = "a") -> None:
        with open(self.journal, mode, encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Return the array of a task; made, all zeros, where there is none yet."""
        if name not in self.arrays:
            self.arrays[name] = self._open(name, shape, np.dtype(dtype))
        return self.arrays[name]

    def _open(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        if self.folder is None:
            return np.zeros(shape, dtype)
        if self._zarr is not None:
            group = self._zarr.open_group(str(self.folder), mode="a")
            if name in group:
                return group[name]
            if dtype.kind not in "biuf":
                raise TilingError(
                    f"task {name!r} predicts {dtype}, which zarr does not hold; name "
                    "a folder without the suffix .zarr"
                )
            chunks = (*(min(n, _CHUNK) for n in shape[:2]), *shape[2:])
            return group.create_array(name, shape=shape, dtype=dtype, chunks=chunks)
        path = self.folder / f"{name}.npy"
        if not path.exists():
            part = path.with_suffix(".part")
            np.lib.format.open_memmap(part, "w+", dtype, shape).flush()
            _claim_disk(part)
            os.replace(part, path)
        return np.load(path, mmap_mode="r+")

    def write(
        self, name: str, slices: tuple[slice, slice], values: np.ndarray, full: Any
    ) -> None:
        """Write a piece of a task's map.

        Parameters
        ----------
        name : str
        slices : (slice, slice)
        values : ndarray
        full : (int, int)
            Height and width of the whole map.
        """
        target = self.array(name, (*full, *values.shape[2:]), values.dtype)
        put(target, slices, values)

    def finish_tile(self, index: int, notes: Mapping[str, Any]) -> None:
        """Note that a tile is done, once its pixels are on disk."""
        entry = {"tile": index, **notes}
        self.done[index] = entry
        if self.folder is None:
            return
        for array in self.arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        self._write_line(entry)


def put(target: Any, slices: tuple[slice, slice], values: np.ndarray) -> None:
    """Write into an array that may lie on disk; a full disk is a TilingError."""
    try:
        target[slices] = values
    except OSError as error:
        raise TilingError(
            f"a tile could not be written ({error}); what was done before is kept"
        ) from error


def _occupied(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


_CHUNK = 512  # pixels; tiles are multiples of it, so that no chunk is written twice


def _claim_disk(path: Path) -> None:
    """Take the disk space of a sparse file now: a full disk is then an OSError."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            os.unlink(path)
            raise TilingError(
                f"no room on disk for {str(path.with_suffix('.npy'))!r} "
                f"({error.strerror})"
            ) from error


def _import_zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise TilingError(
            "a .zarr output needs zarr: pip install 'mtsk[large]', or name a folder "
            "without that suffix for .npy files"
        ) from error
    return zarr


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = [k for k in wanted if found.get(k) != wanted[k]]
    return ", ".join(keys)
