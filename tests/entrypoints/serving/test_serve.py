"""The server as a process: it listens at once, answers, and ends without losing what it has admitted."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from server_process import ROOT, TOKEN, Process

from orchestrator.contract.bundle import BundleKind, bundle_files
from orchestrator.contract.events import Failed, Listening
from orchestrator.contract.serving import ServerOrder


@pytest.fixture
def order(base_folder: Path, finished: Path, tmp_path: Path) -> ServerOrder:
    dog = finished / "dog"
    return ServerOrder(
        base_model="tiny", base_folder=base_folder, adapters={"dog": dog}, root=tmp_path, port=0, token=TOKEN, rows=8
    )


@pytest.fixture
def server(order: ServerOrder) -> Iterator[Process]:
    process = Process(order)
    yield process
    process.close()


def asked(steps: int) -> dict[str, Any]:
    parameters = {"num_inference_steps": steps, "width": tiny.SIDE, "seed": 1}
    return {"inputs": "a dog", "parameters": parameters, "adapters": [{"name": "dog"}]}


def test_a_server_that_is_told_to_end_answers_what_it_has_admitted_and_takes_no_more(server: Process) -> None:
    server.until(Listening)
    with server.client() as client:
        assert client.get("/ping").status_code in (200, 503)  # it listens while it loads
        server.until_ready()
        assert client.get("/ping").status_code == 200
        answers: list[httpx.Response] = []
        slow = threading.Thread(target=lambda: answers.append(client.post("/invocations", json=asked(150))))
        slow.start()
        with server.client() as other:
            while '"drawing":1' not in other.get("/status").text:
                pass
            server.child.send_signal(signal.SIGTERM)
            while other.get("/ping").status_code == 200:
                pass
            refused = other.post("/invocations", json=asked(1))
        slow.join()
    assert refused.status_code == 503
    assert answers[0].status_code == 200
    assert server.child.wait() == 0


def test_a_base_model_that_cannot_be_loaded_ends_the_server_with_the_reason(order: ServerOrder, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    process = Process(order.model_copy(update={"base_folder": empty}))
    try:
        assert "model_index.json" in process.until(Failed).message
        assert process.child.wait() == 1
    finally:
        process.close()


def test_a_server_that_is_told_to_end_answers_all_of_a_full_queue(order: ServerOrder) -> None:
    process = Process(order.model_copy(update={"most_waiting": 6}))
    try:
        process.until_ready()
        answers: list[httpx.Response] = []

        def ask() -> None:
            with process.client() as client:
                answers.append(client.post("/invocations", json=asked(60)))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        with process.client() as client:
            while client.get("/status").json()["admitted"] < 6:
                pass
            process.child.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 6
        assert process.child.wait() == 0
    finally:
        process.close()


def test_the_serving_bundle_alone_starts_the_server(order: ServerOrder, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    for name, source in bundle_files(BundleKind.SERVING, ROOT / "orchestrator", ROOT / "entrypoints").items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(source.read_bytes())
    process = Process(order.model_copy(update={"rows": None}), bundle)  # the batch is measured
    try:
        process.until_ready()
        with process.client() as client:
            answer = client.post("/invocations", json=asked(2))
            assert answer.status_code == 200
            process.child.send_signal(signal.SIGTERM)
        assert process.child.wait() == 0
    finally:
        process.close()
