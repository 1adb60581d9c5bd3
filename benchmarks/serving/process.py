"""The server as a process, as a host starts it: `python -m entrypoints.serve` with its order on stdin."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.serving.materials import ROOT, Materials, Model
from benchmarks.serving.ours import PROMPT
from orchestrator.contract.events import Listening, Phase, parse
from orchestrator.contract.serving import ServerOrder

TOKEN = "a-token-of-this-benchmark"  # noqa: S105 - of a server on loopback that ends with the benchmark
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
TIMEOUT = 120.0
_READY = "serving"


class Server:
    """A server on loopback, on one thread; it is killed at the end unless it has ended."""

    def __init__(self, model: Model, root: Path, adapters: Mapping[str, Path], **more: Any) -> None:
        self.model = model
        order = ServerOrder(
            base_model=model.name,
            base_folder=model.folder,
            adapters=adapters,
            root=root,
            port=0,
            token=TOKEN,
            **more,
        )
        self.child = subprocess.Popen(
            [sys.executable, "-m", "entrypoints.serve"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        if self.child.stdin is None or self.child.stdout is None:
            raise RuntimeError("no pipes")
        self.child.stdin.write(order.model_dump_json().encode())
        self.child.stdin.close()
        self.events = self.child.stdout
        self.port = 0
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        for line in self.events:
            event = parse(line.decode())
            if isinstance(event, Listening):
                self.port = event.port
            if isinstance(event, Phase) and event.name == _READY:
                self._reader = threading.Thread(target=self.events.read, daemon=True)  # so that it never has to wait
                self._reader.start()
                return self
        raise RuntimeError(f"the server ended with {self.child.wait()} before it was ready")

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        if self._reader is not None:
            self._reader.join()
        self.events.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def memory(self) -> int:
        """Bytes that are resident now."""
        status = Path(f"/proc/{self.child.pid}/statm").read_text(encoding="ascii")
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def client(self) -> httpx.Client:
        """Return a client that keeps its connection."""
        return httpx.Client(base_url=self.url, headers=HEADERS, timeout=TIMEOUT)

    def many(self) -> httpx.AsyncClient:
        """Return a client with as many connections as it has requests."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(base_url=self.url, headers=HEADERS, timeout=TIMEOUT, limits=limits)


_SHARED: dict[int, Server] = {}


@contextmanager
def served(materials: Materials, model: Model, adapters: Mapping[str, Path], **more: Any) -> Iterator[Server]:
    """Start a server of a row's own; to try rows out they share one, since starting takes longer than the rest."""
    if not materials.quick:
        with Server(model, materials.root, adapters, **more) as server:
            yield server
        return
    key = id(materials)
    if key not in _SHARED:
        _SHARED[key] = materials.closing.enter_context(Server(model, materials.root, {}))
    server = _SHARED[key]
    with server.client() as client:
        for name, folder in adapters.items():
            client.post("/adapters", json={"name": name, "src": str(folder)}).raise_for_status()
    yield server


def body(model: Model, seed: int, adapter: str | None = None, **parameters: Any) -> dict[str, Any]:
    """Return the body of a request for one image."""
    values = {
        "num_inference_steps": model.steps,
        "guidance_scale": model.guidance,
        "width": model.size,
        "height": model.size,
        "seed": seed,
        **parameters,
    }
    asked: dict[str, Any] = {"inputs": PROMPT, "parameters": values}
    if adapter is not None:
        asked["adapters"] = [{"name": adapter}]
    return asked
