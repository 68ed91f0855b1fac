"""Weights from local files, read without running code, checked by hash."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from mtsk._validation import parameter_error
from mtsk.exceptions import WeightsError

__all__ = ["check_reachable", "check_sha256", "load_state", "read_weights"]


def check_sha256(path: str | os.PathLike, expected: str) -> None:
    """Raise ``WeightsError`` where a file's SHA-256 is not the one expected."""
    if not re.fullmatch("[0-9a-fA-F]{64}", expected):
        allowed = "64 hexadecimal digits, or None"
        raise parameter_error("weights_sha256", "DeepFeatures", allowed, expected)
    try:
        with open(path, "rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"cannot read weights {os.fspath(path)!r}: {error}"
        ) from error
    if got != expected.lower():
        raise WeightsError(
            f"weights {os.fspath(path)!r} have SHA-256 {got}, expected {expected}: "
            "the file is damaged or another one; fetch it again"
        )


def read_weights(
    path: str | os.PathLike, sha256: str | None = None
) -> dict[str, Tensor]:
    """Read a state dict from a ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file.

    Parameters
    ----------
    path : str or path-like
    sha256 : str, optional
        The file's expected hash.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    WeightsError
        Where the file is missing, damaged, has another hash, or holds objects other
        than tensors.
    """
    shown = os.fspath(path)
    if not Path(path).is_file():
        raise WeightsError(f"no weights file at {shown!r}")
    if sha256 is not None:
        check_sha256(path, sha256)
    state: Any
    try:
        if shown.endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(shown)
        else:
            state = torch.load(shown, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and struct errors alike
        raise WeightsError(
            f"cannot read weights {shown!r}: damaged, or not a state dict of tensors "
            f"({type(error).__name__})"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(v, Tensor) for v in state.values()
    ):
        raise WeightsError(f"{shown!r} holds no state dict of tensors")
    return state


def load_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict whose keys and shapes must all fit.

    Raises
    ------
    WeightsError
        Where they do not; the message names them.
    """
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own)
    wrong = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or extra or wrong:
        raise WeightsError(
            f"weights {source} do not fit the network: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(extra)} unknown {extra[:3]}, "
            f"{len(wrong)} of another shape {wrong[:3]}"
        )
    network.load_state_dict(state)


def check_reachable(url: str, timeout: float = 5.0) -> None:
    """Raise ``WeightsError`` at once where a host cannot be reached.

    Libraries that download try again and again, for most of a minute.

    Parameters
    ----------
    url : str
    timeout : float, default=5.0
        Seconds.
    """
    if urllib.request.getproxies():  # who is behind a proxy reaches no host directly
        return
    host = urlparse(url).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=timeout).close()
    except OSError as error:
        raise WeightsError(f"{host} cannot be reached ({error})") from error
