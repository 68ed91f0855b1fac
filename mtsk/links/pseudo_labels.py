"""Pseudo-labels: classes of unlabelled pixels inferred from tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from mtsk.exceptions import UnknownTaskError
from mtsk.tasks import MultiLabel, SemanticSegmentation, Task

__all__ = ["TagCheck", "TagLink", "find_tag_links", "pseudo_labels"]

_MIN_POSTERIOR = 0.8  # minimum for a pixel to be used
_MIN_SHARE = 0.02  # of an image's pixels, that each of its tags has at least


@dataclass(frozen=True)
class TagCheck:
    """Whether pseudo-labels from tags help, by images with a mask that were held out.

    Attributes
    ----------
    is_used : bool
        Whether the tags taught the pixels.
    n_images : int
        Images with a mask. Of fewer than two none can be held out, and tags are used.
    miou_without, miou_with : float
        Mean IoU of held-out images without and with pseudo-labels. NaN if not known.
    """

    is_used: bool
    n_images: int
    miou_without: float = float("nan")
    miou_with: float = float("nan")


@dataclass(frozen=True)
class TagLink:
    """A task of tags whose labels are the classes of a task of pixels.

    Attributes
    ----------
    pixels, tags : str
        Names of the tasks.
    label_of_class : ndarray of int, shape (K,)
        The label that stands for each class, −1 where none does.
    tags_are_complete : bool, default=True
        Whether a class without its tag is absent; else it is as possible as others.
    check : TagCheck or None
        Whether the tags taught the pixels. None where nothing was to be taught.
    """

    pixels: str
    tags: str
    label_of_class: np.ndarray
    tags_are_complete: bool = True
    check: TagCheck | None = None

    def allowed(self, columns: np.ndarray) -> np.ndarray:
        """Return which classes may occur in images with some tags.

        Parameters
        ----------
        columns : ndarray of shape (n, L)
            1, 0, or NaN (unknown) for every label.

        Returns
        -------
        ndarray of bool, shape (n, K)
            True also for classes without a label. Where no class would be left, the
            tags are ignored, and all are True; and where tags are not complete.
        """
        if not self.tags_are_complete:
            return np.ones((len(columns), len(self.label_of_class)), bool)
        every = np.c_[columns, np.full(len(columns), np.nan)]
        may = every[:, self.label_of_class] != 0
        may[~may.any(axis=1)] = True
        return may

    def present(self, columns: np.ndarray) -> np.ndarray:
        """Return which classes are present by the tags, bool of shape (n, K)."""
        every = np.c_[columns, np.full(len(columns), np.nan)]
        return every[:, self.label_of_class] == 1


def find_tag_links(tasks: Mapping[str, Task]) -> list[TagLink]:
    """Return which tag tasks inform which pixel tasks.

    Parameters
    ----------
    tasks : mapping of str to Task
        Fitted.

    Returns
    -------
    list of TagLink
        At most one for each task of pixels: the first that is found.

    Raises
    ------
    UnknownTaskError
        Where ``MultiLabel(of=...)`` names no task of classes of pixels.
    """
    dense = {n: t for n, t in tasks.items() if isinstance(t, SemanticSegmentation)}
    links: dict[str, TagLink] = {}
    for name, task in tasks.items():
        if not isinstance(task, MultiLabel) or task.of is None:
            continue
        if task.of != "auto" and task.of not in dense:
            raise UnknownTaskError(
                f"`of` of MultiLabel {name!r} names {task.of!r}; the tasks of classes "
                f"of pixels are {list(dense)}"
            )
        for other in [task.of] if task.of != "auto" else dense:
            place = {_plain(v): i for i, v in enumerate(task.classes_)}
            labels = [place.get(_plain(v), -1) for v in dense[other].classes_]
            if task.of == "auto" and (not task.named_ or min(labels) < 0):
                continue
            if max(labels) < 0:
                raise UnknownTaskError(
                    f"no label of {name!r} is a class of {other!r}: labels "
                    f"{task.classes_.tolist()[:10]}, classes "
                    f"{dense[other].classes_.tolist()[:10]}"
                )
            links.setdefault(other, TagLink(other, name, np.array(labels)))
    return list(links.values())


def pseudo_labels(
    link: TagLink, tags: np.ndarray, scores: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """Return classes for pixels of tagged images, where they are confident.

    The expectation step of EM with labels known to lie in a set (Jin & Ghahramani,
    NIPS 2002), made hard: a pixel takes its likeliest allowed class where the
    posterior among these is at least 0.8. As a tag implies that its class is present,
    the likeliest 2 % of an image's pixels go to each class that would otherwise have
    fewer.

    Parameters
    ----------
    link : TagLink
    tags : ndarray of shape (n, L)
        Columns of the task of tags, of each pixel's image.
    scores : ndarray of shape (n, K)
        Logits.
    images : ndarray of int, shape (n,)
        The image of each pixel.

    Returns
    -------
    ndarray of float32, shape (n,)
        Codes 0 … K − 1; NaN where unclear.
    """
    allowed, present = link.allowed(tags), link.present(tags)
    posterior = softmax(np.where(allowed, scores, -np.inf), axis=1)
    guess = posterior.argmax(axis=1)
    codes = np.where(posterior.max(axis=1) >= _MIN_POSTERIOR, guess, np.nan).astype(
        np.float32
    )
    for image in np.unique(images):
        rows = np.flatnonzero(images == image)
        least = max(1, round(_MIN_SHARE * len(rows)))
        for k in np.flatnonzero(present[rows[0]]):
            if (guess[rows] == k).sum() >= least:
                continue
            others = np.delete(np.where(allowed[rows], scores[rows], -np.inf), k, 1)
            margin = scores[rows, k] - others.max(axis=1, initial=-1e30)
            codes[rows[np.argsort(-margin, kind="stable")[:least]]] = k
    return codes


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
