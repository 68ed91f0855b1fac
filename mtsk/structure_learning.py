"""How the segmenter learns structure: from scores of heads that held images out."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mtsk.context import ContextLink, find_context
from mtsk.crf import Coupling, PixelCRF, SuperpixelCRF
from mtsk.feature_maps import FeatureMaps
from mtsk.nested import NestedDefaults
from mtsk.pictures import Picture
from mtsk.region_pooling import RegionPooling
from mtsk.structure import (
    Seen,
    Structure,
    TaskStructure,
    has_structure,
    learn_structures,
)
from mtsk.superpixels import Segmentation
from mtsk.tables import Table, encode_entry
from mtsk.targets import Targets
from mtsk.task_scores import task_scores
from mtsk.tasks import Boundary, Task
from mtsk.tasks.columns import joined_slices
from mtsk.weak_labels import TagLink

__all__ = ["StructureLearning"]


class StructureLearning(NestedDefaults):
    """What ``MultiTaskSegmenter.fit`` does about structure."""

    head_stride: int
    pooling_: RegionPooling | None
    superpixels: str | Segmentation
    n_segments: int | None
    tasks_: dict[str, Task]
    links_: list[TagLink]
    structures_: dict[str, TaskStructure]
    couplings_: list[Coupling]
    contexts_: list[ContextLink]
    _seed: int

    def _names(self, granularity: str) -> list[str]:
        raise NotImplementedError

    def _fit_head(
        self,
        granularity: str,
        table: Table,
        weight: np.ndarray,
        settled: Mapping[str, Any] | None = None,
    ) -> Any:
        raise NotImplementedError

    def _images_for_structure(self, targets: Targets) -> list[int]:
        """Return images with a task that has structure, evenly spread."""
        if self.structure is None:
            return []
        names = [n for n, t in self.tasks_.items() if has_structure(t)]
        some = sorted({int(i) for n in names for i in targets.labelled(n)})
        step = max(1, -(-len(some) // _MOST_KEPT))
        return some[::step]

    def _learn_structures(
        self,
        tables: Mapping[str, Table],
        targets: Targets,
        weight: np.ndarray,
        kept: Mapping[int, Picture],
    ) -> None:
        """Learn structure from scores of heads that did not see the image."""
        self.structures_, self.couplings_, self.contexts_ = {}, [], []
        wanted = {n: t for n, t in self.tasks_.items() if has_structure(t)}
        if self.structure is None or not wanted:
            return
        codes = {i: self._codes(i, wanted, targets, p) for i, p in kept.items()}
        for name in list(wanted):
            if sum(name in own for own in codes.values()) < _FEWEST_KEPT:
                warnings.warn(
                    f"task {name!r} is labelled on fewer than {_FEWEST_KEPT} images: "
                    "its structure cannot be learnt and is left out",
                    UserWarning,
                    stacklevel=3,
                )
                del wanted[name]
        if not wanted:
            return
        structure = self._given_structure()
        if structure.regions is not None:
            links = find_context(self.tasks_, targets, self.links_)
            self.contexts_ = [link for link in links if link.pixels in wanted]
        scores = self._held_out_scores(tables, targets, weight, kept)
        seen = [
            Seen(kept[i], own, codes[i], self._boundary(own), self._context(own))
            for i, own in scores.items()
        ]
        self.structures_, self.couplings_ = learn_structures(
            structure, wanted, seen, self._seed
        )

    def _codes(
        self, i: int, tasks: Mapping[str, Task], targets: Targets, picture: Picture
    ) -> dict[str, np.ndarray]:
        """Return an image's codes (H, W) in the tasks that it has a label of."""
        out = {}
        for name, task in tasks.items():
            code = encode_entry(name, task, targets[name][i], i, picture.maps.shape)
            if (code >= 0).any():  # False for NaN
                out[name] = code[..., 0]
        return out

    def _given_structure(self) -> Structure:
        given = self.default_parts().get("structure", self.structure)
        if isinstance(given, SuperpixelCRF):
            return Structure(given)
        return Structure(pixels=given) if isinstance(given, PixelCRF) else given

    def _held_out_scores(
        self,
        tables: Mapping[str, Table],
        targets: Targets,
        weight: np.ndarray,
        kept: Mapping[int, Picture],
    ) -> dict[int, dict[str, np.ndarray]]:
        """Return scores of kept images by heads fitted to the others.

        One fit where the others are the more; else three, each without a third.
        """
        sources = {link.source for link in self.contexts_}
        names = {
            "pixel": self._names("pixel"),
            "image": self._names("image") if sources else [],
        }
        labelled = {int(i) for n in names["pixel"] for i in targets.labelled(n)}
        n_folds = 1 if len(labelled) > 2 * len(kept) else 3
        out: dict[int, dict[str, np.ndarray]] = {}
        for fold in range(n_folds):
            held = list(kept)[fold::n_folds]
            heads = {
                kind: self._fit_head(kind, self._without(held, kind, table), weight)
                for kind, table in tables.items()
                if names[kind]
            }
            for i in held:
                out[i] = task_scores(
                    kept[i].maps,
                    self.tasks_,
                    heads,
                    [*names["pixel"], *sources],
                    self.head_stride,
                    pooling=self.pooling_,
                )
        return dict(sorted(out.items()))

    def _without(self, held: Collection[int], kind: str, table: Table) -> Table:
        """Return a table in which some images have no label."""
        Y = table.Y.copy()
        rows = np.isin(table.images, list(held))
        owners = [self.tasks_[n].groups_ for n in self._names(kind)]
        for columns in joined_slices(owners):
            known = ~np.isnan(Y[:, columns]).all(axis=1)
            if (known & ~rows).any():  # else the task would have no label left
                Y[rows, columns] = np.nan
        return table._replace(Y=Y)

    def _context(self, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what an image's own labels say of the classes of its regions."""
        out: dict[str, np.ndarray] = {}
        for link in self.contexts_:
            if link.source in scores:
                told = link.context(self.tasks_[link.source], scores[link.source])
                out[link.pixels] = out.get(link.pixels, 0) + told
        return out

    def _picture(self, views: np.ndarray, maps: FeatureMaps) -> Picture:
        return Picture(views[0], maps, self.superpixels, self.n_segments)

    def _boundary(self, scores: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Return the logits of the first boundary task among some scores."""
        for name, task in self.tasks_.items():
            if isinstance(task, Boundary) and name in scores:
                return scores[name][..., 0]
        return None


_MOST_KEPT, _FEWEST_KEPT = 60, 3
