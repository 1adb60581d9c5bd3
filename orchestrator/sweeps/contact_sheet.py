"""One picture to choose an adapter by: a row for each prompt, the base model left, and a block for each adapter.

Adapters share a block of the base model's images as long as those are equal. With other seeds or another guidance the
base model draws other images too, and such adapters stand behind a block of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from orchestrator.contract.figures import AFTER, BEFORE, MEASURES, Measure
from orchestrator.contract.samples import CELL
from orchestrator.sweeps.samples import Column, Rows

MARGIN = 24  # pixels, all of them
LABEL_WIDTH = 244
GAP = 4
PITCH = CELL + GAP  # from one cell to the next
GUTTER = 28  # between blocks
TITLE_HEIGHT = 96
HEAD_LINE = 32
FOOT_LINE = 28
WIDEST = 5000  # above that, fewer images of each prompt are shown
NARROWEST = 260  # of a block: its head has to be read
TITLE, HEAD, FIGURE, LABEL = 32, 22, 18, 16  # sizes of letters: the page is looked at from afar
PAPER, SHADE, LINE = (255, 255, 255), (246, 246, 244), (222, 222, 220)
INK, FAINT, BEST = (20, 20, 20), (112, 112, 112), (0, 122, 61)

FIRST_BLOCK = MARGIN + LABEL_WIDTH
REAL_TOP = MARGIN + TITLE_HEIGHT
HEAD_TOP = REAL_TOP + CELL + GUTTER

_DIGITS = 3
_VALUE_LINES = 4  # of a value that is too long for one
_LABEL_LINES = 6
_LABEL_LETTERS = 26  # in a line

Colour = tuple[int, int, int]
HeadLine = tuple[str, str]
"""The end of a setting's name, faint, and the beginning of its value."""


class _Block(NamedTuple):
    """The base model or an adapter: a column of the sheet."""

    settings: Sequence[tuple[str, str]]
    """Name and value of each, above the images."""
    figures: Mapping[str, float]
    """What was measured, by the name of the measure."""
    rows: Rows
    """Its images."""
    is_base: bool


@dataclass(frozen=True)
class _Layout:
    """Where things are on the page, in pixels."""

    shown: int
    """Images of each prompt that are shown."""
    most: int
    """Images of each prompt that there are."""
    block_width: int
    heads: Sequence[Sequence[HeadLine]]
    """The lines above each block."""
    first_row: int
    foot_top: int

    @property
    def size(self) -> tuple[int, int]:
        width = self.left(len(self.heads)) - GUTTER + MARGIN
        height = self.foot_top + len(MEASURES) * FOOT_LINE + MARGIN
        return width, height

    def left(self, block: int) -> int:
        return FIRST_BLOCK + block * (self.block_width + GUTTER)

    def top(self, row: int) -> int:
        return self.first_row + row * PITCH


def encode_png(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG."""
    file = BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def render_contact_sheet(columns: Sequence[Column]) -> Image.Image:
    """Lay the images of one or more adapters out side by side."""
    prompts = _prompts(columns)
    blocks = _blocks(columns)
    layout = _layout(blocks, len(prompts))
    page = _Page(layout.size)
    _add_title(page, columns, layout)
    page.add_label("real pictures", REAL_TOP)
    page.add_strip(columns[0].samples.real, FIRST_BLOCK, REAL_TOP, right=page.width - MARGIN)
    for number, block in enumerate(blocks):
        left = layout.left(number)
        if block.is_base:
            page.add_shade(left, layout.block_width)
        _add_head(page, layout.heads[number], left, layout)
        _add_rows(page, block, list(prompts), left, layout)
    for row, prompt in enumerate(prompts.values()):
        page.add_label(prompt, layout.top(row))
    page.add_line(layout.foot_top - GAP)
    for number, measure in enumerate(MEASURES):
        _add_figures(page, measure, blocks, layout, layout.foot_top + number * FOOT_LINE)
    return page.image


class _Page:
    """The sheet while it is made."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.image = Image.new("RGB", size, PAPER)
        self.width, self.height = size
        self._pen = ImageDraw.Draw(self.image)

    def add_text(self, left: int, top: int, text: str, size: int, colour: Colour = INK) -> None:
        self._pen.text((left, top), text, fill=colour, font=_font(size))

    def add_label(self, text: str, top: int) -> None:
        """Write what a row shows, left of it."""
        lines = wrap(text, _LABEL_LETTERS)[:_LABEL_LINES]
        self._pen.multiline_text((MARGIN, top + 6), "\n".join(lines), fill=INK, font=_font(LABEL), spacing=4)

    def add_line(self, top: int) -> None:
        """Rule a line from margin to margin."""
        self._pen.line((MARGIN, top, self.width - MARGIN, top), fill=LINE)

    def add_shade(self, left: int, width: int) -> None:
        """Shade what lies below a block."""
        right = left + width + GUTTER // 2
        bottom = self.height - MARGIN // 2
        self._pen.rectangle((left - GUTTER // 2, HEAD_TOP - GAP, right, bottom), fill=SHADE)

    def add_strip(self, cells: Sequence[Image.Image], left: int, top: int, *, right: int) -> None:
        """Paste cells side by side, as many as end before `right`."""
        for cell in cells:
            if left + CELL > right:
                break
            self.image.paste(cell, (left, top))
            left += PITCH


def _prompts(columns: Sequence[Column]) -> dict[str, str]:
    """Return the text of every row and its label: the prompt where all were asked the same, or else the text."""
    asked: dict[str, set[str]] = {}
    for column in columns:
        for text, prompt in column.samples.prompts.items():
            asked.setdefault(text, set()).add(prompt)
    labels = {}
    for text, prompts in asked.items():
        labels[text] = prompts.pop() if len(prompts) == 1 else text
    return labels


def _blocks(columns: Sequence[Column]) -> list[_Block]:
    blocks = []
    for before, members in _by_base(columns):
        settings = [("before", "")]
        if len(columns) > 1:
            settings += _shared_settings(members)
        blocks.append(_Block(settings, _figures(members[0], BEFORE), before, is_base=True))
        for column in members:
            settings = list(column.settings.items())
            blocks.append(_Block(settings, _figures(column, AFTER), column.samples.after, is_base=False))
    return blocks


def _shared_settings(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Return the settings that all of some adapters have, in their order."""
    first, *others = columns
    shared = []
    for field, value in first.settings.items():
        if all(other.settings.get(field) == value for other in others):
            shared.append((field, value))
    return shared


def _figures(column: Column, moment: str) -> dict[str, float]:
    figures = {}
    for measure in MEASURES:
        figure = column.metrics.get(measure.figure(moment))
        if figure is not None:
            figures[measure.name] = figure
    return figures


def _by_base(columns: Sequence[Column]) -> list[tuple[Rows, list[Column]]]:
    """Put adapters together whose base models drew the same, with all that those drew."""
    groups: list[tuple[Rows, list[Column]]] = []
    for column in columns:
        before = column.samples.before
        for number, (drawn, members) in enumerate(groups):
            if _agree(drawn, before):
                groups[number] = (_union(drawn, before), [*members, column])
                break
        else:
            groups.append((before, [column]))
    return groups


def _agree(one: Rows, other: Rows) -> bool:
    """Return whether two base models drew the same images wherever both were asked the same."""
    for text in one.keys() & other.keys():
        for left, right in zip(one[text], other[text], strict=False):
            if left.tobytes() != right.tobytes():
                return False
    return True


def _union(one: Rows, other: Rows) -> Rows:
    """Return the longer strip of each prompt of either."""
    rows = dict(one)
    for text, strip in other.items():
        rows[text] = max(rows.get(text, ()), strip, key=len)
    return rows


def _layout(blocks: Sequence[_Block], rows: int) -> _Layout:
    most = max((_longest_strip(block.rows) for block in blocks), default=1)
    room = (WIDEST - FIRST_BLOCK) // len(blocks) - GUTTER
    fitting = (max(room, NARROWEST) + GAP) // PITCH
    shown = min(most, max(1, fitting))
    width = max(shown * PITCH - GAP, NARROWEST)
    heads = [_head_lines(block.settings, width) for block in blocks]
    head_height = max(len(lines) for lines in heads) * HEAD_LINE
    first_row = HEAD_TOP + head_height + 2 * GAP
    foot_top = first_row + rows * PITCH + 2 * GAP
    return _Layout(shown, most, width, heads, first_row, foot_top)


def _longest_strip(rows: Rows) -> int:
    return max((len(strip) for strip in rows.values()), default=0)


def _add_title(page: _Page, columns: Sequence[Column], layout: _Layout) -> None:
    title = columns[0].title
    if any(column.title != title for column in columns):
        title = title.partition(":")[0]  # the recipe: the subjects differ
    page.add_text(MARGIN, MARGIN, title, TITLE)
    fields = " and ".join(columns[0].settings)
    words = f"{len(columns)} adapters that differ in {fields}; the best figures are green"
    if layout.shown < layout.most:
        words += f"; the first {layout.shown} of {layout.most} images of each prompt"
    page.add_text(MARGIN, MARGIN + 48, words, FIGURE, FAINT)


def _head_lines(settings: Sequence[tuple[str, str]], width: int) -> list[HeadLine]:
    """Break settings into lines; most need one."""
    lines: list[HeadLine] = []
    for name, value in settings:
        if _length(f"{name} {value}") <= width:
            lines.append((name, value))
            continue
        letters = 2 * width // HEAD
        parts = wrap(value, letters, max_lines=_VALUE_LINES, placeholder=" ...")
        lines.append((name, ""))
        lines += [("", part) for part in parts]
    return lines


def _add_head(page: _Page, lines: Sequence[HeadLine], left: int, layout: _Layout) -> None:
    """Write the settings of a block above it, the last line right above the images."""
    top = layout.first_row - 2 * GAP - len(lines) * HEAD_LINE
    for name, value in lines:
        page.add_text(left, top, name, HEAD, FAINT)
        value_left = left + _length(f"{name} ") if name else left
        page.add_text(value_left, top, value, HEAD)
        top += HEAD_LINE


def _add_rows(page: _Page, block: _Block, texts: Sequence[str], left: int, layout: _Layout) -> None:
    for row, text in enumerate(texts):
        top = layout.top(row)
        strip = block.rows.get(text, ())
        if strip:
            page.add_strip(strip[: layout.shown], left, top, right=left + layout.block_width)
        else:
            page.add_text(left, top + 6, "not asked", LABEL, FAINT)


def _add_figures(page: _Page, measure: Measure, blocks: Sequence[_Block], layout: _Layout, top: int) -> None:
    """Write what was measured below each block, the best of the adapters in green."""
    if any(measure.name in block.figures for block in blocks):
        page.add_text(MARGIN, top, measure.label, FIGURE)
    best = _best(measure, blocks)
    for number, block in enumerate(blocks):
        figure = block.figures.get(measure.name)
        if figure is None:
            continue
        is_best = figure == best and not block.is_base
        page.add_text(layout.left(number), top, f"{figure:.{_DIGITS}f}", FIGURE, BEST if is_best else INK)


def _best(measure: Measure, blocks: Sequence[_Block]) -> float | None:
    """Return the best figure of the adapters, or None when none was measured."""
    figures = []
    for block in blocks:
        if measure.name in block.figures and not block.is_base:
            figures.append(block.figures[measure.name])
    better = max if measure.higher_is_better else min
    return better(figures, default=None)


def _length(text: str) -> int:
    """Return the width of words in a head, pixels."""
    return round(_font(HEAD).getlength(text))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
