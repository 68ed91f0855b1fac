"""
Four tasks from one pass through a network
==========================================

Handwritten digits lie on photographs. One fit learns the digit of every pixel, the
edges of the digits, the digits in a scene (its tags) and their number. The network
processes every image once, whatever the number of tasks.

Run as a script it also takes a folder of your own images and label maps::

    python examples/quickstart.py --images photos/ --labels masks/ --void 255

A label map has its image's name (any suffix) and holds one integer class per pixel.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from mtsk import DeepFeatures, ImageFolder, MultiTaskSegmenter, Targets
from mtsk.datasets import make_digit_scenes
from mtsk.exceptions import ImageError
from mtsk.tasks import Boundary, SemanticSegmentation

# %%
# Options of the script
# ---------------------


def read_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learn several image tasks at once.")
    parser.add_argument("--scenes", type=int, default=160, help="scenes to learn from")
    parser.add_argument("--images", type=Path, help="a folder of your own images")
    parser.add_argument("--labels", type=Path, help="a folder of their label maps")
    parser.add_argument(
        "--void", type=int, nargs="*", default=[], help="labels that mean unlabelled"
    )
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args(arguments)
    if (options.images is None) != (options.labels is None):
        parser.error("--images and --labels go together")
    if options.scenes < 4:
        parser.error("--scenes must be at least 4")
    return options


# %%
# The data
# --------
# Targets are columns with one entry per image. ``Boundary`` finds the borders of the
# regions in the map of instances.


def digit_scenes(n_scenes: int):
    tasks = {"edges": Boundary()}
    sets = []
    for subset, size in (("train", n_scenes), ("test", max(4, n_scenes // 2))):
        scenes = make_digit_scenes(size, subset=subset, random_state=0)
        targets = scenes.targets
        sets += [
            scenes.images,
            Targets(
                semantic=targets["semantic"],
                edges=targets["instances"],
                tags=targets["tags"],
                count=targets["count"],
            ),
        ]
    return tasks, *sets


def own_folder(images: Path, labels: Path, void: list[int]):
    pictures, maps = ImageFolder(images), ImageFolder(labels)
    if len(pictures) < 2:
        raise ImageError(f"{images} must hold at least 2 images, one of them to test")
    targets = Targets.for_images(pictures, semantic=maps, edges=maps)  # paired by name
    labelled = targets.any_labelled()
    if len(labelled) < len(pictures):
        without = sorted(set(range(len(pictures))) - set(labelled.tolist()))
        names = [pictures.paths[i].name for i in without[:5]]
        raise ImageError(f"no label map in {labels} for: {names}")
    order = np.random.default_rng(0).permutation(len(pictures))
    cut = max(1, len(order) // 4)
    test, train = order[:cut], order[cut:]
    tasks = {"semantic": SemanticSegmentation(void=void), "edges": Boundary(void=void)}
    return tasks, pictures[train], targets[train], pictures[test], targets[test]


# %%
# Joint training
# --------------


def learn(tasks, images, targets, only=None):
    """Fit all tasks, or one; with the cache, fits share the forward pass."""
    if only is not None:
        tasks = {only: tasks[only]} if only in tasks else None
        targets = targets.subset([only])
    features = DeepFeatures(cache="memory", verbose=1)
    model = MultiTaskSegmenter(
        tasks, features=features, max_pixels_per_image=300, random_state=0
    )
    return model.fit(images, targets)


# %%
# Predictions
# -----------


def draw(joint, images, targets, path: Path) -> None:
    shown = min(4, len(images))
    some = [images[i] for i in range(shown)]
    guess = joint.predict(some)
    edges = joint.predict_proba(some, tasks=["edges"])["edges"]
    codec = joint.tasks_["semantic"]
    figure, axes = plt.subplots(
        shown, 4, figsize=(12, 2.6 * shown), layout="constrained", squeeze=False
    )
    for i, row in enumerate(axes):
        truth = codec.encode(targets["semantic"][i], some[i].shape[:2], unseen=True)
        found = np.searchsorted(codec.classes_, guess["semantic"][i])
        row[0].imshow(some[i], cmap="gray")
        for axis, labels in ((row[1], truth[..., 0]), (row[2], found)):
            axis.imshow(
                labels,
                vmin=0,
                vmax=max(len(codec.classes_) - 1, 1),
                cmap="tab20",
                interpolation="nearest",
            )
        row[3].imshow(edges[i], vmin=0, vmax=1, cmap="gray_r")
        if "tags" in guess:
            tags = " ".join(map(str, np.flatnonzero(guess["tags"][i])))
            row[2].set_xlabel(
                f"tags: {tags or 'none'}   count: {guess['count'][i]:.1f}"
            )
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(
        axes[0], ("image", "true classes", "predicted", "edges"), strict=True
    ):
        axis.set_title(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


# %%
# Comparison with single-task fits
# --------------------------------


def compare(joint, tasks, images, targets, images_test, targets_test) -> None:
    alone = {}
    for name in targets.task_names:
        single = learn(tasks, images, targets, only=name)
        alone |= single.score_tasks(images_test, targets_test.subset([name]))
    scores = {
        "all tasks in one fit": joint.score_tasks(images_test, targets_test),
        "each task alone": alone,
    }
    heads = {name: f"{name} ({task.metrics[0]})" for name, task in joint.tasks_.items()}
    width = max(map(len, heads.values())) + 2
    say(" " * 24 + "".join(head.rjust(width) for head in heads.values()))
    for title, row in scores.items():
        cells = [f"{row[name]:.3f}".rjust(width) for name in heads]
        say(title.ljust(24) + "".join(cells))


# %%
# Main program
# ------------


def say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> None:
    options = read_options(arguments)
    start = time.perf_counter()
    if options.images is None:
        data = digit_scenes(options.scenes)
    else:
        data = own_folder(options.images, options.labels, options.void)
    tasks, images, targets, images_test, targets_test = data
    say(f"learning {targets.task_names} from {len(images)} images")
    fitting = time.perf_counter()
    joint = learn(tasks, images, targets)
    say(f"one fit of all tasks: {time.perf_counter() - fitting:.0f} s")
    path = options.output / "quickstart.png"
    draw(joint, images_test, targets_test, path)
    say(f"figure: {path.resolve()}   ({time.perf_counter() - start:.0f} s so far)")
    say(f"now each task alone, and scores on {len(images_test)} other images:")
    compare(joint, *data)
    say("the heads, each chosen by held-out images:")
    for choice in joint.head_choices_.values():
        say(str(choice))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ImageError, ValueError) as error:
        sys.exit(f"error: {error}")

# %%
# The joint fit takes little longer than one task, because the forward pass and the
# passes over the table are shared. Each task gets the head that predicts held-out
# scenes better: linear models, which share nothing but the work, or a network whose
# layers tasks share.
