"""Images to answers: bytes of one image, or JSON in the shape that the client of each kind of body expects."""

import base64
import json
import time
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

from PIL import Image

from entrypoints.serving.bodies import JUMPSTART, OPENAI, Asked
from entrypoints.serving.service import UsedAdapter
from entrypoints.serving.worker import Drawn

JSON = "application/json"
EVENTS = "text/event-stream"
IMAGE_HEADER = "X-Orchestrator-Image"
"""What is said of an image that is answered as bytes, as JSON."""
MOST_HEADER_BYTES = 4096
"""Of what is said of an image: proxies refuse headers of more than 8 KB in all."""
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Media types of images, and what Pillow calls them."""
QUALITY = 95
"""Of JPEG and WebP."""


class Answer(NamedTuple):
    """The body of a response."""

    content: bytes
    media_type: str
    headers: dict[str, str]


def media_type_of(accept: str | None, asked: Asked) -> str:
    """Return the first media type of an Accept header that can be answered with; raises ValueError for none.

    JumpStart's "application/json;jpeg" is JSON.
    """
    if asked.preview:
        return EVENTS
    if not accept or asked.style == OPENAI:
        return JSON
    for entry in accept.split(","):
        wanted = entry.partition(";")[0].strip().lower()
        if wanted in FORMATS:
            return wanted
        if wanted == EVENTS:
            return EVENTS
        if wanted in (JSON, "*/*", "application/*"):
            return JSON
        if wanted == "image/*":
            return "image/png"
    raise ValueError(f"cannot answer with {accept}; ask for {', '.join([JSON, EVENTS, *FORMATS])}")


def answer(
    asked: Asked,
    adapters: Sequence[UsedAdapter],
    drawn: Sequence[Drawn],
    media_type: str,
) -> Answer:
    """Return the answer to a request; raises ValueError for several images in one of bytes."""
    described = describe(asked, adapters, drawn)
    if media_type in FORMATS:
        if len(drawn) != 1:
            raise ValueError(f"{len(drawn)} images do not go into one {media_type}; ask for {JSON}")
        about = {**described["images"][0], "adapters": described["adapters"]}
        content = encoded(drawn[0].image, FORMATS[media_type])
        return Answer(content, media_type, {IMAGE_HEADER: header_of(about)})
    kind = asked.image_format
    pictures = []
    for one in drawn:
        content = encoded(one.image, kind)
        pictures.append(base64.b64encode(content).decode("ascii"))
    body = described
    if asked.style == OPENAI:
        data = [{"b64_json": picture} for picture in pictures]
        body = {"created": int(time.time()), "data": data, **described}
    elif asked.style == JUMPSTART:
        prompt = asked.generation.prompts[0]
        body = {"generated_images": pictures, "prompt": prompt, **described}
    else:
        for image, picture in zip(described["images"], pictures, strict=True):
            image["image"] = picture
    return Answer(json.dumps(body).encode(), JSON, {})


def header_of(about: dict[str, Any]) -> str:
    """Return what is said of an image as a header: without texts, and without the adapters' names if these are long."""
    said = {name: value for name, value in about.items() if name not in ("prompt", "warnings")}
    text = json.dumps(said)
    if len(text) <= MOST_HEADER_BYTES:
        return text
    nameless = []
    for use in about["adapters"]:
        nameless.append({"weight": use["weight"], "sha256": use["sha256"]})
    return json.dumps({**said, "adapters": nameless})


def describe(
    asked: Asked,
    adapters: Sequence[UsedAdapter],
    drawn: Sequence[Drawn],
) -> dict[str, Any]:
    """Return what is said of a request's images: seeds, adapters with their hashes and slots, seconds.

    `flagged` is there when the base model has a safety checker.
    """
    images = []
    for wanted, one in zip(asked.generation.images, drawn, strict=True):
        without_slots = [None] * (len(adapters) - len(one.generations))  # ControlNets, which come last
        image: dict[str, Any] = {
            "prompt": wanted.prompt,
            "seed": wanted.seed,
            "seconds": round(one.seconds, 4),
            "queued_seconds": round(one.waited, 4),
            "largest_batch": one.largest_batch,
            "generations": [*one.generations, *without_slots],
        }
        if one.flagged is not None:
            image["flagged"] = one.flagged
        if one.warnings:
            image["warnings"] = list(one.warnings)
        images.append(image)
    used = []
    for use in adapters:
        used.append(
            {
                "name": use.name,
                "weight": use.weight,
                "sha256": use.served.sha256,
            }
        )
    return {"images": images, "adapters": used}


def encoded(image: Image.Image, kind: str) -> bytes:
    """Return an image in a format of Pillow's."""
    file = BytesIO()
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": QUALITY}
    image.save(file, format=kind, **options)
    return file.getvalue()
