"""Which adapters a server knows by name; their weights are read when a request asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from entrypoints.runtime.failures import TrainingError, first_line
from entrypoints.serving.low_rank_file import KIND
from entrypoints.serving.served import key_of
from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest

MOST_MANIFEST_BYTES = 2**22


@dataclass(frozen=True)
class Registered:
    """An adapter by its name."""

    name: str
    place: Path
    """The folder or the archive that it lies in."""
    manifest: AdapterManifest

    @property
    def sha256(self) -> str:
        """Of its files."""
        return self.manifest.files_sha256

    @property
    def key(self) -> str:
        """Under which it is cached."""
        return key_of(self.manifest)


def described(
    name: str,
    place: Path,
    folder: Path,
) -> Registered:
    """Return an adapter by what its manifest says, which alone is read.

    It lies in `place`, which is `folder` or the archive that was unpacked there. Raises TrainingError("adapter") when
    it has no manifest that can be read.
    """
    path = folder / MANIFEST_FILE
    try:
        if path.stat().st_size > MOST_MANIFEST_BYTES:
            raise TrainingError(
                KIND,
                f'The manifest of "{name}" is too large.',
                "fetch the adapter again",
            )
        manifest = AdapterManifest.read(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(
            KIND,
            f'"{name}" has no readable manifest: {first_line(error)}',
            f"register an adapter of this program: a folder or .tar.gz with {MANIFEST_FILE}",
        ) from error
    return Registered(name, place, manifest)


class Library:
    """Names and what they stand for; every method may be called by any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, Registered] = {}

    def register(self, name: str, folder: Path) -> Registered:
        """Know the adapter in a folder by a name; raises as `described` does."""
        registered = described(name, folder, folder)
        self.put(registered)
        return registered

    def put(self, registered: Registered) -> None:
        """Know an adapter by its name; requests that have begun go on with what the name stood for."""
        with self._lock:
            self._known[registered.name] = registered

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
