"""Which adapters a server knows by name; their weights are read when a request asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from pydantic import ValidationError

from entrypoints.runtime.failures import TrainingError, first_line
from entrypoints.serving.low_rank_file import KIND
from orchestrator.contract.adapter import AdapterManifest


@dataclass(frozen=True)
class Registered:
    """An adapter by its name."""

    name: str
    folder: Path
    manifest: AdapterManifest

    @property
    def sha256(self) -> str:
        """Of its files: what is cached under it is the same whatever it is called."""
        return self.manifest.files_sha256


class Library:
    """Names and folders; every method may be called by any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, Registered] = {}

    def register(self, name: str, folder: Path) -> Registered:
        """Know an adapter by a name; requests that have begun go on with what the name stood for.

        Reads its manifest alone. Raises TrainingError("adapter") when it has none that can be read.
        """
        try:
            manifest = AdapterManifest.read(folder)
        except (OSError, ValidationError) as error:
            raise TrainingError(
                KIND, f'"{name}" has no readable manifest: {first_line(error)}', "fetch it again"
            ) from error
        registered = Registered(name, folder, manifest)
        with self._lock:
            self._known[name] = registered
        return registered

    def find(self, name: str) -> Registered | None:
        """Return the adapter of a name."""
        with self._lock:
            return self._known.get(name)

    def remove(self, name: str) -> Registered | None:
        """Know a name no more; return what it stood for."""
        with self._lock:
            return self._known.pop(name, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._known)

    def everything(self) -> Sequence[Registered]:
        """Return all adapters, sorted by name."""
        with self._lock:
            return [self._known[name] for name in sorted(self._known)]
