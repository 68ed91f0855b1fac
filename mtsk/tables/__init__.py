"""Rows from images: tables, read in shards, on workers, past interruptions."""

from mtsk.tables.joiner import TableJoiner, require_labels
from mtsk.tables.shards import RowExtractor, TableReader
from mtsk.tables.table import Table, TableBuilder, choose_pixels

__all__ = [
    "RowExtractor",
    "Table",
    "TableBuilder",
    "TableJoiner",
    "TableReader",
    "choose_pixels",
    "require_labels",
]
