"""A store in a folder of this machine: what a job needs is stored once, under the hash of its content.

A folder that exists is complete: it is assembled beside its place and renamed into it.
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
from orchestrator.storage.files import arriving, scratch_folder, sync_tree, to_json, write_atomically, write_new
from orchestrator.storage.names import unsafe_files, unsafe_names
from orchestrator.storage.store import Listed
from orchestrator.storage.tree import Tree
from orchestrator.storage.uris import file_uri


class FolderStore:
    """A store in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_tree(self, tree: Tree) -> str:
        """Copy a tree to `kind/<sha256>` and return that place's URI; equal content is stored once.

        Raises MachineError when a file has changed since it was hashed.
        """
        place = self._place(tree.name)
        if not place.exists():
            with scratch_folder(self.root) as scratch:
                draft = scratch / "content"
                draft.mkdir()
                _copy_tree(tree, draft)
                sync_tree(draft)
                place.parent.mkdir(parents=True, exist_ok=True)
                _rename_into_place(draft, place)
        return self.uri(tree.name)

    def get_files(self, prefix: str, digests: Mapping[str, FileDigest], folder: Path) -> None:
        """Copy files to a new `folder`; raises MissingError, or MachineError for one that is not what it should be."""
        place = self._place(prefix)
        problems = unsafe_files(digests)
        if problems:
            raise MachineError(f"{place} cannot be copied.", problems=problems)
        with arriving(folder) as draft:
            for name, digest in digests.items():
                try:
                    copied = _copy(place / name, draft / name)
                except FileNotFoundError as error:
                    raise MissingError(f"There is no {place / name}.") from error
                if copied != digest:
                    raise _changed(place / name)

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of a file; raises MissingError, or MachineError when they are not what the digest says."""
        path = self._place(name)
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise MissingError(f"There is no {path}.") from error
        if size != digest.size:  # before a file that grew is read
            raise _changed(path)
        content = self.get_bytes(name)
        if hashlib.sha256(content).hexdigest() != digest.sha256:
            raise _changed(path)
        return content

    def get_bytes(self, name: str) -> bytes:
        """Return the bytes of a file; raises MissingError."""
        path = self._place(name)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise MissingError(f"There is no {path}.") from error

    def put_json(self, name: str, value: object, *, new: bool = False) -> None:
        """Write a value to the file `name`; when it has to be `new`, raises ConflictError if another one is there."""
        path, text = self._place(name), to_json(value)
        if not new:
            write_atomically(path, text)
        elif not write_new(path, text) and path.read_text(encoding="utf-8") != text:
            raise ConflictError(f"{path} is there already and says something else.")

    def get_json(self, name: str) -> Any:
        """Return the value in the file `name`; raises MissingError, or MachineError when it is no JSON."""
        try:
            return json.loads(self.get_bytes(name))
        except ValueError as error:
            raise MachineError(f"{self._place(name)} cannot be read.") from error

    def list_prefix(self, prefix: str) -> dict[str, Listed]:
        """Return the files whose names begin with `prefix`; hidden ones are no part of the store."""
        start = self.root / prefix.rpartition("/")[0]
        found = {}
        for path in sorted(start.rglob("*")):
            name = path.relative_to(self.root)
            hidden = any(part.startswith(".") for part in name.parts)
            if path.is_file() and not hidden and name.as_posix().startswith(prefix):
                facts = path.stat()
                found[name.as_posix()] = Listed(facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))
        return found

    def uri(self, name: str) -> str:
        """Return where a file or a folder is."""
        return file_uri(self.root, name)

    def name(self, uri: str) -> str:
        """Return the name of what is at a URI of this folder."""
        return folder_of(uri).relative_to(self.root).as_posix()

    def _place(self, name: str) -> Path:
        path = name.removesuffix("/")
        problems = unsafe_names({path: 0})
        if problems:
            raise SpecError("That name cannot be used in a store.", problems=problems)
        return self.root / path


def folder_of(uri: str) -> Path:
    """Return the folder a `file://` URI names."""
    return Path(unquote(urlsplit(uri).path))


def place_of(uri: str) -> str:
    """Return where an adapter is, as a person writes it: a folder's path, or the URI in a bucket."""
    return str(folder_of(uri)) if uri.startswith("file:") else uri


def _copy_tree(tree: Tree, folder: Path) -> None:
    for name, source in tree.sources.items():
        copied = _copy(source, folder / name)
        if copied != tree.files[name]:
            message = f"{source} changed while it was stored."
            raise MachineError(message, next_step="run the command again")


def _copy(source: Path, path: Path) -> FileDigest:
    """Copy a file and return the digest of the copy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    return hash_file(path)


def _changed(path: Path) -> MachineError:
    return MachineError(f"{path} is not what was stored.")


def _rename_into_place(folder: Path, place: Path) -> None:
    """Rename `folder` to `place`; losing the race against an equal folder is success."""
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():
            raise
