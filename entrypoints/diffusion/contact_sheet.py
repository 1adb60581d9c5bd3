"""One picture to judge an adapter by: a row for each prompt, without the adapter left and with it right."""

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

TILE = 128  # pixels; small pictures are enlarged to it
GAP = 4
GUTTER = 24  # between before and after
LABEL_WIDTH = 230
TITLE_HEIGHT = 40
HEADING_HEIGHT = 30
MARGIN = 16
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def contact_sheet(
    title: str,
    rows: Sequence[str],
    real: Sequence[Image.Image],
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
    columns: int,
) -> Image.Image:
    """Lay out the real pictures in a strip, and below it `columns` pictures before and after for each prompt of `rows`.

    `before` and `after` hold the pictures row by row.
    """
    block = columns * (TILE + GAP) - GAP
    width = 2 * MARGIN + LABEL_WIDTH + 2 * block + GUTTER
    strip = (width - 2 * MARGIN - LABEL_WIDTH + GAP) // (TILE + GAP)
    first_row = MARGIN + TITLE_HEIGHT + TILE + GUTTER + HEADING_HEIGHT
    sheet = Image.new("RGB", (width, first_row + len(rows) * (TILE + GAP) + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=_font(22))
    left = MARGIN + LABEL_WIDTH
    _label(pen, "real pictures", MARGIN + TITLE_HEIGHT)
    _tiles(sheet, real[:strip], left, MARGIN + TITLE_HEIGHT)
    for heading, images, start in (("before", before, left), ("after", after, left + block + GUTTER)):
        pen.text((start, first_row - HEADING_HEIGHT + 4), heading, fill=FAINT, font=_font(17))
        for number in range(len(rows)):
            some = images[number * columns : (number + 1) * columns]
            _tiles(sheet, some, start, first_row + number * (TILE + GAP))
    for number, prompt in enumerate(rows):
        _label(pen, prompt, first_row + number * (TILE + GAP))
    return sheet


def _tiles(sheet: Image.Image, images: Sequence[Image.Image], left: int, top: int) -> None:
    for number, image in enumerate(images):
        sheet.paste(image.resize((TILE, TILE), Image.Resampling.BICUBIC), (left + number * (TILE + GAP), top))


def _label(pen: ImageDraw.ImageDraw, text: str, top: int) -> None:
    lines = "\n".join(wrap(text, 26)[:6])
    pen.multiline_text((MARGIN, top + 6), lines, fill=INK, font=_font(15), spacing=4)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
