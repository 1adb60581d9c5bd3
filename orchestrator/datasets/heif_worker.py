"""Turns a HEIC on stdin into a PNG on stdout, in a process of its own: damaged files have crashed the decoder.

Run by `heif.py` as a script, so it imports nothing of this package. The exit code says what became of it. The PNG is
upright, because libheif applies the turns that the file asks for, and keeps the colour profile alone.
"""

import resource
import sys
from contextlib import suppress
from io import BytesIO

DONE = 0
TOO_LARGE = 3
DAMAGED = 4
NO_DECODER = 5
MAX_MEMORY = 4 * 2**30  # bytes; the largest image that is read takes 1.5 GB


def main() -> int:
    """Convert one image; the argument is the most pixels that it may have, checked in its header."""
    from PIL import Image

    try:
        import pi_heif

        pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    except ImportError:  # also where a library that it needs is missing
        return NO_DECODER
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    data = sys.stdin.buffer.read()
    try:
        image = Image.open(BytesIO(data), formats=("HEIF",))
        if image.width * image.height > int(sys.argv[1]):
            return TOO_LARGE
        image.load()
        image.save(sys.stdout.buffer, format="PNG", compress_level=0)
    except Image.DecompressionBombError:
        return TOO_LARGE
    except Exception:  # noqa: BLE001  (decoders of hostile bytes raise anything)
        return DAMAGED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
