"""Paints toy monsters: a body with eyes and a mouth, limbs, something on the head, spots or stripes."""

from pretraining.canvas import Canvas, Colour, Point, ellipse, superellipse
from pretraining.colours import INK, PAPER, mixed, shaded
from pretraining.scenes import Monster

BODY_SHAPES = {
    "round": (0.72, 0.72, 2.0),
    "tall": (0.52, 0.85, 2.6),
    "wide": (0.95, 0.55, 2.4),
    "square": (0.72, 0.7, 6.0),
}
"""Half width, half height and power of each body's superellipse, in radii."""
SPOTS = ((-0.7, 0.35), (0.72, 0.25), (-0.3, 0.8), (0.4, 0.72), (-0.8, -0.3), (0.75, -0.4))
STRIPES = (-0.88, 0.3, 0.78)
LEG_SPREAD = {2: 0.95, 3: 0.6}
TOP_SPREAD = {1: 0.9, 2: 0.9, 3: 0.55}
EYE_RADII = {1: 0.27, 2: 0.19, 3: 0.15}
DARK_GREEN = 60  # level of green below which a body counts as dark, so that its limbs are lighter


def paint_monster(canvas: Canvas, looks: Monster, colour: Colour) -> None:
    """Paint a toy monster from back to front."""
    rx, ry, power = BODY_SHAPES[looks.body]
    body = superellipse(0, 0, rx, ry, power)
    limb = mixed(colour, INK if colour[1] > DARK_GREEN else PAPER, 0.3)
    paint_limbs(canvas, looks, rx, ry, limb)
    paint_top(canvas, looks, rx, ry, shaded(looks.top_colour, 0))
    canvas.polygon(body, colour)
    paint_skin(canvas, looks, body, rx, ry)
    paint_face(canvas, looks, rx, ry)


def paint_skin(canvas: Canvas, looks: Monster, body: list[Point], rx: float, ry: float) -> None:
    """Paint spots or stripes, cut off at the body's outline."""
    parts: list[list[Point]] = []
    if looks.skin == "spots":
        parts = [ellipse(x * rx, y * ry, 0.16) for x, y in SPOTS]
    elif looks.skin == "stripes":
        parts = [[(-2, y * ry), (2, y * ry), (2, y * ry + 0.16), (-2, y * ry + 0.16)] for y in STRIPES]
    canvas.inside(body, parts, shaded(looks.skin_colour, 0))


def paint_limbs(canvas: Canvas, looks: Monster, rx: float, ry: float, colour: Colour) -> None:
    """Paint legs below the body and arms at its sides."""
    for k in range(looks.legs):
        x = (k - (looks.legs - 1) / 2) * rx * LEG_SPREAD[looks.legs]
        canvas.line([(x, ry * 0.6), (x, ry + 0.28)], 0.22, colour)
        canvas.polygon(ellipse(x + 0.06, ry + 0.32, 0.2, 0.11), colour)
    rise = {"up": -0.5, "down": 0.45}.get(looks.arms)
    for side in (-1, 1) if rise is not None else ():
        canvas.line(
            [(side * rx * 0.8, 0.05), (side * (rx + 0.22), 0.05 + rise * 0.4), (side * (rx + 0.3), 0.05 + rise)],
            0.17,
            colour,
        )


def paint_top(canvas: Canvas, looks: Monster, rx: float, ry: float, colour: Colour) -> None:
    """Paint what grows on the head: straight horns, round ears or thin antennae."""
    for k in range(looks.top_count):
        x = (k - (looks.top_count - 1) / 2) * rx * TOP_SPREAD[looks.top_count]
        lean = x * 0.25
        if looks.top == "horns":
            canvas.polygon([(x - 0.17, -ry * 0.7), (x + 0.17, -ry * 0.7), (x + lean, -ry - 0.42)], colour)
        elif looks.top == "ears":
            canvas.polygon(ellipse(x, -ry - 0.02, 0.22), colour)
        elif looks.top == "antennae":
            canvas.line([(x, -ry * 0.7), (x + lean, -ry - 0.3)], 0.08, colour)
            canvas.polygon(ellipse(x + lean, -ry - 0.32, 0.13), colour)


def paint_face(canvas: Canvas, looks: Monster, rx: float, ry: float) -> None:
    """Paint the eyes in a row and the mouth below them."""
    radius = EYE_RADII[looks.eyes]
    for k in range(looks.eyes):
        x, y = (k - (looks.eyes - 1) / 2) * min(radius * 2.3, rx * 0.8), -ry * 0.22
        canvas.polygon(ellipse(x, y, radius + 0.04), INK)
        canvas.polygon(ellipse(x, y, radius), PAPER)
        canvas.polygon(ellipse(x, y + 0.02, radius * 0.5), INK)
    y = ry * 0.42
    if looks.mouth == "smile":
        canvas.line(
            [(-0.26, y - 0.06), (-0.13, y + 0.04), (0, y + 0.07), (0.13, y + 0.04), (0.26, y - 0.06)], 0.09, INK
        )
    else:
        canvas.polygon(ellipse(0, y, 0.27, 0.17), INK)
        if looks.mouth == "teeth":
            for x in (-0.12, 0.12):
                canvas.polygon([(x - 0.09, y - 0.16), (x + 0.09, y - 0.16), (x, y + 0.06)], PAPER)
