"""Write a model as an ONNX graph, and check that it says what `predict` says."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtsk._atomic import atomic_write
from mtsk.backbones.graphs import write_graph
from mtsk.exceptions import ExportError
from mtsk.export.graph import ScoreGraph
from mtsk.segmenter import MultiTaskSegmenter, Predictor, predictor_of
from mtsk.tasks import BinaryMask, Classification, SemanticSegmentation, Task

__all__ = ["export_onnx"]

_TRACED = 96, 128  # the image that is traced
_CHECKED = (96, 128), (131, 97)  # images by which the graph is checked
_TOLERANCE = 1e-3  # of scores, as a share of the largest


def export_onnx(
    model: MultiTaskSegmenter,
    path: str | os.PathLike,
    *,
    tasks: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write a fitted model as one ONNX graph, for images of any size.

    Its input ``image`` is float32 of shape (H, W, 3), in [0, 1]. For every task it has
    the output ``<task>_scores``, what ``decision_function`` gives: (H, W, size), or
    (size,) of tasks of whole images; for those of classes and masks also
    ``<task>_probabilities``, what ``predict_proba`` gives, and ``<task>``, the place of
    the predicted class among the classes (int64), or the mask (bool). The tasks, their
    kinds and classes stand, as JSON, in the file's metadata under ``mtsk``.

    Parameters
    ----------
    model : MultiTaskSegmenter
        Fitted, with linear heads, a `SharedLayerNetwork` or a `SharedDecoder`, and
        without structure.
    path : path
        Replaced once the new file is whole and checked.
    tasks : sequence of str, default=None
        None is all.

    Returns
    -------
    dict
        What stands in the metadata.

    Raises
    ------
    ExportError
        Where the model has parts that cannot be exported, or onnxruntime gives other
        scores than the model on images of two sizes.
    UnknownTaskError, NotFittedError

    Examples
    --------
    >>> from mtsk import MultiTaskSegmenter
    >>> from mtsk.export import export_onnx
    >>> from mtsk.testing import toy_images
    >>> model = MultiTaskSegmenter(random_state=0).fit(*toy_images(4))
    >>> about = export_onnx(model, "model.onnx")  # doctest: +SKIP
    """
    predictor = predictor_of(model, "export_onnx")
    names = predictor.tasks.choose(tasks)
    import onnx  # takes a while: here, not with mtsk

    _check_exportable(predictor, names)
    graph = _OutputGraph(predictor, names).eval()
    about = _about(predictor, graph)
    image = torch.rand(*_TRACED, 3, generator=torch.Generator().manual_seed(0))
    maps = {
        name: {0: "height", 1: "width"}
        for name, of_pixels in graph.outputs.items()
        if of_pixels
    }
    written = write_graph(
        graph,
        image,
        "image",
        list(graph.outputs),
        {"image": {0: "height", 1: "width"}, **maps},
    )
    proto = onnx.load_from_string(written)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "mtsk", json.dumps(about, ensure_ascii=False)
    data = proto.SerializeToString()
    _check_scores(predictor, names, data)
    with atomic_write(Path(path)) as file:
        file.write(data)
    return about


def _check_exportable(predictor: Predictor, names: Sequence[str]) -> None:
    features = predictor.features
    heads = [predictor.head_of(name) for name in names]
    reasons = {
        "structure": bool(predictor.structure.scores_needed(names, predictor.tasks)),
        "links__region_pooling": predictor.region_pooling is not None,
        "features__position": features.position,
        "features__n_components": features.projection_ is not None,
        "features__channels": features.channels is not None,
    }
    for name, is_there in reasons.items():
        if is_there:
            raise ExportError(f"a model with `{name}` cannot be exported: set None")
    for head in heads:
        if not hasattr(head, "to_torch"):
            raise ExportError(
                f"a head of type {type(head).__name__} cannot be exported: 'logistic', "
                "'ridge', 'network', 'fcn' and 'unet' can"
            )


class _OutputGraph(nn.Module):
    """Scores, and what follows from them, under the names of a graph's outputs.

    Attributes
    ----------
    outputs : dict of str to bool
        Names of the outputs, and whether each has the image's height and width.
    """

    def __init__(self, predictor: Predictor, names: Sequence[str]) -> None:
        super().__init__()
        self.scores = ScoreGraph(predictor, names)
        self.tasks = {n: predictor.tasks[n] for n in self.scores.parts}
        self.corrections = {
            name: torch.from_numpy(
                np.broadcast_to(
                    np.float32(predictor.prior_corrections(name)), task.n_scores_
                ).copy()
            )
            for name, task in self.tasks.items()
        }
        self.outputs: dict[str, bool] = {}
        for name, task in self.tasks.items():
            own = _outputs_of(name)[: None if _is_decoded(task) else 1]
            self.outputs |= dict.fromkeys(own, task.is_of_pixels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        out = []
        for (name, task), scores in zip(
            self.tasks.items(), self.scores(image), strict=True
        ):
            out.append(scores)
            if not _is_decoded(task):
                continue
            logits = scores + self.corrections[name]
            if isinstance(task, BinaryMask):
                share = getattr(task, "threshold", 0.5)
                out += [logits.sigmoid()[..., 0], scores.sigmoid()[..., 0] > share]
            else:
                out += [logits.softmax(dim=-1), scores.argmax(dim=-1)]
        return tuple(out)


def _is_decoded(task: Task) -> bool:
    """Return whether the graph says what is predicted, and not only the scores."""
    decoded = isinstance(task, SemanticSegmentation | BinaryMask | Classification)
    return decoded and getattr(task, "postprocess", None) is None


def _about(predictor: Predictor, graph: _OutputGraph) -> dict[str, Any]:
    """Return what a program must know of the graph."""
    return {
        "format": 1,
        "image": "float32, (height, width, 3), in [0, 1]",
        "backbone": str(predictor.features.backbone),
        "tasks": {
            name: {
                "type": type(task).__name__,
                "classes": _plain(getattr(task, "classes_", None)),
                "outputs": [o for o in _outputs_of(name) if o in graph.outputs],
            }
            for name, task in graph.tasks.items()
        },
    }


def _outputs_of(name: str) -> list[str]:
    return [f"{name}_scores", f"{name}_probabilities", name]


def _plain(classes: Any) -> list[Any] | None:
    return None if classes is None else np.asarray(classes).tolist()


def _check_scores(predictor: Predictor, names: Sequence[str], data: bytes) -> None:
    """Raise where onnxruntime gives other scores than the model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for shape in _CHECKED:
        image = _picture(random, shape)
        wanted = [f"{name}_scores" for name in names]
        found = session.run(wanted, {"image": image})
        stream = predictor.features.iter_views_and_maps([image])
        (views, maps), *_ = ((v, m) for _, v, m in stream)
        expected = predictor.scores(views, maps, names)
        for name, own in zip(names, found, strict=True):
            scale = max(1.0, float(np.abs(expected[name]).max()))
            off = float(np.abs(own - expected[name]).max()) / scale
            if own.shape != expected[name].shape or not off <= _TOLERANCE:
                raise ExportError(
                    f"the graph's scores of {name!r} differ from the model's by "
                    f"{off:.1%} for an image of {shape}: this backbone does not "
                    "export for images of any size"
                )


def _picture(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return blocks of random colours with noise, float32 in [0, 1]."""
    rows, columns = (-(-side // 8) for side in shape)
    blocks = random.random((rows, columns, 3)).repeat(8, axis=0).repeat(8, axis=1)
    noise = random.normal(scale=0.05, size=(*shape, 3))
    return (blocks[: shape[0], : shape[1]] + noise).clip(0, 1).astype(np.float32)
