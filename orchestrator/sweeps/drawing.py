"""One picture to choose an adapter by: a row for each prompt, the base model left, and a block for each adapter.

Adapters share a block of the base model's pictures as long as those are equal: other seeds or another guidance draw
other pictures before, too, and such adapters stand behind a block of their own.
"""

from collections.abc import Iterable, Sequence
from io import BytesIO
from textwrap import wrap
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from orchestrator.sweeps.sheets import Column, Strips

MARGIN = 24  # pixels, all of them
LABEL_WIDTH = 244
GAP = 4
GUTTER = 28  # between blocks
TITLE_HEIGHT = 96
HEAD_LINE = 32
FOOT_LINE = 28
WIDEST = 5000  # above that, fewer pictures of each prompt are shown
NARROWEST = 260  # of a block: its head has to be read
TITLE, HEAD, FIGURE, LABEL = 32, 22, 18, 16  # sizes of letters: the page is looked at from afar
PAPER, SHADE, LINE = (255, 255, 255), (246, 246, 244), (222, 222, 220)
INK, FAINT, BEST = (20, 20, 20), (112, 112, 112), (0, 122, 61)
_FIGURES = (("subject_similarity", "subject similarity"), ("prompt_fidelity", "prompt fidelity"))
_DIGITS = 3
_VALUE_LINES = 4  # of a value that is too long for one


class _Block(NamedTuple):
    head: Sequence[tuple[str, str]]
    figures: Sequence[float | None]
    strips: Strips
    is_base: bool


class _Frame(NamedTuple):
    """Where things are on the page."""

    tile: int
    shown: int
    heads: Sequence[Sequence[tuple[str, str]]]
    lefts: Sequence[int]
    width: int
    real_top: int
    head_top: int
    first_row: int
    foot_top: int

    @property
    def size(self) -> tuple[int, int]:
        return self.lefts[-1] + self.width + MARGIN, self.foot_top + len(_FIGURES) * FOOT_LINE + MARGIN

    def row(self, number: int) -> int:
        return self.first_row + number * (self.tile + GAP)


def png_of(image: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG."""
    file = BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def draw_sweep(columns: Sequence[Column]) -> Image.Image:
    """Lay the sheets of one or more adapters side by side; their pictures stay as they are, pixel for pixel."""
    rows, blocks = _rows(columns), _blocks(columns)
    frame = _frame(blocks, len(rows))
    page = Image.new("RGB", frame.size, PAPER)
    pen = ImageDraw.Draw(page)
    _title(pen, columns, frame, blocks)
    _label(pen, "real pictures", frame.real_top)
    _tiles(page, columns[0].sheet.real, frame, MARGIN + LABEL_WIDTH, frame.real_top, frame.size[0] - MARGIN)
    for block, head, left in zip(blocks, frame.heads, frame.lefts, strict=True):
        if block.is_base:
            area = (
                left - GUTTER // 2,
                frame.head_top - GAP,
                left + frame.width + GUTTER // 2,
                frame.size[1] - MARGIN // 2,
            )
            pen.rectangle(area, fill=SHADE)
        _head(pen, head, left, frame)
        for number, text in enumerate(rows):
            strip = block.strips.get(text, ())[: frame.shown]
            _tiles(page, strip, frame, left, frame.row(number), left + frame.width)
            if not strip:
                pen.text((left, frame.row(number) + 6), "not asked", fill=FAINT, font=_font(LABEL))
    for number, prompt in enumerate(rows.values()):
        _label(pen, prompt, frame.row(number))
    _figures(pen, blocks, frame)
    return page


def _rows(columns: Sequence[Column]) -> dict[str, str]:
    """Return the text of every row and its label: the prompt where all were asked the same."""
    prompts: dict[str, list[str]] = {}
    for column in columns:
        for row in column.sheet.rows:
            prompts.setdefault(row.text, []).append(row.prompt)
    return {text: asked[0] if len(set(asked)) == 1 else text for text, asked in prompts.items()}


def _blocks(columns: Sequence[Column]) -> list[_Block]:
    blocks = []
    for before, members in _by_base(columns):
        shared = set.intersection(*(set(column.settings.items()) for column in members))
        head = [("before", ""), *(pair for pair in members[0].settings.items() if pair in shared and len(columns) > 1)]
        blocks.append(_Block(head, _values(members[0], "before"), before, is_base=True))
        for column in members:
            head = list(column.settings.items())
            blocks.append(_Block(head, _values(column, "after"), column.sheet.after, is_base=False))
    return blocks


def _by_base(columns: Sequence[Column]) -> list[tuple[Strips, list[Column]]]:
    """Put adapters together whose base models drew the same, with all that those drew."""
    groups: list[tuple[Strips, list[Column]]] = []
    for column in columns:
        before = column.sheet.before
        for number, (drawn, members) in enumerate(groups):
            if _agree(drawn, before):
                groups[number] = (_union(drawn, before), [*members, column])
                break
        else:
            groups.append((before, [column]))
    return groups


def _agree(one: Strips, other: Strips) -> bool:
    pairs = [pair for text in one.keys() & other.keys() for pair in zip(one[text], other[text], strict=False)]
    return all(left.tobytes() == right.tobytes() for left, right in pairs)


def _union(one: Strips, other: Strips) -> Strips:
    return {text: max(one.get(text, ()), other.get(text, ()), key=len) for text in {**one, **other}}


def _values(column: Column, when: str) -> list[float | None]:
    return [column.metrics.get(f"{name}_{when}") for name, _ in _FIGURES]


def _frame(blocks: Sequence[_Block], rows: int) -> _Frame:
    tile = next((image.width for block in blocks for strip in block.strips.values() for image in strip), 1)
    most = max((len(strip) for block in blocks for strip in block.strips.values()), default=1)
    room = (WIDEST - MARGIN - LABEL_WIDTH) // len(blocks) - GUTTER
    shown = min(most, max(1, (max(room, NARROWEST) + GAP) // (tile + GAP)))
    width = max(shown * (tile + GAP) - GAP, NARROWEST)
    heads = [_head_lines(block.head, width) for block in blocks]
    left = MARGIN + LABEL_WIDTH
    head_top = MARGIN + TITLE_HEIGHT + tile + GUTTER
    first_row = head_top + max(len(lines) for lines in heads) * HEAD_LINE + 2 * GAP
    return _Frame(
        tile=tile,
        shown=shown,
        heads=heads,
        lefts=[left + number * (width + GUTTER) for number in range(len(blocks))],
        width=width,
        real_top=MARGIN + TITLE_HEIGHT,
        head_top=head_top,
        first_row=first_row,
        foot_top=first_row + rows * (tile + GAP) + 2 * GAP,
    )


def _title(pen: ImageDraw.ImageDraw, columns: Sequence[Column], frame: _Frame, blocks: Sequence[_Block]) -> None:
    titles = {column.sheet.title for column in columns}
    title = titles.pop() if len(titles) == 1 else columns[0].sheet.title.partition(":")[0]
    most = max((len(strip) for block in blocks for strip in block.strips.values()), default=0)
    words = [f"{len(columns)} adapters that differ in {' and '.join(columns[0].settings)}; the best figures are green"]
    if frame.shown < most:
        words.append(f"the first {frame.shown} of {most} pictures of each prompt")
    pen.text((MARGIN, MARGIN), title, fill=INK, font=_font(TITLE))
    pen.text((MARGIN, MARGIN + 48), "; ".join(words), fill=FAINT, font=_font(FIGURE))


def _head_lines(head: Sequence[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Break settings into lines, each the end of a name and the beginning of a value: most need one."""
    lines = []
    for name, value in head:
        if _length(f"{name} {value}") <= width:
            lines.append((name, value))
        else:
            parts = wrap(value, 2 * width // HEAD, max_lines=_VALUE_LINES, placeholder=" ...")
            lines += [(name, ""), *(("", part) for part in parts)]
    return lines


def _head(pen: ImageDraw.ImageDraw, lines: Sequence[tuple[str, str]], left: int, frame: _Frame) -> None:
    bottom = frame.first_row - 2 * GAP
    for number, (name, value) in enumerate(lines):
        top = bottom - (len(lines) - number) * HEAD_LINE
        pen.text((left, top), name, fill=FAINT, font=_font(HEAD))
        pen.text((left + (_length(f"{name} ") if name else 0), top), value, fill=INK, font=_font(HEAD))


def _figures(pen: ImageDraw.ImageDraw, blocks: Sequence[_Block], frame: _Frame) -> None:
    """Write what was measured below each block, the best of the adapters in green."""
    pen.line((MARGIN, frame.foot_top - GAP, frame.size[0] - MARGIN, frame.foot_top - GAP), fill=LINE)
    for number, (_, words) in enumerate(_FIGURES):
        top = frame.foot_top + number * FOOT_LINE
        best = _best(block.figures[number] for block in blocks if not block.is_base)
        if any(block.figures[number] is not None for block in blocks):
            pen.text((MARGIN, top), words, fill=INK, font=_font(FIGURE))
        for block, left in zip(blocks, frame.lefts, strict=True):
            figure = block.figures[number]
            if figure is not None:
                colour = BEST if figure == best and not block.is_base else INK
                pen.text((left, top), f"{figure:.{_DIGITS}f}", fill=colour, font=_font(FIGURE))


def _best(figures: Iterable[float | None]) -> float | None:
    return max((figure for figure in figures if figure is not None), default=None)


def _tiles(page: Image.Image, images: Sequence[Image.Image], frame: _Frame, left: int, top: int, right: int) -> None:
    """Put pictures side by side, as many as end before `right`."""
    for number, image in enumerate(images):
        place = left + number * (frame.tile + GAP)
        if place + frame.tile <= right:
            same = image.size == (frame.tile, frame.tile)
            page.paste(image if same else image.resize((frame.tile, frame.tile)), (place, top))


def _label(pen: ImageDraw.ImageDraw, text: str, top: int) -> None:
    lines = "\n".join(wrap(text, 26)[:6])
    pen.multiline_text((MARGIN, top + 6), lines, fill=INK, font=_font(LABEL), spacing=4)


def _length(text: str) -> int:
    return round(_font(HEAD).getlength(text))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
