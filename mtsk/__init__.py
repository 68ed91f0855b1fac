"""mtsk: multi-task image learning in scikit-learn style.

Importing mtsk loads neither torch nor matplotlib: names are resolved when used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_HOME = {
    "MultiTaskSegmenter": "mtsk.segmenter",
    "Targets": "mtsk.data",
    "ImageFolder": "mtsk.data",
    "DeepFeatures": "mtsk.features",
    "JointLogistic": "mtsk.heads",
    "JointRidge": "mtsk.heads",
    "SharedLayerNetwork": "mtsk.heads",
    "SharedDecoder": "mtsk.decoders",
    "SegmentationDisplay": "mtsk.displays",
    "load": "mtsk.persistence",
    "save": "mtsk.persistence",
    "predict_tiled": "mtsk.tiling",
    "suggest_labels": "mtsk.inspection",
    "compare_sharing": "mtsk.inspection",
    "make_task_scorer": "mtsk.metrics",
}
_MODULES = (
    "backbones",
    "crf",
    "data",
    "datasets",
    "decoders",
    "displays",
    "exceptions",
    "export",
    "features",
    "heads",
    "inspection",
    "links",
    "metrics",
    "persistence",
    "segmenter",
    "structure",
    "tasks",
    "testing",
    "tiling",
)

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        return import_module(f"mtsk.{name}")
    raise AttributeError(f"module 'mtsk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
