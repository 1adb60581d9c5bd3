"""One picture to judge an adapter by: a row for each prompt, without the adapter left and with it right."""

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from orchestrator.contract.contact_sheet import SheetBlock, SheetLayout, SheetRow

TILE = 128  # pixels; small pictures are enlarged to it
GAP = 4
GUTTER = 24  # between before and after
LABEL_WIDTH = 230
TITLE_HEIGHT = 40
HEADING_HEIGHT = 30
MARGIN = 16
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def sheet_layout(title: str, rows: Sequence[SheetRow], real: int, columns: int) -> SheetLayout:
    """Lay out a strip of `real` pictures, and below it `columns` pictures before and after for each prompt."""
    block = columns * (TILE + GAP) - GAP
    left = MARGIN + LABEL_WIDTH
    first_row = MARGIN + TITLE_HEIGHT + TILE + GUTTER + HEADING_HEIGHT
    strip = min(real, (2 * block + GUTTER + GAP) // (TILE + GAP))
    return SheetLayout(
        title=title,
        tile=TILE,
        gap=GAP,
        rows=tuple(rows),
        real=SheetBlock(left=left, top=MARGIN + TITLE_HEIGHT, rows=1, columns=strip),
        before=SheetBlock(left=left, top=first_row, rows=len(rows), columns=columns),
        after=SheetBlock(left=left + block + GUTTER, top=first_row, rows=len(rows), columns=columns),
    )


def contact_sheet(
    layout: SheetLayout, real: Sequence[Image.Image], before: Sequence[Image.Image], after: Sequence[Image.Image]
) -> Image.Image:
    """Draw a sheet; `before` and `after` hold the pictures row by row."""
    width, height = layout.pixels()
    sheet = Image.new("RGB", (width + MARGIN, height + GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), layout.title, fill=INK, font=_font(22))
    _label(pen, "real pictures", layout.real.top)
    for heading, block in (("before", layout.before), ("after", layout.after)):
        pen.text((block.left, block.top - HEADING_HEIGHT + 4), heading, fill=FAINT, font=_font(17))
    for number, row in enumerate(layout.rows):
        _label(pen, row.prompt, layout.corner(layout.before, number, 0)[1])
    for block, images in ((layout.real, real), (layout.before, before), (layout.after, after)):
        _tiles(sheet, layout, block, images)
    return sheet


def _tiles(sheet: Image.Image, layout: SheetLayout, block: SheetBlock, images: Sequence[Image.Image]) -> None:
    for number, image in enumerate(images[: block.rows * block.columns]):
        place = layout.corner(block, *divmod(number, block.columns))
        sheet.paste(image.resize((layout.tile, layout.tile), Image.Resampling.BICUBIC), place)


def _label(pen: ImageDraw.ImageDraw, text: str, top: int) -> None:
    lines = "\n".join(wrap(text, 26)[:6])
    pen.multiline_text((MARGIN, top + 6), lines, fill=INK, font=_font(15), spacing=4)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
