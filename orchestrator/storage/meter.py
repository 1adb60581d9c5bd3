"""Bytes counted while files travel."""

import threading

from orchestrator.storage.store import Progress


class Meter:
    """Counts bytes from several threads and tells a listener, one call at a time."""

    def __init__(self, what: str, total: int, listener: Progress | None = None) -> None:
        self.what = what
        self.total = total
        self._done = 0
        self._listener = listener
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes that are there now."""
        with self._lock:
            self._done += count
            if self._listener is not None:
                self._listener(self.what, self._done, self.total)
