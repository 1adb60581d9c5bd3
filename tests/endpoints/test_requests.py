"""What is sent for what was typed, and what of an answer is believed."""

import base64
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from orchestrator.endpoints.deployment import Lease
from orchestrator.endpoints.hosts import Answer
from orchestrator.endpoints.leases import duration_text, why_expired
from orchestrator.endpoints.local.calls import ServerCalls
from orchestrator.endpoints.requests import JSON, Request, invoke_patiently, read_answer
from orchestrator.errors import EndpointError


def png(side: int = 8, colour: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", (side, side), colour).save(file, format="PNG")
    return file.getvalue()


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_what_was_not_chosen_is_left_to_the_server() -> None:
    assert json.loads(
        Request.of({"prompts": ["a dog"], "steps": None, "seeds": [0, 1, 2]}).with_any_seeds().body()
    ) == {
        "inputs": ["a dog"],
        "parameters": {"num_images_per_prompt": 3},
    }


def test_everything_that_was_chosen_is_sent_and_read_by_the_server_as_it_was_meant() -> None:
    from entrypoints.serving.bodies import Defaults, read_invocation

    picture = base64.b64encode(png())
    values: dict[str, Any] = {
        "prompts": ["a dog", "a café"],
        "negative_prompt": "fog",
        "seeds": [5, 6],
        "steps": 7,
        "guidance": 2.5,
        "width": 128,
        "height": 96,
        "scheduler": "euler",
        "adapters": [{"name": "dog", "weight": 0.5}],
        "embeddings": ["<cat>"],
        "controls": [
            {
                "network": "edges",
                "kind": "canny",
                "settings": {"low": 50},
                "picture": picture,
                "mask": picture,
                "end": 0.5,
            }
        ],
        "image": picture,
        "strength": 0.6,
        "mask": picture,
    }
    request = Request.of(values)
    defaults = Defaults(steps=99, guidance=9, size=64)
    asked = read_invocation(request.body(), lambda _: defaults)
    assert asked.generation == request.generation


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ({"size": 128}, {"width": 128, "height": 128}),
        ({"size": 128, "width": 96}, {"width": 96, "height": 128}),
        ({"height": 96}, {"height": 96}),  # the server knows the usual width
        ({}, {}),
    ],
)
def test_sides_are_sent_as_they_were_chosen(chosen: dict[str, int], sent: dict[str, int]) -> None:
    request = Request.of({"prompts": ["a dog"], **chosen}).with_any_seeds()
    parameters = json.loads(request.body())["parameters"]
    assert parameters == {"num_images_per_prompt": 1, **sent}


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"size": 65}, {"width": 100}, {"mask": base64.b64encode(b"x")}, {"seeds": [-1]}], ids=str
)
def test_what_is_wrong_is_refused_before_it_is_sent(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Request.of({"prompts": ["a dog"], **wrong})


def answer(*images: object, **more: object) -> Answer:
    return Answer(json.dumps({"images": images, "adapters": [], **more}).encode(), JSON)


def test_images_of_an_answer_are_files_with_their_prompts_and_seeds() -> None:
    (image,) = read_answer(answer({"prompt": "a dog", "seed": 3, "seconds": 1.5, "image": text_of(png())})).images
    assert (image.png, image.prompt, image.seed, image.facts) == (png(), "a dog", 3, {"seconds": 1.5})


def entry(image: str) -> dict[str, object]:
    return {"prompt": "a dog", "seed": 3, "image": image}


STRANGE = {
    "no JSON": Answer(b"<html>", "text/html"),
    "deep JSON": Answer(b"[" * 100_000, JSON),
    "no images": answer(),
    "too many": answer(*[entry(text_of(png()))] * 65),
    "no base64": answer(entry("?")),
    "no PNG": answer(entry(text_of(b"GIF89a"))),
    "a cut PNG": answer(entry(text_of(png()[:-20]))),
    "a PNG of another length": answer(entry(text_of(png().replace(png()[37:41], b"\x00\x00\xff\xff")))),
    "more pixels than we ask for": answer(entry(text_of(png(2056)))),
    "more bytes than we ask for": answer(entry("A" * 2**25)),
    "another shape": answer({"prompt": "a dog"}),
    "a list": Answer(b"[]", JSON),
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
def test_an_answer_that_no_server_of_ours_gives_is_one_error(strange: Answer) -> None:
    with pytest.raises(EndpointError) as raised:
        read_answer(strange)
    assert raised.value.next_step


class Full:
    """A host whose endpoint is full for some calls."""

    def __init__(self, times: int, retry_after: float | None) -> None:
        self.times = times
        self.retry_after = retry_after

    def invoke(self, name: str, body: bytes, accept: str) -> Answer:
        self.times -= 1
        if self.times >= 0:
            error = EndpointError(f"{name} is full")
            error.retry_after = self.retry_after
            raise error
        return Answer(body, accept)


def test_an_endpoint_that_is_full_is_asked_again_after_the_time_that_it_names() -> None:
    waited: list[float] = []
    host: Any = Full(2, 3.0)
    assert invoke_patiently(host, "mine", b"x", JSON, waited.append).content == b"x"
    assert waited == [3.0, 6.0]  # longer, when that was not enough


def test_any_other_refusal_is_not_repeated() -> None:
    waited: list[float] = []
    host: Any = Full(1, None)
    with pytest.raises(EndpointError):
        invoke_patiently(host, "mine", b"x", JSON, waited.append)
    assert waited == []


def test_a_port_on_which_nobody_listens_is_an_error_with_what_to_look_at() -> None:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(EndpointError, match="does not answer") as raised:
            ServerCalls("mine", bound.getsockname()[1], "token").call("GET", "/ping")
    assert "endpoints logs mine" in raised.value.next_step


class Answering(BaseHTTPRequestHandler):
    """A server that gives one answer to everything."""

    status = 200
    content = b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


REFUSALS = {
    "in our words": (
        429,
        b'{"error": {"message": "9 images wait.", "next": "try later"}}',
        "9 images wait.",
        "try later",
    ),
    "without what to do": (503, b'{"error": {"message": "It ends."}}', "It ends.", "endpoints show mine"),
    "in other words": (500, b'{"error": "Internal"}', "status 500", "endpoints show mine"),
    "a list": (500, b"[1]", "status 500", "endpoints show mine"),
    "no JSON": (502, b"<html>", "status 502", "endpoints show mine"),
    "deep JSON": (502, b"[" * 100_000, "status 502", "endpoints show mine"),
}


@pytest.mark.parametrize(("status", "content", "message", "next_step"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_passed_on_in_the_words_of_the_server(
    status: int, content: bytes, message: str, next_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "status", status)
    monkeypatch.setattr(Answering, "content", content)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with pytest.raises(EndpointError) as raised:
            ServerCalls("mine", server.server_port, "token").call("GET", "/status")
        server.shutdown()
        thread.join()
    assert message in raised.value.message
    assert raised.value.next_step.endswith(next_step)
    assert raised.value.retry_after == 7


NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("lease", "created", "used", "why"),
    [
        (Lease(), NOW - 1000 * HOUR, NOW - 900 * HOUR, None),
        (Lease(ttl_seconds=3600), NOW - HOUR, NOW, "its time of 1h is over"),
        (Lease(ttl_seconds=3601), NOW - HOUR, NOW, None),
        (Lease(idle_seconds=1800), NOW - HOUR, NOW - HOUR / 2, "nobody has called it for 30m"),
        (Lease(idle_seconds=1801), NOW - HOUR, NOW - HOUR / 2, None),
        (Lease(idle_seconds=60), NOW - HOUR, None, None),  # it is not known: it may be busy
    ],
)
def test_an_endpoint_expires_by_its_age_and_by_the_time_without_a_call(
    lease: Lease, created: datetime, used: datetime | None, why: str | None
) -> None:
    assert why_expired(lease, created, used, NOW) == why


def test_durations_are_written_as_they_are_typed() -> None:
    assert [duration_text(seconds) for seconds in (172_800, 28_800, 5400, 61)] == ["2d", "8h", "90m", "61s"]
