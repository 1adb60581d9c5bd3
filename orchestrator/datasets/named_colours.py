"""Colours that a file names without an ICC profile, as one.

A HEIC, an AVIF or a PNG names them by numbers (ITU-T H.273), in a box `nclx` or a chunk `cICP`; a PNG also by the
chunks `gAMA` and `cHRM` (PNG, third edition, section 11.3.2); the JPEG of a camera by the name of a rule (DCF).
"""

import struct
from collections.abc import Mapping
from typing import Any

from orchestrator.datasets.findings import Defect, Remarks
from orchestrator.datasets.metadata import PNG_SIGNATURE, png_chunk
from orchestrator.datasets.rgb_profile import SRGB, Primaries, rgb_profile

_BOX = b"colrnclx"
_CHUNK = b"cICP"
_CHUNK_BYTES = 4  # primaries, curve, matrix, range
_INTEROP = 0xA005  # EXIF 2.3, section 4.6.3: the folder of this tag, whose first entry names a rule
_RULE_TAG = 1
_ADOBE_RULE = "R03"
_ADOBE_EXPONENT = 563 / 256

# Numbers of H.273, tables 2 and 3.
_LIKE_SRGB = {1, 2, 5, 6, 7, 22}
"""Primaries that are sRGB's, nearly those, or not stated."""
_PRIMARIES = {
    # NTSC of 1953.
    4: Primaries(
        red=(0.67, 0.33),
        green=(0.21, 0.71),
        blue=(0.14, 0.08),
        white=(0.310, 0.316),
    ),
    # BT.2020.
    9: Primaries(
        red=(0.708, 0.292),
        green=(0.170, 0.797),
        blue=(0.131, 0.046),
    ),
    # DCI-P3.
    11: Primaries(
        red=(0.680, 0.320),
        green=(0.265, 0.690),
        blue=(0.150, 0.060),
        white=(0.314, 0.351),
    ),
    # Display P3.
    12: Primaries(
        red=(0.680, 0.320),
        green=(0.265, 0.690),
        blue=(0.150, 0.060),
    ),
}
_ADOBE_RGB = Primaries(
    red=(0.64, 0.33),
    green=(0.21, 0.71),
    blue=(0.15, 0.06),
)
_CURVES_LIKE_SRGB = {1, 2, 6, 11, 12, 13, 14, 15}
_EXPONENTS = {
    4: 2.2,  # BT.470 M
    5: 2.8,  # BT.470 B and G
    8: 1.0,  # linear
}
_HDR = {
    16: "PQ",
    18: "HLG",
}

_SRGB_EXPONENT = 2.2
_SAME_EXPONENT = 0.05
_SAME_POINT = 0.003
"""Differences that rounding makes, or that nobody sees."""
_MOST = 10
"""Largest exponent of a curve that is taken seriously, and the inverse of the smallest."""

UNKNOWN = Defect("names colours that are not known here and is treated as sRGB", "convert it to sRGB if it looks wrong")


def numbers_in(data: bytes) -> tuple[int, int] | None:
    """Return the numbers of the primaries and of the curve that a file names, None where it names none."""
    if data.startswith(PNG_SIGNATURE):
        chunk = png_chunk(data, _CHUNK)
        if len(chunk) != _CHUNK_BYTES:
            return None
        return chunk[0], chunk[1]
    box = data.find(_BOX)
    if box < 0:
        return None
    try:
        primaries, curve = struct.unpack_from(">HH", data, box + len(_BOX))
    except struct.error:
        return None
    return primaries, curve


def numbered_profile(number: int, curve: int) -> tuple[bytes | None, Remarks]:
    """Return an ICC profile for numbered primaries and a numbered curve, or None where they are sRGB's."""
    remarks = []
    if curve in _HDR:
        what = f"is an HDR photo ({_HDR[curve]}) and is read without tone mapping"
        remarks.append(Defect(what, "export it as JPEG if it looks dull"))
    elif curve not in _CURVES_LIKE_SRGB and curve not in _EXPONENTS:
        remarks.append(UNKNOWN)
    exponent = _EXPONENTS.get(curve)
    primaries = _PRIMARIES.get(number)
    if primaries is None:
        primaries = SRGB
        is_known = number in _LIKE_SRGB
        if not is_known and UNKNOWN not in remarks:
            remarks.append(UNKNOWN)
        if exponent is None:
            return None, remarks
    profile = rgb_profile(primaries, exponent)
    return profile, remarks


def measured_profile(info: Mapping[Any, Any]) -> tuple[bytes | None, Remarks]:
    """Return an ICC profile for the primaries and the curve of a PNG's chunks, or None where they are sRGB's."""
    if "srgb" in info:  # it overrides the others
        return None, []
    gamma = info.get("gamma", 1 / _SRGB_EXPONENT)
    primaries = SRGB
    if "chromaticity" in info:
        white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y = info["chromaticity"]
        primaries = Primaries(
            red=(red_x, red_y),
            green=(green_x, green_y),
            blue=(blue_x, blue_y),
            white=(white_x, white_y),
        )
    if not 1 / _MOST <= gamma <= _MOST:
        return None, [UNKNOWN]
    exponent = 1 / gamma
    curve: float | None = exponent
    if abs(exponent - _SRGB_EXPONENT) < _SAME_EXPONENT:
        if _differ_by(primaries, SRGB) < _SAME_POINT:
            return None, []
        curve = None
    try:
        profile = rgb_profile(primaries, curve)
    except ValueError:
        return None, [UNKNOWN]
    return profile, []


def camera_profile(exif: Any) -> bytes | None:  # Pillow's Exif, whose folders are untyped
    """Return the profile of Adobe RGB where a camera's EXIF data names it, else None."""
    rule = exif.get_ifd(_INTEROP).get(_RULE_TAG)
    if rule != _ADOBE_RULE:
        return None
    return rgb_profile(_ADOBE_RGB, _ADOBE_EXPONENT)


def _differ_by(primaries: Primaries, others: Primaries) -> float:
    """Return the largest difference of a coordinate."""
    largest = 0.0
    for point, other in zip(primaries, others, strict=True):
        x, y = point
        other_x, other_y = other
        largest = max(largest, abs(x - other_x), abs(y - other_y))
    return largest
