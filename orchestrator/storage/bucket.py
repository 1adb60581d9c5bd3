"""Single calls on one bucket, and what they report of an object.

Every call names the bucket's owner too: if a deleted bucket's name is taken by another account, nothing is sent to it.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from time import sleep
from typing import IO, Any, NamedTuple

from orchestrator.aws.client import Aws, calling
from orchestrator.contract.digest import FileDigest
from orchestrator.errors import AccountError, ConflictError, MissingError, ServiceError
from orchestrator.storage.store import Listed
from orchestrator.storage.uris import s3_uri

_SHA256 = "sha256"  # the key of an object's metadata
_ATTEMPTS = 3  # of a put that conflicts with another one
_RETRY_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds


class Stored(NamedTuple):
    """What HEAD reports of an object."""

    size: int
    """Bytes."""
    etag: str
    """Changes with every write."""
    sha256: str
    """Hash of the whole object, hexadecimal, from the metadata that its writer set; empty without."""
    checksum: str
    """Computed by S3 on arrival, base64; over the checksums of the parts for a multipart upload."""


class Bucket:
    """A bucket of one account."""

    def __init__(
        self,
        aws: Aws,
        name: str,
        owner: str,
        *,
        retry_waits: Sequence[float] = (),
        sleep: Callable[[float], None] = sleep,
    ) -> None:
        self._aws = aws
        self.name = name
        self.owner = owner
        self._retry_waits = retry_waits
        self._sleep = sleep

    def with_retries(self) -> "Bucket":
        """Return the same bucket that retries each call for half a minute more, for long transfers.

        The SDK repeats a call for a few seconds, and its retry quota is soon spent when many calls fail at once.
        """
        return Bucket(
            self._aws,
            self.name,
            self.owner,
            retry_waits=_RETRY_WAITS,
            sleep=self._sleep,
        )

    def call(self, operation: str, **parameters: Any) -> Any:  # a boto3 response
        """Make any call on this bucket of this owner."""
        for wait in self._retry_waits:
            try:
                return self._call_once(operation, parameters)
            except ServiceError:
                self._sleep(wait)
        return self._call_once(operation, parameters)

    def _call_once(self, operation: str, parameters: dict[str, Any]) -> Any:
        body = parameters.get("Body")
        if body is not None and hasattr(body, "seek"):  # an earlier attempt may have read it
            body.seek(0)
        with self._calling():
            method = getattr(self._aws.client("s3"), operation)
            return method(Bucket=self.name, ExpectedBucketOwner=self.owner, **parameters)

    def _calling(self) -> AbstractContextManager[None]:
        return calling(f"use the bucket {self.name} of account {self.owner}")

    def head(self, key: str) -> Stored | None:
        """Return what is known of an object, or None when there is none."""
        try:
            answer = self.call("head_object", Key=key, ChecksumMode="ENABLED")
        except MissingError as error:
            if error.code == "NoSuchBucket":
                raise
            return None
        except AccountError as error:
            raise self._reason(key) or error from None
        metadata = answer.get("Metadata", {})
        return Stored(
            size=answer["ContentLength"],
            etag=answer["ETag"],
            sha256=metadata.get(_SHA256, ""),
            checksum=answer.get("ChecksumSHA256", ""),
        )

    def _reason(self, key: str) -> AccountError | None:
        """Return why a HEAD was refused, by a GET: the answer to HEAD has no body that says "expired" or "denied"."""
        try:
            answer = self.call("get_object", Key=key, Range="bytes=0-0")
        except MissingError:
            return None
        except AccountError as error:
            return error
        answer["Body"].close()
        return None

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Return the content of a small object; raises MissingError, or AccountError for more than `max_bytes`."""
        uri = self.uri(key)
        answer = self.call("get_object", Key=key)
        with calling(f"read {uri}"), answer["Body"] as body:
            size = answer["ContentLength"]
            if size > max_bytes:
                raise AccountError(f"{uri} has {size} bytes; at most {max_bytes} are allowed.")
            return bytes(body.read())

    def list(self, prefix: str) -> dict[str, Listed]:
        """Return every key below a prefix with its size and time."""
        found: dict[str, Listed] = {}
        token: dict[str, str] = {}
        while True:
            page = self.call("list_objects_v2", Prefix=prefix, **token)
            for item in page.get("Contents", []):
                found[item["Key"]] = Listed(item["Size"], item["LastModified"])
            if not page.get("IsTruncated"):
                return found
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield the answers to a call that comes in pages; raises MissingError when the bucket is gone."""
        with self._calling():
            paginator = self._aws.client("s3").get_paginator(operation)
            yield from paginator.paginate(
                Bucket=self.name,
                ExpectedBucketOwner=self.owner,
                **parameters,
            )

    def put(self, key: str, content: bytes | Path, digest: FileDigest, **condition: str) -> None:
        """Store bytes or a file; S3 checks them against the digest as they arrive."""
        with _opened(content) as body:
            self.call(
                "put_object",
                Key=key,
                Body=body,
                ChecksumSHA256=base64_sha256(digest),
                **labels(digest),
                **condition,
            )

    def put_new(self, key: str, content: bytes | Path, digest: FileDigest) -> None:
        """Store an object that does not exist yet. Idempotent; raises ConflictError when it exists with other bytes.

        The SDK repeats a put whose answer was lost; that one then conflicts with its own bytes.
        """
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                self.put(key, content, digest, IfNoneMatch="*")
            except ConflictError:
                stored = self.head(key)
                if stored is not None and is_complete(stored, digest):
                    return
                was_deleted = stored is None  # since the put; so the next one may succeed
                if not was_deleted or attempts_left == 0:
                    raise
            else:
                return

    def uri(self, key: str) -> str:
        """Return the URI of a key."""
        return s3_uri(self.name, key)


def _opened(content: bytes | Path) -> AbstractContextManager[IO[bytes]]:
    if isinstance(content, bytes):
        return BytesIO(content)
    return content.open("rb")


def labels(digest: FileDigest) -> dict[str, Any]:
    """Return the arguments that make S3 check an object's bytes and keep their hash with it."""
    return {
        "ChecksumAlgorithm": "SHA256",
        "Metadata": {_SHA256: digest.sha256},
    }


def base64_sha256(digest: FileDigest) -> str:
    """Return the sha256 in S3's notation."""
    binary = bytes.fromhex(digest.sha256)
    return base64.b64encode(binary).decode()


def is_complete(stored: Stored, digest: FileDigest, *, multipart: bool = False) -> bool:
    """Return whether an object is the file: by its size, its metadata, and S3's own checksum.

    The checksum of a `multipart` object covers its parts' checksums and cannot be compared. S3 checked each part, and
    the writer checked the whole file before it completed the upload.
    """
    if stored.size != digest.size or stored.sha256 != digest.sha256:
        return False
    return multipart or stored.checksum == base64_sha256(digest)
