"""Hashes of large files, cached on disk until the file changes."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.storage.files import write_atomically

_MIN_BYTES = 50_000_000  # hashing a smaller file is faster than looking it up
_SETTLED_NS = 3_000_000_000  # the clocks of file systems tick in steps of two seconds at most


class HashCache:
    """Hashes files; a large one is read again only when its path, size, times or inode have changed."""

    def __init__(
        self,
        folder: Path,
        *,
        min_bytes: int = _MIN_BYTES,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.folder = folder
        self.min_bytes = min_bytes
        self.clock_ns = clock_ns

    def digest(self, path: Path) -> FileDigest:
        """Return the hash and size of a file."""
        before = path.stat()
        if before.st_size < self.min_bytes:
            return hash_file(path)
        entry = self._entry(path, before)
        try:
            text = entry.read_text(encoding="utf-8")
            return FileDigest.model_validate_json(text)
        except (OSError, ValueError):
            digest = hash_file(path)
        # A file written just now may change once more without a change of its times.
        last_change_ns = max(before.st_mtime_ns, before.st_ctime_ns)
        has_settled = last_change_ns + _SETTLED_NS < self.clock_ns()
        if has_settled and entry == self._entry(path, path.stat()):
            with suppress(OSError):  # a full or read-only disk: the file is hashed again next time
                write_atomically(entry, digest.model_dump_json())
        return digest

    def _entry(self, path: Path, status: os.stat_result) -> Path:
        """Return the cache file for a file in exactly this state."""
        state = [
            str(path.resolve()),
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        ]
        key = json.dumps(state).encode()
        name = hashlib.sha256(key).hexdigest()
        return self.folder / f"{name}.json"
