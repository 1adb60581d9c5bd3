"""Colours that a HEIC or AVIF without an ICC profile names by numbers, in its `nclx` box (ITU-T H.273)."""

import struct

from orchestrator.datasets.findings import Defect, Remarks

BOX = b"colrnclx"
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

Colour = tuple[float, float, float]
PRIMARIES: dict[int, tuple[Colour, Colour, Colour]] = {
    9: ((0.67348, 0.27904, -0.00194), (0.16566, 0.67534, 0.02998), (0.12505, 0.04561, 0.79686)),  # BT.2020
    12: ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),  # Display P3
}
"""Red, green and blue as XYZ under D50, where they differ from sRGB's."""

# ICC.1:2022, section 7: the tag table begins behind the header, and an XYZ value behind a tag's kind.
TAG_TABLE = 128
TAG_BYTES = 12
XYZ_OFFSET = 8
FIXED_POINT = 65536


def nclx_profile(data: bytes) -> tuple[bytes | None, Remarks]:
    """Return an ICC profile for the colours that a file names, or None where they are sRGB's."""
    position = data.find(BOX)
    if position < 0:
        return None, []
    try:
        primaries, transfer = struct.unpack_from(">HH", data, position + len(BOX))
    except struct.error:
        return None, []
    remarks = []
    if transfer in HDR_TRANSFERS:
        what = f"is an HDR photo ({HDR_TRANSFERS[transfer]}) and is read without tone mapping"
        remarks.append(Defect(what, "export it as JPEG if it looks dull"))
    if primaries not in PRIMARIES:
        return None, remarks
    return _srgb_with(PRIMARIES[primaries]), remarks


def _srgb_with(primaries: tuple[Colour, Colour, Colour]) -> bytes:
    """Return the sRGB profile with other primaries."""
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    profile = bytearray(srgb.tobytes())
    xyz_of = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True))
    (count,) = struct.unpack_from(">I", profile, TAG_TABLE)
    for number in range(count):
        entry = TAG_TABLE + 4 + number * TAG_BYTES
        tag, offset = struct.unpack_from(">4sI", profile, entry)
        if tag in xyz_of:
            fixed = [round(value * FIXED_POINT) for value in xyz_of[tag]]
            struct.pack_into(">3i", profile, offset + XYZ_OFFSET, *fixed)
    return bytes(profile)
