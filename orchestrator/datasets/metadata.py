"""Tell a picture file that holds its pixels and nothing else from one that says more, and make a JPEG say less.

Reading a container's own list of parts is the only sure way: a decoder tells of the metadata it knows and is silent
about the rest. Anything unknown counts as metadata, so that a mistake here costs a re-encoding and no secret.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = {b"IHDR", b"sRGB", b"IDAT", b"IEND"}

# JPEG markers, ITU T.81 table B.1: tables, frame headers, restart interval, scan.
JPEG_SEGMENTS = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xDA} - {0xC8}
JPEG_FIXED_SEGMENTS = {0xE0: 16, 0xEE: 14}  # JFIF without a thumbnail, Adobe colour transform: bytes with the length
# APP1 to APP13, APP15 and comments: no pixel depends on them. APP0 and APP14 tell the decoder about colours.
JPEG_METADATA = {*range(0xE1, 0xEE), 0xEF, 0xFE}
JPEG_START = b"\xff\xd8"
MARKER, START_OF_SCAN, END_OF_IMAGE = 0xFF, 0xDA, 0xD9
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a scan 0xFF is followed by 0, a restart, or padding


def carries_metadata(data: bytes) -> bool:
    """Tell whether a PNG, JPEG or WebP file holds more than pixels: EXIF, XMP, a profile, text, trailing bytes."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return not _is_bare_png(list(_png_chunks(data)))
        if data.startswith(JPEG_START):
            return not _is_bare_jpeg(data)
        return not _is_bare_webp(data)
    except (struct.error, IndexError, ValueError):  # the parts do not add up to the file
        return True


def _png_chunks(data: bytes) -> Iterator[bytes]:
    position = len(PNG_SIGNATURE)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind
        position += 12 + length  # length, kind, content, checksum


def _is_bare_png(chunks: list[bytes]) -> bool:
    return PNG_CHUNKS.issuperset(chunks) and chunks.index(b"IEND") == len(chunks) - 1 if b"IEND" in chunks else False


def without_metadata(data: bytes) -> bytes:
    """Return a JPEG without its metadata and without what follows its end; any other file as it is.

    Nothing is decoded, so every pixel stays what it was. Segments that are not known to be metadata stay too, for
    `carries_metadata` to find.
    """
    if not data.startswith(JPEG_START):
        return data
    try:
        kept = [data[one.start : one.end] for one in _jpeg_segments(data) if one.marker not in JPEG_METADATA]
    except (struct.error, IndexError):
        return data
    return b"".join([JPEG_START, *kept])


class _Segment(NamedTuple):
    marker: int
    length: int
    start: int
    end: int


def _jpeg_segments(data: bytes) -> Iterator[_Segment]:
    """Yield the segments of a JPEG up to its end, each scan with the pixels that follow it."""
    position = len(JPEG_START)
    while data[position] == MARKER:
        start, marker = position, data[position + 1]
        if marker == END_OF_IMAGE:
            yield _Segment(marker, 0, start, start + 2)
            return
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
        if marker == START_OF_SCAN:
            scanned = AFTER_SCAN.search(data, position)
            position = scanned.start() if scanned else len(data)
        yield _Segment(marker, length, start, position)


def _is_bare_jpeg(data: bytes) -> bool:
    *segments, last = _jpeg_segments(data)
    plain = all(one.marker in JPEG_SEGMENTS or JPEG_FIXED_SEGMENTS.get(one.marker) == one.length for one in segments)
    return plain and last.marker == END_OF_IMAGE and last.end == len(data)


def _is_bare_webp(data: bytes) -> bool:
    # A simple WebP is one chunk in a RIFF; metadata needs the extended form, whose first chunk is VP8X.
    riff_size, _, kind, size = struct.unpack_from("<I4s4sI", data, 4)
    whole = riff_size + 8 == len(data) == 20 + size + size % 2
    return whole and kind in {b"VP8 ", b"VP8L"}
