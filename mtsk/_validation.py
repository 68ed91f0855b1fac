"""What parameters, images and targets may be.

This is the only file that touches scikit-learn's private modules: it borrows
their parameter constraints, so that one error form serves every estimator.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    make_constraint,
)
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

from mtsk.exceptions import ImageError

__all__ = [
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "MIN_SIDE",
    "Options",
    "SequenceOf",
    "StrOptions",
    "check_image",
    "check_parameters",
    "check_sample_weight",
    "group_numbers",
    "is_missing",
    "output_container",
    "parallel_block",
    "parameter_error",
    "serial_block",
]

MIN_SIDE = 8
"""Smallest side, in pixels, of an image that a CNN can say something about."""

_TWELVE_BITS = 4096
_SCALE = {np.dtype("uint8"): 255.0, np.dtype("uint16"): 65535.0}


class SequenceOf:
    """Constraint: a list, tuple or 1-D array whose elements meet a constraint."""

    def __init__(self, constraint: Any, *, min_length: int = 1) -> None:
        self.constraint = make_constraint(constraint)
        self.min_length = min_length

    def is_satisfied_by(self, value: Any) -> bool:
        if isinstance(value, str | bytes) or not isinstance(
            value, Sequence | np.ndarray
        ):
            return False
        if len(value) < self.min_length:
            return False
        return all(self.constraint.is_satisfied_by(v) for v in value)

    def __str__(self) -> str:
        return f"a sequence of at least {self.min_length} of: {self.constraint}"


def parameter_error(
    name: str, owner: object, allowed: object, got: object
) -> InvalidParameterError:
    """Return the one error form: which parameter, of whom, what is allowed, what came.

    Parameters
    ----------
    name : str
        Name of the parameter.
    owner : object
        The object it belongs to, or its name.
    allowed : object
        What is allowed, in words.
    got : object
        The value that came.

    Returns
    -------
    InvalidParameterError
        scikit-learn's error (a ``ValueError`` and a ``TypeError``), to be raised.
    """
    who = owner if isinstance(owner, str) else type(owner).__name__
    shown = repr(got)
    if len(shown) > 120:
        shown = f"{shown[:117]}..."
    return InvalidParameterError(f"`{name}` of {who} must be {allowed}, got {shown}")


def check_parameters(owner: object, constraints: Mapping[str, Sequence[Any]]) -> None:
    """Check the attributes of ``owner`` that ``constraints`` names.

    Parameters
    ----------
    owner : object
        An estimator or task; its attributes are read by name.
    constraints : mapping of str to sequence
        For each parameter, the alternatives it may satisfy, as scikit-learn writes
        them (``Interval``, ``StrOptions``, a type, ``None``, ``callable``) or any
        object with ``is_satisfied_by``.

    Raises
    ------
    InvalidParameterError
        On the first parameter that satisfies none of its alternatives.
    """
    for name, alternatives in constraints.items():
        value = getattr(owner, name)
        made = [
            a if hasattr(a, "is_satisfied_by") else make_constraint(a)
            for a in alternatives
        ]
        stray_bool = isinstance(value, bool) and not {"boolean", "verbose"} & {
            a for a in alternatives if isinstance(a, str)
        }
        if stray_bool or not any(a.is_satisfied_by(value) for a in made):
            allowed = " or ".join(str(a) for a in made)
            raise parameter_error(name, owner, allowed, value)


def group_numbers(groups: Any, n: int, of: str = "rows") -> np.ndarray:
    """Return the number of each row's group, 0 … n_groups − 1, in order of names.

    Raises
    ------
    ValueError
        Where there is not one name a row, or one is None, NaN or of another kind.
    """
    if isinstance(groups, list | tuple):  # numpy would make words of what is mixed
        if any(
            isinstance(name, Sequence | np.ndarray)
            and not isinstance(name, str | bytes)
            for name in groups
        ):
            raise ValueError(f"groups must hold one name for each of the {n} {of}")
        names = np.empty(len(groups), object)
        names[:] = groups
    else:
        names = np.asarray(groups)
    if names.shape != (n,):
        raise ValueError(f"groups has shape {names.shape}, X has {n} {of}")
    if names.dtype.kind not in "biuSU" and any(map(is_missing, names.tolist())):
        raise ValueError("groups must name every group, got None or NaN")
    try:
        return np.unique(names, return_inverse=True)[1]
    except TypeError:
        raise ValueError("groups must not mix kinds of names") from None


def is_missing(value: Any) -> bool:
    """Tell whether a value is None, NaN, NaT or pandas.NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA says neither yes nor no
        return True


def output_container(transformer: Any) -> str:
    """Return what ``set_output`` wants of a transformer: "default", "pandas", …"""
    return str(_get_output_config("transform", transformer)["dense"])


def serial_block(steps: Sequence[Any]) -> Any:
    """Return how scikit-learn draws estimators, or blocks, one after another."""
    return _VisualBlock("serial", list(steps), dash_wrapped=False)


def parallel_block(parts: Mapping[str, Any]) -> Any:
    """Return how scikit-learn draws estimators, or blocks, side by side, by name."""
    details = [repr(p) if hasattr(p, "get_params") else None for p in parts.values()]
    return _VisualBlock(
        "parallel", list(parts.values()), names=list(parts), name_details=details
    )


def _image_facts(image: np.ndarray) -> str:
    """Return dtype, shape and range in words, for error messages."""
    facts = f"dtype {image.dtype}, shape {image.shape}"
    if image.size and image.dtype.kind in "uif":
        facts += f", range [{image.min():g}, {image.max():g}]"
    return facts


def _remedy_for_dtype(image: np.ndarray) -> str:
    """Return how to bring the values of an image of another dtype to one that is taken.

    The range decides: rescaling an int32 by its dtype, as scikit-image does, turns a
    picture of 8 or 16 bits black.
    """
    if image.dtype.kind == "b":
        return "convert it by image.astype(np.uint8) * 255"
    if image.dtype.kind not in "iu":
        return "give numbers"
    low, high = int(image.min()), int(image.max())
    if low >= 0 and high <= 255:
        return "its values have 8 bits: convert it by image.astype(np.uint8)"
    if low >= 0 and high <= 65535:
        return (
            "its values have 16 bits: convert it by image.astype(np.uint16), or, where "
            "they have fewer, divide it by its full scale, as float in [0, 1]"
        )
    return (
        "scale it to float in [0, 1] by the range that its values can have, the same "
        "for all images: (image - low) / (high - low)"
    )


def check_image(image: Any, where: str) -> np.ndarray:
    """Return ``image`` as float32 in [0, 1], shape (H, W, C), or say what is wrong.

    Parameters
    ----------
    image : array of shape (H, W) or (H, W, C)
        uint8, uint16, or float in [0, 1] (scikit-image's convention).
    where : str
        How messages call the image, such as ``"image 3"``.

    Returns
    -------
    ndarray of shape (H, W, C), float32
        A grey image becomes (H, W, 1).

    Raises
    ------
    ImageError
        On a wrong dtype, number of axes, size, range, or on NaN and infinity.
    """
    if np.ma.is_masked(image):
        raise ImageError(
            f"{where} is a masked array, and a network sees all of an image: fill it "
            "(image.filled(0)), and leave the labels there out"
        )
    try:
        image = np.asarray(image)
    except ValueError as error:
        raise ImageError(f"{where} is not an array: {error}") from None
    if image.dtype.byteorder == ">":  # as TIFF files may have it
        image = image.astype(image.dtype.newbyteorder("="))
    if image.ndim not in (2, 3):
        raise ImageError(
            f"{where} must have shape (H, W) or (H, W, C), got {_image_facts(image)}"
            + "; of several frames or pages, choose one" * (image.ndim == 4)
        )
    if min(image.shape[:2]) < MIN_SIDE or 0 in image.shape:
        hint = ""
        if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] > 4:
            hint = "; channels come last: transpose it to (H, W, C)"
        elif image.ndim == 2 and image.shape[1] in (3, 4):
            hint = "; one image alone is X[None], or [image]"
        raise ImageError(
            f"{where} must be at least {MIN_SIDE} x {MIN_SIDE} pixels, "
            f"got {_image_facts(image)}{hint}"
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.dtype == np.uint16 and image.max() < _TWELVE_BITS:
        warnings.warn(
            # Of any image the same words, so that Python shows them once.
            f"an image is uint16 with no value above {_TWELVE_BITS - 1}, and 65535 is "
            "white: if it has 8, 10 or 12 bits, divide it by its own greatest value, "
            "as float in [0, 1]",
            UserWarning,
            stacklevel=2,
        )
    if image.dtype in _SCALE:
        return np.multiply(image, np.float32(1 / _SCALE[image.dtype]), dtype=np.float32)
    if image.dtype.kind != "f":
        raise ImageError(
            f"{where} must be uint8, uint16 or float in [0, 1], "
            f"got {_image_facts(image)}; {_remedy_for_dtype(image)}"
        )
    if not np.isfinite(image).all():
        raise ImageError(f"{where} must be finite, got NaN or infinity in it")
    if image.min() < 0 or image.max() > 1:
        raise ImageError(
            f"{where} is floating point and must lie in [0, 1], "
            f"got {_image_facts(image)}; divide it by its full scale"
        )
    return image.astype(np.float32, copy=False)
