"""What runs a frozen network on a CPU: torch, onnxruntime or OpenVINO."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from mtsk.backbones.base import Backbone
from mtsk.backbones.graphs import network_graph, stage_graphs
from mtsk.backbones.machine import cpu_name, recall_or_find
from mtsk.backbones.stages import Stages, room_for
from mtsk.exceptions import BackboneError

__all__ = [
    "ENGINES",
    "GraphStages",
    "Session",
    "choose_engine",
    "is_installed",
    "with_engine",
]

ENGINES = ("auto", "torch", "onnxruntime", "openvino")
_PACKAGES = {
    "torch": ("torch",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
}
_TIMED = 1, 3, 192, 256  # the image that engines are timed with
_REPEATS = 5
_GAIN = 0.9  # share of torch's time below which another engine is taken
_TOLERANCE = 1e-3  # of features, as a share of the largest
_SHAPES = 8  # sizes of images that graphs of one size are kept for


def with_engine(backbone: Backbone, engine: str) -> Backbone:
    """Return a backbone that runs by an engine; it shares the network.

    Parameters
    ----------
    backbone : Backbone
        On the CPU.
    engine : {"auto", "torch", "onnxruntime", "openvino"}

    Returns
    -------
    Backbone
        Where gradients are wanted, torch runs it.

    Raises
    ------
    BackboneError
        Where the engine is not installed, or cannot run the network.
    """
    if isinstance(backbone.run, GraphStages) and not backbone.run.is_trainable:
        if engine == "torch":
            raise BackboneError(
                f"{backbone.name} is an ONNX graph: torch cannot run it"
            )
        engine = backbone.engine if engine == "auto" else engine
    if engine == "auto":
        engine = choose_engine(backbone)
    if engine == backbone.engine:
        return backbone
    if not is_installed(engine):
        names = " ".join(_PACKAGES[engine])
        raise BackboneError(f"engine={engine!r} needs: python -m pip install {names}")
    return _with_engine(backbone, backbone.digest, engine)


@lru_cache(maxsize=4)
def _with_engine(backbone: Backbone, digest: str, engine: str) -> Backbone:
    """Return a backbone with an engine; training its weights changes its digest."""
    run = backbone.run
    if isinstance(run, Stages):
        fine, coarse = (Session(graph, engine) for graph in stage_graphs(backbone))
        return backbone.running_by(GraphStages(run, fine, coarse), engine)
    if isinstance(run, GraphStages):
        fine, coarse = run.fine_graph.by(engine), run.coarse_graph.by(engine)
        same = replace(run, fine_graph=fine, coarse_graph=coarse)
        return backbone.running_by(same, engine)
    return backbone.running_by(GraphForward(backbone, engine), engine)


def choose_engine(backbone: Backbone) -> str:
    """Return the engine that "auto" stands for.

    The bundled network is timed once by torch and by onnxruntime, where that is
    installed, and what was found is kept for this CPU and these versions, by
    `mtsk.backbones.machine`. Other networks run by torch: their graphs hold for one
    size of images.

    Parameters
    ----------
    backbone : Backbone

    Returns
    -------
    {"torch", "onnxruntime"}
    """
    if not isinstance(backbone.run, Stages) or not is_installed("onnxruntime"):
        return "torch"
    versions = [importlib.metadata.version(name) for name in ("torch", "onnxruntime")]
    key = ["engine", cpu_name(), *versions, str(torch.get_num_threads())]
    return recall_or_find(
        " ".join(key), ("torch", "onnxruntime"), lambda: _faster(backbone)
    )


def _faster(backbone: Backbone) -> str:
    """Return which of torch and onnxruntime runs a network faster here."""
    image = torch.zeros(_TIMED)
    times = {}
    for engine in ("torch", "onnxruntime"):
        own = with_engine(backbone, engine)
        own(image)
        each = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            own(image)
            each.append(time.perf_counter() - start)
        times[engine] = min(each)
    is_faster = times["onnxruntime"] < _GAIN * times["torch"]
    return "onnxruntime" if is_faster else "torch"


def is_installed(engine: str) -> bool:
    """Return whether the packages that an engine needs are there."""
    return all(importlib.util.find_spec(name) for name in _PACKAGES[engine])


class Session:
    """An ONNX graph, run by an engine in as many threads as torch has.

    Parameters
    ----------
    graph : bytes
        Of one input, ``x``; its outputs are maps with their channels last.
    engine : {"onnxruntime", "openvino"}
    """

    def __init__(self, graph: bytes, engine: str) -> None:
        self.graph, self.engine = graph, engine
        self._opened: dict[int, Callable[[Any], Sequence[Any]]] = {}

    def by(self, engine: str) -> Session:
        """Return the same graph, run by another engine."""
        return Session(self.graph, engine)

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return the outputs, (n, C, h, w), for an input of float32."""
        n_threads = torch.get_num_threads()
        if n_threads not in self._opened:
            self._opened[n_threads] = _OPEN[self.engine](self.graph, n_threads)
        found = self._opened[n_threads](x.detach().contiguous().numpy())
        return [torch.from_numpy(out).permute(0, 3, 1, 2) for out in found]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": {}}


def _open_onnxruntime(graph: bytes, n_threads: int) -> Callable[[Any], Sequence[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    # Threads that wait for work by spinning take the cores from torch's and numpy's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    # What the arena keeps for ever new sizes of images was 2 GB within tiles, and
    # without it runs are no slower.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"x": x})


def _open_openvino(graph: bytes, n_threads: int) -> Callable[[Any], Sequence[Any]]:
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the CPU has it
        "INFERENCE_NUM_THREADS": n_threads,
    }
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    return lambda x: [out.copy() for out in compiled({"x": x}).values()]


_OPEN = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino}


@dataclass(frozen=True)
class GraphStages:
    """Runs the stages of a network as two graphs, for images of any size.

    Attributes
    ----------
    plain : Stages
        The same by torch, for gradients; its sizes hold for the graphs, too.
    fine_graph, coarse_graph : Session
    is_trainable : bool, default=True
        Whether ``plain`` runs the same network. Else there are no gradients.
    max_pixels : int, default=1_000_000
        Of an image that the fine graph takes at once; it takes larger ones in strips of
        rows, for which some 250 MB are enough.
    """

    plain: Stages
    fine_graph: Session
    coarse_graph: Session
    is_trainable: bool = True
    max_pixels: int = 1_000_000

    def __call__(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the outputs of all stages, each (n, C, h, w)."""
        outputs = self.fine(network, x)
        return outputs + self.coarse(network, outputs[-1])

    def fine(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the outputs of the fine stages."""
        if self.is_trainable and torch.is_grad_enabled():
            return self.plain.fine(network, x)
        n, _, height, width = x.shape
        unit = 2 * self.stride  # at which strips may begin
        rows = max(unit, self.max_pixels // (n * width * unit) * unit)
        if height <= rows + self.halo:
            return self.fine_graph(x)
        whole: list[Tensor] = []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(0, top - self.halo), min(height, bottom + self.halo)
            for i, part in enumerate(self.fine_graph(x[:, :, first:last])):
                stride = (last - first) // part.shape[2]
                if top == 0:
                    whole.append(room_for(part, height // stride))
                inner = part[:, :, (top - first) // stride :]
                kept = whole[i][:, :, top // stride : bottom // stride]
                kept.copy_(inner[:, :, : kept.shape[2]])
        return whole

    def coarse(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the outputs of the other stages, from that of the last fine one."""
        if self.is_trainable and torch.is_grad_enabled():
            return self.plain.coarse(network, x)
        return self.coarse_graph(x)

    @property
    def for_training(self) -> Callable:
        """What runs a copy of the network whose weights will change."""
        return self.plain if self.is_trainable else self

    @property
    def n_fine(self) -> int:
        """As of `Stages`."""
        return self.plain.n_fine

    @property
    def halo(self) -> int:
        """As of `Stages`."""
        return self.plain.halo

    @property
    def stride(self) -> int:
        """As of `Stages`."""
        return self.plain.stride


class GraphForward:
    """Runs a network as graphs, one for each size of images.

    Parameters
    ----------
    backbone : Backbone
    engine : {"onnxruntime", "openvino"}
    """

    def __init__(self, backbone: Backbone, engine: str) -> None:
        self.for_training = backbone.run
        self.channels_first = backbone.channels_first
        self.name = backbone.name
        self._session = lru_cache(_SHAPES)(
            lambda *size: Session(network_graph(backbone, size), engine)
        )
        self._checked: set[tuple[int, ...]] = set()

    def __call__(self, network: nn.Module, x: Tensor) -> list[Tensor]:
        """Return the taps, as the network gives them."""
        if torch.is_grad_enabled():
            return list(self.for_training(network, x))
        session = self._session(*x.shape[2:])
        if x.shape[2:] not in self._checked:
            self._check(network, session, x[:1])
            self._checked.add(x.shape[2:])
        each = [session(image[None]) for image in x]
        return [
            torch.cat(own) if first else torch.cat(own).permute(0, 2, 3, 1)
            for own, first in zip(
                zip(*each, strict=True), self.channels_first, strict=True
            )
        ]

    def _check(self, network: nn.Module, session: Session, x: Tensor) -> None:
        """Refuse a graph that is not the network, of which a trace fixes choices."""
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        for image in (x, noise, noise + 2, noise - 2):
            wanted = self.for_training(network, image)
            for found, out, first in zip(
                session(image), wanted, self.channels_first, strict=True
            ):
                out = out if first else out.permute(0, 3, 1, 2)
                limit = _TOLERANCE * out.abs().max()
                if not (found - out).abs().max() <= limit:  # NaN is refused, too
                    raise BackboneError(
                        f"{self.name} as an ONNX graph gives other features than by "
                        "torch, as where forward() chooses by the values of pixels; "
                        "use engine='torch'"
                    )
