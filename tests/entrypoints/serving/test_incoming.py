"""Requests that come slowly, all at once, or from clients that leave before anything is drawn."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asked_app import Server, body, images_of, until

READERS = 2
"""Threads that read adapters, in the server of these tests."""


class Caller:
    """A client whose requests come in parts, and that can leave."""

    def __init__(self, server: Server, path: str = "/invocations") -> None:
        self.coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        self.task = asyncio.create_task(server.app(scope, self.coming.get, self._send))

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def give(self, content: bytes, *, more: bool = False) -> None:
        self.coming.put_nowait({"type": "http.request", "body": content, "more_body": more})

    def leave(self) -> None:
        self.coming.put_nowait({"type": "http.disconnect"})

    async def status(self) -> int:
        async with asyncio.timeout(30):
            await self.task
        status: int = self.sent[0]["status"]
        return status


@pytest.fixture
def occupied(server: Server) -> Iterator[threading.Event]:
    """Let the threads that read adapters wait for something else, until it is set."""
    free = threading.Event()
    for _ in range(READERS):
        server.state.service.cache.readers.submit(free.wait)
    yield free
    free.set()


def content_of(**fields: Any) -> bytes:
    return json.dumps(body(**fields)).encode()


WITH_DOG = {"adapters": [{"name": "dog"}]}


def test_a_deadline_passes_while_an_adapter_is_read(server: Server, occupied: threading.Event) -> None:
    server.state.deadline_seconds = 0.3
    answer = server.post("/invocations", body(**WITH_DOG))
    assert answer.status_code == 504
    assert server.state.admitted == server.state.admitted_images == server.state.body_bytes == 0
    occupied.set()
    server.state.deadline_seconds = 30.0
    assert images_of(server.post("/invocations", body(**WITH_DOG)))
    assert server.state.drawn == 1


def test_who_leaves_while_its_adapter_is_read_gives_its_place_back_and_is_not_drawn(
    server: Server, occupied: threading.Event
) -> None:
    server.state.most_waiting = 1

    async def calls(client: httpx.AsyncClient) -> tuple[int, int]:
        caller = Caller(server)
        caller.give(content_of(**WITH_DOG))
        await until(lambda: server.state.admitted)
        caller.leave()
        async with asyncio.timeout(30):
            await until(lambda: not server.state.admitted)
        gone = await caller.status()
        other = await client.post("/invocations", json=body())
        occupied.set()
        return gone, other.status_code

    assert server.run(calls) == (499, 200)
    assert images_of(server.post("/invocations", body(**WITH_DOG)))
    assert server.state.metrics.registry.get_sample_value("orchestrator_queue_seconds_count") == 2


@pytest.mark.parametrize("limit", ["body_seconds", "deadline_seconds"])
def test_a_body_that_comes_too_slowly_is_refused(server: Server, limit: str) -> None:
    setattr(server.state, limit, 0.2)

    async def calls(_: httpx.AsyncClient) -> tuple[int, Any]:
        caller = Caller(server)
        caller.give(content_of()[:10], more=True)
        status = await caller.status()
        return status, dict(caller.sent[0]["headers"])

    status, headers = server.run(calls)
    assert status == 408
    assert headers[b"connection"] == b"close"
    assert server.state.reading == server.state.body_bytes == 0


def test_no_more_bodies_are_read_at_once_than_there_is_room_for_and_ping_answers(server: Server) -> None:
    server.state.most_reading = 1

    async def calls(client: httpx.AsyncClient) -> list[Any]:
        slow = Caller(server)
        slow.give(content_of()[:10], more=True)
        await until(lambda: server.state.reading)
        refused = await client.post("/invocations", json=body())
        ping = await client.get("/ping")
        slow.give(content_of()[10:])
        return [refused, ping.status_code, await slow.status()]

    refused, ping, slow = server.run(calls)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert (ping, slow) == (200, 200)
    assert images_of(server.post("/invocations", body()))


def test_bodies_of_requests_that_wait_count_until_these_are_answered(server: Server, occupied: threading.Event) -> None:
    content = content_of(**WITH_DOG)
    server.state.most_body_bytes = 2 * len(content) - 1

    async def calls(client: httpx.AsyncClient) -> list[Any]:
        first = asyncio.create_task(client.post("/invocations", content=content))
        await until(lambda: server.state.admitted)
        refused = await client.post("/invocations", content=content)
        occupied.set()
        return [refused, await first, await client.post("/invocations", content=content)]

    refused, first, second = server.run(calls)
    assert (refused.status_code, first.status_code, second.status_code) == (429, 200, 200)
    assert int(refused.headers["retry-after"]) >= 1
    assert server.state.body_bytes == 0


def test_no_more_adapters_are_registered_at_once_than_there_is_room_for(
    server: Server, occupied: threading.Event
) -> None:
    server.state.most_registering = 1
    wanted = {"name": "again", "src": "dog"}

    async def calls(client: httpx.AsyncClient) -> list[httpx.Response]:
        first = asyncio.create_task(client.post("/adapters", json=wanted))
        await until(lambda: server.state.registering)
        refused = await client.post("/adapters", json=wanted)
        ping = await client.get("/ping")
        occupied.set()
        return [await first, refused, ping]

    first, refused, ping = server.run(calls)
    assert (first.status_code, refused.status_code, ping.status_code) == (200, 429, 200)
    assert int(refused.headers["retry-after"]) >= 1
    assert server.post("/adapters", wanted).status_code == 200
