"""mtsk: multi-task image learning in scikit-learn style.

Importing mtsk loads neither torch nor matplotlib: names are resolved when used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_HOME = {
    "Augmentation": "mtsk.augmentation",
    "SharedDecoder": "mtsk.decoders",
    "MultiTaskSegmenter": "mtsk.segmenter",
    "Targets": "mtsk.targets",
    "ImageFolder": "mtsk.image_files",
    "DeepFeatures": "mtsk.features",
    "FeatureMaps": "mtsk.feature_maps",
    "MemoryCache": "mtsk.cache",
    "JointLogistic": "mtsk.heads",
    "JointRidge": "mtsk.heads",
    "PerTaskHead": "mtsk.heads",
    "PixelCRF": "mtsk.crf",
    "SegmentationDisplay": "mtsk.displays",
    "ConfusionDisplay": "mtsk.displays",
    "EvidenceDisplay": "mtsk.displays",
    "SharedLayerNetwork": "mtsk.heads",
    "SharingDisplay": "mtsk.displays",
    "SharingReport": "mtsk.sharing",
    "Structure": "mtsk.structure",
    "SuperpixelCRF": "mtsk.crf",
    "TaskRelatedness": "mtsk.relatedness",
    "TaskRelatednessDisplay": "mtsk.displays",
    "UncertaintyDisplay": "mtsk.displays",
    "compare_sharing": "mtsk.sharing",
    "describe": "mtsk.persistence",
    "evidence": "mtsk.attribution",
    "load": "mtsk.persistence",
    "predict_tiled": "mtsk.tiling",
    "save": "mtsk.persistence",
    "suggest": "mtsk.suggestion",
    "superpixel_oracle": "mtsk.oracle",
    "task_table": "mtsk.inspection",
    "task_scorer": "mtsk.metrics",
}
_MODULES = (
    "backbones",
    "crf",
    "datasets",
    "decoders",
    "exceptions",
    "heads",
    "metrics",
    "postprocess",
    "superpixels",
    "tasks",
    "testing",
)

__all__ = [*_HOME, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        return import_module(f"mtsk.{name}")
    raise AttributeError(f"module 'mtsk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
