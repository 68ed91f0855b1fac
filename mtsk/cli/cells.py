"""Cells of tables: from text to values, and from values to text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mtsk.exceptions import TargetError

__all__ = ["column_values", "from_spreadsheet_text", "spreadsheet_text"]

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
# An exponent counts where a program wrote it (1e-05, 2.5e+20): 1e5 may be an id.
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-][0-9]+)?")
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]+")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def column_values(cells: Sequence[str], place: str) -> list[Any]:
    """Return the values of a column: sets of tags, ints, floats, or text.

    All of one kind: tags where any cell has a semicolon, numbers where all are plain
    decimals, text otherwise. Numbers with leading zeros are codes, and make their
    column text. Any other words among mostly numbers are taken for mistakes.

    Parameters
    ----------
    cells : sequence of str
        Empty where unknown.
    place : str
        The file and the column, for messages.

    Returns
    -------
    list
        None where unknown.

    Raises
    ------
    TargetError
        Where most cells are numbers and some are words.
    """
    given = [from_spreadsheet_text(cell.strip()) for cell in cells]
    if any(";" in cell for cell in given):
        tags = [
            {tag.strip() for tag in cell.split(";") if tag.strip()} if cell else None
            for cell in given
        ]
        # Numbers, as those of maps are: so that tags can teach their pixels.
        if all(_INTEGER.fullmatch(tag) for own in tags if own for tag in own):
            return [None if own is None else {int(tag) for tag in own} for own in tags]
        return tags
    known = [cell for cell in given if cell]
    if all(_INTEGER.fullmatch(cell) for cell in known):
        return [int(cell) if cell else None for cell in given]
    if not any(_LEADING_ZERO.fullmatch(cell) for cell in known):
        words = [cell for cell in known if not _DECIMAL.fullmatch(cell)]
        if not words:
            return [float(cell) if cell else None for cell in given]
        if len(words) < len(known) / 2:
            raise TargetError(
                f"{place}: {len(known) - len(words)} numbers, and {words[:3]}; empty "
                "cells are unknown values; or let all be words"
            )
    return [cell or None for cell in given]


def spreadsheet_text(text: str) -> str:
    """Return text that no spreadsheet takes for a formula.

    An apostrophe goes before what begins like one, as spreadsheets themselves do for
    text, and before such text that has apostrophes already; `from_spreadsheet_text`
    takes it away.
    """
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def from_spreadsheet_text(cell: str) -> str:
    """Return the text of which `spreadsheet_text` made the cell."""
    protected = cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA)
    return cell[1:] if protected else cell
