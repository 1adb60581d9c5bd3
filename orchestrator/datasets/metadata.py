"""Recognise an image file that holds nothing but pixels, and remove the metadata of a JPEG.

The container's own list of parts is read, because a decoder reports only the metadata that it knows. Anything unknown
counts as metadata: a mistake here costs a re-encoding, and never reveals a secret.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = {b"IHDR", b"sRGB", b"IDAT", b"IEND"}
PNG_CHUNK_OVERHEAD = 12  # bytes: length, kind, checksum
PNG_CRITICAL = 0x20  # this bit is unset in the first letter of chunks without which there is no image
PNG_TRANSPARENCY = b"tRNS"
PNG_ORIENTATION = b"eXIf"
PNG_COLOURS = {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"}
PNG_CONTENT_OFFSET = 8  # in a chunk, behind its length and kind
PNG_CHECKSUM_BYTES = 4

# JPEG markers, ITU T.81 table B.1: tables, frame headers, restart interval, scan.
JPEG_SEGMENTS = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xDA} - {0xC8}
JPEG_FIXED_SEGMENTS = {0xE0: 16, 0xEE: 14}  # JFIF without a thumbnail, Adobe colour transform: bytes with the length
# APP1 to APP13, APP15 and comments: no pixel depends on them. APP0 and APP14 tell the decoder about colours.
JPEG_METADATA = {*range(0xE1, 0xEE), 0xEF, 0xFE}
JPEG_START = b"\xff\xd8"
MARKER = 0xFF
START_OF_SCAN = 0xDA
END_OF_IMAGE = 0xD9
MARKER_BYTES = 2
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a scan 0xFF is followed by 0, a restart, or padding

RIFF_HEADER_BYTES = 8
WEBP_HEADER_BYTES = 20  # RIFF header, "WEBP", the chunk's kind and size


def carries_metadata(data: bytes) -> bool:
    """Return whether a PNG, JPEG or WebP file holds more than pixels: EXIF, XMP, a profile, text, trailing bytes."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return not _is_bare_png(data)
        if data.startswith(JPEG_START):
            return not _is_bare_jpeg(data)
        return not _is_bare_webp(data)
    except (struct.error, IndexError, ValueError):  # the parts do not add up to the file
        return True


def _is_bare_png(data: bytes) -> bool:
    """Return whether a PNG has nothing but pixels, and nothing after its end; raises struct.error when damaged."""
    chunks = [chunk.kind for chunk in _png_chunks(data)]
    if b"IEND" not in chunks:
        return False
    is_last = chunks.index(b"IEND") == len(chunks) - 1
    return is_last and PNG_CHUNKS.issuperset(chunks)


class _Chunk(NamedTuple):
    """A part of a PNG."""

    kind: bytes
    """Its four letters."""
    start: int
    """Offset of its length in the file."""
    end: int
    """Offset of what follows it."""


def _png_chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield the chunks; raises struct.error where the last header is cut."""
    position = len(PNG_SIGNATURE)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + PNG_CHUNK_OVERHEAD + length
        yield _Chunk(kind, position, end)
        position = end


def png_chunk(data: bytes, kind: bytes) -> bytes:
    """Return the content of the first chunk of a kind; nothing where a PNG has none before its pixels."""
    try:
        for chunk in _png_chunks(data):
            if chunk.kind == kind:
                return data[chunk.start + PNG_CONTENT_OFFSET : chunk.end - PNG_CHECKSUM_BYTES]
            if chunk.kind == b"IDAT":
                break
    except struct.error:  # the file ends in a header
        pass
    return b""


def salvaged(data: bytes) -> Iterator[bytes]:
    """Yield an image that a decoder refuses with less and less metadata: that may be damaged, and the pixels whole.

    Of a PNG first all goes but colours, orientation and transparency, then these in turn. Nothing is unpacked.
    """
    if data.startswith(JPEG_START):
        yield without_metadata(data)
    if data.startswith(PNG_SIGNATURE):
        pixels = {PNG_TRANSPARENCY}
        upright = {*pixels, PNG_ORIENTATION}
        coloured = {*upright, *PNG_COLOURS}
        for kept in (coloured, upright, pixels, set[bytes]()):
            yield _png_with(data, kept)


def _png_with(data: bytes, kept: set[bytes]) -> bytes:
    """Return a PNG with its critical chunks and those of some other kinds, up to its end."""
    parts = [PNG_SIGNATURE]
    try:
        for chunk in _png_chunks(data):
            is_critical = not chunk.kind[0] & PNG_CRITICAL
            if is_critical or chunk.kind in kept:
                parts.append(data[chunk.start : chunk.end])
            if chunk.kind == b"IEND":
                break
    except struct.error:  # the file ends in a header: the decoder will say so
        pass
    return b"".join(parts)


def without_metadata(data: bytes) -> bytes:
    """Return a JPEG without its metadata and without what follows its end; any other file as it is.

    Nothing is decoded, so every pixel stays what it was. Segments that are not known to be metadata stay too;
    `carries_metadata` finds them.
    """
    if not data.startswith(JPEG_START):
        return data
    kept = [JPEG_START]
    try:
        for segment in _jpeg_segments(data):
            if segment.marker not in JPEG_METADATA:
                kept.append(data[segment.start : segment.end])
    except (struct.error, IndexError):
        return data
    return b"".join(kept)


class _Segment(NamedTuple):
    """A part of a JPEG."""

    marker: int
    """Its kind, the byte after 0xFF."""
    length: int
    """Bytes by its own header, without the marker."""
    start: int
    """Offset of its marker in the file."""
    end: int
    """Offset of what follows it, the pixels of a scan included."""

    @property
    def is_bare(self) -> bool:
        """Whether it is one that an image without metadata has."""
        if self.marker in JPEG_SEGMENTS:
            return True
        return JPEG_FIXED_SEGMENTS.get(self.marker) == self.length


def _jpeg_segments(data: bytes) -> Iterator[_Segment]:
    """Yield the segments of a JPEG up to its end, each scan with the pixels that follow it."""
    position = len(JPEG_START)
    while data[position] == MARKER:
        start = position
        marker = data[start + 1]
        position += MARKER_BYTES
        if marker == END_OF_IMAGE:
            yield _Segment(marker, 0, start, position)
            return
        (length,) = struct.unpack_from(">H", data, position)
        position += length
        if marker == START_OF_SCAN:
            next_marker = AFTER_SCAN.search(data, position)
            position = next_marker.start() if next_marker else len(data)
        yield _Segment(marker, length, start, position)


def _is_bare_jpeg(data: bytes) -> bool:
    """Return whether a JPEG has nothing but pixels, and nothing after its end; raises IndexError when damaged."""
    *segments, last = _jpeg_segments(data)
    for segment in segments:
        if not segment.is_bare:
            return False
    ends_image = last.marker == END_OF_IMAGE
    ends_file = last.end == len(data)
    return ends_image and ends_file


def _is_bare_webp(data: bytes) -> bool:
    """Return whether a WebP has nothing but pixels, and nothing after its end; raises struct.error when damaged.

    A simple WebP is one chunk in a RIFF; metadata needs the extended form, whose first chunk is VP8X.
    """
    riff_size, _, kind, size = struct.unpack_from("<I4s4sI", data, 4)
    padded_size = size + size % 2
    is_one_chunk = len(data) == WEBP_HEADER_BYTES + padded_size
    ends_with_riff = len(data) == RIFF_HEADER_BYTES + riff_size
    return is_one_chunk and ends_with_riff and kind in {b"VP8 ", b"VP8L"}
