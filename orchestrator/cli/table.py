"""Rows under their heads in as many columns as a terminal has: no word is broken, and what a person copies is whole."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
    beside = len(widths)
    if width is not None:
        beside = _fitted(table, widths, width)
    for row in [table.heads, *table.rows]:
        yield from _row_lines(table, row, widths[:beside], ellipsis)
        if width is not None and beside < len(widths):
            for line in _below(table, row, beside, width - len(_BELOW), ellipsis):
                yield _BELOW + line


def _widths(table: Table) -> list[int]:
    """Return the width of each column's longest cell."""
    from rich.cells import cell_len

    widths = [0] * len(table.heads)
    for row in [table.heads, *table.rows]:
        for number, cell in enumerate(row):
            widths[number] = max(widths[number], cell_len(cell))
    return widths


def _fitted(table: Table, widths: list[int], width: int) -> int:
    """Narrow the columns that may be narrowed; return how many, from the first, then fit beside each other."""
    for beside in range(len(widths), 1, -1):
        narrowed = list(widths)
        too_wide = sum(narrowed[:beside]) + len(_GAP) * (beside - 1) - width
        for changeable in (table.shortens, table.wraps):
            for number, head in enumerate(table.heads[:beside]):
                if head in changeable and too_wide > 0:
                    spare = max(0, narrowed[number] - _least(table, number))
                    narrowed[number] -= min(spare, too_wide)
                    too_wide -= min(spare, too_wide)
        if too_wide <= 0:
            widths[:] = narrowed
            return beside
    return 1


def _least(table: Table, number: int) -> int:
    """Return the least width of a column: of its longest word where it wraps."""
    from rich.cells import cell_len

    least = _NARROWEST
    if table.heads[number] in table.wraps:
        for row in table.rows:
            for word in row[number].split():
                least = max(least, cell_len(word))
    return least


def _row_lines(
    table: Table,
    row: Sequence[str],
    widths: Sequence[int],
    ellipsis: str,
) -> Iterator[str]:
    """Yield one line, or several where a cell wraps."""
    from rich.cells import cell_len

    columns = []
    height = 1
    for number, width in enumerate(widths):
        parts = _parts(table, row, number, width, ellipsis)
        columns.append(parts)
        height = max(height, len(parts))
    for line in range(height):
        cells = []
        for parts, width in zip(columns, widths, strict=True):
            cell = parts[line] if line < len(parts) else ""
            cells.append(cell + " " * (width - cell_len(cell)))
        yield _GAP.join(cells).rstrip()


def _below(
    table: Table,
    row: Sequence[str],
    first: int,
    room: int,
    ellipsis: str,
) -> Iterator[str]:
    """Yield the lines of the cells from the `first`, which stand below their row: as many in a line as fit."""
    from rich.cells import cell_len

    line = ""
    for number in range(first, len(row)):
        start = f"{line}{_GAP}" if line else ""
        left = room - cell_len(start)
        if cell_len(row[number]) <= left:
            line = start + row[number]
        elif table.heads[number] in table.shortens and left >= 2 * _NARROWEST:
            (cell,) = _parts(table, row, number, left, ellipsis)
            line = start + cell
        else:
            if line:
                yield line
            *lines, line = _parts(table, row, number, room, ellipsis)
            yield from lines
    if line:
        yield line


def _parts(
    table: Table,
    row: Sequence[str],
    number: int,
    width: int,
    ellipsis: str,
) -> list[str]:
    """Return the lines of a cell."""
    from orchestrator.cli.screen import shortened

    head = table.heads[number]
    if head in table.shortens:
        return [shortened(row[number], width, ellipsis)]
    if head in table.wraps:
        return wrapped(row[number], width)
    return [row[number]]


def wrapped(text: str, width: int) -> list[str]:
    """Return the text in lines of at most so many columns, cut at spaces only: a longer word stays whole."""
    from rich.cells import cell_len

    lines = [""]
    for word in text.split(" "):
        line = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(line) > width:
            lines.append(word)
        else:
            lines[-1] = line
    return lines
