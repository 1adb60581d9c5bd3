"""A process that draws a share of a batch."""

from typing import NamedTuple


class Worker(NamedTuple):
    """A process that draws a share of the batch."""

    number: int
    """From 0, among those of all hosts."""
    workers: int
    """How many there are."""
    device: int
    """Its number on its host, which is that of its GPU too."""
    processes: int
    """How many there are on each host."""

    @property
    def host(self) -> "list[Worker]":
        """All workers of its host."""
        first = self.number - self.device
        found = []
        for device in range(self.processes):
            found.append(Worker(first + device, self.workers, device, self.processes))
        return found
