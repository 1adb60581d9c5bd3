"""Content-addressed folders: what a job needs is stored once, under the hash of its content.

A folder that exists is complete: it is assembled beside its place and renamed into it.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.contract.digest import hash_files, tree_sha256

_SCRATCH = ".scratch-"
_ABANDONED_SECONDS = 24 * 3600.0


class FolderStore:
    """A store in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder on the store's own disk; it is gone afterwards unless `put_tree` took it."""
        with scratch_folder(self.root) as folder:
            content = folder / "content"
            content.mkdir()
            yield content

    def put_tree(self, kind: str, folder: Path) -> Path:
        """Move a staged folder to `kind/<sha256>` and return that place; equal content is stored once."""
        place = self.place(kind, folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            sync_tree(folder)
            _rename_into_place(folder, place)
        return place

    def place(self, kind: str, folder: Path) -> Path:
        """Return where a folder of this content lies, or would lie."""
        return self.root / kind / tree_sha256(hash_files(folder))


class DryStore(FolderStore):
    """Names the places a folder store would use and writes nothing that stays."""

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
            yield Path(folder)

    def put_tree(self, kind: str, folder: Path) -> Path:
        """Return the place `folder` would get."""
        return self.place(kind, folder)


def _rename_into_place(folder: Path, place: Path) -> None:
    """Rename `folder` to `place`; losing the race against an equal folder is success."""
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():
            raise


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder in `parent`, from which a rename goes to any place of that disk; it is gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def sweep(parent: Path, now: float) -> None:
    """Remove the scratch folders that killed processes left in `parent`; one of the last day may be in use."""
    for folder in parent.glob(f"{_SCRATCH}*"):
        try:
            abandoned = now - folder.stat().st_mtime > _ABANDONED_SECONDS
        except FileNotFoundError:  # its owner has just removed it
            continue
        if abandoned:
            shutil.rmtree(folder, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Put every file of a folder on the disk itself, so that a rename after it means that all is there."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old text or the new one, and never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
