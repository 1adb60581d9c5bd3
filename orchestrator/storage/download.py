"""Bringing objects to disk: each is what its hash says, or the error names it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.aws.client import calling
from orchestrator.contract.digest import FileDigest
from orchestrator.errors import AccountError, ServiceError
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.meter import Meter

_TRIES = 4  # in a row without a byte
_CHUNK_BYTES = 2**20


def fetch(bucket: Bucket, key: str, path: Path, digest: FileDigest, meter: Meter) -> None:
    """Write an object to a new file and verify it, going on where a connection broke; raises AccountError if changed.

    The SDK repeats requests, but not the reading of an answer's body, and it verifies nothing of an object that was
    uploaded in parts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = hashlib.sha256()
    with path.open("xb") as file:
        etag, tries_left = "", _TRIES
        while file.tell() < digest.size:
            before = file.tell()
            answer = _rest(bucket, key, before, etag)
            etag = answer["ETag"]
            try:
                for chunk in _chunks(answer["Body"], bucket.uri(key)):
                    if file.tell() + len(chunk) > digest.size:
                        raise damaged(bucket.uri(key))
                    file.write(chunk)
                    hashed.update(chunk)
                    meter.add(len(chunk))
            except ServiceError:
                tries_left = _TRIES if file.tell() > before else tries_left - 1
                if not tries_left:
                    raise
    if hashed.hexdigest() != digest.sha256:
        raise damaged(bucket.uri(key))


def _rest(bucket: Bucket, key: str, start: int, etag: str) -> Any:  # a boto3 response
    """Ask for an object from byte `start` on, of the version that was begun with."""
    going_on = {"Range": f"bytes={start}-", "IfMatch": etag} if start else {}
    return bucket.call("get_object", Key=key, **going_on)


def _chunks(body: Any, uri: str) -> Iterator[bytes]:  # botocore's StreamingBody
    with calling(f"read {uri}"), body:
        yield from body.iter_chunks(_CHUNK_BYTES)


def damaged(what: str) -> AccountError:
    """Return the error for content that is not what its hash says."""
    message = f"{what} is not what was stored: somebody changed it, or it was damaged."
    return AccountError(message, next_step="look at who can write to the bucket, and make it again")
