"""Whether a model still draws something, and something else for each prompt."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from PIL import Image

SIDE = 32
"""Images are looked at so small, in pixels: noise is no content."""
CONSTANT = 3.0
"""Levels of 255 by which the pixels of an image differ when nothing is on it."""
VARIED = 8.0
"""Levels by which the base's images of different prompts differ, from which a loss of that can be told."""
DARK = 20
LIGHT = 235
LOST = 0.15
"""Share of what the base's images have, below which it is lost."""


def doubt_of(images: Sequence[Image.Image], before: Sequence[Image.Image]) -> str | None:
    """Return what is wrong with images, one for each prompt; None where nothing is.

    `before` are those of the base model for the same prompts and seed, in the same order; none where they are not at
    hand.
    """
    small = [_small(image) for image in images]
    base = [_small(image) for image in before]
    least = CONSTANT
    if base:
        least = max(least, LOST * contrast(base))
    if contrast(small) < least:
        level = np.mean(small)
        colour = "of one colour"
        if level < DARK:
            colour = "black"
        if level > LIGHT:
            colour = "white"
        return f"The validation images are {colour} all over, or nearly so"
    if len(small) > 1 and len(base) == len(small):
        usual = variety(base)
        if usual > VARIED and variety(small) < LOST * usual:
            return (
                "The validation images of different prompts are nearly the same, which those of the base model are not"
            )
    return None


def contrast(images: Sequence[np.ndarray]) -> float:
    """Return the standard deviation of the pixels of an image, the mean over images, in levels of 255."""
    return float(np.mean([image.std(axis=(0, 1)).max() for image in images]))


def variety(images: Sequence[np.ndarray]) -> float:
    """Return the root mean square difference of two images, the mean over pairs, in levels of 255."""
    distances = [np.sqrt(np.square(one - other).mean()) for one, other in combinations(images, 2)]
    return float(np.mean(distances))


def _small(image: Image.Image) -> np.ndarray:
    """Return an image as (SIDE, SIDE, 3), 0 to 255."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
