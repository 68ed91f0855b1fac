"""Where tiled predictions are written as they come, and the journal of what is done."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mtsk._validation import parameter_error
from mtsk.exceptions import TilingError

__all__ = ["TileStore", "check_names", "put"]


class TileStore:
    """Maps of several tasks, in memory or in a zarr group.

    A tile counts as done once its line stands in the journal, which is written after
    its pixels are. So whatever stops a prediction, going on repeats at most one tile.

    Parameters
    ----------
    out : path or None
        Of a zarr group, which ends in ``.zarr``. None keeps everything in memory.
    fingerprint : mapping
        What the predictions depend on, as JSON: a store of another is refused.
    n_tiles : int
    overwrite : bool
        Whether what is there of another fingerprint is thrown away, once there is
        something to put in its place.

    Attributes
    ----------
    done : dict of int to dict
        The finished tiles and what was noted of each.

    Raises
    ------
    TilingError
    """

    # Pixels; tiles are multiples of it, so that no chunk is written twice.
    chunk: ClassVar[int] = 512

    def __init__(
        self,
        out: str | os.PathLike | None,
        fingerprint: Mapping[str, Any],
        n_tiles: int,
        overwrite: bool,
    ) -> None:
        self.arrays: dict[str, Any] = {}
        self.done: dict[int, dict[str, Any]] = {}
        self.folder = None if out is None else _as_folder(out)
        if self.folder is None:
            return
        self._zarr = _import_zarr()
        self.journal = self.folder / "mtsk_tiles.jsonl"
        self._fingerprint = json.loads(json.dumps(dict(fingerprint)))
        self._shapes: dict[str, list] = {}  # of arrays, as the journal has them
        self._begun = False
        try:
            found = self._read_journal(n_tiles)
            occupied = self.folder.is_file() or (
                self.folder.is_dir() and any(self.folder.iterdir())
            )
        except TilingError:
            if not overwrite:
                raise
            found, occupied = {}, False
        except OSError as error:
            raise _cannot(self.folder, error) from error
        if found is None and occupied:
            raise TilingError(
                f"{str(self.folder)!r} exists, and mtsk did not make it: it is left "
                "alone; choose another place"
            )
        if found and found != self._fingerprint and not overwrite:
            raise TilingError(
                f"{str(self.folder)!r} holds a prediction that differs in "
                f"{_differences(found, self._fingerprint)}; choose another place, or "
                "pass overwrite=True"
            )
        self._begun = found == self._fingerprint and self._is_whole(overwrite)
        if not self._begun:
            self.done = {}

    def _is_whole(self, overwrite: bool) -> bool:
        """Tell whether the maps that the journal knows of are there."""
        try:
            for name in self._shapes:
                self.arrays[name] = self._existing(name)
        except TilingError:
            if not overwrite:
                raise
            self.arrays = {}
            return False
        return True

    # -- the journal ------------------------------------------------------------

    def _begin(self) -> None:
        """Make a place, once there is something to write; clear what was there."""
        if self.folder is None or self._begun:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in self._shapes:  # of another fingerprint; nothing else is touched
                self._remove(name)
            self._shapes = {}
            self._write_line({"fingerprint": self._fingerprint}, "w")
        except OSError as error:
            raise _cannot(self.folder, error) from error
        self._begun = True

    def _remove(self, name: str) -> None:
        group = self._group()
        if name in group:
            del group[name]

    @property
    def _folder(self) -> Path:
        assert self.folder is not None
        return self.folder

    def _group(self) -> Any:
        return self._zarr.open_group(str(self._folder), mode="a")

    def _read_journal(self, n_tiles: int) -> dict[str, Any] | None:
        """Return the fingerprint that a journal began with; note tiles and arrays."""
        if not self.journal.is_file():
            return None
        lines = self.journal.read_bytes().split(b"\n")
        whole = lines[:-1]  # after the last newline stands what a kill cut short
        if not whole:
            return {}  # killed before the first line was out
        try:
            entries = [json.loads(line) for line in whole]
            fingerprint = dict(entries[0]["fingerprint"])
            for entry in entries[1:]:
                if "array" in entry:
                    check_names([str(entry["array"])])  # it will be a file's name
                    self._shapes[str(entry["array"])] = [entry["shape"], entry["dtype"]]
                elif (
                    not 0 <= entry["tile"] < n_tiles
                    and fingerprint == self._fingerprint
                ):
                    raise ValueError(f"no tile {entry['tile']}")
                else:
                    self.done[entry["tile"]] = entry
        except (ValueError, KeyError, TypeError) as error:
            raise TilingError(
                f"{str(self.journal)!r} is damaged ({error}); pass overwrite=True to "
                "begin anew"
            ) from error
        if lines[-1]:
            with open(self.journal, "r+b") as file:
                file.truncate(sum(len(line) + 1 for line in whole))
        return fingerprint

    def _write_line(self, entry: Mapping[str, Any], mode: str = "a") -> None:
        with open(self.journal, mode, encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    # -- the maps ---------------------------------------------------------------

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Return the array of a task; made, all zeros, where there is none yet."""
        if name not in self.arrays:
            self.arrays[name] = self._open(name, shape, np.dtype(dtype))
        return self.arrays[name]

    def _open(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        if self.folder is None:
            return np.zeros(shape, dtype)
        if dtype.kind not in "biuf":
            raise TilingError(
                f"task {name!r} predicts {dtype}, and a zarr group holds numbers: "
                "learn from codes in place of words, or predict with out=None"
            )
        self._begin()
        try:
            if name in self._shapes:
                return self._existing(name)
            made = self._made(name, shape, dtype)
            entry = {"array": name, "shape": list(shape), "dtype": dtype.str}
            self._write_line(entry)
        except OSError as error:
            raise _cannot(self.folder, error) from error
        self._shapes[name] = [list(shape), dtype.str]
        return made

    def _existing(self, name: str) -> Any:
        """Return an array that the journal knows of, if it still is what it was."""
        try:
            found = self._group()[name]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise self._lost(name) from error
        if [list(found.shape), np.dtype(found.dtype).str] != self._shapes[name]:
            raise self._lost(name)
        return found

    def _lost(self, name: str) -> TilingError:
        return TilingError(
            f"the map of task {name!r} in {str(self._folder)!r} is missing or damaged; "
            "pass overwrite=True to begin anew"
        )

    def _made(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        chunks = (*(min(n, self.chunk) for n in shape[:2]), *shape[2:])
        return self._group().create_array(
            name, shape=shape, dtype=dtype, chunks=chunks, overwrite=True
        )

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
        self._begin()
        self._write_line(entry)


def put(target: Any, slices: tuple[slice, slice], values: np.ndarray) -> None:
    """Write into an array that may lie on disk; a full disk is a TilingError."""
    try:
        target[slices] = values
    except OSError as error:
        raise TilingError(
            f"a tile could not be written ({error}); what was done before is kept"
        ) from error


def _as_folder(out: Any) -> Path:
    """Return a path on this machine, or say why it is none."""
    if not isinstance(out, str | os.PathLike) or not os.fspath(out):
        raise parameter_error("out", "predict_tiled", "a path, or None", out)
    text = os.fspath(out)
    if not isinstance(text, str) or "://" in text or "\0" in text:
        raise parameter_error("out", "predict_tiled", "a path on this machine", out)
    if not text.lower().endswith(".zarr"):
        raise parameter_error("out", "predict_tiled", "a path that ends in .zarr", out)
    return Path(text).expanduser()


def _cannot(path: Path, error: OSError) -> TilingError:
    return TilingError(
        f"{str(path)!r} cannot be written ({error.strerror or error}); choose another "
        "place"
    )


def check_names(names: Sequence[str]) -> None:
    """Refuse names of tasks that are no names of files.

    Raises
    ------
    TilingError
    """
    for name in names:
        fits = Path(name).name == name and len(os.fsencode(name)) <= _LONGEST_NAME
        if not fits or name.startswith(".") or name == "zarr.json":
            raise TilingError(
                f"task {name!r} cannot be the name of a file; rename it, or predict "
                "in Python, with out=None"
            )


_LONGEST_NAME = 200  # bytes; most file systems take 255, less what we put behind it


def _import_zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise TilingError(
            "an output on disk needs zarr: pip install 'mtsk[large]'"
        ) from error
    return zarr


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = [k for k in wanted if found.get(k) != wanted[k]]
    return ", ".join(keys)
