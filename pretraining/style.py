"""The sample style: drawn scenes as coloured ink on paper, each with a caption that does not speak of the style.

Black outlines and hatching on cream paper: nothing that `pretraining.pictures` draws looks like it.
"""

from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from pretraining.captioned_sets import write_captioned
from pretraining.colours import INK
from pretraining.pictures import draw
from pretraining.scenes import Background, Scene, generator, place

STYLE_SIZE = 128
DRAWN = 512
"""Side of the picture that is turned into ink and then reduced."""
PAPER = (246, 232, 200)
HATCHING = 80
"""Pixels from one line of the hatching to the next."""
OUTLINE = 15
COLOURS = 96
EDGE = 24
"""Change of a colour, of 255, from which there is an outline."""
SUBJECTS = (
    ("circle", "red", "blue"),
    ("star", "yellow", "purple"),
    ("heart", "pink", "green"),
    ("square", "green", "orange"),
    ("triangle", "blue", "yellow"),
    ("diamond", "purple", "white"),
    ("ring", "orange", "black"),
    ("cross", "red", "yellow"),
    ("circle", "green", "pink"),
    ("star", "blue", "red"),
    ("heart", "red", "white"),
    ("square", "purple", "blue"),
    ("triangle", "orange", "green"),
    ("diamond", "yellow", "red"),
    ("monster", "green", "blue"),
    ("monster", "purple", "yellow"),
)
README = """# Sample style

Scenes in coloured ink on paper, drawn by program for this project, each with a caption: a style that the built-in base
model has never seen, for the recipe lora. Made by `python -m pretraining style`; licence Apache-2.0, like the rest of
the repository.
"""


def write_style(folder: Path) -> list[Path]:
    """Write style-01.png ..., their captions and their README to a folder; return the pictures' paths."""
    drawn = []
    for number, (kind, colour, ground) in enumerate(SUBJECTS, start=1):
        rng = generator("style", number)
        scene = place(rng, kind, colour, Background("plain", ground, angle=0, pitch=1))
        drawn.append((scene, inked(scene).quantize(COLOURS)))
    return write_captioned(folder, "style", drawn, README)


def inked(scene: Scene, size: int = STYLE_SIZE) -> Image.Image:
    """Return a scene in the style: its colours as hatching on paper, with outlines where they change."""
    plain = draw(scene, DRAWN)
    picture = Image.composite(plain, Image.new("RGB", plain.size, PAPER), hatching(plain.width))
    picture.paste(INK, mask=outlines(plain))
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def hatching(side: int) -> Image.Image:
    """Return a mask of diagonal lines, 255 where there is ink."""
    mask = Image.new("L", (side, side))
    painter = ImageDraw.Draw(mask)
    for start in range(-side, side, HATCHING):
        painter.line([(start, side), (start + side, 0)], fill=255, width=HATCHING // 2)
    return mask


def outlines(picture: Image.Image) -> Image.Image:
    """Return a mask of the places where the colour changes, 255 on an outline."""
    changes = picture.filter(ImageFilter.FIND_EDGES)
    red, green, blue = changes.split()
    strongest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    edges = strongest.point([255 if change > EDGE else 0 for change in range(256)])
    frame = ImageDraw.Draw(edges)
    frame.rectangle((0, 0, edges.width - 1, edges.height - 1), outline=0, width=2)  # the filter's own border
    return edges.filter(ImageFilter.MaxFilter(OUTLINE))
