"""An ICC profile for colours that are given by their primaries and their curve."""

import struct
from typing import NamedTuple

Triple = tuple[float, float, float]
Point = tuple[float, float]
"""CIE 1931 chromaticity: x, y."""

D65: Point = (0.3127, 0.3290)
_D50: Triple = (0.9642, 1.0, 0.8249)
"""XYZ of the white of ICC profiles."""
# Bradford's matrix from XYZ to cones, by rows (ICC.1:2022, annex E), and its inverse.
_TO_CONES: tuple[Triple, ...] = (
    (0.8951, 0.2664, -0.1614),
    (-0.7502, 1.7135, 0.0367),
    (0.0389, -0.0685, 1.0296),
)
_FROM_CONES: tuple[Triple, ...] = (
    (0.9869929, -0.1470543, 0.1599627),
    (0.4323053, 0.5183603, 0.0492912),
    (-0.0085287, 0.0400428, 0.9684867),
)

# ICC.1:2022, section 7: the tag table begins behind the header. Section 10: values begin behind a tag's kind, those of
# a parametric curve behind the number of its function too, here (a x + b) ** exponent, for x of at least d.
_TAG_TABLE = 128
_COUNT_BYTES = 4
_TAG_BYTES = 12
_XYZ_OFFSET = 8
_CURVE_OFFSET = 12
_NUMBER_BYTES = 4
_FIXED_POINT = 65536
_SMALLEST = 1e-6
"""Volume that the primaries span, below which they lie on a line."""
_COLORANT_TAGS = (b"rXYZ", b"gXYZ", b"bXYZ")
_CURVE_TAGS = (b"rTRC", b"gTRC", b"bTRC")


class Primaries(NamedTuple):
    """What red, green, blue and white look like."""

    red: Point
    """Chromaticity of pure red."""
    green: Point
    """That of pure green."""
    blue: Point
    """That of pure blue."""
    white: Point = D65
    """That of all three."""


SRGB = Primaries(
    red=(0.64, 0.33),
    green=(0.30, 0.60),
    blue=(0.15, 0.06),
)


class _Values(NamedTuple):
    """The numbers that a tag of a profile gets."""

    offset: int
    """Where they begin, in bytes from the beginning of the tag's data."""
    numbers: tuple[float, ...]
    """Written in fixed point: 16 bits before the point and 16 behind it."""


def rgb_profile(primaries: Primaries, exponent: float | None) -> bytes:
    """Return the sRGB profile with other primaries, and with the curve light = value ** exponent unless that is None.

    The numbers of Pillow's own sRGB profile are overwritten in place: a curve of its kind has room for any exponent.
    Raises ValueError for primaries that are no colours, or span no plane.
    """
    from PIL import ImageCms

    values_of: dict[bytes, _Values] = {}
    colorants = _colorants(primaries)
    for tag, colorant in zip(_COLORANT_TAGS, colorants, strict=True):
        values_of[tag] = _Values(_XYZ_OFFSET, colorant)
    if exponent is not None:
        curve = _Values(_CURVE_OFFSET, (exponent, 1, 0, 0, 0))
        values_of |= dict.fromkeys(_CURVE_TAGS, curve)
    built_in = ImageCms.createProfile("sRGB")
    srgb = ImageCms.ImageCmsProfile(built_in)
    profile = bytearray(srgb.tobytes())
    (count,) = struct.unpack_from(">I", profile, _TAG_TABLE)
    entry = _TAG_TABLE + _COUNT_BYTES
    for _ in range(count):
        tag, offset = struct.unpack_from(">4sI", profile, entry)
        entry += _TAG_BYTES
        values = values_of.get(tag)
        if values is None:
            continue
        place = offset + values.offset
        for number in values.numbers:
            fixed = round(number * _FIXED_POINT)
            struct.pack_into(">i", profile, place, fixed)
            place += _NUMBER_BYTES
    return bytes(profile)


def _colorants(primaries: Primaries) -> list[Triple]:
    """Return the XYZ of red, green and blue under D50, at the strengths at which they add up to white."""
    red, green, blue, white = [_xyz(point) for point in primaries]
    whole = _determinant(red, green, blue)
    if abs(whole) < _SMALLEST:
        raise ValueError("the primaries lie on a line")
    # Cramer's rule.
    red_strength = _determinant(white, green, blue) / whole
    green_strength = _determinant(red, white, blue) / whole
    blue_strength = _determinant(red, green, white) / whole
    return [
        _adapted(red, red_strength, white),
        _adapted(green, green_strength, white),
        _adapted(blue, blue_strength, white),
    ]


def _adapted(colour: Triple, strength: float, white: Triple) -> Triple:
    """Return a colour, times its strength, as it looks under D50 where it was given under `white`.

    This is Bradford's adaptation: what each kind of cone receives changes in proportion to what it receives of white.
    """
    cones = _product(_TO_CONES, colour)
    from_white = _product(_TO_CONES, white)
    to_white = _product(_TO_CONES, _D50)
    received = []
    for cone, white_before, white_after in zip(cones, from_white, to_white, strict=True):
        received.append(cone * strength * white_after / white_before)
    long, middle, short = received
    return _product(_FROM_CONES, (long, middle, short))


def _xyz(point: Point) -> Triple:
    """Return the XYZ of a chromaticity at the lightness 1; raises ValueError for none."""
    x, y = point
    is_chromaticity = 0 <= x <= 1 and 0 < y <= 1
    if not is_chromaticity:
        raise ValueError(f"{x}, {y} is no chromaticity")
    z = 1 - x - y
    return x / y, 1.0, z / y


def _product(matrix: tuple[Triple, ...], vector: Triple) -> Triple:
    """Return a matrix, by rows, times a vector."""
    x, y, z = vector
    products = []
    for by_x, by_y, by_z in matrix:
        products.append(by_x * x + by_y * y + by_z * z)
    first, second, third = products
    return first, second, third


def _determinant(a: Triple, b: Triple, c: Triple) -> float:
    """Return the determinant of three vectors: the volume that they span."""
    a_x, a_y, a_z = a
    b_x, b_y, b_z = b
    c_x, c_y, c_z = c
    x = b_y * c_z - b_z * c_y
    y = b_z * c_x - b_x * c_z
    z = b_x * c_y - b_y * c_x
    return a_x * x + a_y * y + a_z * z
