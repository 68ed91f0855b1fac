"""Prediction of pixels beside napari-convpaint and a loop written by hand.

The loop: timm's network, its stages brought to the image's size, scikit-learn's
logistic regression on every pixel: what most people write first. convpaint: its default
features (VGG16's first layers) and its CatBoost classifier, here with random weights,
which changes what it says and not how long it takes. Each runs in a process of its own,
on the same images; mtsk with its default network, and with the one in integers.

python benchmarks/peers.py
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

import numpy as np
from common import load_masks, options, report_machine, row, semantic
from skimage.io import imread

OURS, PEERS = ("mtsk", "mtsk_int8"), ("loop", "convpaint")
N_TRAIN, N_PIXELS = 8, 500


def main() -> None:
    chosen = options(
        __doc__ or "",
        only={"choices": OURS + PEERS, "default": None},
        images={"type": int, "default": 20},
        repeats={"type": int, "default": 3},
    )
    if chosen.only:
        print(json.dumps(measure(chosen)))
        return
    report_machine()
    found: dict[str, dict[str, float]] = {}
    for kind in OURS + PEERS:
        runs = []
        for _ in range(chosen.repeats):
            command = [sys.executable, __file__, *sys.argv[1:], "--only", kind]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                print(f"{kind} cannot run:", run.stderr.strip().splitlines()[-1])
                break
            runs.append(json.loads(run.stdout.splitlines()[-1]))
            print(kind, runs[-1], flush=True)
        if runs:
            found[kind] = {k: float(np.median([r[k] for r in runs])) for k in runs[0]}
    for ours in OURS:
        for peer in PEERS:
            compare(found, ours, peer)


def compare(found: dict[str, dict[str, float]], ours: str, peer: str) -> None:
    """Print how many times faster we are, and how much less memory we take."""
    if not {ours, peer} <= found.keys():
        return
    faster = found[peer]["seconds"] / found[ours]["seconds"]
    row(f"{peer} ÷ {ours}, seconds a megapixel", f"{faster:.1f}", ">= 3")
    less = found[ours]["gigabytes"] / found[peer]["gigabytes"]
    row(f"{ours} ÷ {peer}, peak memory of prediction", f"{less:.2f}", "<= 0.33")


def measure(chosen) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """Return seconds a megapixel of predicting, and the peak above the idle process."""
    X, Y = load_masks(chosen.data, "camvid", "train")
    X_val, _ = load_masks(chosen.data, "camvid", "val")
    images = [imread(path) for path in X_val[: chosen.images]]
    train = [imread(path) for path in X[:N_TRAIN]]
    predict = MAKERS[chosen.only](train, Y[:N_TRAIN])
    before = reset_peak()
    start = time.perf_counter()
    for image in images:
        predict(image)
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds / sum(i[..., 0].size for i in images) * 1e6, 2),
        "gigabytes": round(high_water() - before, 3),
    }


def reset_peak() -> float:
    """Forget the peak of training (Linux); return the memory in use now.

    What training freed and malloc kept would hide what prediction takes.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return high_water()


def high_water() -> float:
    """Return the most gigabytes of resident memory since the last reset."""
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmHWM"].split()[0]) / 2**20


def ours(images, masks, backbone="efficientnet_lite0"):  # type: ignore[no-untyped-def]
    """mtsk at its default settings, but for the network."""
    from mtsk import DeepFeatures, MultiTaskSegmenter

    model = MultiTaskSegmenter(
        semantic("camvid"),
        features=DeepFeatures(backbone),
        head="logistic",
        random_state=0,
    ).fit(images, masks)
    return lambda image: model.predict([image])[0]


def ours_int8(images, masks):  # type: ignore[no-untyped-def]
    """mtsk with its network in integers of 8 bits."""
    return ours(images, masks, "efficientnet_lite0_int8")


def loop(images, masks):  # type: ignore[no-untyped-def]
    """What people write: every pixel's features at full size, then a classifier."""
    import timm
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, features_only=True
    ).eval()

    @torch.no_grad()
    def features(image):  # type: ignore[no-untyped-def]
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        maps = [
            torch.nn.functional.interpolate(m, size=image.shape[:2], mode="bilinear")
            for scale in (0.5, 1, 2)
            for m in network(torch.nn.functional.interpolate(x, scale_factor=scale))
        ]
        return torch.cat(maps, 1)[0].permute(1, 2, 0).numpy()

    rng = np.random.default_rng(0)
    rows, labels = [], []
    for image, mask in zip(images, masks, strict=True):
        known = np.flatnonzero(mask.ravel() != 11)
        some = rng.choice(known, N_PIXELS, replace=False)
        stack = features(image)
        rows.append(stack.reshape(-1, stack.shape[-1])[some])
        labels.append(mask.ravel()[some])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=50))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(np.concatenate(rows), np.concatenate(labels))

    def predict(image):  # type: ignore[no-untyped-def]
        stack = features(image)
        flat = stack.reshape(-1, stack.shape[-1])
        return model.predict(flat).reshape(image.shape[:2])

    return predict


def convpaint(images, masks):  # type: ignore[no-untyped-def]
    """napari-convpaint's model at its default settings, without its window."""
    # Its package imports napari's window, which a model does not need.
    spec = importlib.util.find_spec("napari_convpaint")
    if spec is None:
        sys.exit("napari-convpaint is not installed")
    package = types.ModuleType(spec.name)
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules[spec.name] = package
    from napari_convpaint.convpaint_model import ConvpaintModel
    from napari_convpaint.feature_extractors import nnlayers

    nnlayers.guided_model_download = random_vgg16
    rng = np.random.default_rng(0)
    scribbles = []
    for mask in masks:
        known = np.flatnonzero(mask.ravel() != 11)
        drawn = np.zeros(mask.size, np.uint8)
        some = rng.choice(known, N_PIXELS, replace=False)
        drawn[some] = mask.ravel()[some] + 1
        scribbles.append(drawn.reshape(mask.shape))
    model = ConvpaintModel()
    model.set_param("channel_mode", "rgb")
    stack = [np.moveaxis(image, 2, 0) for image in images]
    model.train(stack, scribbles)
    return lambda image: model.segment(np.moveaxis(image, 2, 0))


def random_vgg16(file: str, url: str) -> str:
    """Return a file of untrained weights, in place of downloading trained ones."""
    import torch
    from torchvision.models import vgg16

    path = Path(tempfile.gettempdir()) / f"untrained_{file}"
    torch.save(vgg16(weights=None).state_dict(), path)
    return str(path)


MAKERS = {
    "mtsk": ours,
    "mtsk_int8": ours_int8,
    "loop": loop,
    "convpaint": convpaint,
}

if __name__ == "__main__":
    main()
