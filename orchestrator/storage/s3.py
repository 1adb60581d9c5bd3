"""A store in a bucket.

A tree's files lie below `kind/<tree sha256>/`. Its manifest, `manifests/kind/<tree sha256>.json`, is written last and
means that all of them are there: a second put of a complete tree is one request, and a half-finished one is completed.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import sleep
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.aws.client import Aws
from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest
from orchestrator.contract.digest import FileDigest, hash_files, tree_sha256
from orchestrator.errors import AccountError, MissingError, SpecError
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.download import damaged, fetch
from orchestrator.storage.folder import arriving, to_json
from orchestrator.storage.meter import Meter
from orchestrator.storage.names import unsafe_names
from orchestrator.storage.store import Listed, Progress
from orchestrator.storage.upload import THREADS, Upload, Uploader, at_once

_LONGEST_MANIFEST = 50 * 2**20  # bytes; 100,000 files of it


class TreeManifest(BaseModel):
    """What a complete tree consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = 1
    """Version of this layout."""
    files: dict[str, FileDigest]
    """Every file by its relative path."""


class _Staging:
    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder of this machine that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
            yield Path(folder)


class S3Store(_Staging):
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

    def put_tree(self, kind: str, folder: Path) -> str:
        """Upload a folder unless it is there and return `s3://bucket/kind/<tree sha256>/`."""
        files = hash_files(folder)
        tree = tree_sha256(files)
        prefix, manifest = f"{kind}/{tree}/", f"manifests/{kind}/{tree}.json"
        meter = Meter(kind, sum(digest.size for digest in files.values()), self._progress)
        if self._bucket.head(manifest) is not None:
            meter.add(meter.total)
        else:
            uploads = [
                Upload(prefix + name, folder / name, digest.size, digest.sha256) for name, digest in files.items()
            ]
            Uploader(self._patient, meter).send(uploads, self._patient.list(prefix))
            _put_text(self._patient, manifest, to_json(TreeManifest(files=files).model_dump()), new=True)
        return self._bucket.uri(prefix)

    def get_tree(self, uri: str, folder: Path) -> None:
        """Download a complete tree to `folder`; raises MissingError, or AccountError when it is not what was stored."""
        kind, tree = self._kind_and_tree(uri)
        key = f"manifests/{kind}/{tree}.json"
        try:
            files = TreeManifest.model_validate_json(self._small(key)).files
        except ValidationError as error:
            raise damaged(self._bucket.uri(key)) from error
        if tree_sha256(files) != tree:
            raise damaged(self._bucket.uri(key))
        with arriving(folder) as draft:
            self._fetch_all(f"{kind}/{tree}/", files, draft)

    def get_tree_at(self, prefix: str, folder: Path) -> None:
        """Download the adapter a job left below `prefix`; raises MissingError, or AccountError when it is damaged."""
        prefix = prefix.rstrip("/") + "/"
        sizes = {
            key.removeprefix(prefix): listed.size for key, listed in self._bucket.list(prefix).items() if key != prefix
        }
        if MANIFEST_FILE not in sizes:
            raise MissingError(f"There is no adapter below {self._bucket.uri(prefix)}.")
        text = self._small(prefix + MANIFEST_FILE)
        try:
            files = AdapterManifest.model_validate_json(text).files
        except ValidationError as error:
            raise damaged(self._bucket.uri(prefix + MANIFEST_FILE)) from error
        listed = {**files, MANIFEST_FILE: FileDigest(sha256=sha256(text).hexdigest(), size=len(text))}
        if sizes != {name: digest.size for name, digest in listed.items()}:
            raise damaged(self._bucket.uri(prefix))
        with arriving(folder) as draft:
            self._fetch_all(prefix, listed, draft)

    def get_file(self, name: str, digest: FileDigest) -> bytes:
        """Return the bytes of an object; raises MissingError, or AccountError when they are not what it should be."""
        with self.staging() as folder:
            fetch(self._patient, name, folder / "file", digest, Meter("file", digest.size))
            return (folder / "file").read_bytes()

    def put_json(self, name: str, value: object, *, new: bool = False) -> None:
        """Store a value under a key; when it has to be `new`, raises ConflictError if another one is there."""
        _put_text(self._bucket, name, to_json(value), new=new)

    def get_json(self, name: str) -> Any:
        """Return the value under a key; raises MissingError, or AccountError when it is no JSON."""
        try:
            return json.loads(self._small(name))
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

    def _small(self, key: str) -> bytes:
        return self._bucket.get(key, most_bytes=_LONGEST_MANIFEST)

    def _fetch_all(self, prefix: str, files: dict[str, FileDigest], folder: Path) -> None:
        problems = unsafe_names({name: digest.size for name, digest in files.items()})
        if problems:
            raise AccountError(f"{self._bucket.uri(prefix)} cannot be written to a disk.", problems=problems)
        meter = Meter(prefix.partition("/")[0], sum(digest.size for digest in files.values()), self._progress)
        with ThreadPoolExecutor(THREADS) as pool:
            at_once(
                pool, lambda name: fetch(self._patient, prefix + name, folder / name, files[name], meter), list(files)
            )

    def _kind_and_tree(self, uri: str) -> tuple[str, str]:
        kind, _, tree = self.name(uri).rstrip("/").rpartition("/")
        if not kind:
            raise SpecError(f"{uri} is no tree.", next_step="python -m orchestrator infra show")
        return kind, tree


class DryS3Store(_Staging):
    """Names the places an S3 store would use; makes no call and needs no credentials."""

    def __init__(self, bucket: str) -> None:
        self._name = bucket
        self.trees: dict[str, dict[str, FileDigest]] = {}
        """The files of each tree that would be uploaded unless it is there, by the tree's URI."""

    def put_tree(self, kind: str, folder: Path) -> str:
        """Return the URI `folder` would get."""
        files = hash_files(folder)
        uri = self.uri(f"{kind}/{tree_sha256(files)}/")
        self.trees[uri] = files
        return uri

    def uri(self, name: str) -> str:
        """Return where an object or a prefix would be."""
        return f"s3://{self._name}/{name}"


def _put_text(bucket: Bucket, key: str, text: str, *, new: bool) -> None:
    content = text.encode()
    put = bucket.put_new if new else bucket.put
    put(key, content, FileDigest(sha256=sha256(content).hexdigest(), size=len(content)))
