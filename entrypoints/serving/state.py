"""What the routes of a server share, and how a request is refused."""

import asyncio
import hmac
import math
import time
from collections.abc import Sequence
from pathlib import Path

from fastapi import Request

from entrypoints.serving.metrics import Metrics
from entrypoints.serving.service import Service
from entrypoints.serving.worker import Worker

MOST_BODY_BYTES = 2**25
"""Of a request: a few pictures in base64."""
MOST_READING = 64
"""Bodies that are read at once."""
MOST_BODIES_BYTES = 2**28
"""Of all bodies at once: they are kept until their requests are answered."""
BODY_SECONDS = 30.0
"""That a body may take to come."""
MOST_REGISTERING = 4
"""Adapters that are registered at once: each is hashed and unpacked in a thread of its own."""
DRAIN_SECONDS = 25.0
"""SageMaker kills a container 30 seconds after SIGTERM."""
MOST_QUEUED_SECONDS = 15.0
"""Of work that may wait: what is admitted can still be drawn when the server is told to end."""
STUCK_SECONDS = 120.0
"""Without a step of the thread that draws, after which the server calls itself unhealthy."""
_LOADING = "The base model is being loaded."
_SOON = {"Retry-After": "5"}


class Refused(Exception):  # noqa: N818 - an answer
    """A request is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        next_step: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.next_step = next_step
        self.headers = headers


class State:
    """What the routes share; it is used by the thread of the event loop."""

    def __init__(
        self,
        root: Path,
        token: str | None = None,
        most_waiting: int = 64,
        deadline_seconds: float = 55.0,
        metrics: Metrics | None = None,
    ) -> None:
        self.root = root
        """Below which adapters may lie that are registered by path."""
        self.token = token
        """That every request but /ping has to carry; None in a container, where SageMaker checks who calls."""
        self.most_waiting = most_waiting
        """Images in the queue, above which requests are refused."""
        self.deadline_seconds = deadline_seconds
        """That a request may take."""
        self.metrics = metrics or Metrics()
        self.stuck_seconds = STUCK_SECONDS
        self.most_reading = MOST_READING
        self.most_body_bytes = MOST_BODIES_BYTES
        self.body_seconds = BODY_SECONDS
        self.most_registering = MOST_REGISTERING
        self.draining = False
        """Whether no more requests are taken, because the server ends."""
        self.closing: set[asyncio.Future[None]] = set()
        """One of each request that is drawn: done when the server ends now, and the answer is an error."""
        self.failure: str | None = None
        """Why the base model could not be loaded."""
        self.admitted = 0
        """Requests that are being answered."""
        self.admitted_images = 0
        """Images of these."""
        self.reading = 0
        """Bodies that are being read."""
        self.body_bytes = 0
        """Of bodies that are being read, and of those of requests that are being answered."""
        self.registering = 0
        """Adapters that are being registered."""
        self.admitted_work = 0.0
        """Pixels times steps of these."""
        self.drawn = 0
        """Images that were answered with."""
        self.used = time.monotonic()
        """When a request was last begun or ended."""
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
            raise Refused(
                503,
                _LOADING,
                "try again",
                _SOON,
            )
        return self._service

    @property
    def drawing(self) -> Worker:
        """The thread that draws; raises Refused(503) while the base model is loaded."""
        if self.worker is None:
            raise Refused(
                503,
                _LOADING,
                "try again",
                _SOON,
            )
        return self.worker

    def close(self) -> None:
        """Have whatever is not drawn yet answered with an error."""
        for future in self.closing:
            if not future.done():
                future.set_result(None)

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
        silent = time.monotonic() - self.worker.progress
        return self.worker.is_alive and silent <= self.stuck_seconds

    @property
    def waiting(self) -> int:
        """Images that were admitted and are not drawn yet, those whose adapters are still being read included."""
        drawing = self.worker.drawing if self.worker else 0
        return max(0, self.admitted_images - drawing)

    @property
    def queued_seconds(self) -> float:
        """Estimate of how long the work takes that was admitted."""
        if self.worker is None:
            return 0.0
        return self.admitted_work * self.worker.seconds_per_work

    def require_room(self, images: int = 1) -> None:
        """Raise Refused when the server ends, or its queue is full; with the seconds after which it should not be."""
        if self.draining:
            raise Refused(
                503,
                "This server is ending, and takes no more requests.",
                "try again",
                _SOON,
            )
        waiting = self.waiting
        seconds = self.queued_seconds
        if waiting + images <= self.most_waiting and (not waiting or seconds <= MOST_QUEUED_SECONDS):
            return
        delay = min(max(1, math.ceil(seconds)), 60)
        if waiting:
            message = f"{waiting} images wait already, about {seconds:.0f} seconds of work."
        else:
            message = f"{images} images are more than may wait: {self.most_waiting}."
        raise Refused(
            429,
            message,
            "try again later, with fewer images",
            {"Retry-After": str(delay)},
        )


class Admission:
    """A request's share of the queue, from when it is let in until it is answered."""

    def __init__(
        self,
        state: State,
        images: int,
        work: float,
    ) -> None:
        self.state = state
        self.images = images
        self.work = work
        self._is_open = True
        state.admitted += 1
        state.admitted_images += images
        state.admitted_work += work

    def end(self) -> None:
        """Give the share back; a second time does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        self.state.admitted -= 1
        self.state.admitted_images -= self.images
        self.state.admitted_work -= self.work
        self.state.used = time.monotonic()


def state_of(request: Request) -> State:
    """Return what the routes share."""
    state: State = request.app.state.server
    return state


async def require_token(request: Request) -> None:
    """Raise Refused(401) for a request without the server's token."""
    expected = state_of(request).token
    if expected is None or request.scope["path"] == "/ping":  # as it is routed; an URL may be made of other headers
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise Refused(
            401,
            "This server asks for its token.",
            "send Authorization: Bearer TOKEN",
        )


def broken(error: Exception) -> Refused:
    """Return the answer to a request at which the server itself has failed."""
    return Refused(
        500,
        f"The server has failed at this request: {type(error).__name__}.",
        "report it, with the server's log",
    )


def one_header(request: Request, name: str) -> str | None:
    """Return the value of a header; raises Refused(422) when it is there twice with two values."""
    values: Sequence[str] = sorted(set(request.headers.getlist(name)))
    if len(values) > 1:
        raise Refused(
            422,
            f"The header {name} is there with {len(values)} values.",
            "send it once",
        )
    return values[0] if values else None
