"""From what a person asks for to the body of `/invocations`, and from its answer to pictures."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, NamedTuple

from orchestrator.contract.generation import MAX_SIZE, MOST_IMAGES, MOST_PICTURE_BYTES, Control, Generation
from orchestrator.endpoints.hosts import Answer, Host
from orchestrator.errors import EndpointError, OrchestratorError

JSON = "application/json"
_STAND_INS: Mapping[str, Any] = {"steps": 1, "guidance": 1.0, "size": 64, "seeds": (0,)}
"""In place of what the server chooses when a request does not say, so that everything else is checked."""
PATIENCE_SECONDS = 1800.0
"""Of waiting for one answer while the endpoint is full, or its first instance starts."""
_SHORTEST_WAIT_SECONDS = 0.1
"""A wait is counted as this long at least, so that a server which asks for none is not asked without end."""
_LONGEST_WAIT_SECONDS = 60.0
_LARGEST_FACTOR = 8
_NEWER = "see which version it runs, and deploy it again with this one"


class Request(NamedTuple):
    """What an endpoint is asked to draw."""

    generation: Generation
    """What was chosen, and stand-ins for what was not."""
    chosen: frozenset[str]
    """Fields of the generation that were chosen; the server knows better defaults for the others."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Request":
        """Return the request for fields of a generation, those left out or None being the server's to choose.

        Raises ValidationError.
        """
        chosen = {name: value for name, value in values.items() if value is not None}
        generation = Generation.model_validate({**_STAND_INS, **chosen})
        return cls(generation, frozenset(chosen))

    def with_any_seeds(self) -> "Request":
        """Return the request for as many images, whose seeds the server chooses."""
        return self._replace(chosen=self.chosen - {"seeds"})

    def body(self) -> bytes:
        """Return the body of `/invocations`."""
        wanted = self.generation
        values = wanted.model_dump(include=set(self.chosen - {"image", "mask", "controls"}))
        size = values.get("size")
        parameters = {
            "num_images_per_prompt": len(wanted.seeds),
            "seed": values.get("seeds", (None,))[0],
            "negative_prompt": values.get("negative_prompt"),
            "num_inference_steps": values.get("steps"),
            "guidance_scale": values.get("guidance"),
            "width": values.get("width", size),
            "height": values.get("height", size),
            "scheduler": values.get("scheduler"),
            "strength": values.get("strength"),
        }
        parameters = {name: value for name, value in parameters.items() if value is not None}
        body: dict[str, Any] = {"inputs": list(wanted.prompts), "parameters": parameters}
        if wanted.adapters:
            body["adapters"] = [use.model_dump() for use in wanted.adapters]
        if wanted.embeddings:
            body["embeddings"] = list(wanted.embeddings)
        if wanted.controls:
            body["controlnets"] = [_control_body(control) for control in wanted.controls]
        for name, picture in (("image", wanted.image), ("mask", wanted.mask)):
            if picture is not None:
                body[name] = _text_of(picture)
        return json.dumps(body, ensure_ascii=False).encode()


def _control_body(control: Control) -> dict[str, Any]:
    """Return a control as the body has it: only what was chosen, and its pictures in base64."""
    fields = control.model_dump(
        mode="json",
        exclude={"picture", "mask"},
        exclude_defaults=True,
    )
    fields["picture"] = _text_of(control.picture)
    if control.mask is not None:
        fields["mask"] = _text_of(control.mask)
    return fields


def _text_of(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")


class Image(NamedTuple):
    """An image of an answer."""

    png: bytes
    """The file."""
    prompt: str
    """What it shows."""
    seed: int
    """Drawn with it again, the request gives the same image."""
    facts: Mapping[str, Any]
    """What else the endpoint says of it: seconds, and so on."""


class Answered(NamedTuple):
    """What came of a request."""

    images: list[Image]
    """Each prompt with each seed."""
    adapters: list[dict[str, Any]]
    """Name, weight and hash of each adapter that was used."""


def read_answer(answer: Answer) -> Answered:
    """Return the images of an answer in JSON; raises EndpointError for what no server of ours answers.

    Nothing is decoded before its size is known.
    """
    try:
        value = json.loads(answer.content)
        found = [_image(entry) for entry in value["images"][: MOST_IMAGES + 1]]
        adapters = [dict(use) for use in value["adapters"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _strange(f"no answer that can be read: {error}") from error
    if not 0 < len(found) <= MOST_IMAGES:
        raise _strange(f"{len(found)} images")
    return Answered(found, adapters)


def _image(entry: Mapping[str, Any]) -> Image:
    facts = {name: value for name, value in entry.items() if name not in ("image", "prompt", "seed")}
    return Image(
        decoded_png(entry["image"]),
        str(entry["prompt"]),
        int(entry["seed"]),
        facts,
    )


def decoded_png(text: str) -> bytes:
    """Return the PNG in a text of base64, whose header says a size that we ask for; raises EndpointError."""
    if len(text) > MOST_PICTURE_BYTES * 4 // 3 + 4:
        raise _strange(f"an image of more than {MOST_PICTURE_BYTES:,} bytes")
    try:
        png = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise _strange(f"an image that is no base64: {error}") from error
    return checked_png(png)


def checked_png(png: bytes) -> bytes:
    """Return a PNG whose header says a size that we ask for, and whose checksums are right; raises EndpointError."""
    from PIL import Image as Pillow

    try:
        with Pillow.open(BytesIO(png), formats=("PNG",)) as image:
            width, height = image.size
            if max(width, height) <= MAX_SIZE:
                image.verify()
    except Exception as error:  # decoders of damaged bytes raise anything: OSError, SyntaxError, struct.error, ...
        raise _strange(f"an image that cannot be read: {type(error).__name__}") from error
    if max(width, height) > MAX_SIZE:
        raise _strange(f"an image of {width}x{height} pixels")
    return png


def _strange(what: str) -> EndpointError:
    return EndpointError(
        f"The endpoint answers with {what}.",
        next_step=_NEWER,
    )


def invoke_patiently(
    host: Host,
    name: str,
    body: bytes,
    accept: str,
    wait: Callable[[float], object],
) -> Answer:
    """Send a body of `/invocations`, again while the endpoint is full or starting, and return the answer.

    Waits as long as the endpoint asks for, and up to eight times as long when it is refused again; PATIENCE_SECONDS in
    all. `wait` waits for so many seconds, and returns True when nobody waits for the answer any more.
    """
    waited = 0.0
    factor = 1
    while True:
        try:
            return host.invoke(name, body, accept)
        except OrchestratorError as error:
            if error.retry_after is None or waited >= PATIENCE_SECONDS:
                raise
            seconds = min(error.retry_after * factor, _LONGEST_WAIT_SECONDS)
            if wait(seconds):
                raise
        waited += max(seconds, _SHORTEST_WAIT_SECONDS)
        factor = min(2 * factor, _LARGEST_FACTOR)
