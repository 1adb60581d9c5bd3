"""Hashes of large files, remembered for as long as the file is not touched."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.storage.files import write_atomically

_REMEMBERED_BYTES = 50_000_000  # a smaller file is hashed sooner than it is looked up
_SETTLED_NS = 3_000_000_000  # the clocks of file systems tick in steps of two seconds at most


class HashMemory:
    """Hashes files; a large one is read again only when its path, size, times or place on the disk have changed."""

    def __init__(
        self, folder: Path, *, from_bytes: int = _REMEMBERED_BYTES, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.folder = folder
        self.from_bytes = from_bytes
        self.clock_ns = clock_ns

    def digest(self, path: Path) -> FileDigest:
        """Return the hash and size of a file."""
        before = path.stat()
        if before.st_size < self.from_bytes:
            return hash_file(path)
        note = self._note(path, before)
        try:
            return FileDigest.model_validate_json(note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            digest = hash_file(path)
        # A file of this very moment may change once more without a trace in its times.
        settled = max(before.st_mtime_ns, before.st_ctime_ns) + _SETTLED_NS < self.clock_ns()
        if settled and note == self._note(path, path.stat()):
            write_atomically(note, digest.model_dump_json())
        return digest

    def _note(self, path: Path, stat: os.stat_result) -> Path:
        marks = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        key = json.dumps([str(path.resolve()), *marks])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
