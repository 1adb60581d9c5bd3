"""Our server's parts in this process, put together as the server puts them together, without HTTP."""

import asyncio
import itertools
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks.serving.materials import Model
from entrypoints.serve import assembled
from entrypoints.serving.low_rank_file import LowRankWeights
from entrypoints.serving.served import ServedAdapter, read_adapter
from entrypoints.serving.worker import Drawn
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.generation import AdapterUse, Generation
from orchestrator.contract.serving import ServerOrder

PROMPT = "a photo of a toy dog on red background"
MINUTES = 600.0
"""Deadline of requests that are measured without one, seconds."""
SERIAL_ROWS = 2
"""Of a batch that has room for one guided image."""
EIGHT_ROWS = 16
"""Of a batch that has room for eight."""


class Request(NamedTuple):
    """One image of one adapter."""

    seed: int
    adapter: str | None = None
    weight: float = 1.0
    prompt: str = PROMPT


class Ours:
    """A server without HTTP; its thread draws, and this one waits for it."""

    def __init__(self, model: Model, *, slots: int = 16, memory: int = 2**31, rows: int | None = None) -> None:
        self.model = model
        order = ServerOrder(
            base_model=model.name,
            base_folder=model.folder,
            root=model.folder,
            slots=slots,
            memory_bytes=memory,
            rows=rows,
        )
        self.service, self.worker = assembled(order)
        self.names: list[str] = []
        """Of the adapters that it knows."""
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self._runner.close()
        self.service.cache.readers.shutdown()

    @property
    def base(self) -> Any:
        """The base model."""
        return self.service.base

    def register(self, folders: Sequence[Path]) -> list[str]:
        """Know adapters by their numbers, and return these."""
        self.names = [str(number) for number in range(len(folders))]
        for name, folder in zip(self.names, folders, strict=True):
            self.service.library.register(name, folder)
        return self.names

    def read(self, folder: Path) -> ServedAdapter:
        """Read an adapter from disk, past the cache."""
        return read_adapter(self.base, folder, AdapterManifest.read(folder))

    def order(self, requests: Sequence[Request], **more: Any) -> "list[Future[Drawn]]":
        """Order images; each future gets what came of one."""
        wanted = [self._generation(request, **more) for request in requests]
        return self._runner.run(self._ordered(wanted))

    def draw(self, requests: Sequence[Request], **more: Any) -> list[Drawn]:
        """Draw images of as many requests, which come at the same time."""
        return [future.result() for future in self.order(requests, **more)]

    def _generation(self, request: Request, **more: Any) -> Generation:
        model = self.model
        uses = []
        if request.adapter is not None:
            uses.append(AdapterUse(name=request.adapter, weight=request.weight))
        values = {"steps": model.steps, "guidance": model.guidance, "size": model.size, **more}
        return Generation(prompts=(request.prompt,), seeds=(request.seed,), adapters=tuple(uses), **values)

    async def _ordered(self, wanted: Sequence[Generation]) -> "list[Future[Drawn]]":
        deadline = asyncio.get_running_loop().time() + MINUTES
        return list(await asyncio.gather(*(self._order(one, deadline) for one in wanted)))

    async def _order(self, wanted: Generation, deadline: float) -> "Future[Drawn]":
        future: Future[Drawn] = Future()

        def done(_: int, result: Drawn | Exception) -> None:
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

        prepared = await self.service.prepare(wanted)
        self.worker.order(prepared.orders(deadline, done))
        return future


def weights_of(served: ServedAdapter) -> LowRankWeights:
    """Return what of an adapter goes into slots."""
    if served.weights is None:
        raise TypeError("an adapter without weights for slots")
    return served.weights


class Seeds:
    """Prompts and seeds that were not used yet, so that nothing is found in a cache that a real request would not."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def requests(self, names: Sequence[str | None]) -> list[Request]:
        """Return a request for each adapter, with a prompt of its own."""
        found = []
        for name in names:
            number = next(self._numbers)
            found.append(Request(number, name, 1.0, f"{PROMPT} {number}"))
        return found
