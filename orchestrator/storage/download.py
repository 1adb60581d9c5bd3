"""Download objects to disk; each is verified by its hash."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.aws.client import calling
from orchestrator.contract.digest import FileDigest
from orchestrator.errors import AccountError, ServiceError
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.meter import Meter

_ATTEMPTS = 4  # in a row that bring no byte
_CHUNK_BYTES = 2**20


def fetch(
    bucket: Bucket,
    key: str,
    path: Path,
    digest: FileDigest,
    meter: Meter,
) -> None:
    """Write an object to a new file and verify it; raises AccountError when the object was changed.

    A broken connection is resumed at the byte where it broke: the SDK repeats requests, but not the reading of an
    answer's body, and it does not verify objects that were uploaded in parts.
    """
    uri = bucket.uri(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = hashlib.sha256()
    etag = ""
    attempts_left = _ATTEMPTS
    with path.open("xb") as file:
        while file.tell() < digest.size:
            start = file.tell()
            answer = _get_from(bucket, key, start, etag)
            etag = answer["ETag"]
            try:
                for chunk in _chunks(answer["Body"], uri):
                    if file.tell() + len(chunk) > digest.size:
                        raise damaged(uri)
                    file.write(chunk)
                    hashed.update(chunk)
                    meter.add(len(chunk))
            except ServiceError:
                attempts_left -= 1
                if file.tell() > start:
                    attempts_left = _ATTEMPTS
                if attempts_left == 0:
                    raise
    if hashed.hexdigest() != digest.sha256:
        raise damaged(uri)


def _get_from(bucket: Bucket, key: str, start: int, etag: str) -> Any:  # a boto3 response
    """Request an object from byte `start` on, of the version whose first bytes are already here."""
    if start == 0:
        return bucket.call("get_object", Key=key)
    return bucket.call("get_object", Key=key, Range=f"bytes={start}-", IfMatch=etag)


def _chunks(body: Any, uri: str) -> Iterator[bytes]:  # botocore's StreamingBody
    with calling(f"read {uri}"), body:
        yield from body.iter_chunks(_CHUNK_BYTES)


def damaged(uri: str) -> AccountError:
    """Return the error for an object whose content does not match its hash."""
    message = f"{uri} is not what was stored: somebody changed it, or it was damaged."
    return AccountError(message, next_step="check who can write to the bucket, and store it again")
