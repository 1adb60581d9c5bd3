"""Content-addressed folders: what a job needs is stored once, under the hash of its content.

A folder that exists is complete: it is assembled beside its place and renamed into it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.contract.digest import hash_files, tree_sha256


class FolderStore:
    """A store in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder on the store's own disk; it is gone afterwards unless `put_tree` took it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="staging-", dir=self.root, ignore_cleanup_errors=True) as folder:
            content = Path(folder) / "content"
            content.mkdir()
            yield content

    def put_tree(self, kind: str, folder: Path) -> Path:
        """Move a staged folder to `kind/<sha256>` and return that place; equal content is stored once."""
        place = self.place(kind, folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            rename_into_place(folder, place)
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


def rename_into_place(folder: Path, place: Path) -> None:
    """Rename `folder` to `place`; losing the race against an equal folder is success."""
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def copy_tree_into_place(folder: Path, place: Path) -> None:
    """Copy `folder` to `place` so that `place` is either absent or complete."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=place.parent) as staging:
        copy = Path(staging) / place.name
        shutil.copytree(folder, copy)
        rename_into_place(copy, place)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old text or the new one, and never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".writing-", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
