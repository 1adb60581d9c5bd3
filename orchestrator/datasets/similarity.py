"""Find images that are the same, or nearly: a checksum of the pixels, and a perceptual hash with the mean colour.

The perceptual hash is dHash: https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.datasets.findings import Findings

if TYPE_CHECKING:
    from PIL import Image

HASH_WIDTH = 8  # bits of dHash in a row
HASH_HEIGHT = 8
NEAR_BITS = 6  # of 64; resized, brightened and recompressed copies differ in 0 to 3, photos of one dog in 17 and more
NEAR_COLOUR = 40  # of 255, in the mean of each channel: dHash sees light and dark alone


class ImageHash(NamedTuple):
    """What two images are compared by."""

    pixels_sha256: str
    """Equal for images of the same size and pixels."""
    gradients: int
    """dHash: 64 bits, row by row on a 9x8 grey thumbnail, set where a cell is lighter than the one to its left."""
    mean_colour: tuple[int, ...]
    """Mean of each channel, 0 to 255."""


def hash_image(image: "Image.Image") -> ImageHash:
    """Return the hashes of an RGB image."""
    from PIL import Image

    size = f"{image.width}x{image.height} "
    hashed = hashlib.sha256(size.encode())
    hashed.update(image.tobytes())
    single_pixel = image.resize((1, 1), Image.Resampling.BOX)
    return ImageHash(
        pixels_sha256=hashed.hexdigest(),
        gradients=_gradients(image),
        mean_colour=tuple(single_pixel.tobytes()),
    )


def _gradients(image: "Image.Image") -> int:
    """Return the dHash of an image."""
    from PIL import Image

    columns = HASH_WIDTH + 1
    thumbnail = image.resize((columns, HASH_HEIGHT), Image.Resampling.BOX)
    grey = thumbnail.convert("L").tobytes()
    gradients = 0
    for row in range(HASH_HEIGHT):
        for column in range(HASH_WIDTH):
            cell = row * columns + column
            left = grey[cell]
            right = grey[cell + 1]
            if left < right:
                bit = row * HASH_WIDTH + column
                gradients |= 1 << bit
    return gradients


def warn_of_duplicates(
    names: Sequence[str],
    hashes: Sequence[ImageHash],
    findings: Findings,
) -> None:
    """Warn of each image that repeats an earlier one: training would see it more often than the others."""
    first_with: dict[str, str] = {}  # checksum of the pixels to the first file with them
    different: dict[str, ImageHash] = {}
    for name, own in zip(names, hashes, strict=True):
        original = first_with.setdefault(own.pixels_sha256, name)
        if original != name:
            what = f"is an exact duplicate of {original}"
            findings.warn(name, what, "remove one of the two")
            continue
        near = _first_near(own, different)
        if near is not None:
            what = f"is nearly the same as {near}"
            fix = "remove one of the two, or training sees it twice as often"
            findings.warn(name, what, fix)
        different[name] = own


def _first_near(own: ImageHash, others: Mapping[str, ImageHash]) -> str | None:
    """Return the first file whose image is nearly the same, or None."""
    for name, other in others.items():
        if _are_near(own, other):
            return name
    return None


def _are_near(one: ImageHash, other: ImageHash) -> bool:
    """Return whether two images look the same: similar gradients, and similar colours."""
    different_bits = one.gradients ^ other.gradients
    if different_bits.bit_count() > NEAR_BITS:
        return False
    channels = zip(one.mean_colour, other.mean_colour, strict=True)
    distances = [abs(mean - other_mean) for mean, other_mean in channels]
    return max(distances) <= NEAR_COLOUR
