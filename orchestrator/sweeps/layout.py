"""Where everything stands on the contact sheet of a sweep; nothing is rendered here.

A block is a column of the sheet: the base model, or an adapter. Adapters share a block of the base model's images as
long as those are equal. With other seeds or another guidance the base model draws other images too, and such adapters
stand behind a block of their own.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from PIL import ImageFont, features

from orchestrator.contract.figures import AFTER, BEFORE, MEASURES, Measure
from orchestrator.contract.lettering import CUT, Lettering, load_fonts
from orchestrator.contract.samples import CELL
from orchestrator.sweeps.samples import Column, Rows

PillowFont = ImageFont.FreeTypeFont | ImageFont.ImageFont

# All lengths are pixels.
MARGIN = 24
LABEL_WIDTH = 244
GAP = 4
PITCH = CELL + GAP
"""From one cell to the next."""
GUTTER = 28
"""Between blocks."""
TITLE_HEIGHT = 96
HEAD_LINE = 32
"""Height of a line above a block."""
FOOT_LINE = 28
"""Height of a line of figures."""
WIDEST = 5000
"""Of the page; above that, fewer images of each prompt are shown."""
NARROWEST = 260
"""Of a block: its head has to be read."""
HEAD_SIZE = 22
"""Of the letters above a block."""

FIRST_BLOCK = MARGIN + LABEL_WIDTH
REAL_TOP = MARGIN + TITLE_HEIGHT
HEAD_TOP = REAL_TOP + CELL + GUTTER

_VALUE_LINES = 4
"""Of a value that is too long for one."""

Settings = Sequence[tuple[str, str]]
"""Names and values, in their order."""


class HeadLine(NamedTuple):
    """A line above a block: most settings need one, a long value needs several."""

    name: str
    """The setting's name, or nothing in a line that continues a value."""
    value: str
    """The value, or as much of it as fits."""


class Block(NamedTuple):
    """The base model or an adapter."""

    settings: Settings
    """What stands above the images."""
    figures: Mapping[str, float]
    """What was measured, by the name of the measure."""
    rows: Rows
    """Its images."""
    is_base: bool
    """Whether the images are the base model's."""


class Layout(NamedTuple):
    """The positions of a page."""

    shown: int
    """Images of each prompt that are shown."""
    most: int
    """Images of each prompt that there are."""
    block_width: int
    """Of every block."""
    heads: Sequence[Sequence[HeadLine]]
    """The lines above each block."""
    head_top: int
    """Top of these lines."""
    first_row: int
    """Top of the first prompt's images."""
    foot_top: int
    """Top of the figures."""

    @property
    def width(self) -> int:
        """Of the page."""
        last = len(self.heads) - 1
        return self.left(last) + self.block_width + MARGIN

    @property
    def height(self) -> int:
        """Of the page."""
        foot_height = len(MEASURES) * FOOT_LINE
        return self.foot_top + foot_height + MARGIN

    def left(self, block: int) -> int:
        """Return the left edge of a block, counted from 0."""
        return FIRST_BLOCK + block * (self.block_width + GUTTER)

    def top(self, row: int) -> int:
        """Return the top of a prompt's images, counted from 0."""
        return self.first_row + row * PITCH


def labels_of_rows(columns: Sequence[Column]) -> dict[str, str]:
    """Return the text of every row and its label.

    The label is the prompt where all adapters were asked the same, or else the text, which is the same for all.
    """
    asked: dict[str, set[str]] = {}
    for column in columns:
        for text, prompt in column.samples.prompts.items():
            asked.setdefault(text, set()).add(prompt)
    labels = {}
    for text, prompts in asked.items():
        if len(prompts) == 1:
            labels[text] = prompts.pop()
        else:
            labels[text] = text
    return labels


def make_blocks(columns: Sequence[Column]) -> list[Block]:
    """Return the blocks from left to right: each base model, and behind it the adapters that were made from it."""
    blocks = []
    for before, members in _group_by_base(columns):
        shared: Settings = []
        if len(columns) > 1:
            shared = _shared_settings(members)
        base = Block(
            settings=[("before", ""), *shared],
            figures=_figures(members[0], BEFORE),
            rows=before,
            is_base=True,
        )
        blocks.append(base)
        for column in members:
            adapter = Block(
                settings=list(column.settings.items()),
                figures=_figures(column, AFTER),
                rows=column.samples.after,
                is_base=False,
            )
            blocks.append(adapter)
    return blocks


def _shared_settings(columns: Sequence[Column]) -> Settings:
    """Return the settings that some adapters have in common."""
    first, *others = columns
    shared = dict(first.settings)
    for other in others:
        for field, value in first.settings.items():
            if other.settings.get(field) != value:
                shared.pop(field, None)
    return list(shared.items())


def _figures(column: Column, moment: str) -> dict[str, float]:
    """Return what was measured at a moment, by the name of the measure."""
    figures = {}
    for measure in MEASURES:
        figure = column.metrics.get(measure.figure(moment))
        if figure is not None:
            figures[measure.name] = figure
    return figures


def _group_by_base(
    columns: Sequence[Column],
) -> list[tuple[Rows, list[Column]]]:
    """Put adapters together whose base models drew the same, with all that those drew."""
    groups: list[tuple[Rows, list[Column]]] = []
    for column in columns:
        before = column.samples.before
        for number, (drawn, members) in enumerate(groups):
            if _agree(drawn, before):
                union = _longer_rows(drawn, before)
                groups[number] = (union, [*members, column])
                break
        else:
            groups.append((before, [column]))
    return groups


def _agree(one: Rows, other: Rows) -> bool:
    """Return whether two base models drew the same images wherever both were asked the same."""
    for text in one.keys() & other.keys():
        pairs = zip(one[text], other[text], strict=False)
        for left, right in pairs:
            if left.tobytes() != right.tobytes():
                return False
    return True


def _longer_rows(one: Rows, other: Rows) -> Rows:
    """Return the row of each prompt that has more images, of two base models that agree."""
    rows = dict(one)
    for text, strip in other.items():
        known = rows.get(text, ())
        if len(strip) > len(known):
            rows[text] = strip
    return rows


def make_layout(blocks: Sequence[Block], rows: int, *, has_real: bool = True) -> Layout:
    """Return the positions of some blocks with so many prompts: as many images of each as the page has room for.

    `has_real` is whether there are training pictures, which have a row of their own.
    """
    most = max(_longest_row(block) for block in blocks)
    room = (WIDEST - FIRST_BLOCK) // len(blocks) - GUTTER
    room = max(room, NARROWEST)
    fitting = (room + GAP) // PITCH
    shown = min(most, fitting)
    block_width = max(shown * PITCH - GAP, NARROWEST)

    heads = [_head_lines(block.settings, block_width) for block in blocks]
    most_lines = max(len(lines) for lines in heads)
    head_top = HEAD_TOP if has_real else REAL_TOP
    first_row = head_top + most_lines * HEAD_LINE + 2 * GAP
    return Layout(
        shown=shown,
        most=most,
        block_width=block_width,
        heads=heads,
        head_top=head_top,
        first_row=first_row,
        foot_top=first_row + rows * PITCH + 2 * GAP,
    )


def _longest_row(block: Block) -> int:
    """Return how many images the prompt with the most images has."""
    longest = 0
    for strip in block.rows.values():
        longest = max(longest, len(strip))
    return longest


def _head_lines(settings: Settings, width: int) -> list[HeadLine]:
    """Break the settings of a block into lines that are no wider than the block."""
    letters = 2 * width // HEAD_SIZE
    lines = []
    for name, value in settings:
        if head_width(f"{name} {value}") <= width:
            lines.append(HeadLine(name, value))
            continue
        lines.append(HeadLine(name, ""))
        fonts = lettering(HEAD_SIZE)
        if fonts.is_plain(value):
            parts = wrap(
                value,
                letters,
                max_lines=_VALUE_LINES,
                placeholder=CUT,
            )
        else:
            parts = fonts.wrap(value, width, _VALUE_LINES)
        lines += [HeadLine("", part) for part in parts]
    return lines


def head_width(text: str) -> int:
    """Return the width of words above a block."""
    return lettering(HEAD_SIZE).width(text)


@cache
def lettering(size: int) -> Lettering[PillowFont]:
    """Return fonts of one size: first Pillow's own, the same letters on every machine."""
    own: PillowFont = ImageFont.load_default(size)

    def load(path: Path) -> PillowFont:
        return _load(path, size)

    fonts = load_fonts(own, load)
    shapes = bool(features.check("raqm"))
    return Lettering(fonts, shapes=shapes)


def _load(path: Path, size: int) -> PillowFont:
    """Load a font of the machine; raises OSError."""
    font = ImageFont.truetype(path, size)
    with suppress(OSError, ValueError):  # a font of one weight
        font.set_variation_by_name("Regular")
    return font


def best_figure(measure: Measure, blocks: Sequence[Block]) -> float | None:
    """Return the best figure of the adapters, or None when none was measured."""
    best = None
    for block in blocks:
        figure = block.figures.get(measure.name)
        if block.is_base or figure is None:
            continue
        if best is None:
            best = figure
        elif measure.higher_is_better:
            best = max(best, figure)
        else:
            best = min(best, figure)
    return best
