"""Label files of this machine: a label is on the disk before anyone is told that it is stored."""

import os
import re
import secrets
import threading
from pathlib import Path

from orchestrator.contract.labels import LABELS_ENDING, Label
from orchestrator.errors import MachineError

_NO_NAME = re.compile(r"[^A-Za-z0-9]+")
_SHOWN = 24  # characters of a person's name in the name of a file


class Journal:
    """The label file of one person in one round, of one run of the page: no other process writes to it."""

    def __init__(self, folder: Path, by: str) -> None:
        readable = _NO_NAME.sub("-", by).strip("-")
        readable = readable[:_SHOWN] or "person"
        unique = secrets.token_hex(8)
        self.path = folder / f"{readable}-{unique}{LABELS_ENDING}"
        self._lock = threading.Lock()
        self._stored = 0
        """Bytes of the labels that are stored; what lies behind them is of one that was cut off."""

    def append(self, label: Label) -> None:
        """Store a label, so that it outlives the process and a loss of power; raises MachineError where it cannot."""
        line = label.line().encode()
        with self._lock:
            try:
                self._write(line)
            except OSError as error:
                message = f"The label could not be stored in {self.path.parent}: {error.strerror}."
                raise MachineError(message, next_step="make room there, then give it again") from error
            self._stored += len(line)

    def _write(self, line: bytes) -> None:
        is_new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(self._stored)  # a full disk may have left a part of another label
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self.path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names of a folder's files last.

    A file that was synced may still be lost with the power while its folder is not: the name is in the folder.
    """
    if os.name != "posix":  # other systems open no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
