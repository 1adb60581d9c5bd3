"""A set of files that is stored under the hash of its content, and where each of them lies until then."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.digest import FileDigest, hash_file, hash_files, tree_sha256


class Tree(BaseModel):
    """What a job reads of one kind: its name, and so its URI in any store, follows from its content alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: str
    """First part of its name: "data", "models", "code"."""
    files: Mapping[str, FileDigest]
    """Every file by its relative path."""
    sources: Mapping[str, Path]
    """Where each file lies now, by the same paths."""

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


def tree_of_files(kind: str, sources: Mapping[str, Path], hash_of: Callable[[Path], FileDigest] = hash_file) -> Tree:
    """Hash the files that lie at `sources`, by their paths within the tree."""
    files = {name: hash_of(path) for name, path in sources.items()}
    return Tree(kind=kind, files=files, sources=sources)


def tree_of_folder(kind: str, folder: Path) -> Tree:
    """Hash every file of a folder."""
    files = hash_files(folder)
    return Tree(kind=kind, files=files, sources={name: folder / name for name in files})
