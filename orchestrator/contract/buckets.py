"""Sizes at which pictures of different shapes are trained: as much area as a square has, each in a shape near its own.

The samples of a forward pass have one size, so the pictures of a data set are sorted into a few of them.
"""

import math
from typing import NamedTuple

MOST_STRETCHED = 2
"""The longest side of a size is so many times the side of the square."""


class Size(NamedTuple):
    """A size in pixels."""

    width: int
    height: int


def bucket_sizes(resolution: int, step: int) -> list[Size]:
    """Return the sizes with sides that are multiples of `step` and at most the area of a square of `resolution`.

    For each width the tallest is taken, and for each height the widest. Both orders of the sides are there. Only the
    square where `step` leaves none.
    """
    area = resolution**2
    sizes: set[Size] = set()
    for width in range(step, MOST_STRETCHED * resolution + 1, step):
        height = area // width // step * step
        if 0 < height <= MOST_STRETCHED * resolution:
            sizes.add(Size(width, height))
            sizes.add(Size(height, width))
    return sorted(sizes) or [Size(resolution, resolution)]


def nearest_size(picture: Size, sizes: list[Size]) -> Size:
    """Return the size whose shape is nearest to a picture's, the largest of those that are equally near.

    Shapes are compared by the logarithm of width over height, so that twice as wide is as far as twice as tall.
    """
    shape = math.log(picture.width / picture.height)

    def distance(size: Size) -> tuple[float, int]:
        other = math.log(size.width / size.height)
        return round(abs(shape - other), 9), -size.width * size.height

    return min(sizes, key=distance)
