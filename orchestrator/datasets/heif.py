"""Read a HEIC, the format of phones' photos, through pi_heif in another process."""

import struct
import subprocess
import sys
from pathlib import Path

from orchestrator.datasets import heif_worker
from orchestrator.datasets.findings import Defect, unusable

# ISO/IEC 14496-12, section 4.3: a file begins with a box that names its brands, behind its length and kind.
BOX_KIND = b"ftyp"
BRANDS_OFFSET = 8
AVIF_BRANDS = (b"avif", b"avis")
MAX_SECONDS = 300
WORKER = Path(heif_worker.__file__)

DAMAGED = Defect("is damaged and cannot be decoded", "copy it again from the original, or remove it")


def is_boxed(data: bytes) -> bool:
    """Return whether a file is a HEIC or an AVIF."""
    return data[4:8] == BOX_KIND


def is_heif(data: bytes) -> bool:
    """Return whether a file is a HEIC, and not an AVIF, which has the same form and which Pillow reads."""
    if not is_boxed(data):
        return False
    (length,) = struct.unpack_from(">I", data)
    brands = data[BRANDS_OFFSET:length]
    return not any(brand in brands for brand in AVIF_BRANDS)


def heif_to_png(data: bytes, too_large: Defect, max_pixels: int) -> bytes:
    """Return the main image of a HEIC as a PNG, upright and with its colour profile; raises UnusableError."""
    command = [sys.executable, "-P", str(WORKER), str(max_pixels)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=MAX_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise unusable(*DAMAGED) from None
    if done.returncode == heif_worker.TOO_LARGE:
        raise unusable(*too_large)
    if done.returncode == heif_worker.NO_DECODER:
        what = "is a HEIC file, and the package pi-heif is not installed, or cannot be loaded"
        raise unusable(what, "pip install pi-heif, or save it as JPEG")
    if done.returncode != heif_worker.DONE:  # also where a signal ended it
        raise unusable(*DAMAGED)
    return done.stdout
