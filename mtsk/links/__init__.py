"""Links between tasks: pseudo-labels from tags, region pooling, context."""

from mtsk.links.context import ContextLink, find_context
from mtsk.links.links import Links
from mtsk.links.pseudo_labels import TagCheck, TagLink, find_tag_links, pseudo_labels
from mtsk.links.region_pooling import RegionPooling

__all__ = [
    "ContextLink",
    "Links",
    "RegionPooling",
    "TagCheck",
    "TagLink",
    "find_context",
    "find_tag_links",
    "pseudo_labels",
]
