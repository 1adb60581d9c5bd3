"""A set of files to be stored under the hash of its content, with the path of each of them until then."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.digest import FileDigest, hash_file, hash_files, tree_sha256


class Tree(BaseModel):
    """Files of one kind that a job reads: their name, and so their URI in any store, follows from the content alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    """First part of its name: "data", "models", "code"."""
    files: Mapping[str, FileDigest]
    """Every file by its relative path."""
    sources: Mapping[str, Path]
    """Path of each file on this machine, by the same relative paths."""

    @cached_property
    def sha256(self) -> str:
        """Hash over the names and the content of all files."""
        return tree_sha256(self.files)

    @property
    def name(self) -> str:
        """Its name in a store: `data/<sha256>/`."""
        return f"{self.kind}/{self.sha256}/"

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(digest.size for digest in self.files.values())


def tree_of_files(
    kind: str,
    sources: Mapping[str, Path],
    hash_of: Callable[[Path], FileDigest] = hash_file,
) -> Tree:
    """Hash the files of `sources`, which maps paths within the tree to paths on this machine."""
    files = {name: hash_of(path) for name, path in sources.items()}
    return Tree(kind=kind, files=files, sources=sources)


def tree_of_folder(kind: str, folder: Path) -> Tree:
    """Hash every file of a folder."""
    files = hash_files(folder)
    sources = {name: folder / name for name in files}
    return Tree(kind=kind, files=files, sources=sources)
