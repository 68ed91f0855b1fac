"""Input data: images, files, targets. Random views are in `augmentation`."""

from mtsk.data.files import ImageFolder
from mtsk.data.images import Images
from mtsk.data.label_maps import CategoricalMap, read_label_maps
from mtsk.data.stacks import ImageStacks, join_slices
from mtsk.data.targets import Targets, as_targets

__all__ = [
    "CategoricalMap",
    "ImageFolder",
    "ImageStacks",
    "Images",
    "Targets",
    "as_targets",
    "join_slices",
    "read_label_maps",
]
