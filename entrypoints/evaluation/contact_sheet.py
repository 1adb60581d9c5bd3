"""One picture to judge an adapter by: a row for each prompt, without the adapter left and with it right."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from entrypoints.evaluation.samples import IndexedImage
from orchestrator.contract.lettering import CODES, Lettering, Room, load_fonts
from orchestrator.contract.samples import CELL, Source

PillowFont = ImageFont.FreeTypeFont | ImageFont.ImageFont

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

# Sizes of letters, pixels.
TITLE_SIZE = 22
HEADING_SIZE = 17
LABEL_SIZE = 15
LABEL_PITCH = 20
"""From one line of a label to the next."""
NOTE_SIZE = 12

PAPER = "#ffffff"
INK = "#141414"
FAINT = "#6e6e6e"
_LABEL = Room(
    letters=26,
    width=LABEL_WIDTH - 2 * GAP,
    lines=6,
)


def contact_sheet(title: str, samples: Sequence[IndexedImage]) -> Image.Image:
    """Lay samples out: a strip of real pictures, as many as there is room for, and below it a row for each prompt.

    Where a ControlNet was shown something for the prompts, it stands between the images before and after.
    """
    real = []
    for sample in samples:
        if sample.about.source == "real":
            real.append(sample.image)
    before = _images_by_text(samples, "before")
    after = _images_by_text(samples, "after")
    conditions = _images_by_text(samples, "condition")
    columns = 0
    for images in [*before.values(), *after.values()]:
        columns = max(columns, len(images))

    block_width = columns * PITCH - GAP
    condition_left = FIRST_CELL + block_width + GUTTER
    after_left = condition_left
    if conditions:
        after_left += CELL + GUTTER
    right = after_left + block_width
    bottom = FIRST_ROW + len(after) * PITCH
    sheet = Image.new("RGB", (right + MARGIN, bottom + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(
        pen,
        _lettering(TITLE_SIZE).shortened(title, right - MARGIN),
        MARGIN,
        MARGIN,
        TITLE_SIZE,
    )

    _write_label(pen, ["real pictures"], REAL_TOP)
    room = (right - FIRST_CELL + GAP) // PITCH
    _paste_strip(sheet, real[:room], FIRST_CELL, REAL_TOP)

    _write_heading(pen, "before", FIRST_CELL)
    if conditions:
        _write_heading(pen, "condition", condition_left)
    _write_heading(pen, "after", after_left)
    prompts = _prompts_by_text(samples)
    blocks = {FIRST_CELL: before, after_left: after}
    if conditions:
        blocks[condition_left] = conditions
    _paste_rows(sheet, pen, prompts, blocks)
    _write_note(pen, [title, *prompts.values()], bottom)
    return sheet


def _paste_rows(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    prompts: Mapping[str, str],
    blocks: Mapping[int, Mapping[str, Sequence[Image.Image]]],
) -> None:
    """Put a row for each prompt onto the sheet: its label, and its images in blocks by their left edges."""
    labels = _lettering(LABEL_SIZE).labels(list(prompts.values()), _LABEL)
    top = FIRST_ROW
    for text, label in zip(prompts, labels, strict=True):
        _write_label(pen, label, top)
        for left, images in blocks.items():
            _paste_strip(sheet, images.get(text, []), left, top)
        top += PITCH


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
    _write(
        pen,
        text,
        left,
        HEADING_TOP + 4,
        HEADING_SIZE,
        FAINT,
    )


def _write_label(
    pen: ImageDraw.ImageDraw,
    lines: Sequence[str],
    top: int,
) -> None:
    """Write what a row shows, left of it."""
    top += 6
    if _lettering(LABEL_SIZE).is_plain("".join(lines)):
        pen.multiline_text(
            (MARGIN, top),
            "\n".join(lines),
            fill=INK,
            font=ImageFont.load_default(LABEL_SIZE),
            spacing=4,
        )
        return
    for line in lines:
        _write(
            pen,
            line,
            MARGIN,
            top,
            LABEL_SIZE,
        )
        top += LABEL_PITCH


def _write_note(
    pen: ImageDraw.ImageDraw,
    texts: Sequence[str],
    top: int,
) -> None:
    """Say that letters are written as codes, if some are."""
    if _lettering(LABEL_SIZE).is_complete("".join(texts)):
        return
    _write(
        pen,
        CODES,
        MARGIN,
        top,
        NOTE_SIZE,
        FAINT,
    )


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    left: int,
    top: int,
    size: int,
    colour: str = INK,
) -> None:
    """Write one line, each letter in a font that has it, all on the base line of Pillow's own font."""
    lettering = _lettering(size)
    if lettering.is_plain(text):
        own = ImageFont.load_default(size)
        pen.text(
            (left, top),
            text,
            fill=colour,
            font=own,
        )
        return
    base = top + size
    x = float(left)
    for run in lettering.runs(text):
        pen.text(
            (x, base),
            run.text,
            fill=colour,
            font=run.font,
            anchor="ls",
        )
        x += run.font.getlength(run.text)


@cache
def _lettering(size: int) -> Lettering[PillowFont]:
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
