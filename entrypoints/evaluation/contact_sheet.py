"""One picture to judge an adapter by: a row for each prompt, without the adapter left and with it right."""

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from entrypoints.evaluation.samples import IndexedImage
from orchestrator.contract.samples import CELL, Source

# All lengths are pixels.
MARGIN = 16
LABEL_WIDTH = 230
GAP = 4
PITCH = CELL + GAP
"""From one cell to the next."""
GUTTER = 24
"""Between before and after."""
TITLE_HEIGHT = 40
HEADING_HEIGHT = 30

FIRST_CELL = MARGIN + LABEL_WIDTH
REAL_TOP = MARGIN + TITLE_HEIGHT
HEADING_TOP = REAL_TOP + CELL + GUTTER
FIRST_ROW = HEADING_TOP + HEADING_HEIGHT

PAPER = "#ffffff"
INK = "#141414"
FAINT = "#6e6e6e"
_LABEL_LINES = 6
_LABEL_LETTERS = 26
"""In a line."""


def contact_sheet(title: str, samples: Sequence[IndexedImage]) -> Image.Image:
    """Lay samples out: a strip of real pictures, as many as there is room for, and below it a row for each prompt."""
    real = [sample.image for sample in samples if sample.about.source == "real"]
    before = _images_by_text(samples, "before")
    after = _images_by_text(samples, "after")
    columns = 0
    for images in [*before.values(), *after.values()]:
        columns = max(columns, len(images))

    block_width = columns * PITCH - GAP
    after_left = FIRST_CELL + block_width + GUTTER
    right = after_left + block_width
    bottom = FIRST_ROW + len(after) * PITCH
    sheet = Image.new("RGB", (right + MARGIN, bottom + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=_font(22))

    _write_label(pen, "real pictures", REAL_TOP)
    room = (right - FIRST_CELL + GAP) // PITCH
    _paste_strip(sheet, real[:room], FIRST_CELL, REAL_TOP)

    _write_heading(pen, "before", FIRST_CELL)
    _write_heading(pen, "after", after_left)
    top = FIRST_ROW
    for text, prompt in _prompts_by_text(samples).items():
        _write_label(pen, prompt, top)
        _paste_strip(sheet, before[text], FIRST_CELL, top)
        _paste_strip(sheet, after[text], after_left, top)
        top += PITCH
    return sheet


def _prompts_by_text(samples: Sequence[IndexedImage]) -> dict[str, str]:
    """Return each prompt as the adapter was asked, by its text without the subject's own word."""
    prompts = {}
    for sample in samples:
        about = sample.about
        if about.source == "after":
            prompts[about.text] = about.prompt
    return prompts


def _images_by_text(
    samples: Sequence[IndexedImage],
    source: Source,
) -> dict[str, list[Image.Image]]:
    """Return the images of one source, those of each prompt together."""
    found: dict[str, list[Image.Image]] = {}
    for sample in samples:
        if sample.about.source == source:
            images = found.setdefault(sample.about.text, [])
            images.append(sample.image)
    return found


def _paste_strip(
    sheet: Image.Image,
    images: Sequence[Image.Image],
    left: int,
    top: int,
) -> None:
    """Put images side by side, each scaled to a cell."""
    for image in images:
        cell = image.resize((CELL, CELL), Image.Resampling.BICUBIC)
        sheet.paste(cell, (left, top))
        left += PITCH


def _write_heading(
    pen: ImageDraw.ImageDraw,
    text: str,
    left: int,
) -> None:
    """Write what a block shows, above it."""
    pen.text(
        (left, HEADING_TOP + 4),
        text,
        fill=FAINT,
        font=_font(17),
    )


def _write_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    top: int,
) -> None:
    """Write what a row shows, left of it."""
    lines = wrap(text, _LABEL_LETTERS)
    pen.multiline_text(
        (MARGIN, top + 6),
        "\n".join(lines[:_LABEL_LINES]),
        fill=INK,
        font=_font(15),
        spacing=4,
    )


def _font(
    size: int,
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font: the same letters on every machine."""
    return ImageFont.load_default(size)
