"""What every store can do, wherever it is."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from orchestrator.contract.digest import FileDigest
from orchestrator.storage.tree import Tree

Progress = Callable[[str, int, int], None]
"""Is told what travels ("data", "models", ...), the bytes done and the bytes of the whole, from any thread."""


class Listed(NamedTuple):
    """What a list says of an object."""

    size: int
    """Bytes."""
    modified: datetime
    """When it was written."""


class Store(Protocol):
    """Takes trees in, gives files back verified, and keeps small objects by name.

    The name of a folder may be written with or without the slash at its end.
    """

    def put_tree(self, tree: Tree) -> str:
        """Store a tree under its name and return its URI; equal content is stored once."""
        ...

    def get_files(self, prefix: str, digests: Mapping[str, FileDigest], folder: Path) -> None:
        """Bring files below `prefix` to a new `folder`: each verified by its digest, all of them or nothing."""
        ...

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of a small file, verified; raises MissingError, or another error when it was changed."""
        ...

    def get_bytes(self, name: str) -> bytes:
        """Return the bytes of a small file whose digest nobody knows; raises MissingError."""
        ...

    def put_json(self, name: str, value: object, *, new: bool = False) -> None:
        """Store a value by name; when it has to be `new`, raises ConflictError if another one is there."""
        ...

    def get_json(self, name: str) -> Any:
        """Return a stored value; raises MissingError."""
        ...

    def list_prefix(self, prefix: str) -> dict[str, Listed]:
        """Return the names that begin with `prefix`, sorted, with their sizes and times."""
        ...

    def uri(self, name: str) -> str:
        """Return where an object or a folder is, as people and services call it; makes no call."""
        ...

    def name(self, uri: str) -> str:
        """Return the name of what is at a URI of this store."""
        ...
