"""A small canvas that paints polygons in an object's own coordinates, tilted and scaled into the picture."""

import itertools
import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageChops, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]


def ellipse(x: float, y: float, rx: float, ry: float | None = None, *, corners: int = 40) -> list[Point]:
    """Return an ellipse as a polygon, so that it can be tilted like everything else."""
    ry = rx if ry is None else ry
    turns = [2 * math.pi * k / corners for k in range(corners)]
    return [(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns]


def superellipse(x: float, y: float, rx: float, ry: float, power: float, *, corners: int = 60) -> list[Point]:
    """Return a polygon between an ellipse (`power` 2) and a rectangle (large `power`)."""
    points = []
    for k in range(corners):
        c, s = math.cos(2 * math.pi * k / corners), math.sin(2 * math.pi * k / corners)
        points.append(
            (x + rx * math.copysign(abs(c) ** (2 / power), c), y + ry * math.copysign(abs(s) ** (2 / power), s))
        )
    return points


def ribbon(points: Sequence[Point], width: float) -> Iterable[list[Point]]:
    """Return the discs and quadrilaterals that make a thick line with round joints."""
    for x, y in points:
        yield ellipse(x, y, width / 2, corners=16)
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        length = math.hypot(bx - ax, by - ay) or 1.0
        nx, ny = -(by - ay) / length * width / 2, (bx - ax) / length * width / 2
        yield [(ax + nx, ay + ny), (bx + nx, by + ny), (bx - nx, by - ny), (ax - nx, ay - ny)]


class Canvas:
    """An RGB picture with a local frame: the object's centre is (0, 0), its radius 1, y points down."""

    def __init__(self, image: Image.Image, x: float, y: float, radius: float, tilt: float) -> None:
        """Take the picture to paint on and the object's place in it, all but `tilt` (degrees) in pixels."""
        self.image = image
        self._draw = ImageDraw.Draw(image)
        cos, sin = radius * math.cos(math.radians(tilt)), radius * math.sin(math.radians(tilt))
        self._matrix = (cos, -sin, x, sin, cos, y)

    def pixels(self, points: Iterable[Point]) -> list[Point]:
        """Map points of the local frame to pixels."""
        a, b, x, c, d, y = self._matrix
        return [(a * px + b * py + x, c * px + d * py + y) for px, py in points]

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        """Fill one polygon."""
        self._draw.polygon(self.pixels(points), fill=colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a thick line with round ends and joints."""
        for part in ribbon(points, width):
            self.polygon(part, colour)

    def inside(self, outline: Iterable[Point], parts: Iterable[Iterable[Point]], colour: Colour) -> None:
        """Fill the polygons `parts`, cut off at the polygon `outline`."""
        self.image.paste(colour, mask=ImageChops.darker(self.mask([outline]), self.mask(parts)))

    def outside(self, outline: Iterable[Point], hole: Iterable[Point], colour: Colour) -> None:
        """Fill the polygon `outline` but for the polygon `hole`."""
        self.image.paste(colour, mask=ImageChops.subtract(self.mask([outline]), self.mask([hole])))

    def mask(self, parts: Iterable[Iterable[Point]]) -> Image.Image:
        """Return a picture-sized mask (mode L) that is 255 inside any of the polygons."""
        mask = Image.new("L", self.image.size)
        draw = ImageDraw.Draw(mask)
        for part in parts:
            draw.polygon(self.pixels(part), fill=255)
        return mask
