"""A request on its way in: its body read within bounds, and what it waits for given up when nobody waits any more."""

import asyncio
import time
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from entrypoints.serving.state import MOST_BODY_BYTES, Refused, State

SOON = "1"
"""Seconds after which a request may be sent again that came while too many bodies were read."""
CLOSE = {"Connection": "close"}
"""With an answer that comes before a body was read: what is left of it is not read."""
Result = TypeVar("Result")


class Body:
    """The body of a request; its bytes are counted until the request has ended, because its pictures are kept."""

    def __init__(self, state: State, most: int = MOST_BODY_BYTES) -> None:
        self.state = state
        self.most = most
        """Bytes."""
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.state.body_bytes -= self.size
        self.size = 0

    async def read(self, request: Request) -> bytes:
        """Return the body.

        Raises Refused: 408 for one that comes too slowly, 413 for one that is too large, 429 when too much is read at
        once, 499 when the client leaves.
        """
        state = self.state
        if state.reading >= state.most_reading:
            raise _busy(f"{state.reading} requests are being read already.")
        seconds = min(state.body_seconds, state.deadline_seconds)
        state.reading += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._parts(request)
        except TimeoutError as error:
            raise Refused(
                408,
                f"The body was not there after {seconds:g} seconds.",
                "send it faster, or with smaller pictures",
                CLOSE,
            ) from error
        except ClientDisconnect as error:
            raise gone() from error
        finally:
            state.reading -= 1

    async def _parts(self, request: Request) -> bytes:
        parts = []
        async for part in request.stream():
            self.size += len(part)
            self.state.body_bytes += len(part)
            if self.size > self.most:
                raise Refused(
                    413,
                    f"The body is larger than {self.most:,} bytes.",
                    "send smaller pictures",
                    CLOSE,
                )
            if self.state.body_bytes > self.state.most_body_bytes:
                raise _busy(f"The bodies of all requests are more than {self.state.most_body_bytes:,} bytes.")
            parts.append(part)
        return b"".join(parts)


class Waiting:
    """How long a request is waited for: from when it came to its deadline, while its client and the server are there.

    The client is watched once the body was read: until then, reading tells of it.
    """

    def __init__(self, request: Request, state: State) -> None:
        self.request = request
        self.state = state
        self.deadline = time.monotonic() + state.deadline_seconds
        """In seconds of the monotonic clock."""
        loop = asyncio.get_running_loop()
        self.closing: asyncio.Future[None] = loop.create_future()
        self.watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self.watcher = asyncio.create_task(until_gone(self.request))
        self.state.closing.add(self.closing)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.state.closing.discard(self.closing)
        if self.watcher is not None:
            self.watcher.cancel()

    async def result_of(self, work: Awaitable[Result], more_seconds: float = 0.0) -> Result:
        """Return what comes of some work, which is cancelled when the request is given up.

        `more_seconds` is how long after the deadline that is. Raises Refused: 504 when the deadline has passed, 499
        when the client has left, 503 when the server ends.
        """
        task = asyncio.ensure_future(work)
        watched: set[asyncio.Future[None]] = {self.closing}
        if self.watcher is not None:
            watched.add(self.watcher)
        left = self.deadline + more_seconds - time.monotonic()
        try:
            await asyncio.wait(
                {task, *watched},
                timeout=max(0.0, left),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task.done():
                return task.result()
            raise self._reason()
        finally:
            task.cancel()  # of one that is done, nothing

    def _reason(self) -> Refused:
        """Return why the request is given up."""
        if self.watcher is not None and self.watcher.done():
            return gone()
        if self.closing.done():
            return Refused(
                503,
                "The server ended before all was drawn.",
                "send it again",
                {"Retry-After": "5"},
            )
        return late()


def late() -> Refused:
    """Return the refusal of a request whose deadline has passed."""
    return Refused(504, "The images were not ready in time.", "ask for fewer steps, fewer or smaller images, or later")


def gone() -> Refused:
    """Return the answer to a client that has closed its connection."""
    return Refused(499, "Nobody waits for the answer.")


async def until_gone(request: Request) -> None:
    """Return when the client has closed its connection; its body was read."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


def _busy(message: str) -> Refused:
    return Refused(429, message, "try again", {"Retry-After": SOON, **CLOSE})
