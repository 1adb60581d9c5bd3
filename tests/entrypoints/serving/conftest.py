"""A server in this process with two adapters, "dog" and "ink"."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
from asked_app import STEPS, Server
from made_adapters import fresh, write_finished

from entrypoints.serving.bodies import Defaults
from entrypoints.serving.cache import MemoryCache
from entrypoints.serving.engine import Engine
from entrypoints.serving.library import Library
from entrypoints.serving.residency import SlotTable
from entrypoints.serving.service import Service
from entrypoints.serving.slots import SlotNetwork
from entrypoints.serving.state import State
from entrypoints.serving.texts import TextReader
from entrypoints.serving.unpacked import UnpackedArchives
from entrypoints.serving.worker import Worker

SLOTS = 4


@pytest.fixture(scope="session")
def finished(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of finished adapters; tests only read it."""
    folder = tmp_path_factory.mktemp("finished")
    for seed, name in enumerate(("dog", "ink", "sea")):
        write_finished(folder / name, base_folder, seed)
    return folder


@pytest.fixture
def server(base_folder: Path, finished: Path, tmp_path: Path) -> Iterator[Server]:
    base = fresh(base_folder)
    denoiser = SlotNetwork(base.denoiser)
    encoders = {part: SlotNetwork(encoder) for part, encoder in base.text_encoders.items()}
    slots = SlotTable({base.family.denoiser: denoiser, **encoders}, SLOTS)
    library = Library()
    for name in ("dog", "ink"):
        library.register(name, shutil.copytree(finished / name, tmp_path / name))
    state = State(tmp_path)
    worker = Worker(Engine(base, denoiser), TextReader(base, encoders), slots, lambda _: 16, state.metrics)
    with ThreadPoolExecutor(2) as readers:
        disk = UnpackedArchives(tmp_path / "unpacked", 2**30)
        service = Service(base, library, MemoryCache(2**30, readers), disk, state.metrics)
        worker.start()
        service.defaults = Defaults(STEPS, 5.0, tiny.SIDE)
        state.ready(service, worker)
        yield Server(state)
        worker.stop()
