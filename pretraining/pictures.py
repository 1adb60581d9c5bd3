"""Draws a scene: background, then a plain shape or a monster, painted large and reduced to the wanted size."""

import math

from PIL import Image

from pretraining.canvas import Canvas, Colour, Point, ellipse
from pretraining.colours import mixed, shaded
from pretraining.monsters import paint_monster
from pretraining.scenes import Background, Scene

SIZE = 64
OVERSAMPLING = 4


def draw(scene: Scene, size: int = SIZE) -> Image.Image:
    """Return the scene as an RGB picture of `size` x `size` pixels; equal scenes give equal pixels."""
    large = size * OVERSAMPLING
    image = background(scene.background, large, scene.shade[1])
    canvas = Canvas(image, scene.x * large, scene.y * large, scene.radius * large, scene.tilt)
    colour = shaded(scene.colour, scene.shade[0])
    if scene.monster is None:
        shape(canvas, scene.kind, colour)
    else:
        paint_monster(canvas, scene.monster, colour)
    return image.reduce(OVERSAMPLING)


def tint(name: str, colour: Colour) -> Colour:
    """Return the second tone of a patterned background: lighter, or darker for what is light already."""
    if name in {"white", "yellow", "pink"}:
        return mixed(colour, (90, 80, 70), 0.35)
    return mixed(colour, (255, 255, 255), 0.3 if name == "black" else 0.38)


def background(ground: Background, size: int, shade: float = 0.0) -> Image.Image:
    """Return the background as an RGB picture of `size` x `size` pixels."""
    colour = shaded(ground.colour, shade)
    second = tint(ground.colour, colour)
    image = Image.new("RGB", (size, size), colour)
    if ground.pattern == "gradient":
        ramp = Image.linear_gradient("L").rotate(90 * round(ground.angle / 45)).resize((size, size))
        image.paste(mixed(colour, second, 1.3), mask=ramp)
    elif ground.pattern != "plain":
        paint_pattern(image, ground, second)
    return image


def paint_pattern(image: Image.Image, ground: Background, colour: Colour) -> None:
    """Paint stripes, dots or squares of a second tone over the whole picture."""
    canvas = Canvas(image, image.width / 2, image.width / 2, image.width * ground.pitch, ground.angle)
    cells = range(-6, 7)
    if ground.pattern == "striped":
        for i in cells[::2]:
            canvas.polygon([(i, -9), (i + 1, -9), (i + 1, 9), (i, 9)], colour)
        return
    for i in cells:
        for j in cells:
            if ground.pattern == "dotted":
                canvas.polygon(ellipse(i + j % 2 / 2, j, 0.27, corners=20), colour)
            elif (i + j) % 2:
                canvas.polygon([(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)], colour)


def star() -> list[Point]:
    """Return a star of five points."""
    spokes = [(1.12 if k % 2 == 0 else 0.46, math.pi * (k / 5 - 0.5)) for k in range(10)]
    return [(r * math.cos(t), r * math.sin(t)) for r, t in spokes]


def heart() -> list[Point]:
    """Return the well-known trigonometric heart curve."""
    points = []
    for k in range(60):
        t = 2 * math.pi * k / 60
        y = (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)) / 15.5
        points.append((math.sin(t) ** 3 * 1.05, -y))
    return points


def cross(arm: float = 0.33) -> list[Point]:
    """Return a plus sign whose arms are `2 * arm` wide."""
    corners: tuple[Point, ...] = (
        (-arm, -1.0),
        (arm, -1.0),
        (arm, -arm),
    )  # of the upper arm; the others are quarter turns of it
    points: list[Point] = []
    for _ in range(4):
        points += corners
        corners = tuple((-y, x) for x, y in corners)
    return points


OUTLINES = {
    "circle": ellipse(0, 0, 1),
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1), (1.05, 0.8), (-1.05, 0.8)],
    "star": star(),
    "heart": heart(),
    "cross": cross(),
    "diamond": [(0, -1.15), (0.75, 0), (0, 1.15), (-0.75, 0)],
}


def shape(canvas: Canvas, kind: str, colour: Colour) -> None:
    """Paint a plain shape; a ring is a circle with a hole through which the background shows."""
    if kind == "ring":
        canvas.outside(ellipse(0, 0, 1.05), ellipse(0, 0, 0.55), colour)
    else:
        canvas.polygon(OUTLINES[kind], colour)
