"""Adapters in main memory, as many as fit: each is read once, however many requests ask for it at the same time."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What takes memory."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...


Held = TypeVar("Held", bound=Sized)


class MemoryCache(Generic[Held]):
    """Values by key; the least recently used ones go when there are more bytes than `limit`.

    A value that is gone from here lives on as long as a request holds it.
    """

    def __init__(self, limit: int, readers: Executor) -> None:
        self.limit = limit
        """Bytes."""
        self.readers = readers
        self.reads = 0
        self.hits = 0
        self.evictions = 0
        self.bytes = 0
        self._lock = Lock()
        self._held: OrderedDict[str, Held] = OrderedDict()  # the least recently used first
        self._coming: dict[str, Future[Held]] = {}

    def get(self, key: str, read: Callable[[], Held]) -> "Future[Held]":
        """Return a value, or the promise of one that is being read; what reading raises is raised to all who wait.

        A failure is not kept: the next request tries again.
        """
        with self._lock:
            if key in self._held:
                self.hits += 1
                self._held.move_to_end(key)
                ready: Future[Held] = Future()
                ready.set_result(self._held[key])
                return ready
            if key in self._coming:
                self.hits += 1
                return self._coming[key]
            self.reads += 1
            future = self.readers.submit(self._read, key, read)
            self._coming[key] = future
        future.add_done_callback(lambda _: self._arrived(key))
        return future

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._held

    def _read(self, key: str, read: Callable[[], Held]) -> Held:
        value = read()
        with self._lock:
            self._held[key] = value
            self.bytes += value.size
            while self.bytes > self.limit and len(self._held) > 1:
                _, oldest = self._held.popitem(last=False)
                self.bytes -= oldest.size
                self.evictions += 1
        return value

    def _arrived(self, key: str) -> None:
        with self._lock:
            self._coming.pop(key, None)
