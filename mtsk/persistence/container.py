"""The file that holds a model: a plain zip archive, sealed by a hash.

Members are stored, not compressed, so the archive holds no more bytes than the file.
Its comment, the last bytes of the file, names the format and the SHA-256 of all bytes
before it: a file that was cut short or altered is known before anything in it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtsk._atomic import atomic_write
from mtsk.exceptions import ModelFileError

__all__ = ["FORMAT", "MANIFEST", "read_container", "write_container"]

FORMAT = 1
MANIFEST = "mtsk.json"

_MARK = b"mtsk model "
_SEAL = len(_MARK) + 4 + 1 + 64  # mark, format, space, SHA-256
_LONGEST_MANIFEST = 2**20


def write_container(
    path: str | os.PathLike, manifest: Mapping[str, Any], members: Mapping[str, bytes]
) -> None:
    """Write a sealed file, whole or not at all.

    Parameters
    ----------
    path : path
    manifest : mapping
        What JSON can say.
    members : mapping of str to bytes

    Raises
    ------
    ModelFileError
        Where it cannot be written.
    """
    text = json.dumps(manifest, indent=1, allow_nan=False)
    if len(text) > _LONGEST_MANIFEST:
        raise ModelFileError(
            f"the card would be {len(text)} bytes long, the most is "
            f"{_LONGEST_MANIFEST}: shorten `description`"
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {MANIFEST: text.encode(), **members}.items():
            archive.writestr(name, content)
        archive.comment = b" " * _SEAL
    data = bytearray(buffer.getbuffer())
    digest = hashlib.sha256(data[:-_SEAL]).hexdigest()
    data[-_SEAL:] = b"%s%04d %s" % (_MARK, FORMAT, digest.encode())
    _replace(Path(path), bytes(data))


def read_container(
    path: str | os.PathLike, *, only: str | None = None
) -> dict[str, bytes]:
    """Return the members of a file that is whole and unaltered.

    Parameters
    ----------
    path : path
    only : str, optional
        The one member wanted.

    Returns
    -------
    dict of str to bytes

    Raises
    ------
    ModelFileError
        Where there is no such file, or it is no model, of a later format, cut short, or
        altered.
    """
    name = f"{os.fspath(path)!r}"
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that can be no file's
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{name} cannot be read: {reason}") from error
    seal = data[-_SEAL:]
    if not seal.startswith(_MARK):
        begun = "was cut short, or " if data[:4] == b"PK\x03\x04" else ""
        raise ModelFileError(f"{name} {begun}is no model saved by mtsk.save")
    stated, _, digest = seal[len(_MARK) :].partition(b" ")
    if stated.isdigit() and int(stated) > FORMAT:
        raise ModelFileError(
            f"{name} has format {int(stated)}, and this mtsk reads up to {FORMAT}: "
            "install the mtsk that saved it, or a later one"
        )
    if hashlib.sha256(data[:-_SEAL]).hexdigest().encode() != digest:
        raise ModelFileError(f"{name} was altered or damaged since it was saved")
    try:
        return _members(data, only)
    except (zipfile.BadZipFile, ValueError, KeyError, RuntimeError, OSError) as error:
        raise ModelFileError(
            f"{name} is no model saved by mtsk.save: {error}"
        ) from error


def _members(data: bytes, only: str | None) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names) or MANIFEST not in names:
            raise ValueError("its members are not those of a model")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise ValueError(
                    f"member {entry.filename!r} is compressed or encrypted"
                )
            if entry.file_size > len(data):
                raise ValueError(f"member {entry.filename!r} is larger than the file")
        if sum(entry.file_size for entry in entries) > len(data):
            raise ValueError("its members overlap")
        if archive.getinfo(MANIFEST).file_size > _LONGEST_MANIFEST:
            raise ValueError("its card is too long")
        return {n: archive.read(n) for n in names if only is None or n == only}


def _replace(path: Path, data: bytes) -> None:
    """Put a file in place, or leave what was there."""
    try:
        with atomic_write(path) as file:
            file.write(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(
            f"{os.fspath(path)!r} cannot be written: {reason}"
        ) from error
