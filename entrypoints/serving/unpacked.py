"""Archives of adapters that were unpacked, as many as fit on disk: each once, however many ask for it."""

import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from entrypoints.runtime.failures import is_disk_full
from entrypoints.serving.archives import disk_full, unpack
from orchestrator.contract.digest import hash_file


@dataclass(eq=False)
class _Unpacked:
    """An archive, by the hash of its content."""

    folder: Path
    size: int = 0
    """Bytes of its files; 0 until it is unpacked."""
    holders: int = 0
    """Threads that read it."""
    is_whole: bool = False
    lock: Lock = field(default_factory=Lock)


class UnpackedArchives:
    """Folders of unpacked archives; the least recently used ones go when there are more bytes than `limit`."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        """Where they are unpacked."""
        self.limit = limit
        """Bytes."""
        self.hits = 0
        self.reads = 0
        self.evictions = 0
        self.seconds = 0.0
        """That the last one took to unpack."""
        self._lock = Lock()
        self._known: OrderedDict[str, _Unpacked] = OrderedDict()  # the least recently used first

    @property
    def bytes(self) -> int:
        """Of all that is unpacked."""
        with self._lock:
            return sum(one.size for one in self._known.values())

    @contextmanager
    def opened(self, place: Path) -> Iterator[Path]:
        """Have the folder of an adapter that lies in a folder or an archive; it stays as long as it is had.

        Raises TrainingError("adapter") for an archive that is no adapter's, and TrainingError("disk-full").
        """
        if place.is_dir():
            yield place
            return
        sha256 = hash_file(place).sha256
        one = self._hold(sha256)
        try:
            with one.lock:
                if one.is_whole:
                    self.hits += 1
                else:
                    self._fill(one, place)
            self._make_room()
            yield one.folder
        finally:
            with self._lock:
                one.holders -= 1

    def _hold(self, sha256: str) -> _Unpacked:
        with self._lock:
            one = self._known.get(sha256)
            if one is None:
                one = _Unpacked(self.folder / sha256)
                self._known[sha256] = one
            self._known.move_to_end(sha256)
            one.holders += 1
            return one

    def _fill(self, one: _Unpacked, archive: Path) -> None:
        """Unpack an archive; nothing is left of one that cannot be."""
        began = time.perf_counter()
        try:
            one.folder.mkdir(parents=True)
            unpack(archive, one.folder, self.limit)
        except BaseException as error:
            shutil.rmtree(one.folder, ignore_errors=True)
            if is_disk_full(error):
                raise disk_full(archive.name) from error
            raise
        one.size = sum(path.stat().st_size for path in one.folder.rglob("*") if path.is_file())
        one.is_whole = True
        self.reads += 1
        self.seconds = time.perf_counter() - began

    def _make_room(self) -> None:
        with self._lock:
            total = sum(one.size for one in self._known.values())
            for sha256, one in list(self._known.items()):
                if total <= self.limit:
                    return
                if one.holders:
                    continue
                del self._known[sha256]
                shutil.rmtree(one.folder, ignore_errors=True)
                total -= one.size
                self.evictions += 1
