"""Tasks: codecs between user-supplied targets and columns of a table."""

from mtsk.tasks.base import ImageTask, PixelTask, Task
from mtsk.tasks.boxes import Detection, boxes_of_instances
from mtsk.tasks.columns import ColumnGroup
from mtsk.tasks.dense import (
    DenseRegression,
    DensityCount,
    ImageToImage,
    SurfaceNormals,
)
from mtsk.tasks.image import Classification, Count, MultiLabel, Ordinal, Regression
from mtsk.tasks.infer import infer_task
from mtsk.tasks.instances import Instances, InstanceSegmentation
from mtsk.tasks.pixel import BinaryMask, Boundary, SemanticSegmentation

__all__ = [
    "BinaryMask",
    "Boundary",
    "Classification",
    "ColumnGroup",
    "Count",
    "DenseRegression",
    "DensityCount",
    "Detection",
    "ImageTask",
    "ImageToImage",
    "InstanceSegmentation",
    "Instances",
    "MultiLabel",
    "Ordinal",
    "PixelTask",
    "Regression",
    "SemanticSegmentation",
    "SurfaceNormals",
    "Task",
    "boxes_of_instances",
    "infer_task",
]
