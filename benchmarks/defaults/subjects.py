"""Two subjects: the packaged sample, and a star of two colours, so that one class is not the sample's.

The star is one that the base model cannot draw and that its CLIP still takes for a star. Of perfect pictures of a star
with bands, a border and a face, CLIP-T was -0.03 where that of plain stars is 0.32: prompt fidelity would only have
measured how unlike a star it is.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from orchestrator.contract.recipe import Recipe
from orchestrator.resources import SAMPLE_IMAGES
from pretraining.canvas import Canvas
from pretraining.pictures import OVERSAMPLING, background, star
from pretraining.scenes import COLOURS, PATTERNS, Background
from pretraining.subject import POSES, draw_subject

SAMPLE_NOUN = "monster"
SIZE = 256
"""Side of a drawn picture, pixels."""

TEAL = (20, 172, 165)
ORANGE = (250, 128, 20)
_ANGLE, _PITCH = 45, 0.2
"""Of patterned backgrounds."""


@dataclass(frozen=True)
class Place:
    """Where the star stands in a picture: fractions of the width, degrees."""

    background: Background
    x: float
    y: float
    radius: float
    tilt: float


PLACES = (
    Place(Background("plain", "white", 0, 0.2), 0.50, 0.52, 0.36, 0),
    Place(Background("striped", "purple", 45, 0.2), 0.45, 0.50, 0.33, -12),
    Place(Background("gradient", "blue", 45, 0.2), 0.56, 0.54, 0.38, 10),
    Place(Background("checkered", "green", 2, 0.22), 0.42, 0.56, 0.30, 16),
    Place(Background("dotted", "pink", 0, 0.2), 0.55, 0.46, 0.34, -18),
)


@dataclass(frozen=True)
class Subject:
    """Something to learn."""

    noun: str
    """Its class."""
    write: Callable[[Path], Path]
    """Writes its pictures to a folder where that is needed; returns where they are."""
    draw: Callable[[int, Background], Image.Image]
    """Draws what one of its pictures shows on another background."""

    def on(self, prompt: str, number: int) -> Image.Image:
        """Return a perfect answer to an evaluation prompt: the subject of one of its pictures on that background."""
        found = re.search(rf"on an? (?:({'|'.join(PATTERNS)}) )?({'|'.join(COLOURS)}) background", prompt)
        if found is None:
            raise ValueError(f'"{prompt}" names no background that can be drawn')
        pattern, colour = found.groups(default="plain")
        return self.draw(number, Background(pattern, colour, _ANGLE, _PITCH))

    def settings(self, recipe: type[Recipe]) -> dict[str, Any]:
        """Return the fields of a recipe that go with it: those of the sample, with its own class."""
        values = {}
        for name, value in recipe.sample_defaults.items():
            values[name] = value.replace(SAMPLE_NOUN, self.noun)
        return values

    @property
    def class_prompt(self) -> str:
        """What asks for any thing of its class."""
        return f"a photo of a {self.noun}"


def packaged(folder: Path) -> Path:  # noqa: ARG001 - nothing to write
    """Return the folder of the packaged sample."""
    return SAMPLE_IMAGES


def write_stars(folder: Path) -> Path:
    """Write five pictures of the star to a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, place in enumerate(PLACES, start=1):
        draw_star(place).save(folder / f"star-{number}.png")
    return folder


def draw_star(place: Place, size: int = SIZE) -> Image.Image:
    """Return the star as an RGB picture, orange above and teal below."""
    large = size * OVERSAMPLING
    image = background(place.background, large)
    canvas = Canvas(image, place.x * large, place.y * large, place.radius * large, place.tilt)
    outline = star()
    upper_half = [(-2.0, -2.0), (2.0, -2.0), (2.0, 0.0), (-2.0, 0.0)]
    canvas.polygon(outline, TEAL)
    canvas.inside(outline, [upper_half], ORANGE)
    return image.reduce(OVERSAMPLING)


def star_on(number: int, ground: Background) -> Image.Image:
    """Return the star of one of its pictures on another background."""
    return draw_star(replace(PLACES[number % len(PLACES)], background=ground))


def monster_on(number: int, ground: Background) -> Image.Image:
    """Return the sample monster in the pose of one of its pictures on another background."""
    return draw_subject(replace(POSES[number % len(POSES)], background=ground))


SUBJECTS = {
    "monster": Subject(SAMPLE_NOUN, packaged, monster_on),
    "star": Subject("star", write_stars, star_on),
}
