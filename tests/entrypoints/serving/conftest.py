"""A server in this process with two adapters, "dog" and "ink"."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import torch
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


@contextmanager
def running(base_folder: Path, finished: Path, root: Path) -> Iterator[Server]:
    """Have a server whose adapters lie below `root`."""
    base = fresh(base_folder)
    denoiser = SlotNetwork(base.denoiser)
    encoders = {part: SlotNetwork(encoder) for part, encoder in base.text_encoders.items()}
    slots = SlotTable({base.family.denoiser: denoiser, **encoders}, SLOTS)
    library = Library()
    for name in ("dog", "ink"):
        library.register(name, shutil.copytree(finished / name, root / name))
    state = State(root)
    worker = Worker(Engine(base, denoiser), TextReader(base, encoders), slots, lambda _: 16, state.metrics)
    with ThreadPoolExecutor(2) as readers:
        disk = UnpackedArchives(root / "unpacked", 2**30)
        service = Service(base, library, MemoryCache(2**30, readers), disk, state.metrics)
        worker.start()
        service.defaults = Defaults(STEPS, 5.0, tiny.SIDE)
        state.ready(service, worker)
        yield Server(state)
        worker.stop()


@pytest.fixture
def server(base_folder: Path, finished: Path, tmp_path: Path) -> Iterator[Server]:
    with running(base_folder, finished, tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def lasting_server(base_folder: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests of a module share."""
    torch.set_num_threads(1)
    with running(base_folder, finished, tmp_path_factory.mktemp("root")) as one:
        yield one
