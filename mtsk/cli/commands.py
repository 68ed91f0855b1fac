"""What each command does: reads its options, answers, returns an exit code."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

import mtsk
from mtsk._progress import progress_bar
from mtsk._validation import parameter_error
from mtsk.backbones import (
    BUNDLED,
    CATALOGUE,
    INT8,
    CatalogueEntry,
    known_backbones,
    load_backbone,
)
from mtsk.cli.reading import (
    check_stems,
    image_paths,
    named_tasks,
    read_colours,
    read_labels,
    set_limit,
    tags_as_sets,
)
from mtsk.cli.writing import PredictionWriter
from mtsk.data.tiff import ImagePath
from mtsk.datasets import make_digit_scenes
from mtsk.exceptions import ModelFileError, MtskError, TargetError
from mtsk.export import export_onnx
from mtsk.features import MemoryCache
from mtsk.segmenter.parameters import given_tasks
from mtsk.tasks import Boundary, Classification, Ordinal, SemanticSegmentation
from mtsk.tiling.tile_store import check_names

__all__ = ["backbones", "demo", "describe", "evaluate", "export", "predict", "train"]

_DONE, _SOME_FAILED = 0, 1


def train(options: argparse.Namespace) -> int:
    """Learn from folders, judge by what was held out, write the model."""
    import_module("mtsk.persistence")  # what saving needs, before hours have gone by
    _check_writable(Path(options.output))
    targets, images = _labelled(options)
    check_names(targets.task_names)
    _check_varied(targets)
    tasks = named_tasks(options.task, targets, options.void)
    targets = tags_as_sets(targets, tasks)
    model = mtsk.MultiTaskSegmenter(
        tasks,
        features=mtsk.DeepFeatures(
            options.backbone,
            weights=options.weights,
            scales=tuple(options.scales),
            channels=options.channels,
            cache=MemoryCache(),  # the trial and the fit see the same images
        ),
        head=options.head,
        structure=options.structure,
        random_state=options.seed,
        verbose=_shows_progress(options),
    )
    taught, held = _split(len(images), options.holdout, options.seed)
    scores = _scores_of_a_trial(model, images, targets, taught, held)
    left_out = [name for name in targets.task_names if name not in scores]
    if left_out and options.holdout:
        print(f"too few labels to score {', '.join(left_out)}", file=sys.stderr)
    with _files_named(images):
        model.fit(images, targets)
    mtsk.save(model, options.output, scores=scores)
    n = len(images)
    learnt = ", ".join(targets.task_names)
    lines = [f"{options.output}: learnt {learnt} from {n} images"]
    metrics = {name: model.tasks_[name].metrics[0] for name in scores}
    lines += [
        f"  {k}: {metrics[k]} {s:.4g} on {len(held)} held out"
        for k, s in scores.items()
    ]
    lines += _colours_as_classes(model)
    about = {"images": n, "held_out": len(held), "scores": scores, "metrics": metrics}
    _say(options, {"model": str(options.output), **about}, "\n".join(lines))
    return _DONE


def _scores_of_a_trial(
    model: mtsk.MultiTaskSegmenter,
    images: Sequence[ImagePath],
    targets: mtsk.Targets,
    taught: Sequence[int],
    held: Sequence[int],
) -> dict[str, float]:
    """Return how well images that did not teach are answered, by task."""
    judged = [name for name in targets.task_names if _can_judge(targets[name], held)]
    if not judged:
        return {}
    tasks = {name: task for name, task in given_tasks(model).items() if name in judged}
    for name, task in tasks.items():
        if isinstance(task, Ordinal) and task.classes is None:  # some may be held out
            known = [entry for entry in targets[name] if entry is not None]
            tasks[name] = Ordinal(clone(task).fit(known).classes_, void=task.void)
    trial = clone(model).set_params(tasks=tasks)
    some = [images[i] for i in taught]
    with _files_named(some):
        trial.fit(some, _some(targets, judged, taught))
    others = [images[i] for i in held]
    with _files_named(others):
        scores = trial.score_tasks(others, _some(targets, judged, held))
    return {name: score for name, score in scores.items() if isfinite(score)}


@contextmanager
def _files_named(images: Sequence[ImagePath]) -> Iterator[None]:
    """Let errors that tell an image's place tell its file too."""
    try:
        yield
    except MtskError as error:
        found = re.search(r"\bimage (\d+)(?! \()", str(error))
        if found is None or int(found[1]) >= len(images):
            raise
        raise type(error)(f"{error} ({images[int(found[1])]})") from error


def _some(
    targets: mtsk.Targets, names: Sequence[str], indices: Sequence[int]
) -> mtsk.Targets:
    columns: Mapping[str, Any] = {name: targets[indices][name] for name in names}
    return mtsk.Targets(columns)


def predict(options: argparse.Namespace) -> int:
    """Write what a model says of images; name those that fail."""
    model = _segmenter(options).set_params(verbose=0)  # the bar is of all images
    names = model.tasks_.choose(options.tasks)
    tasks = {name: model.tasks_[name] for name in names}
    set_limit(options.max_megapixels)
    paths = image_paths(options.images, options.axes)
    check_stems(paths)
    writer = PredictionWriter(Path(options.output), tasks, options.overlays)
    failed: dict[str, str] = {}
    done = 0
    try:
        bar = _shows_progress(options)
        for path in progress_bar(paths, desc="predict", unit="image", disable=not bar):
            try:
                found = model.predict([path], tasks=names)
            except (OSError, ValueError, MemoryError) as error:
                failed[str(path)] = str(error)
                print(f"{path}: {error}", file=sys.stderr)
                continue
            writer.write(path, {name: found[name][0] for name in names})
            done += 1
    finally:
        _say(
            options,
            {"done": done, "failed": failed, "output": str(options.output)},
            f"{done} of {len(paths)} images done, {len(failed)} failed; "
            f"written to {options.output}",
        )
    return _SOME_FAILED if failed else _DONE


def _shows_progress(options: argparse.Namespace) -> bool:
    """Tell whether progress is told: not beside JSON, which programs read."""
    return not options.json


def _segmenter(options: argparse.Namespace) -> Any:
    """Return the segmenter in a model's file: the best one, of a search."""
    loaded = mtsk.load(options.model, allow=options.allow)
    model = getattr(loaded, "best_estimator_", loaded)
    if not isinstance(model, mtsk.MultiTaskSegmenter):
        raise ModelFileError(
            f"{options.model!r} holds a {type(loaded).__name__}, and `mtsk "
            f"{options.command}` needs a MultiTaskSegmenter"
        )
    return model


def evaluate(options: argparse.Namespace) -> int:
    """Score a model on labelled images."""
    model = _segmenter(options).set_params(verbose=_shows_progress(options))
    targets, images = _labelled(options)
    truth = targets
    if (
        not model.tasks_.is_named
    ):  # learnt without a name, judged by the only one there is
        (name,) = model.tasks_
        if len(targets.task_names) > 1:
            raise ValueError(
                f"the model knows one task, and the labels are {targets.task_names}: "
                "give those of one"
            )
        truth = mtsk.Targets({name: targets[targets.task_names[0]]})
    _check_labels_known(truth, model.tasks_)
    with _files_named(images):
        scores = model.score_tasks(images, tags_as_sets(truth, model.tasks_))
    metrics = {name: model.tasks_[name].metrics[0] for name in scores}
    lines = [f"{name}: {metrics[name]} {score:.4f}" for name, score in scores.items()]
    finite = {k: score if isfinite(score) else None for k, score in scores.items()}
    about = {"images": len(images), "scores": finite, "metrics": metrics}
    _say(options, about, "\n".join(lines))
    return _DONE


def _check_labels_known(truth: mtsk.Targets, tasks: Mapping[str, Any]) -> None:
    """Refuse labels of which none is a class that the model was taught."""
    for name in truth.task_names:
        task = tasks.get(name)
        if not isinstance(task, SemanticSegmentation | Classification):
            continue
        given = [np.unique(np.asarray(e)) for e in truth[name] if e is not None]
        found = sorted({label for labels in given for label in labels.tolist()})
        if found and not np.isin(found, task.classes_).any():
            raise TargetError(
                f"the labels of {name!r} are {found[:10]}, and none is a class of the "
                f"model: {task.classes_[:10].tolist()}; give the --classes that it was "
                "trained with"
            )


def export(options: argparse.Namespace) -> int:
    """Write a model as an ONNX graph."""
    model = mtsk.load(options.model)
    about = export_onnx(model, options.output, tasks=options.tasks)
    lines = [
        f"{options.output}: image ({about['image']}) to",
        *(f"  {', '.join(task['outputs'])}" for task in about["tasks"].values()),
    ]
    _say(options, about, "\n".join(lines))
    return _DONE


def describe(options: argparse.Namespace) -> int:
    """Print a model's card."""
    card = mtsk.persistence.describe(options.model)
    _say(options, dict(card), str(card))
    return _DONE


def backbones(options: argparse.Namespace) -> int:
    """List networks: those with short names, or all by part of their names."""
    if options.download:
        backbone = load_backbone(options.download)
        about = {"name": options.download, "digest": backbone.digest}
        _say(options, about, f"{options.download} is on this machine")
        return _DONE
    if not options.pattern:
        rows = [_about_backbone(entry) for entry in CATALOGUE.values()]
        lines = [
            f"{BUNDLED} and {INT8} (8 bits) come with mtsk.",
            f"{'name':22}{'parameters':>11}  {'strides':18}{'licence':16}weights",
            *map(_backbone_line, rows),
            "",
            "Weights that are not here are fetched when a network is first used, or by",
            "`mtsk backbones --download NAME`. On a machine without a network, copy",
            "model.safetensors from https://huggingface.co/<repository> and pass it as",
            "--weights, or DeepFeatures(weights=...). `mtsk backbones PART` lists the",
            "networks of timm and torchvision that have PART in their name.",
        ]
        _say(options, rows, "\n".join(lines))
        return _DONE
    names = [name for name in known_backbones() if options.pattern in name]
    ours = (BUNDLED, INT8)
    shown = [f"{name}{' (bundled)' if name in ours else ''}" for name in names]
    if not names:
        print(f"no network has {options.pattern!r} in its name", file=sys.stderr)
    _say(options, names, "\n".join(shown))
    return _DONE if names else _SOME_FAILED


def _about_backbone(entry: CatalogueEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "model": f"timm:{entry.model}",
        "parameters": entry.n_parameters,
        "strides": list(entry.strides),
        "licence": entry.licence,
        "repository": entry.repository,
        "is_here": entry.is_here,
    }


def _backbone_line(about: dict[str, Any]) -> str:
    millions = f"{about['parameters'] / 1e6:.1f} M"
    strides = ", ".join(map(str, about["strides"]))
    place = "here" if about["is_here"] else about["repository"]
    return f"{about['name']:22}{millions:>11}  {strides:18}{about['licence']:16}{place}"


def demo(options: argparse.Namespace) -> int:
    """Learn four tasks from made scenes; write a model and images to try it on."""
    import_module("mtsk.persistence")
    images = Path(options.output) / "images"
    _make_folder(images)
    train = make_digit_scenes(options.scenes, random_state=0)
    test = make_digit_scenes(max(4, options.scenes // 4), subset="test", random_state=1)

    def targets(scenes: Any) -> Any:
        of = scenes.targets
        return mtsk.Targets(
            semantic=of["semantic"],
            edges=of["instances"],
            depth=of["depth"],
            tags=of["tags"],
        )

    model = mtsk.MultiTaskSegmenter(
        {"edges": Boundary()}, random_state=0, verbose=_shows_progress(options)
    ).fit(train.images, targets(train))
    scores = model.score_tasks(test.images, targets(test))
    folder = Path(options.output)
    _write_images(images, test.images)
    mtsk.save(model, folder / "demo.mtsk", scores=scores, description="Digits.")
    file = folder / "demo.mtsk"
    lines = [f"{name}: {score:.3f}" for name, score in scores.items()]
    lines += [f"written: {file}, and images to try it on:", f"  mtsk describe {file}"]
    lines += [f"  mtsk predict {file} {images} -o {folder / 'out'} --overlays"]
    _say(options, {"model": str(file), "scores": scores}, "\n".join(lines))
    return _DONE


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{str(path)!r} can be no folder: {error.strerror}") from error


def _write_images(folder: Path, images: Any) -> None:
    from skimage.io import imsave

    for i, image in enumerate(images):
        imsave(folder / f"scene_{i:03d}.png", image, check_contrast=False)


def _colours_as_classes(model: mtsk.MultiTaskSegmenter) -> list[str]:
    """Return a line for every task whose classes are colours."""
    lines = []
    for name, task in model.tasks_.items():
        classes = [str(label) for label in getattr(task, "classes_", [])]
        if classes and all(_COLOUR.fullmatch(label) for label in classes):
            lines.append(
                f"  {name}: classes are the colours {', '.join(classes)}; --classes "
                "names them"
            )
    return lines


_COLOUR = re.compile("#[0-9a-f]{6}")


def _labelled(
    options: argparse.Namespace,
) -> tuple[mtsk.Targets, list[ImagePath]]:
    """Return the labels that are given, and the images that have any."""
    set_limit(options.max_megapixels)
    colours = None if options.classes is None else read_colours(Path(options.classes))
    images = image_paths([options.images], options.axes)
    return read_labels(options.labels, images, colours, options.axes)


def _split(n: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return which images teach and which are held out; none of fewer than 5."""
    if not 0 <= share < 1:
        raise parameter_error("--holdout", "mtsk train", "at least 0, below 1", share)
    order = np.random.default_rng(seed).permutation(n)
    n_held = round(n * share) if n >= 5 else 0
    return sorted(order[n_held:].tolist()), sorted(order[:n_held].tolist())


def _can_judge(entries: Sequence[Any], held: Sequence[int]) -> bool:
    """Tell whether a task has labels to learn from, and two or more to be judged by."""
    known = {i for i, entry in enumerate(entries) if entry is not None}
    return len(known & set(held)) >= 2 and bool(known - set(held))


def _check_varied(targets: mtsk.Targets) -> None:
    """Refuse a column that says nothing, or the same of every image."""
    for name in targets.task_names:
        if not len(targets.labelled(name)):
            raise TargetError(f"labels {name!r} name none of the images")
        values = [v for v in targets[name] if isinstance(v, str | int | float)]
        if len(values) > 1 and len(set(values)) == 1:
            raise TargetError(
                f"labels {name!r} are {values[0]!r} wherever they are known: there is "
                "nothing to learn; leave them out"
            )


def _check_writable(path: Path) -> None:
    """Refuse a place where no file can be written, before hours have gone by."""
    if path.is_dir() or not path.parent.is_dir():
        raise OSError(f"{str(path)!r} cannot be written: no such folder, or one itself")


def _say(options: argparse.Namespace, data: Any, text: str) -> None:
    if options.json:
        print(json.dumps(data, ensure_ascii=False, indent=1))
    else:
        print(text)
