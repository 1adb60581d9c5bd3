"""The server as a process: it listens at once, answers, and ends without losing what it has admitted."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from made_adapters import write_finished

from orchestrator.contract.events import Failed, Listening, Phase, parse
from orchestrator.contract.serving import ServerOrder

ROOT = Path(__file__).parents[3]
TOKEN = "a-token-of-this-test"  # noqa: S105


class Process:
    """A server, and what it has said."""

    def __init__(self, order: ServerOrder) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "entrypoints.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(order.model_dump_json())
        self.child.stdin.close()
        self.lines = iter(self.child.stdout)
        self.port = 0

    def close(self) -> int:
        """End it, if it has not ended by itself, and return its status."""
        assert self.child.stdout is not None
        self.child.kill()
        status = self.child.wait()
        self.child.stdout.close()
        return status

    def until(self, kind: type[Any]) -> Any:
        """Return the next event of a kind."""
        for line in self.lines:
            event = parse(line)
            if isinstance(event, Listening):
                self.port = event.port
            if isinstance(event, kind):
                return event
        raise AssertionError(f"it ended without {kind.__name__}")

    def until_ready(self) -> None:
        while self.until(Phase).name != "serving":
            pass

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60)


@pytest.fixture
def order(base_folder: Path, tmp_path: Path) -> ServerOrder:
    dog = write_finished(tmp_path / "dog", base_folder, 1)
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
