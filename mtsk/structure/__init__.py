"""CRFs over the regions and pixels of an image, and between its tasks."""

from mtsk.structure.learning import learn_structure
from mtsk.structure.messages import FittedStructure, TaskStructure
from mtsk.structure.region_graph import Picture
from mtsk.structure.structure import Structure
from mtsk.structure.superpixels import Superpixels, over_segment, slic

__all__ = [
    "FittedStructure",
    "Picture",
    "Structure",
    "Superpixels",
    "TaskStructure",
    "learn_structure",
    "over_segment",
    "slic",
]
