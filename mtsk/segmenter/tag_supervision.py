"""Tags teach pixels: pseudo-labels, as far as held-out images say that they help."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from mtsk.data import Targets
from mtsk.links import TagCheck, TagLink, pseudo_labels
from mtsk.metrics import mean_iou
from mtsk.segmenter.head_factory import HeadFitter
from mtsk.tables import Table
from mtsk.tasks.task_set import TaskSet

__all__ = ["fit_pixel_head"]

_N_FOLDS = 2
_MAX_CHECK_ROWS = 10_000  # labelled ones, and weak ones, that the check is made with


def fit_pixel_head(
    fit_head: HeadFitter,
    table: Table,
    tag_links: Sequence[TagLink],
    targets: Targets,
    n_rounds: int,
) -> tuple[Any, Table, list[TagLink]]:
    """Fit the head of pixels; repeat with pseudo-labels from tags where they help.

    Parameters
    ----------
    fit_head : HeadFitter
    table : Table
        Of pixels, with weak rows for the links' tasks.
    tag_links : sequence of TagLink
    targets : Targets
    n_rounds : int
        How often pseudo-labels are made and the head is refitted. 0: never.

    Returns
    -------
    head : estimator
    table : Table
        With the last pseudo-labels.
    tag_links : list of TagLink
        With what was found of each.

    Warns
    -----
    UserWarning
        Where the tags of a link lower the IoU of held-out images, and so are not used.
    """
    head = fit_head("pixel", table)
    links = [link for link in tag_links if link.pixels in table.weak]
    if not links or not n_rounds:
        return head, table, list(tag_links)
    teaching = _Teaching(
        fit_head,
        targets,
        n_rounds,
        # How much tasks share is chosen on true labels, not on pseudo-labels.
        head.chosen_parameters() if fit_head.heads.capabilities.is_joint else {},
    )
    checks = [teaching.check(link, table) for link in links]
    used = [link for link, check in checks if check.is_used]
    if used:
        head, table = teaching.teach(used, table, head)
    for link, check in checks:
        if not check.is_used:
            warnings.warn(_not_used(link, check), UserWarning, stacklevel=6)
    checked = {link.pixels: replace(link, check=check) for link, check in checks}
    return head, table, [checked.get(link.pixels, link) for link in tag_links]


@dataclass(frozen=True)
class _Teaching:
    """Rounds of pseudo-labels and fits, and the check whether they help.

    Attributes
    ----------
    fit_head : HeadFitter
    targets : Targets
    n_rounds : int
    parameters : mapping
        Of the head in every refit.
    """

    fit_head: HeadFitter
    targets: Targets
    n_rounds: int
    parameters: Mapping[str, Any]

    @property
    def tasks(self) -> TaskSet:
        """The fitted tasks."""
        return self.fit_head.tasks

    def teach(
        self, links: Sequence[TagLink], table: Table, head: Any
    ) -> tuple[Any, Table]:
        """Return the head after all rounds, and the table with the pseudo-labels."""
        layout = self.tasks.layout("pixel")
        for _ in range(self.n_rounds):
            Y = table.Y.copy()
            for link in links:
                rows = np.flatnonzero(table.weak[link.pixels])
                tagged, of_row = np.unique(table.images[rows], return_inverse=True)
                tags = self.tasks.encode_images(
                    link.tags, self.targets[link.tags], tagged
                )
                scores = head.decision_function(table.X[rows])
                Y[rows, layout.columns[link.pixels].start] = pseudo_labels(
                    link,
                    tags[of_row],
                    scores[:, layout.scores[link.pixels]],
                    table.images[rows],
                )
            table = table._replace(Y=Y)
            head = self.fit_head("pixel", table, self.parameters)
        return head, table

    def check(self, link: TagLink, table: Table) -> tuple[TagLink, TagCheck]:
        """Return a link as it is best used, and whether it is, by held-out images.

        Tags may name all that is there, so that what they do not name is absent, or
        some of it. One round of pseudo-labels each tells which has the higher mean IoU,
        and whether it is higher than without.
        """
        column = self.tasks.layout("pixel").columns[link.pixels].start
        labelled = np.unique(table.images[~np.isnan(table.Y[:, column])])
        if len(labelled) < 2:
            return link, TagCheck(True, len(labelled))
        table = _thinned(table, table.weak[link.pixels])
        folds = [labelled[k::_N_FOLDS] for k in range(min(_N_FOLDS, len(labelled)))]
        splits = []
        for held in folds:
            Y = table.Y.copy()
            Y[np.isin(table.images, held), column] = np.nan
            rest = table._replace(Y=Y, digest=f"{table.digest} without {held}")
            splits.append((held, rest, self.fit_head("pixel", rest, self.parameters)))
        alone = self._held_out_iou(
            link, table, [(held, head) for held, _, head in splits]
        )
        once = replace(self, n_rounds=1)
        found = {}
        for is_complete in (True, False):
            candidate = replace(link, tags_are_complete=is_complete)
            heads = [
                (held, once.teach([candidate], rest, head)[0])
                for held, rest, head in splits
            ]
            found[is_complete] = self._held_out_iou(link, table, heads)
        is_complete = found[True] >= found[False]
        best = found[is_complete]
        check = TagCheck(best >= alone, len(labelled), alone, best)
        return replace(link, tags_are_complete=is_complete), check

    def _held_out_iou(
        self, link: TagLink, table: Table, heads: Sequence[tuple[np.ndarray, Any]]
    ) -> float:
        """Return the mean IoU over rows of images that each head did not see."""
        layout = self.tasks.layout("pixel")
        column, scores = layout.columns[link.pixels].start, layout.scores[link.pixels]
        size = self.tasks[link.pixels].group_.size
        counts = np.zeros((size, size))
        weights = table.weights[layout.names.index(link.pixels)]
        for held, head in heads:
            own = np.isin(table.images, held) & ~np.isnan(table.Y[:, column])
            guess = head.decision_function(table.X[own])[:, scores].argmax(axis=1)
            counts += confusion_matrix(
                table.Y[own, column].astype(int),
                guess,
                labels=np.arange(size),
                sample_weight=weights[own],
            )
        return float(mean_iou(counts))


def _thinned(table: Table, weak: np.ndarray) -> Table:
    """Return every k-th of the weak rows, and of the others, few enough of each."""
    kept = np.zeros(len(weak), bool)
    for kind in (weak, ~weak):
        rows = np.flatnonzero(kind)
        kept[rows[:: max(1, -(-len(rows) // _MAX_CHECK_ROWS))]] = True
    return table.of_rows(kept, "to check tags")


def _not_used(link: TagLink, check: TagCheck) -> str:
    return (
        f"the tags of {link.tags!r} do not teach {link.pixels!r}: on held-out images "
        f"the mean IoU was {check.miou_with:.3f} with pseudo-labels from them, "
        f"{check.miou_without:.3f} without. Do tags name all that is there? "
        "MultiLabel(of=None) says that they have nothing to do with the classes"
    )
