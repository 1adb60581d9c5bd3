"""One picture to choose an adapter by: a row for each prompt, the base model left, and a block for each adapter."""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from orchestrator.contract.figures import MEASURES, Measure
from orchestrator.contract.lettering import CODES, Room
from orchestrator.contract.plurals import counted
from orchestrator.contract.samples import CELL
from orchestrator.sweeps.layout import (
    FIRST_BLOCK,
    FOOT_LINE,
    GAP,
    GUTTER,
    HEAD_LINE,
    HEAD_SIZE,
    LABEL_WIDTH,
    MARGIN,
    PITCH,
    REAL_TOP,
    Block,
    Layout,
    best_figure,
    head_width,
    labels_of_rows,
    lettering,
    make_blocks,
    make_layout,
)
from orchestrator.sweeps.samples import Column

# Sizes of letters, pixels: the page is looked at from afar.
TITLE_SIZE = 32
FIGURE_SIZE = 18
LABEL_SIZE = 16
LABEL_PITCH = 21
"""From one line of a label to the next, pixels."""
NOTE_SIZE = 12

PAPER = "#ffffff"
SHADE = "#f6f6f4"
"""Below the base model's blocks."""
LINE = "#dededc"
INK = "#141414"
FAINT = "#707070"
BEST = "#007a3d"
"""The best figure of all adapters."""

_DIGITS = 3
"""Of a figure, behind the point."""
_LABEL = Room(
    letters=26,
    width=LABEL_WIDTH - 2 * GAP,
    lines=6,
)


def encode_png(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG."""
    file = BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def render_contact_sheet(columns: Sequence[Column]) -> Image.Image:
    """Lay the images of one or more adapters out side by side; no pixel of a cell is changed."""
    labels = labels_of_rows(columns)
    blocks = make_blocks(columns)
    has_real = bool(columns[0].samples.real)
    layout = make_layout(blocks, len(labels), has_real=has_real)
    sheet = _Sheet(layout)
    sheet.add_title(columns)
    if has_real:
        sheet.add_real_pictures(columns[0])
    for number, block in enumerate(blocks):
        sheet.add_head(number, block)
        for row, text in enumerate(labels):
            sheet.add_cells(number, block, row, text)
    written = lettering(LABEL_SIZE).labels(list(labels.values()), _LABEL)
    for row, lines in enumerate(written):
        sheet.add_label(lines, layout.top(row))
    sheet.add_line()
    for number, measure in enumerate(MEASURES):
        top = layout.foot_top + number * FOOT_LINE
        sheet.add_figures(measure, blocks, top)
    sheet.add_note(blocks, [columns[0].title, *labels.values()])
    return sheet.page


def _figure_text(figure: float | None) -> str:
    """Return a figure as it is written; nothing where none was measured."""
    if figure is None:
        return ""
    return f"{figure:.{_DIGITS}f}"


class _Sheet:
    """A sheet while it is made: a page with a pen, and the positions of what comes onto it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.page = Image.new("RGB", (layout.width, layout.height), PAPER)
        self.pen = ImageDraw.Draw(self.page)

    def add_title(self, columns: Sequence[Column]) -> None:
        """Write what the adapters have in common, and below it how they differ."""
        title = columns[0].title
        if any(column.title != title for column in columns):
            title = title.partition(":")[0]  # the recipe: the subjects differ
        fields = " and ".join(columns[0].settings)
        words = counted(len(columns), "adapter")
        if fields:
            words += f" that differ in {fields}"
        if any(column.metrics for column in columns):
            words += "; the best figures are green"
        shown, most = self.layout.shown, self.layout.most
        if shown < most:
            words += f"; the first {shown} of {most} images of each prompt"
        room = self.layout.width - 2 * MARGIN
        self._write(
            lettering(TITLE_SIZE).shortened(title, room),
            left=MARGIN,
            top=MARGIN,
            size=TITLE_SIZE,
        )
        self._write(
            lettering(FIGURE_SIZE).shortened(words, room),
            left=MARGIN,
            top=MARGIN + 48,
            size=FIGURE_SIZE,
            colour=FAINT,
        )

    def add_real_pictures(self, column: Column) -> None:
        """Paste training pictures, as many as the page has room for."""
        self.add_label(["real pictures"], REAL_TOP)
        self._paste_strip(
            column.samples.real,
            left=FIRST_BLOCK,
            top=REAL_TOP,
            right=self.layout.width - MARGIN,
        )

    def add_head(self, number: int, block: Block) -> None:
        """Write the settings of a block above it, the last line right above the images."""
        left = self.layout.left(number)
        if block.is_base:
            self._shade(left)
        lines = self.layout.heads[number]
        bottom = self.layout.first_row - 2 * GAP
        top = bottom - len(lines) * HEAD_LINE
        for line in lines:
            value_left = left
            if line.name:
                value_left += head_width(f"{line.name} ")
            self._write(
                line.name,
                left=left,
                top=top,
                size=HEAD_SIZE,
                colour=FAINT,
            )
            self._write(
                line.value,
                left=value_left,
                top=top,
                size=HEAD_SIZE,
            )
            top += HEAD_LINE

    def add_cells(
        self,
        number: int,
        block: Block,
        row: int,
        text: str,
    ) -> None:
        """Paste the images of a prompt into a block, or say that there are none."""
        left = self.layout.left(number)
        top = self.layout.top(row)
        strip = block.rows.get(text, ())
        if not strip:
            self._write(
                "not asked",
                left=left,
                top=top + 6,
                size=LABEL_SIZE,
                colour=FAINT,
            )
            return
        self._paste_strip(
            strip[: self.layout.shown],
            left=left,
            top=top,
            right=left + self.layout.block_width,
        )

    def add_label(self, lines: Sequence[str], top: int) -> None:
        """Write what a row shows, left of it."""
        top += 6
        if lettering(LABEL_SIZE).is_plain("".join(lines)):
            self.pen.multiline_text(
                (MARGIN, top),
                "\n".join(lines),
                fill=INK,
                font=ImageFont.load_default(LABEL_SIZE),
                spacing=4,
            )
            return
        for line in lines:
            self._write(
                line,
                left=MARGIN,
                top=top,
                size=LABEL_SIZE,
            )
            top += LABEL_PITCH

    def add_line(self) -> None:
        """Rule a line above the figures, from margin to margin."""
        top = self.layout.foot_top - GAP
        right = self.layout.width - MARGIN
        self.pen.line((MARGIN, top, right, top), fill=LINE)

    def add_figures(
        self,
        measure: Measure,
        blocks: Sequence[Block],
        top: int,
    ) -> None:
        """Write what was measured below each block, the best of the adapters in green."""
        if any(measure.name in block.figures for block in blocks):
            self._write(
                measure.label,
                left=MARGIN,
                top=top,
                size=FIGURE_SIZE,
            )
        best = _figure_text(best_figure(measure, blocks))
        for number, block in enumerate(blocks):
            text = _figure_text(block.figures.get(measure.name))
            if not text:
                continue
            colour = INK
            if text == best and not block.is_base:  # figures that read the same are as good
                colour = BEST
            self._write(
                text,
                left=self.layout.left(number),
                top=top,
                size=FIGURE_SIZE,
                colour=colour,
            )

    def add_note(self, blocks: Sequence[Block], texts: Sequence[str]) -> None:
        """Say at the bottom that letters are written as codes, if some are."""
        written = list(texts)
        for block in blocks:
            written += [value for _, value in block.settings]
        if lettering(NOTE_SIZE).is_complete("".join(written)):
            return
        top = self.layout.height - MARGIN
        self._write(
            CODES,
            left=MARGIN,
            top=top,
            size=NOTE_SIZE,
            colour=FAINT,
        )

    def _write(
        self,
        text: str,
        *,
        left: int,
        top: int,
        size: int,
        colour: str = INK,
    ) -> None:
        fonts = lettering(size)
        if fonts.is_plain(text):
            self.pen.text(
                (left, top),
                text,
                fill=colour,
                font=ImageFont.load_default(size),
            )
            return
        base = top + size
        x = float(left)
        for run in fonts.runs(text):
            self.pen.text(
                (x, base),
                run.text,
                fill=colour,
                font=run.font,
                anchor="ls",
            )
            x += run.font.getlength(run.text)

    def _shade(self, left: int) -> None:
        """Shade what lies below a block."""
        right = left + self.layout.block_width
        area = (
            left - GUTTER // 2,
            self.layout.head_top - GAP,
            right + GUTTER // 2,
            self.layout.height - MARGIN // 2,
        )
        self.pen.rectangle(area, fill=SHADE)

    def _paste_strip(
        self,
        cells: Sequence[Image.Image],
        *,
        left: int,
        top: int,
        right: int,
    ) -> None:
        """Paste cells side by side, as many as end before `right`."""
        for cell in cells:
            if left + CELL > right:
                break
            self.page.paste(cell, (left, top))
            left += PITCH
