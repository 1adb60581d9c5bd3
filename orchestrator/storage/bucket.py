"""One bucket, its single calls, and what they say about an object.

Every call names the owner too: whoever takes a deleted bucket's name for himself gets nothing.
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
_TRIES = 3  # of a put that meets another one
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds


class Stored(NamedTuple):
    """What S3 knows of an object without sending it."""

    size: int
    etag: str
    sha256: str
    """Of the whole, hexadecimal, as its writer said."""
    checksum: str
    """As S3 computed it when it took the bytes in, base64; over the parts' checksums when it came in parts."""


class Bucket:
    """A bucket of one account."""

    def __init__(
        self, aws: Aws, name: str, owner: str, *, waits: Sequence[float] = (), sleep: Callable[[float], None] = sleep
    ) -> None:
        self._aws = aws
        self.name = name
        self.owner = owner
        self._waits = waits
        self._sleep = sleep

    def patient(self) -> "Bucket":
        """Return the same bucket with patience: for work that has come far and should outlast an outage.

        The SDK repeats a call for a few seconds, and its budget of retries is soon spent when many calls fail at once.
        """
        return Bucket(self._aws, self.name, self.owner, waits=_WAITS, sleep=self._sleep)

    def call(self, operation: str, **parameters: Any) -> Any:  # a boto3 response
        """Make any call on this bucket of this owner."""
        for wait in self._waits:
            try:
                return self._call_once(operation, parameters)
            except ServiceError:
                self._sleep(wait)
        return self._call_once(operation, parameters)

    def _call_once(self, operation: str, parameters: dict[str, Any]) -> Any:
        if hasattr(parameters.get("Body"), "seek"):
            parameters["Body"].seek(0)
        with calling(f"use the bucket {self.name} of account {self.owner}"):
            method = getattr(self._aws.client("s3"), operation)
            return method(Bucket=self.name, ExpectedBucketOwner=self.owner, **parameters)

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
        said = answer.get("Metadata", {}).get(_SHA256, "")
        return Stored(answer["ContentLength"], answer["ETag"], said, answer.get("ChecksumSHA256", ""))

    def _reason(self, key: str) -> AccountError | None:
        """Ask once more in a way that is answered with a reason: HEAD has no body to say "expired" or "denied" in."""
        try:
            self.call("get_object", Key=key, Range="bytes=0-0")["Body"].close()
        except AccountError as error:
            return None if isinstance(error, MissingError) else error
        return None

    def get(self, key: str, *, most_bytes: int) -> bytes:
        """Return a small object whole; raises MissingError, or AccountError for one that is larger than it may be."""
        answer = self.call("get_object", Key=key)
        with calling(f"read {self.uri(key)}"), answer["Body"] as body:
            if answer["ContentLength"] > most_bytes:
                raise AccountError(f"{self.uri(key)} has {answer['ContentLength']} bytes and may have {most_bytes}.")
            return bytes(body.read())

    def list(self, prefix: str) -> dict[str, Listed]:
        """Return every key below a prefix and what the list says of it."""
        found: dict[str, Listed] = {}
        token: dict[str, str] = {}
        while True:
            page = self.call("list_objects_v2", Prefix=prefix, **token)
            found |= {item["Key"]: Listed(item["Size"], item["LastModified"]) for item in page.get("Contents", [])}
            if not page.get("IsTruncated"):
                return found
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def pages(self, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield the answers to a call that comes in pages; raises MissingError when the bucket is gone."""
        with calling(f"use the bucket {self.name} of account {self.owner}"):
            paginator = self._aws.client("s3").get_paginator(operation)
            yield from paginator.paginate(Bucket=self.name, ExpectedBucketOwner=self.owner, **parameters)

    def put(self, key: str, content: bytes | Path, digest: FileDigest, **condition: str) -> None:
        """Store bytes or a file of a known digest, which S3 checks as they come in."""
        checksum = base64_sha256(digest)
        with _opened(content) as body:
            self.call("put_object", Key=key, Body=body, **condition, **labels(digest), ChecksumSHA256=checksum)

    def put_new(self, key: str, content: bytes | Path, digest: FileDigest) -> None:
        """Store an object that is not there yet; the same bytes in its place are success, others a ConflictError.

        The SDK repeats a put whose answer was lost, and is then told of a conflict with its own bytes.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                return self.put(key, content, digest, IfNoneMatch="*")
            except ConflictError:
                stored = self.head(key)
                if stored is not None and is_whole(stored, digest):
                    return None
                if stored is not None or not tries_left:  # else the one that was in the way is gone again
                    raise
        return None

    def uri(self, key: str) -> str:
        """Return the URI of a key."""
        return s3_uri(self.name, key)


def _opened(content: bytes | Path) -> AbstractContextManager[IO[bytes]]:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def labels(digest: FileDigest) -> dict[str, Any]:
    """Return the arguments that make S3 check an object's bytes and keep their hash with it."""
    return {"ChecksumAlgorithm": "SHA256", "Metadata": {_SHA256: digest.sha256}}


def base64_sha256(digest: FileDigest) -> str:
    """Return the sha256 as S3 writes it."""
    return base64.b64encode(bytes.fromhex(digest.sha256)).decode()


def is_whole(stored: Stored, digest: FileDigest, *, in_parts: bool = False) -> bool:
    """Return whether an object is the file: its size, its writer's word for it, and S3's own checksum.

    S3 checked each part of one that came `in_parts`, and the writer the whole before it let S3 put them together.
    """
    same = stored.size == digest.size and stored.sha256 == digest.sha256
    return same and (in_parts or stored.checksum == base64_sha256(digest))
