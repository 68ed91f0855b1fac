"""Rows from images: tables, read in shards, on workers, past interruptions."""

from mtsk.tables.joiner import TableJoiner, require_labels
from mtsk.tables.sampling import PixelSample, pixel_ranks, sample_pixels
from mtsk.tables.shards import RowExtractor, TableReader
from mtsk.tables.table import Table, TableBuilder

__all__ = [
    "PixelSample",
    "RowExtractor",
    "Table",
    "TableBuilder",
    "TableJoiner",
    "TableReader",
    "pixel_ranks",
    "require_labels",
    "sample_pixels",
]
