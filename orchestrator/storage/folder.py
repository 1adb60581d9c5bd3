"""A store in a folder of this machine: what a job needs is stored once, under the hash of its content.

A folder that exists is complete: it is assembled beside its place and renamed into it.
"""

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest
from orchestrator.contract.digest import FileDigest, hash_files, tree_sha256
from orchestrator.errors import (
    ConflictError,
    MachineError,
    MissingError,
    SpecError,
)
from orchestrator.storage.names import unsafe_names
from orchestrator.storage.store import Listed

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

    def put_tree(self, kind: str, folder: Path) -> str:
        """Move a staged folder to `kind/<sha256>` and return that place's URI; equal content is stored once."""
        place = self.root / kind / tree_sha256(hash_files(folder))
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            sync_tree(folder)
            _rename_into_place(folder, place)
        return place.as_uri()

    def get_tree(self, uri: str, folder: Path) -> None:
        """Copy a stored tree to `folder`; raises MissingError, or MachineError when it is not what was stored."""
        place = folder_of(uri)
        if not place.is_dir():
            raise MissingError(f"There is no {place}.", next_step="submit the job again")
        with arriving(folder) as copy:
            shutil.copytree(place, copy, dirs_exist_ok=True)
            if tree_sha256(hash_files(copy)) != place.name:
                raise MachineError(f"{place} is not what was stored.", next_step=f"delete {place} and submit again")

    def get_tree_at(self, prefix: str, folder: Path) -> None:
        """Copy the adapter in the folder `prefix`; raises MissingError, or MachineError when it is damaged."""
        place = self._place(prefix)
        with arriving(folder) as copy:
            try:
                shutil.copytree(place, copy, dirs_exist_ok=True)
                damage = AdapterManifest.read(copy).damaged_files(copy)
            except FileNotFoundError as error:
                raise MissingError(f"There is no adapter in {place}.") from error
            except ValueError as error:
                raise MachineError(f"{place / MANIFEST_FILE} cannot be read.") from error
            if damage:
                raise MachineError(f"The adapter in {place} is damaged: {', '.join(damage)}.")

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of a file; raises MissingError, or MachineError when they are not what the digest says."""
        path = self._place(name)
        try:
            same = path.stat().st_size == digest.size  # before a file that grew is read
            content = path.read_bytes() if same else b""
        except FileNotFoundError as error:
            raise MissingError(f"There is no {path}.") from error
        if not same or hashlib.sha256(content).hexdigest() != digest.sha256:
            raise MachineError(f"{path} is not what was stored.")
        return content

    def put_json(self, name: str, value: object, *, new: bool = False) -> None:
        """Write a value to the file `name`; when it has to be `new`, raises ConflictError if another one is there."""
        path, text = self._place(name), to_json(value)
        if not new:
            write_atomically(path, text)
        elif not _write_new(path, text) and path.read_text(encoding="utf-8") != text:
            raise ConflictError(f"{path} is there already and says something else.")

    def get_json(self, name: str) -> Any:
        """Return the value in the file `name`; raises MissingError, or MachineError when it is no JSON."""
        try:
            return json.loads(self._place(name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise MissingError(f"There is no {self._place(name)}.") from error
        except ValueError as error:
            raise MachineError(f"{self._place(name)} cannot be read.") from error

    def list_prefix(self, prefix: str) -> dict[str, Listed]:
        """Return the files whose names begin with `prefix`; hidden ones are no part of the store."""
        start = self.root / prefix.rpartition("/")[0]
        found = {path.relative_to(self.root): path for path in sorted(start.rglob("*")) if path.is_file()}
        names = {name.as_posix(): path for name, path in found.items() if not _is_hidden(name)}
        return {name: _listed(path) for name, path in names.items() if name.startswith(prefix)}

    def uri(self, name: str) -> str:
        """Return where a file or a folder is."""
        return (self.root / name).as_uri()

    def name(self, uri: str) -> str:
        """Return the name of what is at a URI of this folder."""
        return folder_of(uri).relative_to(self.root).as_posix()

    def _place(self, name: str) -> Path:
        problems = unsafe_names({name: 0})
        if problems:
            raise SpecError("That name cannot be used in a store.", problems=problems)
        return self.root / name


class DryStore(FolderStore):
    """Names the places a folder store would use and writes nothing that stays."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.trees: dict[str, dict[str, FileDigest]] = {}
        """The files of each tree that would be stored, by the tree's URI."""

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
            yield Path(folder)

    def put_tree(self, kind: str, folder: Path) -> str:
        """Return the URI `folder` would get."""
        files = hash_files(folder)
        uri = (self.root / kind / tree_sha256(files)).as_uri()
        self.trees[uri] = files
        return uri


def _listed(path: Path) -> Listed:
    facts = path.stat()
    return Listed(facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))


def folder_of(uri: str) -> Path:
    """Return the folder a `file://` URI names."""
    return Path(unquote(urlsplit(uri).path))


def to_json(value: object) -> str:
    """Return the one text a value has in a store: equal values, equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends well, and is gone when it does not.

    Raises MachineError when something is at `folder` already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MachineError(f"{folder} is in the way.", next_step="name a folder that is new or empty: --to FOLDER")
    with scratch_folder(folder.parent) as draft:
        content = draft / "content"
        content.mkdir()
        yield content
        sync_tree(content)
        content.rename(folder)


def _write_new(path: Path, text: str) -> bool:
    """Write a file that is whole or absent; return False, and change nothing, when there is one."""
    with scratch_folder(path.parent) as folder:
        draft = folder / "draft"
        write_atomically(draft, text)
        try:
            path.hardlink_to(draft)  # unlike a rename, never over another file
        except FileExistsError:
            return False
    return True


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file so that a reader sees the old content or the new one, and never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def place_of(uri: str) -> str:
    """Return where an adapter is, as a person writes it: a folder's path, or the URI in a bucket."""
    return str(folder_of(uri)) if uri.startswith("file:") else uri
