"""Colours that a HEIC or AVIF without an ICC profile names by numbers, in its `nclx` box (ITU-T H.273)."""

import struct

from orchestrator.datasets.findings import Defect, Remarks

BOX = b"colrnclx"
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

Colour = tuple[float, float, float]
Primaries = dict[bytes, Colour]
"""Tag of an ICC profile, red's, green's or blue's, to the XYZ of that colour under D50."""
BT_2020: Primaries = {
    b"rXYZ": (0.67348, 0.27904, -0.00194),
    b"gXYZ": (0.16566, 0.67534, 0.02998),
    b"bXYZ": (0.12505, 0.04561, 0.79686),
}
DISPLAY_P3: Primaries = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
PRIMARIES = {
    9: BT_2020,
    12: DISPLAY_P3,
}
"""Primaries by their number, where they differ from sRGB's."""

# ICC.1:2022, section 7: the tag table begins behind the header, and an XYZ value behind a tag's kind.
TAG_TABLE = 128
COUNT_BYTES = 4
TAG_BYTES = 12
XYZ_OFFSET = 8
FIXED_POINT = 65536


def nclx_profile(data: bytes) -> tuple[bytes | None, Remarks]:
    """Return an ICC profile for the colours that a file names, or None where they are sRGB's."""
    box = data.find(BOX)
    if box < 0:
        return None, []
    behind = box + len(BOX)
    try:
        primaries, transfer = struct.unpack_from(">HH", data, behind)
    except struct.error:
        return None, []
    remarks = []
    curve = HDR_TRANSFERS.get(transfer)
    if curve is not None:
        what = f"is an HDR photo ({curve}) and is read without tone mapping"
        remarks.append(Defect(what, "export it as JPEG if it looks dull"))
    if primaries not in PRIMARIES:
        return None, remarks
    return _srgb_with(PRIMARIES[primaries]), remarks


def _srgb_with(primaries: Primaries) -> bytes:
    """Return the sRGB profile with other primaries."""
    from PIL import ImageCms

    built_in = ImageCms.createProfile("sRGB")
    srgb = ImageCms.ImageCmsProfile(built_in)
    profile = bytearray(srgb.tobytes())
    (count,) = struct.unpack_from(">I", profile, TAG_TABLE)
    entry = TAG_TABLE + COUNT_BYTES
    for _ in range(count):
        tag, offset = struct.unpack_from(">4sI", profile, entry)
        xyz = primaries.get(tag)
        if xyz is not None:
            fixed = [round(value * FIXED_POINT) for value in xyz]
            struct.pack_into(">3i", profile, offset + XYZ_OFFSET, *fixed)
        entry += TAG_BYTES
    return bytes(profile)
