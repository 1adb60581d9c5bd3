"""The interface of every store, on this machine or in a bucket."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from orchestrator.contract.digest import FileDigest
from orchestrator.storage.tree import Tree

Progress = Callable[[str, int, int], None]
"""Called with what is transferred ("data", "models", ...), the bytes done and the total bytes, from any thread."""

MAX_TEXT_BYTES = 50 * 2**20
"""Most that `get_bytes` reads: the manifest of 100,000 files."""


class Listed(NamedTuple):
    """What a listing reports of an object."""

    size: int
    """Bytes."""
    modified: datetime
    """Time of the last write."""


class Store(Protocol):
    """Stores trees, returns verified files, and keeps small objects by name.

    The name of a folder may be written with or without the slash at its end.
    """

    def put_tree(self, tree: Tree) -> str:
        """Store a tree under its name and return its URI. Idempotent."""
        ...

    def get_files(self, prefix: str, digests: Mapping[str, FileDigest], folder: Path) -> None:
        """Copy files below `prefix` to a new `folder`: each verified by its digest, all of them or nothing."""
        ...

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of a small file, verified; raises MissingError, or another error when it was changed."""
        ...

    def get_bytes(self, name: str) -> bytes:
        """Return the bytes of a small file; raises MissingError, or another error when it cannot be read."""
        ...

    def put_bytes(self, name: str, content: bytes) -> None:
        """Store the bytes of a small file by name, in place of what has the name."""
        ...

    def put_json(self, name: str, value: object, *, new: bool = False) -> None:
        """Store a value by name; with `new`, raises ConflictError when another value has the name."""
        ...

    def get_json(self, name: str) -> Any:
        """Return a stored value; raises MissingError."""
        ...

    def list_prefix(self, prefix: str) -> dict[str, Listed]:
        """Return the names that begin with `prefix`, sorted, with their sizes and times."""
        ...

    def uri(self, name: str) -> str:
        """Return the URI of an object or a folder, existing or not; makes no call."""
        ...

    def name(self, uri: str) -> str:
        """Return the name that a URI stands for; raises SpecError when it is not in this store."""
        ...
