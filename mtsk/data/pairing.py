"""Which label file belongs to which image file, by their names."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

from mtsk.exceptions import TargetError

__all__ = ["pair_by_name"]

_SHOWN = 3


def pair_by_name(
    images: Sequence[str], labels: Sequence[str], task: str
) -> list[int | None]:
    """Return the place of each image's label file, None where it has none.

    Names are compared without folder and suffix. Where no label file has the name of an
    image, what all label files have in common before or after it is left out, as in
    ``x_mask`` or ``mask_x``; and so is what all images have in common.

    Parameters
    ----------
    images, labels : sequence of str
        Names, without suffixes.
    task : str
        For messages.

    Returns
    -------
    list of int or None

    Raises
    ------
    TargetError
        Where two files of one side have one name, or the names do not belong together.

    Warns
    -----
    UserWarning
        Of label files without an image, and where both sides have a part of their own
        in all names. An image without a label file is unlabelled.

    Examples
    --------
    >>> from mtsk.data.pairing import pair_by_name
    >>> pair_by_name(["b", "a"], ["a_mask", "b_mask"], "target")
    [1, 0]
    """
    for side, names in (("images", images), ("label files", labels)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise TargetError(f"two {side} are called {twice[0]!r}", task)
    for image_keys, label_keys in _candidates(images, labels):
        place = {key: i for i, key in enumerate(label_keys)}
        pairs = [place.get(key) for key in image_keys]
        if any(pair is not None for pair in pairs):
            _warn_of_unpaired(images, labels, pairs, task)
            return pairs
    raise TargetError(
        "label files and images have no names in common: label files "
        f"{list(labels[:_SHOWN])}, images {list(images[:_SHOWN])}; give them the same "
        "names, or lists in one order",
        task,
    )


def _candidates(
    images: Sequence[str], labels: Sequence[str]
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Yield keys of both sides by which files may be paired, the plainest first."""
    yield images, labels
    found = _without_affixes(labels, images)
    if found is not None:
        yield images, found
    found = _without_affixes(images, labels)
    if found is not None:
        yield found, labels
    a, b = _stripped(images), _stripped(labels)
    if set(a) == set(b) and len(set(a)) == len(images) == len(labels):
        warnings.warn(
            f"images {list(images[:_SHOWN])} and label files {list(labels[:_SHOWN])} "
            "differ in what all of either have in common, and are paired by the rest",
            UserWarning,
            stacklevel=5,
        )
        yield a, b


def _without_affixes(longer: Sequence[str], names: Sequence[str]) -> list[str] | None:
    """Return what is left of names that all have one prefix and one suffix more."""
    known = set(names)
    by_length = sorted(known, key=len, reverse=True)
    for one in longer:  # the first may have no partner
        for name in by_length:
            start = one.find(name)
            if start < 0:
                continue
            before, after = one[:start], one[start + len(name) :]
            keys = [
                other[len(before) : len(other) - len(after)]
                for other in longer
                if other.startswith(before) and other.endswith(after)
            ]
            enough = 2 * len(known & set(keys)) > min(len(known), len(keys))
            if len(keys) == len(longer) and enough:
                return keys
    return None


def _stripped(names: Sequence[str]) -> list[str]:
    """Return names without what all of them begin and end with."""
    before = _common_prefix(names)
    rest = [name[before:] for name in names]
    after = _common_prefix([name[::-1] for name in rest])
    return [name[: len(name) - after] for name in rest]


def _common_prefix(names: Sequence[str]) -> int:
    """Return how many characters all names begin with."""
    columns = zip(*names, strict=False)
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, columns))


def _warn_of_unpaired(
    images: Sequence[str],
    labels: Sequence[str],
    pairs: Sequence[int | None],
    task: str,
) -> None:
    used = {pair for pair in pairs if pair is not None}
    alone = [name for i, name in enumerate(labels) if i not in used]
    without = [name for name, pair in zip(images, pairs, strict=True) if pair is None]
    if alone:
        message = f"{len(alone)} label files have no image ({alone[:_SHOWN]})"
        if without:
            message += f", {len(without)} images no label file ({without[:_SHOWN]})"
        warnings.warn(
            f"task {task!r}: {message}; the others are paired by name",
            UserWarning,
            stacklevel=4,
        )
