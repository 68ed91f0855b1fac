"""The command line: train, predict, evaluate and look at models without a script."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

_DONE, _SOME_FAILED, _STOPPED = 0, 1, 130
_HEADS = ["logistic", "ridge", "network", "fcn", "unet"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of those of the process.

    Returns
    -------
    int
        0 where all went well, 1 where something failed, 2 where the command was wrong,
        130 where Ctrl-C stopped it.
    """
    options = _parser().parse_args(arguments)
    from mtsk.exceptions import MtskError

    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("stopped; what was written is kept", file=sys.stderr)
        return _STOPPED
    except (MtskError, ImportError, ValueError, MemoryError, OSError) as error:
        print(f"mtsk {options.command}: {error}", file=sys.stderr)
        return _SOME_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtsk",
        description="Learn several image tasks from one pretrained network.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        own = commands.add_parser(name, help=text, description=text)
        own.set_defaults(run=run)
        own.add_argument("--json", action="store_true", help="answer in JSON")
        return own

    labels_help = (
        "a folder of label maps, named as their images, or a .csv with a column "
        "'image' and one for every task; NAME=FOLDER says what the task is called"
    )
    own = command("train", _train, "Learn from a folder of images and their labels.")
    own.add_argument("images", help="a folder of images")
    own.add_argument("labels", nargs="+", help=labels_help)
    own.add_argument("-o", "--output", required=True, help="the model's file")
    own.add_argument("--task", action="append", default=[], metavar="NAME=TYPE")
    own.add_argument(
        "--void", type=int, nargs="*", default=[], help="unlabelled values"
    )
    own.add_argument("--head", choices=_HEADS, default="logistic")
    own.add_argument("--structure", choices=["crf"], help="neighbours speak together")
    own.add_argument("--scales", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    own.add_argument(
        "--channels",
        type=int,
        nargs=3,
        metavar="N",
        help="of images of other than 1 or 3",
    )
    own.add_argument("--holdout", type=float, default=0.2, metavar="SHARE")
    own.add_argument("--seed", type=int, default=0)

    own = command("predict", _predict, "Write what a model says of images.")
    own.add_argument("model")
    own.add_argument("images", nargs="+", help="images, or folders of them")
    own.add_argument("-o", "--output", required=True, help="a folder")
    own.add_argument("--tasks", nargs="+", help="of the model's; all by default")
    own.add_argument(
        "--overlays", action="store_true", help="draw over the images, too"
    )
    own.add_argument("--allow", nargs="+", default=[], help="types of your own to load")

    own = command("evaluate", _evaluate, "Score a model on labelled images.")
    own.add_argument("model")
    own.add_argument("images")
    own.add_argument("labels", nargs="+", help=labels_help)
    own.add_argument("--allow", nargs="+", default=[], help="types of your own to load")

    own = command("describe", _describe, "Print a model's card.")
    own.add_argument("model")

    own = command("backbones", _backbones, "List networks, by part of their names.")
    own.add_argument("pattern", nargs="?", default="")

    own = command("demo", _demo, "Learn four tasks from made scenes; write a model.")
    own.add_argument("-o", "--output", default="mtsk_demo", help="a folder")
    own.add_argument("--scenes", type=int, default=60)
    return parser


def _train(options: argparse.Namespace) -> int:
    from math import isfinite

    from sklearn.base import clone

    import mtsk
    from mtsk.cli.reading import image_paths, named_tasks, read_labels
    from mtsk.tasks import SemanticSegmentation, infer_task

    _check_writable(Path(options.output))
    targets, images = read_labels(options.labels, image_paths([options.images]))
    tasks = named_tasks(options.task, targets.task_names)
    for name in targets.task_names if options.void else ():
        task = tasks.get(name) or infer_task(name, targets[name])
        if isinstance(task, SemanticSegmentation):
            tasks[name] = task.set_params(void=options.void)
    model = mtsk.MultiTaskSegmenter(
        tasks,
        features=mtsk.DeepFeatures(
            scales=tuple(options.scales),
            channels=None if options.channels is None else tuple(options.channels),
        ),
        head=options.head,
        structure=options.structure,
        random_state=options.seed,
        verbose=not options.json,
    )
    scores: dict[str, float] = {}
    train, held = _split(len(images), options.holdout, options.seed)
    judged = [name for name in targets.task_names if _can_judge(targets[name], held)]
    if judged:
        taught = {name: targets[train][name] for name in judged}
        truth = {name: targets[held][name] for name in judged}
        some = {name: task for name, task in tasks.items() if name in judged}
        trial = clone(model).set_params(tasks=some)
        trial.fit([images[i] for i in train], mtsk.Targets(taught))
        scores = trial.score_tasks([images[i] for i in held], mtsk.Targets(truth))
        scores = {name: score for name, score in scores.items() if isfinite(score)}
    left_out = [name for name in targets.task_names if name not in scores]
    if left_out and options.holdout:
        print(f"too few labels to score {', '.join(left_out)}", file=sys.stderr)
    model.fit(images, targets)
    mtsk.save(model, options.output, scores=scores)
    _say(
        options,
        {
            "model": str(options.output),
            "images": len(images),
            "held_out": len(held),
            "scores": scores,
        },
        f"{options.output}: learnt {', '.join(targets.task_names)} from {len(images)} "
        "images"
        + "".join(
            f"\n  {n}: {s:.4g} on {len(held)} held out" for n, s in scores.items()
        ),
    )
    return _DONE


def _predict(options: argparse.Namespace) -> int:
    from tqdm.auto import tqdm

    from mtsk.cli.reading import check_stems, image_paths
    from mtsk.cli.writing import PredictionWriter

    model = _segmenter(options)
    names = model.wanted_tasks(options.tasks)
    tasks = {name: model.tasks_[name] for name in names}
    paths = image_paths(options.images)
    check_stems(paths)
    writer = PredictionWriter(Path(options.output), tasks, options.overlays)
    failed: dict[str, str] = {}
    done = 0
    try:
        for path in tqdm(paths, desc="predict", unit="image", disable=options.json):
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


def _segmenter(options: argparse.Namespace) -> Any:
    """Return the segmenter in a model's file: the best one, of a search."""
    import mtsk
    from mtsk.exceptions import ModelFileError

    loaded = mtsk.load(options.model, allow=options.allow)
    model = getattr(loaded, "best_estimator_", loaded)
    if not isinstance(model, mtsk.MultiTaskSegmenter):
        raise ModelFileError(
            f"{options.model!r} holds a {type(loaded).__name__}, and `mtsk "
            f"{options.command}` needs a MultiTaskSegmenter"
        )
    return model


def _evaluate(options: argparse.Namespace) -> int:
    import mtsk
    from mtsk.cli.reading import image_paths, read_labels

    model = _segmenter(options)
    targets, images = read_labels(options.labels, image_paths([options.images]))
    truth = targets
    if model.bare_targets:  # learnt without a name, judged by the only one there is
        (name,) = model.tasks_
        if len(targets.task_names) > 1:
            raise ValueError(
                f"the model knows one task, and the labels are {targets.task_names}: "
                "give those of one"
            )
        truth = mtsk.Targets({name: targets[targets.task_names[0]]})
    scores = model.score_tasks(images, truth)
    lines = [f"{name}: {score:.4f}" for name, score in scores.items()]
    _say(options, {"images": len(images), "scores": scores}, "\n".join(lines))
    return _DONE


def _describe(options: argparse.Namespace) -> int:
    import mtsk

    card = mtsk.describe(options.model)
    _say(options, dict(card), str(card))
    return _DONE


def _backbones(options: argparse.Namespace) -> int:
    from mtsk.backbones import BUNDLED, known_backbones

    names = [name for name in known_backbones() if options.pattern in name]
    shown = [f"{name}{' (bundled)' if name == BUNDLED else ''}" for name in names]
    _say(options, names, "\n".join(shown))
    return _DONE if names else _SOME_FAILED


def _demo(options: argparse.Namespace) -> int:
    import mtsk
    from mtsk.datasets import make_digit_scenes
    from mtsk.tasks import Boundary

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
        {"edges": Boundary()}, random_state=0, verbose=not options.json
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


def _split(n: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return which images teach and which are held out; none of fewer than 5."""
    import numpy as np

    from mtsk._validation import parameter_error

    if not 0 <= share < 1:
        raise parameter_error("--holdout", "mtsk train", "at least 0, below 1", share)
    order = np.random.default_rng(seed).permutation(n)
    n_held = round(n * share) if n >= 5 else 0
    return sorted(order[n_held:].tolist()), sorted(order[:n_held].tolist())


def _can_judge(entries: Sequence[Any], held: Sequence[int]) -> bool:
    """Tell whether a task has labels to learn from, and two or more to be judged by."""
    known = {i for i, entry in enumerate(entries) if entry is not None}
    return len(known & set(held)) >= 2 and bool(known - set(held))


def _check_writable(path: Path) -> None:
    """Refuse a place where no file can be written, before hours have gone by."""
    if path.is_dir() or not path.parent.is_dir():
        raise OSError(f"{str(path)!r} cannot be written: no such folder, or one itself")


def _say(options: argparse.Namespace, data: Any, text: str) -> None:
    if options.json:
        print(json.dumps(data, ensure_ascii=False, indent=1))
    else:
        print(text)
