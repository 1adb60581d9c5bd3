"""Named colours as pixels: lighter, darker, mixed."""

from pretraining.canvas import Colour
from pretraining.scenes import COLOURS

SHADE_STEP = 14  # largest change of one named colour, in levels of 255
INK = (30, 30, 36)
PAPER = (250, 250, 250)


def shaded(name: str, shade: float) -> Colour:
    """Return the named colour, a little lighter (`shade` towards 1) or darker (towards -1)."""
    red, green, blue = (max(0, min(255, round(v + shade * SHADE_STEP))) for v in COLOURS[name])
    return red, green, blue


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """Return `colour` with a share of `other` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue
