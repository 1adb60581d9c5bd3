"""Find images that are the same, or nearly: a checksum of the pixels, and a perceptual hash with a thumbnail's colours.

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
NEAR_CELL = 64  # of 255, in a cell beside the mean: brightened and cropped copies have up to 48


class ImageHash(NamedTuple):
    """What two images are compared by."""

    pixels_sha256: str
    """Equal for images of the same size and pixels."""
    gradients: int
    """dHash: 64 bits, row by row on a 9x8 grey thumbnail, set where a cell is lighter than the one to its left."""
    mean_colour: tuple[int, ...]
    """Mean of each channel, 0 to 255."""
    cells: bytes
    """Red, green and blue of each cell of the 9x8 thumbnail."""


def hash_image(image: "Image.Image") -> ImageHash:
    """Return the hashes of an RGB image."""
    from PIL import Image

    size = f"{image.width}x{image.height} "
    hashed = hashlib.sha256(size.encode())
    hashed.update(image.tobytes())
    single_pixel = image.resize((1, 1), Image.Resampling.BOX)
    thumbnail = image.resize((HASH_WIDTH + 1, HASH_HEIGHT), Image.Resampling.BOX)
    return ImageHash(
        pixels_sha256=hashed.hexdigest(),
        gradients=_gradients(thumbnail),
        mean_colour=tuple(single_pixel.tobytes()),
        cells=thumbnail.tobytes(),
    )


def _gradients(thumbnail: "Image.Image") -> int:
    """Return the dHash of an image by its thumbnail."""
    columns = thumbnail.width
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


class Duplicate(NamedTuple):
    """An image that repeats an earlier one."""

    number: int
    """Its place among the images."""
    original: int
    """That of the earlier one."""
    is_exact: bool
    """Whether all pixels are equal."""


def find_duplicates(hashes: Sequence[ImageHash]) -> list[Duplicate]:
    """Return each image that repeats an earlier one."""
    first_with: dict[str, int] = {}  # checksum of the pixels to the first image with them
    different: dict[int, ImageHash] = {}
    found = []
    for number, own in enumerate(hashes):
        original = first_with.setdefault(own.pixels_sha256, number)
        if original != number:
            found.append(Duplicate(number, original, is_exact=True))
            continue
        near = _first_near(own, different)
        if near is not None:
            found.append(Duplicate(number, near, is_exact=False))
        different[number] = own
    return found


def warn_of_duplicates(
    names: Sequence[str],
    duplicates: Sequence[Duplicate],
    findings: Findings,
) -> None:
    """Warn of each image that repeats an earlier one: training would see it more often than the others."""
    for duplicate in duplicates:
        original = names[duplicate.original]
        what = f"is nearly the same as {original}"
        fix = "remove one of the two, or it counts twice as much"
        if duplicate.is_exact:
            what = f"is an exact duplicate of {original}"
            fix = "remove one of the two"
        findings.warn(names[duplicate.number], what, fix)


def _first_near(own: ImageHash, others: Mapping[int, ImageHash]) -> int | None:
    """Return the first image that is nearly the same, or None."""
    for number, other in others.items():
        if _are_near(own, other):
            return number
    return None


def _are_near(one: ImageHash, other: ImageHash) -> bool:
    """Return whether two images look the same: similar gradients, and similar colours, of the whole and of each cell.

    Flat pictures, as drawings are, have few gradients to differ in: a shape in another place shows in the cells.
    """
    different_bits = one.gradients ^ other.gradients
    if different_bits.bit_count() > NEAR_BITS:
        return False
    shifts = []
    for mean, other_mean in zip(one.mean_colour, other.mean_colour, strict=True):
        shifts.append(mean - other_mean)
    if max(map(abs, shifts)) > NEAR_COLOUR:
        return False
    for place, (level, other_level) in enumerate(zip(one.cells, other.cells, strict=True)):
        shift = shifts[place % len(shifts)]
        if abs(level - other_level - shift) > NEAR_CELL:
            return False
    return True
