"""One way to hash a file and a folder, so that client and container name the same bytes by the same hash."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class FileDigest(BaseModel):
    """What is known of a file's content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    """Hash of the whole file, hexadecimal."""
    size: int = Field(ge=0)
    """Bytes."""


def hash_file(path: Path) -> FileDigest:
    """Read a file once and return its hash and size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileDigest(sha256=digest.hexdigest(), size=file.tell())


def hash_files(folder: Path, *, leave_out: str = "") -> dict[str, FileDigest]:
    """Return the digest of every file below `folder` by its POSIX relative path, byte code and `leave_out` excepted."""
    digests: dict[str, FileDigest] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts or path.name == leave_out:
            continue
        name = path.relative_to(folder).as_posix()
        digests[name] = hash_file(path)
    return digests


def tree_sha256(files: Mapping[str, FileDigest]) -> str:
    """Return one hash for a set of files: equal names and bytes, equal hash, wherever they lie."""
    whole = hashlib.sha256()
    for name, digest in sorted(files.items()):
        line = f"{digest.sha256} {digest.size} {name}\n"
        whole.update(line.encode())
    return whole.hexdigest()
