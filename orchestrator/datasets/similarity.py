"""Pictures that are the same, or nearly."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.datasets.findings import Findings

if TYPE_CHECKING:
    from PIL import Image

NEAR_BITS = 6  # of 64; resized, brightened and recompressed copies differ in 0 to 3, photos of one dog in 17 and more
NEAR_COLOUR = 40  # of 255, in the mean of each channel: the bits know only light and dark


class Likeness(NamedTuple):
    """What two pictures are compared by."""

    pixels_sha256: str
    gradients: int
    """64 bits, row by row on a 9x8 grey thumbnail: is a cell lighter than the one to its left?"""
    colour: tuple[int, ...]
    """Mean of each channel."""


def likeness(image: "Image.Image") -> Likeness:
    """Return the likeness of an RGB picture."""
    from PIL import Image

    header = f"{image.width}x{image.height} ".encode()
    grey = image.resize((9, 8), Image.Resampling.BOX).convert("L").tobytes()
    cells = [grey[row * 9 + column : row * 9 + column + 2] for row in range(8) for column in range(8)]
    gradients = sum((left < right) << bit for bit, (left, right) in enumerate(cells))
    colour = tuple(image.resize((1, 1), Image.Resampling.BOX).tobytes())
    return Likeness(hashlib.sha256(header + image.tobytes()).hexdigest(), gradients, colour)


def note_duplicates(names: Sequence[str], likenesses: Sequence[Likeness], findings: Findings) -> None:
    """Warn of each picture that repeats an earlier one: training would see it more often than the others."""
    seen: dict[str, str] = {}
    different: list[tuple[str, Likeness]] = []
    for name, own in zip(names, likenesses, strict=True):
        if own.pixels_sha256 in seen:
            findings.warn(name, f"shows exactly the same as {seen[own.pixels_sha256]}", "remove one of the two")
            continue
        seen[own.pixels_sha256] = name
        if near := next((other for other, likeness in different if _are_near(own, likeness)), None):
            findings.warn(name, f"shows nearly the same as {near}", "remove one of the two, or it weighs double")
        different.append((name, own))


def _are_near(one: Likeness, other: Likeness) -> bool:
    if (one.gradients ^ other.gradients).bit_count() > NEAR_BITS:
        return False
    return all(abs(mine - theirs) <= NEAR_COLOUR for mine, theirs in zip(one.colour, other.colour, strict=True))
