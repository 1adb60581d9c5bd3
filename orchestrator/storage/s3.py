"""A store in a bucket.

A tree's files lie below `kind/<tree sha256>/`. Its manifest, `manifests/kind/<tree sha256>.json`, is written last and
means that all of them are there: a second put of a complete tree is one request, and a half-finished one is completed.
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
from orchestrator.contract.digest import FileDigest
from orchestrator.errors import AccountError, SpecError
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.download import damaged, fetch
from orchestrator.storage.files import arriving, to_json
from orchestrator.storage.meter import Meter
from orchestrator.storage.names import unsafe_files
from orchestrator.storage.store import Listed, Progress
from orchestrator.storage.tree import Tree
from orchestrator.storage.upload import THREADS, Upload, Uploader, at_once
from orchestrator.storage.uris import folder_name

_LONGEST_TEXT = 50 * 2**20  # bytes; the manifest of 100,000 files


class TreeManifest(BaseModel):
    """What a complete tree consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    """Version of this layout."""
    files: Mapping[str, FileDigest]
    """Every file by its relative path."""


class S3Store:
    """A store in a bucket of `owner`, the twelve digits of an account; every call of it names both."""

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
        self._patient = self._bucket.patient()
        self._progress = progress

    def put_tree(self, tree: Tree) -> str:
        """Upload a tree unless it is there and return `s3://bucket/kind/<tree sha256>/`."""
        manifest = f"manifests/{tree.kind}/{tree.sha256}.json"
        meter = Meter(tree.kind, tree.bytes, self._progress)
        if self._bucket.head(manifest) is not None:
            meter.add(meter.total)
            return self.uri(tree.name)
        uploads = []
        for name, digest in tree.files.items():
            upload = Upload(tree.name + name, tree.sources[name], digest.size, digest.sha256)
            uploads.append(upload)
        present = self._patient.list(tree.name)
        Uploader(self._patient, meter).send(uploads, present)
        complete = TreeManifest(files=tree.files)
        _put_text(self._patient, manifest, to_json(complete.model_dump()), new=True)
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
        with arriving(folder) as draft, ThreadPoolExecutor(THREADS) as pool:

            def download(name: str) -> None:
                fetch(self._patient, prefix + name, draft / name, digests[name], meter)

            at_once(pool, download, digests)

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of an object; raises MissingError, or AccountError when they are not what it should be."""
        with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
            path = Path(folder) / "file"
            fetch(self._patient, name, path, digest, Meter("file", digest.size))
            return path.read_bytes()

    def get_bytes(self, name: str) -> bytes:
        """Return the bytes of a small object; raises MissingError, or AccountError when it is too large."""
        return self._bucket.get(name, most_bytes=_LONGEST_TEXT)

    def put_json(self, name: str, value: object, *, new: bool = False) -> None:
        """Store a value under a key; when it has to be `new`, raises ConflictError if another one is there."""
        _put_text(self._bucket, name, to_json(value), new=new)

    def get_json(self, name: str) -> Any:
        """Return the value under a key; raises MissingError, or AccountError when it is no JSON."""
        try:
            return json.loads(self.get_bytes(name))
        except ValueError as error:
            raise damaged(self._bucket.uri(name)) from error

    def list_prefix(self, prefix: str) -> dict[str, Listed]:
        """Return the keys that begin with `prefix`, sorted, with their sizes and times."""
        return dict(sorted(self._bucket.list(prefix).items()))

    def uri(self, name: str) -> str:
        """Return where an object or a prefix is."""
        return self._bucket.uri(name)

    def name(self, uri: str) -> str:
        """Return the key or prefix that a URI of this bucket names; raises SpecError for another bucket's."""
        ours = self._bucket.uri("")
        if not uri.startswith(ours):
            raise SpecError(f"{uri} is not in {ours}.", next_step="python -m orchestrator infra show")
        return uri.removeprefix(ours)


def _put_text(bucket: Bucket, key: str, text: str, *, new: bool) -> None:
    content = text.encode()
    put = bucket.put_new if new else bucket.put
    put(key, content, FileDigest(sha256=sha256(content).hexdigest(), size=len(content)))
