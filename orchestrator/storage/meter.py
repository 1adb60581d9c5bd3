"""Bytes counted during a transfer."""

import threading

from orchestrator.storage.store import Progress


class Meter:
    """Counts the bytes of several threads and calls a listener, from one thread at a time."""

    def __init__(self, what: str, total: int, listener: Progress | None = None) -> None:
        self.what = what
        self.total = total
        self._done = 0
        self._listener = listener
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes that have been transferred."""
        with self._lock:
            self._done += count
            if self._listener is not None:
                self._listener(self.what, self._done, self.total)
