"""Images within a page, as data URIs: scaled down and encoded until all of them together fit."""

import base64
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

LEVELS = (
    (256, 85),
    (256, 70),
    (192, 70),
    (128, 70),
    (96, 60),
    (64, 50),
    (48, 30),
)
"""Longer side in pixels, and WebP's quality: from what looks best on a page to what is just recognised."""
LARGEST = LEVELS[0][0]


def scaled(image: Image.Image, longest: int) -> Image.Image:
    """Return an image whose longer side has at most so many pixels."""
    copy = image.copy()
    copy.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return copy


def data_uris(images: Sequence[Image.Image], most_bytes: int) -> list[str]:
    """Return each image as a data URI, together at most `most_bytes` long where the last level reaches that."""
    uris: list[str] = []
    for longest, quality in LEVELS:
        uris = [_data_uri(scaled(image, longest), quality) for image in images]
        if sum(map(len, uris)) <= most_bytes:
            break
    return uris


def _data_uri(image: Image.Image, quality: int) -> str:
    encoded = BytesIO()
    image.convert("RGB").save(encoded, format="WEBP", quality=quality)
    text = base64.b64encode(encoded.getvalue()).decode("ascii")
    return f"data:image/webp;base64,{text}"
