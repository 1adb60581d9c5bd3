"""A store in a bucket.

The files of a tree are below `kind/<tree sha256>/`. Its manifest, `manifests/kind/<tree sha256>.json`, is written last
and implies that all of them are stored: a second put of a complete tree is one request, and a partial one is completed.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from time import sleep
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.client import Aws
from orchestrator.contract.command_line import command
from orchestrator.contract.digest import FileDigest
from orchestrator.errors import AccountError, MachineError, SpecError
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.download import damaged, fetch
from orchestrator.storage.files import complete_folder, to_json
from orchestrator.storage.meter import Meter
from orchestrator.storage.names import unsafe_files
from orchestrator.storage.store import MAX_TEXT_BYTES, Listed, Progress
from orchestrator.storage.tree import Tree
from orchestrator.storage.upload import THREADS, Upload, Uploader, run_parallel
from orchestrator.storage.uris import folder_name


class TreeManifest(BaseModel):
    """Written when all files of a tree are stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    """Version of this layout."""
    files: Mapping[str, FileDigest]
    """Every file by its relative path."""


class S3Store:
    """A store in a bucket of the account `owner`, its twelve digits."""

    def __init__(
        self,
        aws: Aws,
        bucket: str,
        owner: str,
        *,
        progress: Progress | None = None,
        sleep: Callable[[float], None] = sleep,
    ) -> None:
        self._bucket = Bucket(aws, bucket, owner, sleep=sleep)
        self._retrying = self._bucket.with_retries()  # for transfers, which should outlast an outage
        self._progress = progress

    def put_tree(self, tree: Tree) -> str:
        """Upload a tree and return `s3://bucket/kind/<tree sha256>/`. Idempotent."""
        manifest = f"manifests/{tree.kind}/{tree.sha256}.json"
        meter = Meter(tree.kind, tree.bytes, self._progress)
        if self._bucket.head(manifest) is not None:
            meter.add(meter.total)
            return self.uri(tree.name)
        uploads = []
        for name, digest in tree.files.items():
            upload = Upload(
                key=f"{tree.name}{name}",
                path=tree.sources[name],
                size=digest.size,
                sha256=digest.sha256,
            )
            uploads.append(upload)
        present = self._retrying.list(tree.name)
        try:
            Uploader(self._retrying, meter).send(uploads, present)
        except FileNotFoundError as error:
            message = f"{error.filename} is gone since it was read."
            raise MachineError(message, next_step="run the command again") from error
        complete = TreeManifest(files=tree.files)
        text = to_json(complete.model_dump())
        _put_content(self._retrying, manifest, text.encode(), new=True)
        return self.uri(tree.name)

    def get_files(self, prefix: str, digests: Mapping[str, FileDigest], folder: Path) -> None:
        """Download objects to a new `folder`; raises MissingError, or AccountError when one was changed."""
        prefix = folder_name(prefix)
        problems = unsafe_files(digests)
        if problems:
            raise AccountError(f"{self.uri(prefix)} cannot be written to a disk.", problems=problems)
        kind = prefix.partition("/")[0]
        size = sum(digest.size for digest in digests.values())
        meter = Meter(kind, size, self._progress)
        with complete_folder(folder) as draft, ThreadPoolExecutor(THREADS) as pool:

            def download(name: str) -> None:
                key = f"{prefix}{name}"
                fetch(self._retrying, key, draft / name, digests[name], meter)

            run_parallel(pool, download, digests)

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of an object; raises MissingError, or AccountError when they do not match the digest."""
        meter = Meter("file", digest.size)
        with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
            path = Path(folder) / "file"
            fetch(self._retrying, name, path, digest, meter)
            return path.read_bytes()

    def get_bytes(self, name: str) -> bytes:
        """Return the bytes of a small object; raises MissingError, or AccountError when it is too large."""
        return self._bucket.get(name, max_bytes=MAX_TEXT_BYTES)

    def put_bytes(self, name: str, content: bytes) -> None:
        """Store bytes under a key, in place of what it has."""
        _put_content(self._bucket, name, content, new=False)

    def put_json(self, name: str, value: object, *, new: bool = False) -> None:
        """Store a value under a key; with `new`, raises ConflictError when the key has another value."""
        text = to_json(value)
        _put_content(self._bucket, name, text.encode(), new=new)

    def get_json(self, name: str) -> Any:
        """Return the value under a key; raises MissingError, or AccountError when it is not JSON."""
        content = self.get_bytes(name)
        try:
            return json.loads(content)
        except ValueError as error:
            raise damaged(self.uri(name)) from error

    def list_prefix(self, prefix: str) -> dict[str, Listed]:
        """Return the keys that begin with `prefix`, sorted, with their sizes and times."""
        found = self._bucket.list(prefix)
        return dict(sorted(found.items()))

    def uri(self, name: str) -> str:
        """Return the URI of an object or a prefix."""
        return self._bucket.uri(name)

    def name(self, uri: str) -> str:
        """Return the key or prefix that a URI stands for; raises SpecError when it is in another bucket."""
        root = self._bucket.uri("")
        if not uri.startswith(root):
            raise SpecError(f"{uri} is not in {root}.", next_step=command("infra", "show"))
        return uri.removeprefix(root)


def _put_content(
    bucket: Bucket,
    key: str,
    content: bytes,
    *,
    new: bool,
) -> None:
    digest = FileDigest(
        sha256=sha256(content).hexdigest(),
        size=len(content),
    )
    if new:
        bucket.put_new(key, content, digest)
    else:
        bucket.put(key, content, digest)
