"""How many images of a host are drawn, as its first worker tells it."""

import os
from collections.abc import Sequence
from pathlib import Path

from entrypoints.batches.kept import kept_file
from entrypoints.batches.worker import Worker
from orchestrator.contract.batch import share_of
from orchestrator.contract.batch_result import Sample
from orchestrator.contract.events import Item, Phase, emit


class Progress:
    """Tells how many images of a host are drawn, by all of its workers: the first one of all tells it."""

    def __init__(
        self,
        folder: Path,
        batches: Sequence[Sequence[Sample]],
        worker: Worker,
    ) -> None:
        self.folder = folder
        self.worker = worker
        self.names: set[str] = set()
        for one in worker.host:
            for batch in share_of(batches, one.number, one.workers):
                self.names.update(kept_file(folder, sample).name for sample in batch)

    def begin(self) -> None:
        """Tell that images are drawn from now on."""
        name = "images"
        hosts = self.worker.workers // self.worker.processes
        if hosts > 1:
            name = f"images of the first of {hosts} instances"
        emit(Phase(name=name, of=len(self.names)))
        self.tell()

    def tell(self) -> None:
        """Tell how many there are; nothing before the first, and by a worker that does not report."""
        if self.worker.number > 0:
            return
        done = 0
        for entry in os.scandir(self.folder):
            if entry.name in self.names:
                done += 1
        if done:
            emit(Item(done=done, of=len(self.names)))
