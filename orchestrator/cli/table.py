"""Rows under their heads in as many columns as a terminal has: no word is broken, and what a person copies is whole."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from orchestrator.cli.screen import padded, width_of

_GAP = "  "
_BELOW = "    "
_NARROWEST = 16
"""Columns below which text is not wrapped beside other columns."""


class Table(NamedTuple):
    """Heads, rows, and which of the columns may be changed to fit; any other column keeps its cells whole."""

    heads: Sequence[str]
    """One for each column."""
    rows: Sequence[Sequence[str]]
    """Each with a cell for each column."""
    wraps: frozenset[str] = frozenset()
    """Heads of columns of text that wraps at its spaces."""
    stacks: frozenset[str] = frozenset()
    """Heads of columns of long text: whole beside the others, or else wrapped in the lines below their row."""


def table_lines(table: Table, width: int | None) -> Iterator[str]:
    """Yield the table's lines; without a width, each row is one line.

    Where columns do not fit, the last ones stand below their row.
    """
    widths = _widths(table)
    if width is not None:
        widths = _fitting(table, widths, width)
    beside = len(widths)
    for row in [table.heads, *table.rows]:
        yield from _row_lines(table, row, widths)
        if width is None:
            continue
        room = width - len(_BELOW)
        for line in _below(table, row, beside, room):
            yield _BELOW + line


def _widths(table: Table) -> list[int]:
    """Return the width of each column's longest cell."""
    widths = [0] * len(table.heads)
    for row in [table.heads, *table.rows]:
        for number, cell in enumerate(row):
            width = width_of(cell)
            widths[number] = max(widths[number], width)
    return widths


def _fitting(table: Table, widths: list[int], width: int) -> list[int]:
    """Return the widths of the columns, from the first, that fit beside each other once they are narrowed."""
    for beside in range(len(widths), 1, -1):
        narrowed = _narrowed(table, widths[:beside], width)
        if narrowed is not None:
            return narrowed
    return widths[:1]


def _narrowed(table: Table, widths: list[int], width: int) -> list[int] | None:
    """Return widths with which the first columns fit; None when they cannot be narrowed enough."""
    narrowed = list(widths)
    gaps = len(widths) - 1
    taken_by_gaps = gaps * len(_GAP)
    too_wide = sum(widths) + taken_by_gaps - width
    for number, head in enumerate(table.heads[: len(widths)]):
        if head not in table.wraps:
            continue
        spare = narrowed[number] - _least(table, number)
        taken = max(0, min(spare, too_wide))
        narrowed[number] -= taken
        too_wide -= taken
    if too_wide > 0:
        return None
    return narrowed


def _least(table: Table, number: int) -> int:
    """Return the least width of a column that wraps: of its longest word."""
    least = _NARROWEST
    for row in table.rows:
        for word in row[number].split():
            width = width_of(word)
            least = max(least, width)
    return least


def _row_lines(
    table: Table,
    row: Sequence[str],
    widths: Sequence[int],
) -> Iterator[str]:
    """Yield one line, or several where a cell wraps."""
    columns = []
    for number, width in enumerate(widths):
        cell = row[number]
        lines = [cell]
        if table.heads[number] in table.wraps:
            lines = wrapped(cell, width)
        columns.append(lines)
    for cells in zip_longest(*columns, fillvalue=""):
        aligned = []
        for cell, width in zip(cells, widths, strict=True):
            aligned.append(padded(cell, width))
        line = _GAP.join(aligned)
        yield line.rstrip()


def _below(
    table: Table,
    row: Sequence[str],
    first: int,
    room: int,
) -> Iterator[str]:
    """Yield the lines of the cells from the `first`, which stand below their row: as many in a line as fit."""
    line = ""
    for number in range(first, len(row)):
        cell = row[number]
        start = line + _GAP if line else ""
        left = room - width_of(start)
        if width_of(cell) <= left:
            line = start + cell
            continue
        if line:
            yield line
        line = cell
        if table.heads[number] in table.wraps | table.stacks:
            *lines, line = wrapped(cell, room)
            yield from lines
    if line:
        yield line


def wrapped(text: str, width: int) -> list[str]:
    """Return the text in lines of at most so many columns, cut at spaces only: a longer word stays whole."""
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        line = lines[-1]
        if not line:
            lines[-1] = word
            continue
        longer = f"{line} {word}"
        if width_of(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
