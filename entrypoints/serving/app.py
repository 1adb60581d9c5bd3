"""The server's HTTP side: SageMaker's hosting contract, requests of three kinds of clients, adapters by name.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import asyncio
import hmac
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.answers import answer, media_type_of
from entrypoints.serving.bodies import MOST_BODY_BYTES, Asked, BodyError, read_invocation, read_openai
from entrypoints.serving.service import Service, UnknownAdapterError
from entrypoints.serving.worker import Cancelled, Drawn, Expired, Worker

DEADLINE_SECONDS = 55.0
"""SageMaker gives up after 60."""
STUCK_SECONDS = 120.0
"""Without a step of the thread that draws, after which the server calls itself unhealthy."""
ADAPTER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
"""Names the adapter of a request that SageMaker routed to an adapter component."""


class State:
    """What the routes share."""

    def __init__(self, root: Path, unpacked: Path, token: str | None = None, most_waiting: int = 64) -> None:
        self.root = root
        """Below which adapters may lie that are registered by path."""
        self.unpacked = unpacked
        """Where archives of adapters are unpacked."""
        self.token = token
        """That every request but /ping has to carry; None in a container, where SageMaker checks who calls."""
        self.most_waiting = most_waiting
        """Images in the queue, above which requests are refused."""
        self.draining = False
        """Whether no more requests are taken, because the server ends."""
        self.failure: str | None = None
        """Why the base model could not be loaded."""
        self.admitted = 0
        """Requests that are being answered."""
        self.drawn = 0
        """Images that were answered with."""
        self.used = time.monotonic()
        """When a request was last begun or ended."""
        self.seconds_per_image = 1.0
        """Of late, for Retry-After."""
        self.worker: Worker | None = None
        self._service: Service | None = None

    def ready(self, service: Service, worker: Worker) -> None:
        """Begin to take requests."""
        self._service = service
        self.worker = worker

    @property
    def service(self) -> Service:
        """What is known and held; raises Refused(503) while the base model is loaded."""
        if self._service is None:
            raise Refused(503, "The base model is being loaded.", "try again", {"Retry-After": "5"})
        return self._service

    @property
    def drawing(self) -> Worker:
        """The thread that draws; raises Refused(503) while the base model is loaded."""
        if self.worker is None:
            raise Refused(503, "The base model is being loaded.", "try again", {"Retry-After": "5"})
        return self.worker

    @property
    def phase(self) -> str:
        """What the server does: "loading", "serving" or "ending"."""
        if self.draining:
            return "ending"
        return "loading" if self.worker is None else "serving"

    @property
    def idle_seconds(self) -> float:
        """Seconds since a request was last answered, or the server began; 0 while one is."""
        return 0.0 if self.admitted else time.monotonic() - self.used

    @property
    def is_healthy(self) -> bool:
        """Whether SageMaker may send requests."""
        if self.draining or self.worker is None:
            return False
        return time.monotonic() - self.worker.progress <= STUCK_SECONDS


class Refused(Exception):  # noqa: N818 - an answer
    """A request is answered with an error."""

    def __init__(self, status: int, message: str, next_step: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.next_step = next_step
        self.headers = headers


def make_app(state: State) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="orchestrator", docs_url=None, redoc_url=None, dependencies=[Depends(require_token)])
    app.state.server = state
    app.add_exception_handler(Refused, refusal)
    app.add_api_route("/ping", ping, methods=["GET", "POST"])
    app.add_api_route("/readyz", ready, methods=["GET"])
    app.add_api_route("/status", status, methods=["GET"])
    app.add_api_route("/invocations", invocations, methods=["POST"])
    app.add_api_route("/v1/images/generations", openai_images, methods=["POST"])
    return app


def state_of(request: Request) -> State:
    """Return what the routes share."""
    state: State = request.app.state.server
    return state


async def require_token(request: Request) -> None:
    """Raise Refused(401) for a request without the server's token."""
    expected = state_of(request).token
    if expected is None or request.url.path == "/ping":
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise Refused(401, "This server asks for its token.", "send Authorization: Bearer TOKEN")


async def ping(request: Request) -> Response:
    """Say whether the server lives and has loaded its base model."""
    return Response(status_code=200 if state_of(request).is_healthy else 503)


async def ready(request: Request) -> Response:
    """Say whether another request would be taken."""
    state = state_of(request)
    has_room = state.is_healthy and state.drawing.waiting < state.most_waiting
    return Response(status_code=200 if has_room else 503)


async def status(request: Request) -> Response:
    """Say what the server is doing, and for how long it has had nothing to do; while it is loading, too."""
    state = state_of(request)
    worker = state.worker
    return JSONResponse(
        {
            "phase": state.phase,
            "admitted": state.admitted,
            "waiting": worker.waiting if worker else 0,
            "drawing": worker.drawing if worker else 0,
            "drawn": state.drawn,
            "last_used": round(state.idle_seconds, 3),
            "adapters": len(state.service.library) if worker else 0,
        }
    )


async def invocations(request: Request) -> Response:
    """Draw what a body of ours or JumpStart's asks for."""
    state = state_of(request)
    content = await body_of(request)
    return await answered(request, state, lambda: read_invocation(content, state.service.defaults))


async def openai_images(request: Request) -> Response:
    """Draw what a body of OpenAI's asks for."""
    state = state_of(request)
    content = await body_of(request)
    return await answered(request, state, lambda: read_openai(content, state.service.defaults))


async def refusal(_: Request, error: Exception) -> Response:
    """Return the response of a refusal, in the shape that OpenAI's clients read too."""
    if not isinstance(error, Refused):
        raise error
    body: dict[str, Any] = {"error": {"message": error.message, "code": error.status}}
    if error.next_step:
        body["error"]["next"] = error.next_step
    return JSONResponse(body, error.status, error.headers)


async def body_of(request: Request) -> bytes:
    """Return the body of a request; raises Refused(413) before more than the limit is read."""
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BODY_BYTES:
            raise Refused(413, f"The body is larger than {MOST_BODY_BYTES:,} bytes.", "send smaller pictures")
        parts.append(part)
    return b"".join(parts)


async def answered(request: Request, state: State, read: Callable[[], Asked]) -> Response:
    """Read a request, have it drawn and answer it; raises Refused."""
    if state.draining:
        raise Refused(503, "This server is ending, and takes no more requests.", "try again", {"Retry-After": "5"})
    try:
        asked = read()
        media_type = media_type_of(request.headers.get("accept"), asked.style)
    except BodyError as error:
        raise Refused(422, str(error), error.problems[0].fix) from error
    except ValueError as error:
        raise Refused(406, str(error)) from error
    require_room(state, len(asked.generation.images))
    state.admitted += 1
    try:
        return await _drawn(request, state, asked, media_type)
    finally:
        state.admitted -= 1
        state.used = time.monotonic()


def require_room(state: State, images: int) -> None:
    """Raise Refused(429) when the queue is full, with the seconds after which it should not be."""
    waiting = state.drawing.waiting
    if waiting + images > state.most_waiting:
        seconds = math.ceil(waiting * state.seconds_per_image)
        headers = {"Retry-After": str(max(1, min(seconds, 60)))}
        raise Refused(429, f"{waiting} images wait already.", "try again later", headers)


async def _drawn(request: Request, state: State, asked: Asked, media_type: str) -> Response:
    """Return the answer to a request that was admitted; raises Refused."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        prepared = await state.service.prepare(asked.generation)
    except UnknownAdapterError as error:
        raise Refused(422, str(error), "GET /adapters lists those that there are") from error
    except TrainingError as error:
        raise Refused(424, error.message, error.next_step) from error
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Drawn]] = [loop.create_future() for _ in asked.generation.images]

    def done(number: int, result: Drawn | Exception) -> None:
        loop.call_soon_threadsafe(settle, futures[number], result)

    orders = prepared.orders(deadline, done)
    state.drawing.order(orders)
    watcher = asyncio.create_task(until_gone(request))
    everything = asyncio.gather(*futures)
    try:
        await asyncio.wait([everything, watcher], return_when=asyncio.FIRST_COMPLETED)
        if not everything.done():
            raise Refused(499, "Nobody waits for the answer.")
        drawn = everything.result()
    except Expired as error:
        raise Refused(504, "The images were not ready in time.", "ask for fewer steps, or later") from error
    except TrainingError as error:
        status = 507 if error.kind == "memory" else 424
        raise Refused(status, error.message, error.next_step) from error
    finally:
        watcher.cancel()
        for order in orders:
            order.cancelled.set()
        for future in futures:
            future.cancel()
    state.drawn += len(drawn)
    state.seconds_per_image = 0.8 * state.seconds_per_image + 0.2 * max(one.seconds for one in drawn)
    try:
        made = await asyncio.to_thread(answer, asked, prepared.adapters, drawn, media_type)
    except ValueError as error:
        raise Refused(406, str(error)) from error
    return Response(made.content, media_type=made.media_type, headers=made.headers)


def settle(future: "asyncio.Future[Drawn]", result: Drawn | Exception) -> None:
    """Give a future its result, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(result, Cancelled):
        future.cancel()
    elif isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


async def until_gone(request: Request) -> None:
    """Return when the client has closed its connection; its body was read."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
