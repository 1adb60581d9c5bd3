"""The server: `serve` in a container, or a `ServerOrder` on stdin on this machine.

It listens at once and says that it is not ready while the base model is loaded. SIGTERM ends it when what was admitted
is answered, within the 30 seconds that SageMaker waits.
"""

import asyncio
import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entrypoints.runtime import libraries, process
from orchestrator.contract.environment import Environment
from orchestrator.contract.events import Failed, Phase, emit
from orchestrator.contract.serving import ORDER_FILE, ServerOrder

if TYPE_CHECKING:
    from entrypoints.serving.metrics import Metrics
    from entrypoints.serving.service import Service
    from entrypoints.serving.state import State
    from entrypoints.serving.worker import Worker

READERS = 4
"""Threads that read adapters."""
PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
"""https://docs.aws.amazon.com/sagemaker/latest/dg/multi-container-create.html"""
END_SECONDS = 2.0
"""For the thread that draws, to end after all was answered."""


def main() -> int:
    """Serve until a signal ends it, and return the exit status."""
    libraries.apply_settings()
    order = read_order(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="adapters-") as unpacked:
        return serve(order, Path(unpacked))


def read_order(words: list[str]) -> ServerOrder:
    """Return the order in the model's folder of a container, which is started with the word "serve"; else on stdin."""
    in_container = words == ["serve"]
    if not in_container:
        return ServerOrder.model_validate_json(sys.stdin.buffer.read())
    folder = Environment.from_variables().model
    content = (folder / ORDER_FILE).read_bytes()
    return ServerOrder.model_validate_json(content).read_from(folder)


def serve(order: ServerOrder, unpacked: Path) -> int:
    """Listen, load the base model, and answer until a signal comes."""
    from entrypoints.serving.listening import listen
    from entrypoints.serving.state import State

    state = State(order.root, order.token, order.most_waiting, order.deadline_seconds)
    loading = threading.Thread(
        target=load,
        args=(order, state, unpacked),
        name="loading",
        daemon=True,
    )
    loading.start()
    asyncio.run(listen(state, order.host, port_of(order)))
    if state.worker is not None:
        state.worker.stop(END_SECONDS)
    return 1 if state.failure else 0


def port_of(order: ServerOrder) -> int:
    """Return the port to listen on: SageMaker names another one where several containers share a host."""
    return int(os.environ.get(PORT_VARIABLE, order.port))


def load(order: ServerOrder, state: "State", unpacked: Path) -> None:
    """Load the base model and make the server ready; a failure ends the server."""
    from entrypoints.runtime.failures import TrainingError, failure_of

    emit(Phase(name="loading"))
    libraries.quieten()
    try:
        service, worker = assembled(order, unpacked, state.metrics)
        for name, place in order.adapters.items():
            service.library.put(service.describe(name, place))
    except Exception as error:  # noqa: BLE001 - it is told, and ends the server
        failure = failure_of(error) or TrainingError("bug", f"{type(error).__name__}: {error}")
        state.failure = failure.message
        emit(Failed(kind=failure.kind, message=failure.message, next_step=failure.next_step))
        return
    # Not before all is imported and loaded: a look through these objects stops all threads for half a second.
    process.resume_collector()
    worker.start()
    state.ready(service, worker)
    emit(Phase(name="serving"))


def assembled(
    order: ServerOrder,
    unpacked: Path | None = None,
    metrics: "Metrics | None" = None,
) -> "tuple[Service, Worker]":
    """Return the parts of a server around its base model; archives of adapters are unpacked into a folder."""
    import torch

    from entrypoints.models.hub import fetch_from_hub
    from entrypoints.models.loading import load_base_model
    from entrypoints.serving.cache import MemoryCache
    from entrypoints.serving.engine import Engine
    from entrypoints.serving.library import Library
    from entrypoints.serving.profile import Profile, profiled
    from entrypoints.serving.residency import SlotTable
    from entrypoints.serving.safety import load_checker
    from entrypoints.serving.service import Service
    from entrypoints.serving.slots import SlotNetwork
    from entrypoints.serving.texts import TextReader
    from entrypoints.serving.unpacked import UnpackedArchives
    from entrypoints.serving.worker import Worker

    folder, revision = order.base_folder, order.base_revision
    if folder is None:
        folder, revision = fetch_from_hub(order.base_model, revision)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = load_base_model(folder, order.base_model, revision, device, with_clip=False)
    cache: MemoryCache[Any] = MemoryCache(order.memory_bytes, ThreadPoolExecutor(READERS, "reading"))
    disk = UnpackedArchives(unpacked or Path(tempfile.mkdtemp(prefix="adapters-")), order.disk_bytes)
    service = Service(base, Library(), cache, disk, metrics)
    size = service.defaults.size
    profile = Profile(size, order.rows) if order.rows else profiled(base, size)
    denoiser = SlotNetwork(base.denoiser)
    encoders = {part: SlotNetwork(encoder) for part, encoder in base.text_encoders.items()}
    networks = {base.family.denoiser: denoiser, **encoders}
    slots = SlotTable(networks, order.slots, order.slot_bytes)
    reader = TextReader(base, encoders)
    checker = load_checker(folder, device) if order.safety_checker else None
    worker = Worker(Engine(base, denoiser), reader, slots, profile.rows_at, metrics, checker)
    worker.seconds_per_work = profile.seconds_per_work
    return service, worker


if __name__ == "__main__":
    process.run(main)
