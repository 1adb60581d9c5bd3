"""Keeps the checkpoint folder and S3 alike while the container works: file by file, in any order, deletions too.

That is all the service promises. A client has to recognise for itself which checkpoints arrived whole.
"""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from .storage import Upload, described, files, keys, split

_State = tuple[int, int]


class CheckpointSync:
    """Copies what is new or changed; starts with what S3 has."""

    def __init__(self, s3: Any, uri: str, folder: Path, *, kms_key: str | None, seed: int) -> None:
        self.s3 = s3
        self.upload = Upload(s3, uri, kms_key)
        self.folder = folder
        self._on_synced: Callable[[str], None] = lambda _: None
        self.failure: str | None = None
        """Why S3 took no more."""
        self.interval = 0.02  # seconds; the service's own is not documented
        self._order = random.Random(seed)
        self._seen: dict[str, _State] = {}
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self) -> None:
        """Fetch what an earlier attempt, or another job with the same URI, left."""
        bucket, prefix = split(f"s3://{self.upload.bucket}/{self.upload.prefix}")
        for key in keys(self.s3, bucket, prefix):
            path = self.folder / key[len(prefix) :]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        self._seen = self._states()

    def start(self, on_synced: Callable[[str], None], guarded: Callable[[Callable[[], None]], None]) -> None:
        """Begin to copy in the background and name each file that arrived; `guarded` takes care of errors."""
        self._on_synced = on_synced
        self._thread = threading.Thread(target=guarded, args=(self._run,), name="checkpoint-sync", daemon=True)
        self._thread.start()

    def lose(self) -> None:
        """Copy nothing any more: the machine is gone."""
        self._lost.set()
        self._stop.set()

    def finish(self) -> None:
        """Copy what is still missing, unless the machine is gone, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._copy()

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self._copy()

    def _copy(self) -> None:
        try:
            self._copy_changes()
        except ClientError as error:
            self.failure = described(error)
            self.lose()

    def _copy_changes(self) -> None:
        states = self._states()
        names = [name for name, state in states.items() if self._seen.get(name) != state]
        self._order.shuffle(names)
        for name in names:
            if self._lost.is_set():
                return
            self._put(name, states[name])
        for name in self._seen.keys() - states.keys():
            if self._lost.is_set():
                return
            self.s3.delete_object(Bucket=self.upload.bucket, Key=self.upload.prefix + name)
            del self._seen[name]

    def _put(self, name: str, state: _State) -> None:
        try:
            self.upload.put(self.folder / name, name)
        except FileNotFoundError:  # renamed or deleted in this moment; the next round sees it
            return
        self._seen[name] = state
        self._on_synced(name)

    def _states(self) -> dict[str, _State]:
        states = {}
        for path in files(self.folder):
            try:
                status = path.stat()
            except FileNotFoundError:  # gone since it was listed
                continue
            states[path.relative_to(self.folder).as_posix()] = (status.st_size, status.st_mtime_ns)
        return states
