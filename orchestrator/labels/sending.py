"""Sends label files of this machine to an exchange in a bucket."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.contract.labels import LABELS_ENDING, round_of
from orchestrator.errors import MachineError, OrchestratorError
from orchestrator.labels.exchange import Exchange

_RETRY_SECONDS = 10.0


class Sender:
    """Keeps the files of a folder in the bucket, as they grow.

    What an earlier run has left in the folder is sent too, once, because it is not known whether it arrived: the same
    bytes under the same name change nothing. Two runs at once write to files of their own.
    """

    def __init__(self, exchange: Exchange, folder: Path) -> None:
        self.exchange = exchange
        self.folder = folder
        self.trouble = ""
        self._sent: dict[Path, int] = {}
        self._woken = threading.Event()
        self._ending = False

    @property
    def unsent(self) -> int:
        """How many files are not in the bucket as they are here."""
        return len(self._waiting())

    def wake(self) -> None:
        """Send soon what has grown."""
        self._woken.set()

    def send(self) -> None:
        """Send what has grown. A file is sent as a whole: it is a few hundred bytes for each label."""
        for number, path in self._waiting():
            content = path.read_bytes()
            self.exchange.put_labels(number, path.name, content)
            self._sent[path] = len(content)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send while the block runs, in a thread of its own, and what is left after it; raises what keeps it here."""
        thread = threading.Thread(target=self._run, daemon=True)
        self._woken.set()
        thread.start()
        try:
            yield
        finally:
            self._ending = True
            self._woken.set()
            thread.join()
        try:
            self.send()
        except (OrchestratorError, OSError) as error:
            message = f"Labels are kept in {self.folder} and not yet in {self.exchange.place}: {error}"
            raise MachineError(message, next_step="run the command again: it sends them first") from error

    def _run(self) -> None:
        while not self._ending:
            self._woken.wait(_RETRY_SECONDS if self.trouble else None)
            self._woken.clear()
            try:
                self.send()
            except OrchestratorError as error:
                self.trouble = error.message
            except OSError as error:
                self.trouble = f"The labels in {self.folder} cannot be read: {error.strerror}."
            else:
                self.trouble = ""

    def _waiting(self) -> list[tuple[int, Path]]:
        waiting = []
        for path in sorted(self.folder.rglob(f"*{LABELS_ENDING}")):
            number = round_of(path.relative_to(self.folder).as_posix())
            if number is not None and path.stat().st_size != self._sent.get(path):
                waiting.append((number, path))
        return waiting
