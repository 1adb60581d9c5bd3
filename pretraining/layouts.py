"""The sample of layouts: drawn shapes of all sizes and places on plain grounds, each with a caption that names neither.

So a model that is asked for the caption alone puts the shape where it likes, and one with a ControlNet where its
condition says.
"""

from dataclasses import replace
from pathlib import Path

from pretraining.captioned_sets import write_captioned
from pretraining.pictures import draw
from pretraining.scenes import COLOURS, SHAPES, Background, Scene, generator, place

COUNT = 48
SIDE = 128
LEVELS = 32
"""Colours of a file."""
CONTRAST = 70
"""Least difference of grey, of 255, between a shape and its ground: edges are those of the grey picture."""
README = """# Sample layouts

Shapes of all sizes and places on plain grounds, drawn by program for this project, each with a caption: for the recipe
controlnet. Made by `python -m pretraining layouts`; licence Apache-2.0, like the rest of the repository.
"""


def write_layouts(folder: Path) -> list[Path]:
    """Write layout-01.png ..., their captions and their README to a folder; return the pictures' paths."""
    drawn = []
    for number in range(1, COUNT + 1):
        scene = layout(number)
        drawn.append((scene, draw(scene, SIDE).quantize(LEVELS)))
    return write_captioned(folder, "layout", drawn, README)


def layout(number: int) -> Scene:
    """Return one scene: the kinds of shapes take turns, all else is drawn."""
    rng = generator("layout", number)
    kind = SHAPES[number % len(SHAPES)]
    colour, ground = rng.sample(tuple(COLOURS), 2)
    while abs(brightness(colour) - brightness(ground)) < CONTRAST:
        colour, ground = rng.sample(tuple(COLOURS), 2)
    scene = place(rng, kind, colour, Background("plain", ground, 0, 0.2))
    radius = rng.uniform(0.16, 0.36)
    reach = 0.47 - radius
    return replace(
        scene,
        radius=radius,
        x=0.5 + rng.uniform(-reach, reach),
        y=0.5 + rng.uniform(-reach, reach),
        tilt=rng.uniform(-30, 30),
    )


def brightness(name: str) -> float:
    """Return the grey value of a named colour, from 0 to 255 (ITU-R BT.601)."""
    red, green, blue = COLOURS[name]
    return 0.299 * red + 0.587 * green + 0.114 * blue
