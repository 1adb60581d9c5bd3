"""Layouts that no ControlNet was trained on: the same kind of scenes as the packaged ones, with other numbers."""

from pathlib import Path

from pretraining.captioned_sets import write_captioned
from pretraining.layouts import COUNT, SIDE, layout
from pretraining.pictures import draw

PICTURES = 12
README = "Layouts that training does not use, drawn like the packaged ones.\n"


def write_held_out(folder: Path) -> Path:
    """Write pictures and their captions to a folder and return it."""
    drawn = []
    for number in range(COUNT + 1, COUNT + 1 + PICTURES):
        scene = layout(number)
        drawn.append((scene, draw(scene, SIDE)))
    write_captioned(folder, "held-out", drawn, README)
    return folder
