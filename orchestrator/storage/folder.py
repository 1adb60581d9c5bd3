"""A store in a folder of this machine: what a job needs is stored once, under the hash of its content.

A folder that exists is complete: it is assembled in a scratch folder and then renamed.
"""

import errno
import hashlib
import json
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.errors import ConflictError, MachineError, MissingError, SpecError
from orchestrator.settings import HOME_VARIABLE
from orchestrator.storage.files import (
    complete_folder,
    scratch_folder,
    sync_tree,
    to_json,
    write_atomically,
    write_new,
)
from orchestrator.storage.names import unsafe_files, unsafe_names
from orchestrator.storage.store import MAX_TEXT_BYTES, Listed
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import file_uri

_MOVED = f"set {HOME_VARIABLE} to the folder that it was made in"
_FULL = {errno.ENOSPC, errno.EDQUOT}


class FolderStore:
    """A store in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_tree(self, tree: Tree) -> str:
        """Copy a tree to `kind/<sha256>` and return its URI. Idempotent; a folder that lost files is replaced.

        Raises MachineError when a file has changed since it was hashed.
        """
        folder = self._path(tree.name)
        if not _holds(folder, tree):
            with scratch_folder(self.root) as scratch:
                draft = scratch / "content"
                draft.mkdir()
                _copy_tree(tree, draft)
                sync_tree(draft)
                folder.parent.mkdir(parents=True, exist_ok=True)
                if folder.exists() and not _holds(folder, tree):
                    folder.rename(scratch / "damaged")
                _rename_unless_present(draft, folder)
        return self.uri(tree.name)

    def get_files(self, prefix: str, digests: Mapping[str, FileDigest], folder: Path) -> None:
        """Copy files to a new `folder`; raises MissingError, or MachineError for one that does not match its digest."""
        root = self._path(prefix)
        problems = unsafe_files(digests)
        if problems:
            raise MachineError(f"{root} cannot be copied.", problems=problems)
        with complete_folder(folder) as draft:
            for name, digest in digests.items():
                source = root / name
                with _reading(source):
                    copied = _copy(source, draft / name)
                if copied != digest:
                    raise _changed(source)

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of a file; raises MissingError, or MachineError when they do not match the digest."""
        path = self._path(name)
        with _reading(path):
            size = path.stat().st_size
        if size != digest.size:  # checked first, so that a file that grew is never read
            raise _changed(path)
        with _reading(path):
            content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest.sha256:
            raise _changed(path)
        return content

    def get_bytes(self, name: str) -> bytes:
        """Return the bytes of a small file; raises MissingError, or MachineError when it is too large or unreadable."""
        path = self._path(name)
        with _reading(path), path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
        if len(content) > MAX_TEXT_BYTES:
            raise MachineError(f"{path} has more than the {MAX_TEXT_BYTES} bytes that are read.")
        return content

    def put_bytes(self, name: str, content: bytes) -> None:
        """Write bytes to the file `name`, which is complete or as it was."""
        write_atomically(self._path(name), content)

    def put_json(self, name: str, value: object, *, new: bool = False) -> None:
        """Write a value to the file `name`; with `new`, raises ConflictError when it exists with another value."""
        path = self._path(name)
        text = to_json(value)
        if not new:
            write_atomically(path, text)
            return
        written = write_new(path, text)
        if not written and path.read_text(encoding="utf-8") != text:
            raise ConflictError(f"{path} exists already with another content.")

    def get_json(self, name: str) -> Any:
        """Return the value in the file `name`; raises MissingError, or MachineError when it is not JSON."""
        content = self.get_bytes(name)
        try:
            return json.loads(content)
        except ValueError as error:
            raise MachineError(f"{self._path(name)} is not JSON.") from error

    def list_prefix(self, prefix: str) -> dict[str, Listed]:
        """Return the files whose names begin with `prefix`, sorted.

        Hidden files do not belong to the store, and neither does what cannot be looked at.
        """
        start = self.root / prefix.rpartition("/")[0]
        found: dict[str, Listed] = {}
        for path in sorted(start.rglob("*")):
            relative = path.relative_to(self.root)
            name = relative.as_posix()
            is_hidden = any(part.startswith(".") for part in relative.parts)
            if is_hidden or not name.startswith(prefix):
                continue
            try:
                status = path.stat()
            except OSError:  # deleted meanwhile, a link to nowhere, no permission
                continue
            if stat.S_ISREG(status.st_mode):
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                found[name] = Listed(status.st_size, modified)
        return found

    def uri(self, name: str) -> str:
        """Return the URI of a file or a folder."""
        return file_uri(self.root, name)

    def name(self, uri: str) -> str:
        """Return the name that a URI stands for; raises SpecError when it is not in this folder."""
        path = folder_of(uri)
        if not uri.startswith("file:") or not path.is_relative_to(self.root):
            raise SpecError(f"{location_of(uri)} is not in {self.root}.", next_step=_MOVED)
        return path.relative_to(self.root).as_posix()

    def _path(self, name: str) -> Path:
        """Return the path of a name; raises SpecError for one that points outside the store."""
        relative = name.removesuffix("/")
        problems = unsafe_names({relative: 0})
        if problems:
            raise SpecError("That name cannot be used in a store.", problems=problems)
        return self.root / relative


def folder_of(uri: str) -> Path:
    """Return the folder a `file://` URI names."""
    path = urlsplit(uri).path
    return Path(unquote(path))


def location_of(uri: str) -> str:
    """Return a URI as a person writes it: the path of a folder on this machine, or the URI in a bucket."""
    if uri.startswith("file:"):
        return str(folder_of(uri))
    return uri


def _holds(folder: Path, tree: Tree) -> bool:
    """Whether a folder has every file of a tree with its size."""
    for name, digest in tree.files.items():
        try:
            status = (folder / name).stat()
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != digest.size:
            return False
    return True


def _copy_tree(tree: Tree, folder: Path) -> None:
    """Copy the files of a tree; raises MachineError for one that changed since it was hashed, or is gone."""
    for name, source in tree.sources.items():
        try:
            copied = _copy(source, folder / name)
        except FileNotFoundError as error:
            message = f"{source} is gone since it was read."
            raise MachineError(message, next_step="run the command again") from error
        if copied != tree.files[name]:
            message = f"{source} changed while it was stored."
            raise MachineError(message, next_step="run the command again")


def _copy(source: Path, path: Path) -> FileDigest:
    """Copy a file and return the digest of the copy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    return hash_file(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise MissingError for a file that is not there, MachineError for one that cannot be read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"There is no {path}.") from error
    except OSError as error:
        is_of_another = error.filename is not None and str(error.filename) != str(path)
        if is_of_another or error.errno in _FULL:  # the copy is at fault
            raise
        why = error.strerror or type(error).__name__
        raise MachineError(
            f"{path} cannot be read: {why}.", next_step="check what lies there, and its permissions"
        ) from error


def _changed(path: Path) -> MachineError:
    return MachineError(f"{path} is not what was stored.")


def _rename_unless_present(source: Path, destination: Path) -> None:
    """Rename a folder; when another process was faster with an equal folder, that one stays."""
    try:
        source.rename(destination)
    except OSError:
        if not destination.is_dir():
            raise
