"""A server that is watched, hurried, stuck and told to end: what it says meanwhile, and that no answer is lost."""

import asyncio
import json
import queue
import threading
from typing import Any

import httpx
import pytest
import tiny
from asked_app import STEPS, Server, body, images_of, until
from prometheus_client.parser import text_string_to_metric_families

from entrypoints.serving import drawing_routes, listening
from entrypoints.serving.listening import end_when_done
from entrypoints.serving.low_rank_file import LowRankWeights
from entrypoints.serving.served import ServedAdapter
from entrypoints.serving.worker import ImageOrder, Worker
from orchestrator.contract.buckets import Size


def figures(server: Server) -> dict[str, float]:
    """Return each figure of /metrics by its name and labels."""
    answer = server.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = "".join(f"[{value}]" for _, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("orchestrator_") + labels] = sample.value
    return found


def test_metrics_count_what_was_drawn_with_what_and_who_was_refused(server: Server) -> None:
    async def together(client: httpx.AsyncClient) -> None:
        bodies = [body(adapters=[{"name": name}]) for name in ("dog", "ink", "dog")]
        await asyncio.gather(*(client.post("/invocations", json=one) for one in bodies))

    before = figures(server)
    assert (before["adapters"], before["queue_images"], before["images_total"]) == (2, 0, 0)
    server.run(together)
    server.post("/invocations", body(adapters=[{"name": "dgo"}]))
    server.ask("GET", "/nowhere")
    after = figures(server)
    assert after["images_total"] == 3
    assert after["requests_total[/invocations][200]"] == 3
    assert after["requests_total[/invocations][422]"] == 1
    assert after["requests_total[none][404]"] == 1
    assert after["adapter_reads_total[memory]"] == after["adapter_reads_total[slot]"] == 2
    assert after["adapter_hits_total[memory]"] == after["adapter_hits_total[slot]"] == 1
    assert after["load_seconds_count[memory]"] == after["load_seconds_count[slot]"] == 2
    assert after["batch_images_sum"] == 3 * STEPS
    assert after["batch_images_count"] == after["step_seconds_count"] == after["batch_adapters_count"]
    assert after["held_bytes[slot]"] > after["held_bytes[memory]"] > 0
    assert after["queue_seconds_count"] == 3


def events_of(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_an_image_that_cannot_even_wait_ends_with_the_error_and_the_thread_draws_on(server: Server) -> None:
    """Its adapter has weights for no part of the model, which no adapter that was registered has."""
    broken = ServedAdapter("none", "none", LowRankWeights({}, 0), None)
    told: queue.Queue[Any] = queue.Queue()
    order = ImageOrder("a dog", None, 1, STEPS, 5.0, Size(tiny.SIDE, tiny.SIDE), told.put, [(broken, 1.0)])
    server.state.drawing.order([order])
    assert isinstance(told.get(timeout=30), ValueError)
    assert images_of(server.post("/invocations", body()))


@pytest.mark.parametrize("accepts", [False, True])
def test_who_asks_for_a_stream_sees_each_step_and_then_the_answer(server: Server, accepts: bool) -> None:
    asked = body(parameters={"seed": 1, "num_images_per_prompt": 2})
    expected = server.post("/invocations", asked).json()
    headers = {"accept": "text/event-stream"} if accepts else {}
    answer = server.post("/invocations", asked if accepts else {**asked, "stream": True}, **headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *previews, (last, result) = events_of(answer.text)
    assert [kind for kind, _ in previews] == ["preview"] * 2 * (STEPS - 1)
    assert sorted((one["number"], one["step"]) for _, one in previews) == [(0, 1), (1, 1)]
    assert last == "result"
    assert [one["image"] for one in result["images"]] == [one["image"] for one in expected["images"]]
    assert server.state.admitted == 0


def test_a_stream_that_fails_ends_with_the_error_and_one_that_cannot_begin_has_its_status(
    server: Server, stuck: "Stuck", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing_routes, "LATE_SECONDS", 0.0)
    server.state.deadline_seconds = 1.0
    ((kind, said),) = events_of(server.post("/invocations", {**body(), "stream": True}).text)
    assert (kind, said["error"]["code"]) == ("error", 504)
    stuck.free.set()
    assert server.post("/invocations", {**body(adapters=[{"name": "dgo"}]), "stream": True}).status_code == 422
    assert server.state.admitted == 0


class Stuck:
    """Holds the thread that draws within a step."""

    def __init__(self, worker: Worker) -> None:
        self.reached = threading.Event()
        self.free = threading.Event()
        step = worker.engine.step

        def held(samples: Any) -> None:
            self.reached.set()
            self.free.wait()
            step(samples)

        worker.engine.step = held  # type: ignore[method-assign]


@pytest.fixture
def stuck(server: Server) -> Any:
    one = Stuck(server.state.drawing)
    yield one
    one.free.set()


def test_a_thread_that_draws_no_more_makes_the_server_unhealthy_and_its_requests_late(
    server: Server, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing_routes, "LATE_SECONDS", 0.0)
    server.state.deadline_seconds = 1.0

    async def calls(client: httpx.AsyncClient) -> list[int]:
        task = asyncio.create_task(client.post("/invocations", json=body()))
        await until(stuck.reached.is_set)
        found = [(await client.get("/ping")).status_code]
        server.state.stuck_seconds = 0.0
        found.append((await client.get("/ping")).status_code)
        found.append((await client.get("/readyz")).status_code)
        found.append((await task).status_code)
        return found

    assert server.run(calls) == [200, 503, 503, 504]


def test_a_full_queue_refuses_at_once_and_ping_answers_meanwhile(server: Server, stuck: Stuck) -> None:
    server.state.most_waiting = 2

    async def calls(client: httpx.AsyncClient) -> list[httpx.Response]:
        tasks = []
        for number in range(8):
            tasks.append(asyncio.create_task(client.post("/invocations", json=body(number))))
            await until(stuck.reached.is_set)
        await until(lambda: sum(task.done() for task in tasks) == 5)
        answers = [await client.get("/ping"), await client.get("/readyz"), await client.get("/status")]
        stuck.free.set()
        return [*answers, *(await asyncio.gather(*tasks))]

    ping, ready, status, *answers = server.run(calls)
    assert ping.status_code == 200
    assert ready.status_code == 503
    assert (status.json()["drawing"], status.json()["waiting"]) == (1, 2)
    refused = [one for one in answers if one.status_code == 429]
    assert len(refused) == 5
    assert all(1 <= int(one.headers["retry-after"]) <= 60 for one in refused)
    assert all(images_of(one) for one in answers if one not in refused)
    assert server.ask("GET", "/readyz").status_code == 200


def test_no_more_work_waits_than_can_be_drawn_when_the_server_is_told_to_end(server: Server, stuck: Stuck) -> None:
    worker = server.state.drawing
    worker.seconds_per_work = 1.0  # a second for a pixel

    async def calls(client: httpx.AsyncClient) -> tuple[int, int]:
        first = asyncio.create_task(client.post("/invocations", json=body(1)))
        await until(stuck.reached.is_set)
        second = asyncio.create_task(client.post("/invocations", json=body(2)))
        await until(lambda: server.state.waiting == 1)
        refused = await client.post("/invocations", json=body(3))
        stuck.free.set()
        await asyncio.gather(first, second)
        return refused.status_code, (await first).status_code

    assert server.run(calls) == (429, 200)


def test_what_cannot_be_drawn_before_the_server_ends_is_answered_with_an_error(
    server: Server, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "DRAIN_SECONDS", 0.0)

    class Ending:
        should_exit = False

    async def calls(client: httpx.AsyncClient) -> tuple[httpx.Response, bool]:
        task = asyncio.create_task(client.post("/invocations", json=body()))
        await until(stuck.reached.is_set)
        server.state.draining = True
        ending: Any = Ending()
        await end_when_done(ending, server.state)
        return await task, ending.should_exit

    answer, ended = server.run(calls)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert ended


@pytest.mark.parametrize("path", ["/invocations", "/v1/images/generations"])
def test_a_server_that_loads_refuses_requests_until_it_is_ready(server: Server, path: str) -> None:
    worker, server.state.worker = server.state.worker, None
    service, server.state._service = server.state._service, None
    answer = server.post(path, body())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert server.ask("GET", "/ping").status_code == 503
    assert server.ask("GET", "/metrics").status_code == 200
    assert worker is not None
    assert service is not None
    server.state.ready(service, worker)
    assert server.ask("GET", "/ping").status_code == 200


def test_a_client_that_does_not_read_its_stream_keeps_no_other_waiting(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing_routes, "MOST_PREVIEWS", 2)
    content = json.dumps({**body(parameters={"num_inference_steps": 8}), "stream": True}).encode()
    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": [], "query_string": b""}
    sent: list[bytes] = []

    async def calls(_: httpx.AsyncClient) -> None:
        unread = asyncio.Event()
        parts = [{"type": "http.request", "body": content}]

        async def receive() -> Any:
            if not parts:
                await asyncio.Event().wait()
            return parts.pop()

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))
            if message.get("body"):
                await unread.wait()

        task = asyncio.create_task(server.app(scope, receive, send))
        async with asyncio.timeout(30):
            await until(lambda: server.state.drawn == 1 and server.state.admitted == 0)
        unread.set()
        await task

    server.run(calls)
    kinds = [kind for kind, _ in events_of(b"".join(sent).decode())]
    assert kinds == ["preview", "preview", "preview", "result"]
