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


SRGB = Primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))


def rgb_profile(primaries: Primaries, exponent: float | None) -> bytes:
    """Return the sRGB profile with other primaries, and with the curve light = value ** exponent unless that is None.

    Raises ValueError for primaries that are no colours, or span no plane.
    """
    from PIL import ImageCms

    values_of: dict[bytes, tuple[int, tuple[float, ...]]] = {}
    for tag, colorant in zip(_COLORANT_TAGS, _colorants(primaries), strict=True):
        values_of[tag] = (_XYZ_OFFSET, colorant)
    if exponent is not None:
        for tag in _CURVE_TAGS:
            values_of[tag] = (_CURVE_OFFSET, (exponent, 1, 0, 0, 0))
    built_in = ImageCms.createProfile("sRGB")
    srgb = ImageCms.ImageCmsProfile(built_in)
    profile = bytearray(srgb.tobytes())
    (count,) = struct.unpack_from(">I", profile, _TAG_TABLE)
    entry = _TAG_TABLE + _COUNT_BYTES
    for _ in range(count):
        tag, offset = struct.unpack_from(">4sI", profile, entry)
        place, values = values_of.get(tag, (0, ()))
        fixed = [round(value * _FIXED_POINT) for value in values]
        struct.pack_into(f">{len(fixed)}i", profile, offset + place, *fixed)
        entry += _TAG_BYTES
    return bytes(profile)


def _colorants(primaries: Primaries) -> list[Triple]:
    """Return the XYZ of red, green and blue under D50, at the strengths at which they add up to white."""
    red, green, blue, white = [_xyz(point) for point in primaries]
    whole = _determinant(red, green, blue)
    if abs(whole) < _SMALLEST:
        raise ValueError("the primaries lie on a line")
    strengths = (
        _determinant(white, green, blue) / whole,
        _determinant(red, white, blue) / whole,
        _determinant(red, green, white) / whole,
    )
    from_white = _product(_TO_CONES, white)
    to_white = _product(_TO_CONES, _D50)
    found = []
    for colour, strength in zip((red, green, blue), strengths, strict=True):
        x, y, z = _product(_TO_CONES, colour)
        adapted = (
            x * strength * to_white[0] / from_white[0],
            y * strength * to_white[1] / from_white[1],
            z * strength * to_white[2] / from_white[2],
        )
        found.append(_product(_FROM_CONES, adapted))
    return found


def _xyz(point: Point) -> Triple:
    """Return the XYZ of a chromaticity at the lightness 1; raises ValueError for none."""
    x, y = point
    if not (0 <= x <= 1 and 0 < y <= 1):
        raise ValueError(f"{x}, {y} is no chromaticity")
    return x / y, 1.0, (1 - x - y) / y


def _product(matrix: tuple[Triple, ...], vector: Triple) -> Triple:
    first, second, third = [row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2] for row in matrix]
    return first, second, third


def _determinant(a: Triple, b: Triple, c: Triple) -> float:
    return a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0])
