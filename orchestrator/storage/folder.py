"""A store in a folder of this machine: what a job needs is stored once, under the hash of its content.

A folder that exists is complete: it is assembled in a scratch folder and then renamed.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.errors import ConflictError, MachineError, MissingError, SpecError
from orchestrator.storage.files import (
    complete_folder,
    scratch_folder,
    sync_tree,
    to_json,
    write_atomically,
    write_new,
)
from orchestrator.storage.names import unsafe_files, unsafe_names
from orchestrator.storage.store import Listed
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import file_uri


class FolderStore:
    """A store in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_tree(self, tree: Tree) -> str:
        """Copy a tree to `kind/<sha256>` and return its URI. Idempotent.

        Raises MachineError when a file has changed since it was hashed.
        """
        folder = self._path(tree.name)
        if not folder.exists():
            with scratch_folder(self.root) as scratch:
                draft = scratch / "content"
                draft.mkdir()
                _copy_tree(tree, draft)
                sync_tree(draft)
                folder.parent.mkdir(parents=True, exist_ok=True)
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
                try:
                    copied = _copy(source, draft / name)
                except FileNotFoundError as error:
                    raise _missing(source) from error
                if copied != digest:
                    raise _changed(source)

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of a file; raises MissingError, or MachineError when they do not match the digest."""
        path = self._path(name)
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise _missing(path) from error
        if size != digest.size:  # checked first, so that a file that grew is never read
            raise _changed(path)
        content = self.get_bytes(name)
        if hashlib.sha256(content).hexdigest() != digest.sha256:
            raise _changed(path)
        return content

    def get_bytes(self, name: str) -> bytes:
        """Return the bytes of a file; raises MissingError."""
        path = self._path(name)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise _missing(path) from error

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
        """Return the files whose names begin with `prefix`, sorted; hidden files do not belong to the store."""
        start = self.root / prefix.rpartition("/")[0]
        found: dict[str, Listed] = {}
        for path in sorted(start.rglob("*")):
            relative = path.relative_to(self.root)
            name = relative.as_posix()
            is_hidden = any(part.startswith(".") for part in relative.parts)
            if is_hidden or not name.startswith(prefix) or not path.is_file():
                continue
            status = path.stat()
            modified = datetime.fromtimestamp(status.st_mtime, UTC)
            found[name] = Listed(status.st_size, modified)
        return found

    def uri(self, name: str) -> str:
        """Return the URI of a file or a folder."""
        return file_uri(self.root, name)

    def name(self, uri: str) -> str:
        """Return the name that a URI of this store stands for."""
        path = folder_of(uri)
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


def _missing(path: Path) -> MissingError:
    return MissingError(f"There is no {path}.")


def _changed(path: Path) -> MachineError:
    return MachineError(f"{path} is not what was stored.")


def _rename_unless_present(source: Path, destination: Path) -> None:
    """Rename a folder; when another process was faster with an equal folder, that one stays."""
    try:
        source.rename(destination)
    except OSError:
        if not destination.is_dir():
            raise
