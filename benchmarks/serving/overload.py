"""Ten times as many requests as the server can draw, and its end while it draws."""

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import httpx

from benchmarks.serving.materials import Materials
from benchmarks.serving.process import Server, body, served
from benchmarks.serving.results import Figure, Found
from benchmarks.serving.turns import percentile

TIMES = 10
PINGS_EVERY = 0.1
"""Seconds."""
PING_BAR = 100.0
REFUSAL_BAR = 50.0
END_BAR = 25.0
BATCH = 8
_ADAPTERS = 8


@dataclass
class Seen:
    """What a client of an overloaded server has met."""

    statuses: Counter[int] = field(default_factory=Counter)
    drawn: list[float] = field(default_factory=list)
    """Seconds of requests that were answered with a picture."""
    refused: list[float] = field(default_factory=list)
    """Seconds of those that were answered with 429."""
    without_header: int = 0
    """Refusals that do not say when to come again."""
    lost: int = 0
    """Requests without an answer."""
    pings: list[float] = field(default_factory=list)
    bad_pings: int = 0


async def post(client: httpx.AsyncClient, asked: dict[str, Any], seen: Seen) -> None:
    """Send a request and note what became of it."""
    began = time.perf_counter()
    try:
        answer = await client.post("/invocations", json=asked)
    except httpx.HTTPError:
        seen.lost += 1
        return
    seconds = time.perf_counter() - began
    seen.statuses[answer.status_code] += 1
    if answer.status_code == httpx.codes.OK:
        seen.drawn.append(seconds)
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        seen.refused.append(seconds)
        seen.without_header += "retry-after" not in answer.headers


async def ping(client: httpx.AsyncClient, seen: Seen, ended: asyncio.Event) -> None:
    """Ask for /ping until told to end."""
    while not ended.is_set():
        began = time.perf_counter()
        try:
            answer = await client.get("/ping")
            seen.bad_pings += answer.status_code != httpx.codes.OK
        except httpx.HTTPError:
            seen.bad_pings += 1
        seen.pings.append(time.perf_counter() - began)
        await asyncio.sleep(PINGS_EVERY)


def overload(materials: Materials) -> Found:
    """Ten times the server's capacity, for a minute."""
    model = materials.builtin
    lasts = materials.number(60, 1)
    folders = materials.adapters(model, _ADAPTERS)
    names = {str(number): folder for number, folder in enumerate(folders)}
    with served(materials, model, names) as server:
        capacity = asyncio.run(capacity_of(server, materials.number(4, 1)))
        seen = asyncio.run(flood(server, TIMES * capacity, lasts))
    counts = ", ".join(f"{count} with {status}" for status, count in sorted(seen.statuses.items()))
    return Found(
        figures=(
            Figure(what="pings without 200", value=seen.bad_pings, bar=0),
            Figure(what="/ping, p99", value=1000 * percentile(seen.pings, 0.99), unit=" ms", bar=PING_BAR),
            Figure(what="refusal, p99", value=1000 * percentile(seen.refused, 0.99), unit=" ms", bar=REFUSAL_BAR),
            Figure(what="refusal, slowest", value=1000 * max(seen.refused, default=0), unit=" ms", bar=REFUSAL_BAR),
            Figure(what="refusals without Retry-After", value=seen.without_header, bar=0),
            Figure(what="admitted without a picture", value=unanswered(seen), bar=0),
        ),
        notes=(
            (
                f"{model.name}, {model.steps} steps: {capacity:.1f} pictures a second when {BATCH} requests wait at any"
                f" time; then {TIMES * capacity:.0f} requests a second for {lasts} s. {sum(seen.statuses.values())}"
                f" were answered: {counts}; {seen.lost} got no answer. /ping: {len(seen.pings)} times,"
                f" {1000 * median(seen.pings):.1f} ms at p50, {1000 * max(seen.pings):.0f} ms at most. Refusals:"
                f" {1000 * percentile(seen.refused, 0.5):.1f} ms at p50. Admitted requests took"
                f" {percentile(seen.drawn, 0.5):.1f} s at p50 and {max(seen.drawn, default=0):.1f} s at most."
            ),
            "The client, in this process, shares the two cores with the server.",
        ),
    )


def unanswered(seen: Seen) -> int:
    """Return how many requests were neither drawn nor refused."""
    return seen.lost + sum(seen.statuses.values()) - len(seen.drawn) - len(seen.refused)


async def capacity_of(server: Server, batches: int) -> float:
    """Return how many pictures a second come out while some requests wait at any time."""
    seen = Seen()
    async with server.many() as client:

        async def requests(first: int) -> None:
            for number in range(batches):
                await post(client, body(server.model, number, str(first % _ADAPTERS)), seen)

        await requests(0)
        began = time.perf_counter()
        await asyncio.gather(*(requests(number) for number in range(BATCH)))
        return BATCH * batches / (time.perf_counter() - began)


async def flood(server: Server, rate: float, lasts: float) -> Seen:
    """Send requests at a rate, whether they are answered or not, and wait until all are."""
    seen = Seen()
    ended = asyncio.Event()
    async with server.many() as client, server.many() as other:
        pinging = asyncio.create_task(ping(other, seen, ended))
        tasks = []
        began = time.perf_counter()
        for number in range(int(rate * lasts)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            asked = body(server.model, number, str(number % _ADAPTERS))
            tasks.append(asyncio.create_task(post(client, asked, seen)))
        await asyncio.gather(*tasks)
        ended.set()
        await pinging
    return seen


def ending(materials: Materials) -> Found:
    """SIGTERM while requests are drawn and wait, several times."""
    model = materials.builtin
    rounds = materials.number(5, 1)
    folders = materials.adapters(model, _ADAPTERS)
    names = {str(number): folder for number, folder in enumerate(folders)}
    lost = 0
    admitted = 0
    seconds = []
    statuses: list[int] = []
    answers: Counter[int] = Counter()
    for number in range(rounds):
        with Server(model, materials.root, names) as server:
            seen, took = asyncio.run(end(server, requests=8 * (number + 1)))
            statuses.append(server.child.wait())
        admitted += len(seen.drawn)
        lost += unanswered(seen)
        answers += seen.statuses
        seconds.append(took)
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(answers.items()))
    return Found(
        figures=(
            Figure(what="admitted requests lost", value=lost, bar=0),
            Figure(what="exit statuses other than 0", value=sum(status != 0 for status in statuses), bar=0),
            Figure(what="seconds to the end, longest", value=max(seconds), unit=" s", bar=END_BAR),
        ),
        notes=(
            (
                f"{model.name}, {rounds} servers: SIGTERM when all requests were admitted, up to {8 * rounds} of them;"
                f" {admitted + lost} were admitted, and answered with {counts}; the ends took"
                f" {', '.join(f'{one:.1f} s' for one in seconds)}."
            ),
        ),
    )


async def end(server: Server, requests: int) -> tuple[Seen, float]:
    """Order images, end the server when all are admitted, and return what became of them and how long it took."""
    seen = Seen()
    async with server.many() as client, server.many() as other:
        tasks = [
            asyncio.create_task(post(client, body(server.model, number, str(number % _ADAPTERS)), seen))
            for number in range(requests)
        ]
        while (await other.get("/status")).json()["admitted"] + len(seen.drawn) < requests:
            pass
        began = time.perf_counter()
        server.child.send_signal(signal.SIGTERM)
        await asyncio.gather(*tasks)
    await asyncio.to_thread(server.child.wait)
    return seen, time.perf_counter() - began
