"""The server as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from orchestrator.contract.events import Listening, Phase, parse
from orchestrator.contract.serving import ServerOrder

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-this-test"  # noqa: S105


class Process:
    """A server, and what it has said."""

    def __init__(self, order: ServerOrder, root: Path = ROOT) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "entrypoints.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(order.model_dump_json())
        self.child.stdin.close()
        self.lines = iter(self.child.stdout)
        self.port = 0
        self.root = order.root

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

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)
