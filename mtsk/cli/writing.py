"""Predictions become files: maps, overlays, tables."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from skimage.io import imsave

from mtsk.cli.cells import spreadsheet_text
from mtsk.data.files import read_image
from mtsk.data.tiff import ImagePath
from mtsk.displays.drawing import (
    class_colours,
    kind_of_task,
    paint_boxes,
    paint_classes,
    paint_ids,
    paint_mask,
    paint_values,
)
from mtsk.tasks import Detection, ImageToImage, Task
from mtsk.tiling.tile_store import check_names

__all__ = ["PredictionWriter"]


class PredictionWriter:
    """Writes what is predicted for images, one after another.

    Parameters
    ----------
    folder : Path
        Made where it is not there. Every task of pixels has a folder in it, every task
        of boxes ``<task>.csv``, all tasks of images ``predictions.csv``.
    tasks : dict of str to Task
    overlays : bool
        Whether images with the predictions drawn over them are written too.
    """

    def __init__(self, folder: Path, tasks: dict[str, Task], overlays: bool) -> None:
        self.folder, self.tasks, self.overlays = folder, tasks, overlays
        check_names(list(tasks))
        folders = [folder, *(folder / n for n, t in tasks.items() if _is_map(t))]
        try:
            for place in folders:
                place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"{str(place)!r} can be no folder: {error.strerror}"
            ) from error
        self._of_images = [n for n, t in tasks.items() if not t.is_of_pixels]
        self._started: set[str] = set()
        for name, task in tasks.items():
            classes = getattr(task, "classes_", None)
            if task.is_of_pixels and _needs_codes(classes):
                text = {str(i): str(c) for i, c in enumerate(np.asarray(classes))}
                (folder / f"{name}_classes.json").write_text(
                    json.dumps(text, indent=1, ensure_ascii=False), encoding="utf-8"
                )

    def write(self, path: ImagePath, found: dict[str, Any]) -> list[Path]:
        """Write one image's predictions; return the files of maps."""
        written = []
        for name, task in self.tasks.items():
            if not task.is_of_pixels:
                continue
            if self.overlays:
                written += self._overlay(name, path, found[name], task)
            if isinstance(task, Detection):
                self._boxes(name, path, found[name])
                continue
            values = np.asarray(found[name])
            if _needs_codes(getattr(task, "classes_", None)):
                values = np.searchsorted(task.classes_, values)
            written.append(self._map(name, path, values, task))
        if self._of_images:
            row = {"image": spreadsheet_text(path.name)}
            row |= {n: _cell(found[n]) for n in self._of_images}
            self._append("predictions", ["image", *self._of_images], [row])
        return written

    def _map(self, name: str, path: ImagePath, values: np.ndarray, task: Task) -> Path:
        folder = self.folder / name
        if values.dtype.kind == "b":
            values = values.astype(np.uint8) * 255
        elif isinstance(task, ImageToImage):
            values = (values.clip(0, 1) * 255).round().astype(np.uint8)
        elif values.dtype.kind == "f":
            values = values.astype(np.float32)
        elif values.min(initial=0) >= 0:
            values = values.astype(np.min_scalar_type(int(values.max(initial=0))))
        plain = values.dtype in (np.uint8, np.uint16)
        out = folder / f"{path.stem}{'.png' if plain else '.tif'}"
        if path.suffix.lower() in (".tif", ".tiff"):
            out = out.with_suffix(".tif")
            if _write_georeferenced(path, out, values):
                return out
        imsave(out, values, check_contrast=False)
        return out

    def _overlay(
        self, name: str, path: ImagePath, found: Any, task: Task
    ) -> list[Path]:
        drawn = overlay(read_image(path), found, task)
        if drawn is None:
            return []
        folder = self.folder / f"{name}_overlay"
        folder.mkdir(exist_ok=True)
        out = folder / f"{path.stem}.png"
        imsave(out, drawn, check_contrast=False)
        return [out]

    def _boxes(self, name: str, path: ImagePath, found: dict[str, np.ndarray]) -> None:
        found = self.tasks[name].corners(found)
        fields = ["image", "x0", "y0", "x1", "y1", "label", "score"]
        image = spreadsheet_text(path.name)
        rows = []
        for box, label, score in zip(
            found["boxes"], found["labels"], found["scores"], strict=True
        ):
            values = [image, *map(float, box), _cell(label), score]
            rows.append(dict(zip(fields, values, strict=True)))
        self._append(name, fields, rows)

    def _append(self, name: str, fields: list[str], rows: list[dict]) -> None:
        """Add rows to a table, which this run begins anew."""
        new = name not in self._started
        self._started.add(name)
        path = self.folder / f"{name}.csv"
        with open(path, "w" if new else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            if new:
                writer.writeheader()
            writer.writerows(rows)


def overlay(image: np.ndarray, found: Any, task: Task) -> np.ndarray | None:
    """Return an image with a prediction drawn over it.

    Parameters
    ----------
    image : ndarray of shape (H, W) or (H, W, C)
    found : ndarray of shape (H, W), or dict of boxes
        What ``predict`` gives for it.
    task : Task
        Fitted.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3), or None
        None of a picture, which nothing is to be drawn over.
    """
    kind = kind_of_task(task)
    if kind == "classes":
        classes = np.asarray(task.classes_)
        codes = np.searchsorted(classes, found)
        drawn = paint_classes(image, codes, class_colours(len(classes)))
    elif kind == "boxes":
        corners = task.corners(found)["boxes"]
        drawn = paint_boxes(image, corners, found["labels"])
    elif kind == "mask":
        drawn = paint_mask(image, found)
    elif kind == "ids":
        drawn = paint_ids(image, found)
    elif np.ndim(found) == 2:
        drawn = paint_values(found)
    else:
        return None
    return (drawn * 255).round().astype(np.uint8)


def _is_map(task: Task) -> bool:
    return task.is_of_pixels and not isinstance(task, Detection)


def _needs_codes(classes: Any) -> bool:
    """Tell whether classes are no numbers that a picture can hold."""
    if classes is None:
        return False
    array = np.asarray(classes)
    return array.dtype.kind not in "iub" or (bool(array.size) and int(array.min()) < 0)


def _cell(value: Any) -> Any:
    """Return what a table says of an image."""
    if isinstance(value, set | frozenset):
        return spreadsheet_text(";".join(sorted(map(str, value))))
    array = np.asarray(value)
    if array.ndim == 0:
        item = array.item()
        return spreadsheet_text(item) if isinstance(item, str) else item
    return ";".join(str(v) for v in array.tolist())


def _write_georeferenced(source: ImagePath, out: Path, values: np.ndarray) -> bool:
    """Write a map where its image lies on Earth; False where that is not known."""
    try:
        import rasterio
    except ImportError:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that lie nowhere
        with rasterio.open(source) as image:
            if image.crs is None:
                return False
            place = {"crs": image.crs, "transform": image.transform}
        bands = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
        with rasterio.open(
            out,
            "w",
            driver="GTiff",
            height=bands.shape[1],
            width=bands.shape[2],
            count=len(bands),
            dtype=bands.dtype,
            compress="deflate",
            **place,
        ) as file:
            file.write(bands)
    return True
