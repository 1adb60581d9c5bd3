"""Tell a picture file that holds its pixels and nothing else from one that says more.

Reading a container's own list of parts is the only sure way: a decoder tells of the metadata it knows and is silent
about the rest. Anything unknown counts as metadata, so that a mistake here costs a re-encoding and no secret.
"""

import re
import struct
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = {b"IHDR", b"sRGB", b"IDAT", b"IEND"}

# JPEG markers, ITU T.81 table B.1: tables, frame headers, restart interval, scan.
JPEG_SEGMENTS = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xDA} - {0xC8}
JPEG_FIXED_SEGMENTS = {0xE0: 16, 0xEE: 14}  # JFIF without a thumbnail, Adobe colour transform: bytes with the length
MARKER, START_OF_SCAN, END_OF_IMAGE = 0xFF, 0xDA, 0xD9
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a scan 0xFF is followed by 0, a restart, or padding


def carries_metadata(data: bytes) -> bool:
    """Tell whether a PNG, JPEG or WebP file holds more than pixels: EXIF, XMP, a profile, text, trailing bytes."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return not _is_bare_png(list(_png_chunks(data)))
        if data.startswith(b"\xff\xd8"):
            return not _is_bare_jpeg(data)
        return not _is_bare_webp(data)
    except (struct.error, IndexError):  # the parts do not add up to the file
        return True


def _png_chunks(data: bytes) -> Iterator[bytes]:
    position = len(PNG_SIGNATURE)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind
        position += 12 + length  # length, kind, content, checksum


def _is_bare_png(chunks: list[bytes]) -> bool:
    return PNG_CHUNKS.issuperset(chunks) and chunks.index(b"IEND") == len(chunks) - 1 if b"IEND" in chunks else False


def _is_bare_jpeg(data: bytes) -> bool:
    position = 2
    while data[position] == MARKER:
        marker = data[position + 1]
        if marker == END_OF_IMAGE:
            return position + 2 == len(data)
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker not in JPEG_SEGMENTS and JPEG_FIXED_SEGMENTS.get(marker) != length:
            return False
        position += 2 + length
        if marker == START_OF_SCAN:
            end = AFTER_SCAN.search(data, position)
            position = end.start() if end else len(data)
    return False


def _is_bare_webp(data: bytes) -> bool:
    # A simple WebP is one chunk in a RIFF; metadata needs the extended form, whose first chunk is VP8X.
    riff_size, _, kind, size = struct.unpack_from("<I4s4sI", data, 4)
    whole = riff_size + 8 == len(data) == 20 + size + size % 2
    return whole and kind in {b"VP8 ", b"VP8L"}
