"""Rows under their heads in as many columns as a terminal has: no word is broken, and what a person copies is whole."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from orchestrator.cli.screen import padded, shortened, width_of

_GAP = "  "
_BELOW = "    "
_NARROWEST = 16
"""Columns below which text is not shortened or wrapped."""


class Table(NamedTuple):
    """Heads, rows, and which of the columns may be changed to fit; any other column keeps its cells whole."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    wraps: frozenset[str] = frozenset()
    """Heads of columns of text that wraps at its spaces."""
    shortens: frozenset[str] = frozenset()
    """Heads of columns that end in an ellipsis where they are too long; the least important ones."""


def table_lines(table: Table, width: int | None, ellipsis: str) -> Iterator[str]:
    """Yield the table's lines; without a width, each row is one line.

    Where columns do not fit, the last ones stand below their row.
    """
    widths = _widths(table)
    if width is not None:
        widths = _fitting(table, widths, width)
    beside = len(widths)
    for row in [table.heads, *table.rows]:
        yield from _row_lines(table, row, widths, ellipsis)
        if width is None:
            continue
        room = width - len(_BELOW)
        below = _below(
            table,
            row,
            beside,
            room,
            ellipsis,
        )
        for line in below:
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
    gaps = len(_GAP) * (len(widths) - 1)
    too_wide = sum(widths) + gaps - width
    for heads in (table.shortens, table.wraps):
        for number in range(len(widths)):
            if table.heads[number] not in heads:
                continue
            spare = narrowed[number] - _least(table, number)
            taken = max(0, min(spare, too_wide))
            narrowed[number] -= taken
            too_wide -= taken
    if too_wide > 0:
        return None
    return narrowed


def _least(table: Table, number: int) -> int:
    """Return the least width of a column: of its longest word where it wraps."""
    least = _NARROWEST
    if table.heads[number] not in table.wraps:
        return least
    for row in table.rows:
        for word in row[number].split():
            width = width_of(word)
            least = max(least, width)
    return least


def _row_lines(
    table: Table,
    row: Sequence[str],
    widths: Sequence[int],
    ellipsis: str,
) -> Iterator[str]:
    """Yield one line, or several where a cell wraps."""
    columns = []
    for number, width in enumerate(widths):
        lines = _cell_lines(
            table,
            row,
            number,
            width,
            ellipsis,
        )
        columns.append(lines)
    for cells in zip_longest(*columns, fillvalue=""):
        aligned = [padded(cell, width) for cell, width in zip(cells, widths, strict=True)]
        line = _GAP.join(aligned)
        yield line.rstrip()


def _below(
    table: Table,
    row: Sequence[str],
    first: int,
    room: int,
    ellipsis: str,
) -> Iterator[str]:
    """Yield the lines of the cells from the `first`, which stand below their row: as many in a line as fit."""
    line = ""
    for number in range(first, len(row)):
        cell = row[number]
        start = line + _GAP if line else ""
        left = room - width_of(start)
        shortens = table.heads[number] in table.shortens
        if width_of(cell) <= left:
            line = start + cell
        elif shortens and left >= 2 * _NARROWEST:
            line = start + shortened(cell, left, ellipsis)
        else:
            if line:
                yield line
            *lines, line = _cell_lines(
                table,
                row,
                number,
                room,
                ellipsis,
            )
            yield from lines
    if line:
        yield line


def _cell_lines(
    table: Table,
    row: Sequence[str],
    number: int,
    width: int,
    ellipsis: str,
) -> list[str]:
    """Return the lines of a cell."""
    head = table.heads[number]
    cell = row[number]
    if head in table.shortens:
        return [shortened(cell, width, ellipsis)]
    if head in table.wraps:
        return wrapped(cell, width)
    return [cell]


def wrapped(text: str, width: int) -> list[str]:
    """Return the text in lines of at most so many columns, cut at spaces only: a longer word stays whole."""
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        line = lines[-1]
        longer = f"{line} {word}" if line else word
        if line and width_of(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
