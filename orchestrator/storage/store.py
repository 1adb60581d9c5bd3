"""What every store can do, wherever it is."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from orchestrator.contract.digest import FileDigest

Progress = Callable[[str, int, int], None]
"""Is told what travels ("data", "models", ...), the bytes done and the bytes of the whole, from any thread."""


class Listed(NamedTuple):
    """What a list says of an object."""

    size: int
    """Bytes."""
    modified: datetime
    """When it was written."""


class TreeStore(Protocol):
    """Takes folders in: all that planning a job needs."""

    def staging(self) -> AbstractContextManager[Path]:
        """Yield an empty folder to fill and put; it is gone afterwards."""
        ...

    def put_tree(self, kind: str, folder: Path) -> str:
        """Store a folder under its content's hash and return the URI it has there; equal content is stored once.

        May take the folder's files away: give it a staged one.
        """
        ...


class Store(TreeStore, Protocol):
    """Takes folders in and gives them back; keeps single small objects by name."""

    def get_tree(self, uri: str, folder: Path) -> None:
        """Bring a tree that `put_tree` stored to `folder`: every file verified, all of it or nothing."""
        ...

    def get_tree_at(self, prefix: str, folder: Path) -> None:
        """Bring the adapter below `prefix` to `folder`, as a job left it: every file verified by its own manifest."""
        ...

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of a small file, verified; raises MissingError, or another error when it was changed."""
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
        """Return where an object or a prefix is, as people and services call it."""
        ...

    def name(self, uri: str) -> str:
        """Return the name of what is at a URI of this store."""
        ...
