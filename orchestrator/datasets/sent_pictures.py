"""Pictures that a request carries: as PNG, upright, in sRGB and without metadata."""

import base64
from io import BytesIO
from pathlib import Path

from orchestrator.contract.generation import MAX_SIZE
from orchestrator.datasets.decoding import MAX_SCALE, decode, read_file
from orchestrator.datasets.findings import Defect, unusable
from orchestrator.errors import MachineError
from orchestrator.settings import typed_path


def encoded_picture(path: str, size: int, what_for: str, grammar: str) -> bytes:
    """Return the picture at a path that was typed, in base64, for images with a side of `size` pixels.

    Larger pictures are scaled down. `what_for` is what the picture does to images, and `grammar` how it is named.
    Raises UnusableError.
    """
    if not path:
        raise unusable("names no file", f"write {grammar}")
    data = read_file(_file(path))
    side = min(max(size, MAX_SCALE), MAX_SIZE)
    resolution = -(-side // MAX_SCALE)  # what is decoded has at most MAX_SCALE times as much
    smallest = -(-resolution // 2)
    too_small = Defect(
        f"too small to {what_for} images of {side}x{side}", f"use one of {smallest} pixels or more a side"
    )
    decoded = decode(data, resolution=resolution, too_small=too_small)
    png = BytesIO()
    decoded.image.save(png, format="PNG")
    return base64.b64encode(png.getvalue())


def _file(path: str) -> Path:
    """Return the file of a path that was typed; raises UnusableError where there is none."""
    try:
        file = typed_path(path)
        is_folder = file.is_dir()
        exists = file.exists()
    except MachineError as error:
        raise unusable(f"cannot be found: {error.message.rstrip('.')}", error.next_step) from error
    except OSError as error:
        raise unusable(f"cannot be read: {error.strerror}", "check the path and its permissions") from error
    if is_folder:
        raise unusable("is a folder, not a picture", "name a picture in it")
    if not exists:
        raise unusable("is not there", "check the path")
    if not file.is_file():
        raise unusable("is no file", "name a picture")
    return file
