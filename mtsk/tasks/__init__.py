"""Tasks: codecs between what a person gives and columns of a table."""

from mtsk.tasks.base import ImageTask, PixelTask, Task
from mtsk.tasks.columns import ColumnGroup
from mtsk.tasks.image import Classification, MultiLabel, Regression
from mtsk.tasks.infer import infer_task
from mtsk.tasks.pixel import (
    BinaryMask,
    Boundary,
    DenseRegression,
    SemanticSegmentation,
)

__all__ = [
    "BinaryMask",
    "Boundary",
    "Classification",
    "ColumnGroup",
    "DenseRegression",
    "ImageTask",
    "MultiLabel",
    "PixelTask",
    "Regression",
    "SemanticSegmentation",
    "Task",
    "infer_task",
]
