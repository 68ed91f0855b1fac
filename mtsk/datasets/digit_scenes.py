"""Scenes of real handwritten digits on real photographs, with every kind of label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from numbers import Integral
from typing import Any, Literal

import numpy as np
from skimage import data
from skimage.transform import resize
from sklearn.datasets import load_digits
from sklearn.utils import Bunch, check_random_state

from mtsk._validation import parameter_error
from mtsk.data.targets import Targets

__all__ = ["make_digit_scenes"]

BACKGROUND = 10
"""The label of pixels that belong to no digit."""

_PICTURES = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass")
_MORE_PICTURES = (
    "gravel",
    "hubble_deep_field",
    "moon",
    "rocket",
    "immunohistochemistry",
)
_INK = 0.35  # a glyph's opacity from which a pixel is the digit's
_LEAST_VISIBLE = 0.85  # of a digit, when others lie over it
_N_TRAIN_DIGITS = 1297  # of 1,797: scenes for testing are written by other hands


def make_digit_scenes(
    n_scenes: int = 100,
    *,
    size: tuple[int, int] = (128, 160),
    n_digits: tuple[int, int] = (1, 4),
    digit_size: tuple[int, int] = (36, 72),
    subset: Literal["train", "test"] = "train",
    random_state: Any = 0,
) -> Bunch:
    """Compose scikit-learn's handwritten digits on scikit-image's photographs.

    Digits of random size, ink and place lie over one another on random pieces of
    photographs and textures. Both come with the libraries; nothing is downloaded.

    Parameters
    ----------
    n_scenes : int, default=100
    size : (int, int), default=(128, 160)
        Height and width in pixels.
    n_digits : (int, int), default=(1, 4)
        Least and most digits in a scene. Where no place is left, there are fewer.
    digit_size : (int, int), default=(36, 72)
        Least and greatest height of a digit in pixels.
    subset : {"train", "test"}, default="train"
        The two are made of different digits and of different halves of the
        photographs.
    random_state : int, RandomState or None, default=0

    Returns
    -------
    Bunch
        ``images``: ndarray of uint8, shape (n_scenes, H, W, 3).
        ``targets``: Targets with the tasks

        - ``semantic``: int map, 0–9 the digit, 10 the background;
        - ``instances``: int map, 0 the background, 1 … n a digit each, bottom first;
        - ``depth``: float map, 1 the background, towards 0 the digits on top;
        - ``boxes``: a dict with ``"boxes"``, (n, 4) int array of x0, y0, x1, y1 around
          what is visible of each instance, x1 and y1 exclusive, and ``"labels"``, (n,)
          int array, the digit in each;
        - ``tags``: (10,) bool, the digits that occur;
        - ``count``: float, the number of digits.

    Raises
    ------
    InvalidParameterError
        On sizes that leave no room.

    Examples
    --------
    >>> from mtsk.datasets import make_digit_scenes
    >>> scenes = make_digit_scenes(2, random_state=0)
    >>> scenes.images.shape
    (2, 128, 160, 3)
    >>> scenes.targets.task_names[:3]
    ['semantic', 'instances', 'depth']
    """
    _check(n_scenes, size, n_digits, digit_size, subset)
    random = check_random_state(random_state)
    scenes = [
        _make_scene(random, size, n_digits, digit_size, subset) for _ in range(n_scenes)
    ]
    names = scenes[0][1]
    columns = {name: [labels[name] for _, labels in scenes] for name in names}
    return Bunch(
        images=np.stack([image for image, _ in scenes]), targets=Targets(columns)
    )


def _check(
    n_scenes: Any, size: Any, n_digits: Any, digit_size: Any, subset: Any
) -> None:
    owner = "make_digit_scenes"
    if not isinstance(n_scenes, Integral) or n_scenes < 1:
        raise parameter_error("n_scenes", owner, "an int >= 1", n_scenes)
    for name, pair in (("size", size), ("n_digits", n_digits)):
        if np.shape(pair) != (2,) or np.asarray(pair).dtype.kind not in "iu":
            raise parameter_error(name, owner, "two ints", pair)
    if not 0 <= n_digits[0] <= n_digits[1]:
        raise parameter_error("n_digits", owner, "0 <= least <= most", n_digits)
    if not 8 <= digit_size[0] <= digit_size[1] <= min(size):
        allowed = f"8 <= least <= greatest <= the scene's sides {size}"
        raise parameter_error("digit_size", owner, allowed, digit_size)
    if subset not in ("train", "test"):
        raise parameter_error("subset", owner, "'train' or 'test'", subset)


def _make_scene(
    random: np.random.RandomState,
    size: tuple[int, int],
    n_digits: tuple[int, int],
    digit_size: tuple[int, int],
    subset: str,
) -> tuple[np.ndarray, dict[str, Any]]:
    canvas = _background(random, size, subset)
    instances = np.zeros(size, np.int32)
    areas: list[int] = []
    digits: list[int] = []
    for _ in range(random.randint(n_digits[0], n_digits[1] + 1)):
        label, glyph = _glyph(random, digit_size, subset)
        place = _find_place(random, instances, areas, glyph > _INK)
        if place is None:
            continue
        rows, cols = place
        ink = _ink(random, canvas[rows, cols])
        alpha = glyph[..., None]
        canvas[rows, cols] = alpha * ink + (1 - alpha) * canvas[rows, cols]
        digits.append(label)
        instances[rows, cols][glyph > _INK] = len(digits)
        areas.append(int((glyph > _INK).sum()))
    image = (canvas.clip(0, 1) * 255).round().astype(np.uint8)
    return image, _labels(instances, digits)


def _labels(instances: np.ndarray, digits: Sequence[int]) -> dict[str, Any]:
    digit_of = np.array([BACKGROUND, *digits])
    boxes = np.zeros((len(digits), 4), int)
    for i in range(len(digits)):
        rows, cols = np.nonzero(instances == i + 1)
        boxes[i] = cols.min(), rows.min(), cols.max() + 1, rows.max() + 1
    return {
        "semantic": digit_of[instances],
        "instances": instances,
        "depth": (1 - instances / (len(digits) + 1)).astype(np.float32),
        "boxes": {"boxes": boxes, "labels": np.array(digits, int)},
        "tags": np.isin(np.arange(10), digits),
        "count": float(len(digits)),
    }


def _find_place(
    random: np.random.RandomState,
    instances: np.ndarray,
    areas: Sequence[int],
    mask: np.ndarray,
) -> tuple[slice, slice] | None:
    """Return where a digit may lie so that those below stay visible."""
    height, width = mask.shape
    for _ in range(20):
        top = random.randint(instances.shape[0] - height + 1)
        left = random.randint(instances.shape[1] - width + 1)
        place = slice(top, top + height), slice(left, left + width)
        after = instances.copy()
        after[place][mask] = 0
        visible = np.bincount(after.ravel(), minlength=len(areas) + 1)[1:]
        if all(v >= _LEAST_VISIBLE * a for v, a in zip(visible, areas, strict=True)):
            return place
    return None


def _background(
    random: np.random.RandomState, size: tuple[int, int], subset: str
) -> np.ndarray:
    """Return a piece of the upper (train) or lower (test) half of a photograph."""
    names = _PICTURES + _MORE_PICTURES
    picture = _picture(names[random.randint(len(names))])
    half = picture.shape[0] // 2
    picture = picture[:half] if subset == "train" else picture[half:]
    share = random.uniform(0.4, 1.0)
    height = int(share * min(picture.shape[0], picture.shape[1] * size[0] / size[1]))
    width = int(height * size[1] / size[0])
    top = random.randint(picture.shape[0] - height + 1)
    left = random.randint(picture.shape[1] - width + 1)
    piece = picture[top : top + height, left : left + width]
    if random.rand() < 0.5:
        piece = piece[:, ::-1]
    return resize(piece, size, order=1, anti_aliasing=True).astype(np.float32)


@cache
def _picture(name: str) -> np.ndarray:
    picture = getattr(data, name)().astype(np.float32) / 255
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return picture[..., :3]


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    return digits.images / 16.0, digits.target


def _glyph(
    random: np.random.RandomState, digit_size: tuple[int, int], subset: str
) -> tuple[int, np.ndarray]:
    """Return a digit's label and its opacity, enlarged from 8 x 8."""
    images, labels = _digits()
    first = 0 if subset == "train" else _N_TRAIN_DIGITS
    last = _N_TRAIN_DIGITS if subset == "train" else len(images)
    which = random.randint(first, last)
    height = random.randint(digit_size[0], digit_size[1] + 1)
    large = resize(images[which], (height, height), order=3)
    ink = large > _INK
    rows, cols = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    tight = large[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return int(labels[which]), np.clip((tight - 0.15) / 0.5, 0, 1).astype(np.float32)


def _ink(random: np.random.RandomState, under: np.ndarray) -> np.ndarray:
    """Return a colour that stands out from what lies under it."""
    mean = under.mean(axis=(0, 1))
    for _ in range(50):
        colour = random.uniform(0, 1, 3).astype(np.float32)
        if np.abs(colour - mean).sum() > 0.9:
            return colour
    return (mean < 0.5).astype(np.float32)
