"""The binary framing of event streams: https://smithy.io/2.0/aws/amazon-eventstream.html."""

import struct
import zlib

_STRING = 7  # the type of a header's value


def payload_part(content: bytes) -> bytes:
    """Return a message of the kind PayloadPart."""
    named = {
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    headers = b"".join(_header(name, value) for name, value in named.items())
    prelude = struct.pack("!II", 16 + len(headers) + len(content), len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + content
    return message + struct.pack("!I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(encoded)) + encoded
