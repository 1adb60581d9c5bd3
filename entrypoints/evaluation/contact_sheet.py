"""One picture to judge an adapter by: a row for each prompt, without the adapter left and with it right."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from entrypoints.evaluation.samples import Sample
from orchestrator.contract.samples import CELL, Source

GAP = 4  # pixels, all of them
GUTTER = 24  # between before and after
LABEL_WIDTH = 230
TITLE_HEIGHT = 40
HEADING_HEIGHT = 30
MARGIN = 16
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)

FIRST_CELL = MARGIN + LABEL_WIDTH
REAL_TOP = MARGIN + TITLE_HEIGHT
HEADING_TOP = REAL_TOP + CELL + GUTTER
FIRST_ROW = HEADING_TOP + HEADING_HEIGHT


def contact_sheet(title: str, samples: Sequence[Sample]) -> Image.Image:
    """Lay samples out: a strip of real pictures, as many as there is room for, and below it a row for each prompt."""
    real = [sample.image for sample in samples if sample.about.source == "real"]
    before = images_by_text(samples, "before")
    after = images_by_text(samples, "after")
    columns = max(len(images) for images in [*before.values(), *after.values()])
    block_width = _width(columns)
    after_left = FIRST_CELL + block_width + GUTTER
    right = after_left + block_width
    bottom = FIRST_ROW + len(after) * (CELL + GAP)

    sheet = Image.new("RGB", (right + MARGIN, bottom + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=_font(22))
    _write_label(pen, "real pictures", REAL_TOP)
    room = (right - FIRST_CELL + GAP) // (CELL + GAP)
    _paste_strip(sheet, real[:room], FIRST_CELL, REAL_TOP)
    pen.text((FIRST_CELL, HEADING_TOP + 4), "before", fill=FAINT, font=_font(17))
    pen.text((after_left, HEADING_TOP + 4), "after", fill=FAINT, font=_font(17))
    prompts = {sample.about.text: sample.about.prompt for sample in samples if sample.about.source == "after"}
    for number, (text, prompt) in enumerate(prompts.items()):
        top = FIRST_ROW + number * (CELL + GAP)
        _write_label(pen, prompt, top)
        _paste_strip(sheet, before.get(text, []), FIRST_CELL, top)
        _paste_strip(sheet, after[text], after_left, top)
    return sheet


def images_by_text(samples: Sequence[Sample], source: Source) -> Mapping[str, list[Image.Image]]:
    """Return the images of one source, those of each prompt together."""
    found: dict[str, list[Image.Image]] = {}
    for sample in samples:
        if sample.about.source == source:
            found.setdefault(sample.about.text, []).append(sample.image)
    return found


def _width(columns: int) -> int:
    """Return the width of images side by side."""
    return columns * (CELL + GAP) - GAP


def _paste_strip(sheet: Image.Image, images: Sequence[Image.Image], left: int, top: int) -> None:
    """Put images side by side, each scaled to a cell."""
    for number, image in enumerate(images):
        cell = image.resize((CELL, CELL), Image.Resampling.BICUBIC)
        sheet.paste(cell, (left + number * (CELL + GAP), top))


def _write_label(pen: ImageDraw.ImageDraw, text: str, top: int) -> None:
    lines = wrap(text, 26)[:6]
    pen.multiline_text((MARGIN, top + 6), "\n".join(lines), fill=INK, font=_font(15), spacing=4)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
