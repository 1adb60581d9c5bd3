"""Upload files to a bucket: each once, large ones in parts, several at a time, and never half an object."""

import base64
import hashlib
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from orchestrator.contract.digest import FileDigest
from orchestrator.errors import AccountError, ConflictError, MachineError, MissingError, OrchestratorError
from orchestrator.storage.bucket import Bucket, is_complete, labels
from orchestrator.storage.meter import Meter

THREADS = 8
PART_BYTES = 16 * 2**20
PARTS_ABOVE_BYTES = 64 * 2**20
_MAX_PARTS = 10_000  # of a multipart upload, by S3
_PARTS_AHEAD = 2 * THREADS  # read and not yet sent: this many times PART_BYTES of memory

_Part = dict[str, Any]
_Item = TypeVar("_Item")


class Upload(NamedTuple):
    """A file and the key it is stored under."""

    key: str
    path: Path
    size: int
    """Bytes."""
    sha256: str
    """Hash of the content, hexadecimal."""

    @property
    def digest(self) -> FileDigest:
        """Size and hash as one value."""
        return FileDigest(size=self.size, sha256=self.sha256)


class Uploader:
    """Uploads files to one bucket."""

    def __init__(
        self,
        bucket: Bucket,
        meter: Meter,
        *,
        parts_above: int = PARTS_ABOVE_BYTES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._bucket = bucket
        self._meter = meter
        self._parts_above = parts_above
        self._part_bytes = part_bytes

    def send(self, uploads: Iterable[Upload], present: Container[str]) -> None:
        """Upload files; one whose key is `present` is not sent again when the object is complete."""
        small: list[Upload] = []
        large: list[Upload] = []
        for upload in uploads:
            if self._is_large(upload):
                large.append(upload)
            else:
                small.append(upload)
        with ThreadPoolExecutor(THREADS) as pool:
            run_parallel(pool, lambda upload: self._send_file(upload, present, pool), small)
            for upload in large:  # one after the other, each with all threads
                self._send_file(upload, present, pool)

    def _send_file(
        self,
        upload: Upload,
        present: Container[str],
        pool: ThreadPoolExecutor,
    ) -> None:
        """Upload a file unless its object is complete.

        Raises AccountError when the object is another one: the bucket lets nobody write over what a hash names.
        """
        stored = None
        if upload.key in present:
            stored = self._bucket.head(upload.key)
        is_large = self._is_large(upload)
        if stored is not None and is_complete(stored, upload.digest, multipart=is_large):
            self._meter.add(upload.size)
            return
        if stored is not None:
            raise _changed(self._bucket.uri(upload.key))
        if is_large:
            self._send_in_parts(upload, pool)
            return
        self._bucket.put_new(upload.key, upload.path, upload.digest)
        self._meter.add(upload.size)

    def _is_large(self, upload: Upload) -> bool:
        return upload.size > self._parts_above

    def _send_in_parts(
        self,
        upload: Upload,
        pool: ThreadPoolExecutor,
    ) -> None:
        """Upload a file in parts."""
        opened = self._bucket.call("create_multipart_upload", Key=upload.key, **labels(upload.digest))
        target = {"Key": upload.key, "UploadId": opened["UploadId"]}
        try:
            parts = self._send_parts(upload, target, pool)
            self._bucket.call(
                "complete_multipart_upload",
                **target,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        except BaseException as error:  # Ctrl-C too: parts of an open upload cost money and show in no listing
            with suppress(OrchestratorError):  # the first error says more; the bucket's lifecycle removes the rest
                self._bucket.call("abort_multipart_upload", **target)
            if not self._was_completed(upload, error):
                raise

    def _was_completed(self, upload: Upload, error: BaseException) -> bool:
        """Return whether the object is complete despite an error: the answer was lost, or another process stored it."""
        if not isinstance(error, (ConflictError, MissingError)):
            return False
        stored = self._bucket.head(upload.key)
        return stored is not None and is_complete(stored, upload.digest, multipart=True)

    def _send_parts(
        self,
        upload: Upload,
        target: dict[str, str],
        pool: ThreadPoolExecutor,
    ) -> list[_Part]:
        """Upload the parts of a file, several at a time; raises MachineError when the file changes meanwhile."""
        smallest_part = -(-upload.size // _MAX_PARTS)  # rounded up
        part_bytes = max(self._part_bytes, smallest_part)
        hashed = hashlib.sha256()
        sent: list[Future[_Part]] = []
        try:
            with upload.path.open("rb") as file:
                while part := file.read(part_bytes):
                    hashed.update(part)
                    if len(sent) >= _PARTS_AHEAD:
                        sent[-_PARTS_AHEAD].result()
                    number = len(sent) + 1
                    future = pool.submit(self._send_part, target, number, part)
                    sent.append(future)
            if hashed.hexdigest() != upload.sha256:
                message = f"{upload.path} changed while it was sent."
                raise MachineError(message, next_step="run the command again")
            return [future.result() for future in sent]
        except BaseException:
            _cancel(sent)
            raise

    def _send_part(self, target: dict[str, str], number: int, part: bytes) -> _Part:
        """Upload one part, which S3 checks, and return what completes the upload."""
        digest = hashlib.sha256(part).digest()
        checksum = base64.b64encode(digest).decode()
        answer = self._bucket.call(
            "upload_part",
            **target,
            PartNumber=number,
            Body=part,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum,
        )
        self._meter.add(len(part))
        return {
            "PartNumber": number,
            "ETag": answer["ETag"],
            "ChecksumSHA256": checksum,
        }


def _changed(uri: str) -> AccountError:
    """Return the error for an object that is not the file whose hash its key holds."""
    return AccountError(
        f"{uri} was changed since it was stored: it is not the file that its name stands for. It is not replaced.",
        next_step=f"when it is known who did: aws s3 rm {uri}  (by the bucket's owner; then the command again)",
    )


def run_parallel(
    pool: ThreadPoolExecutor,
    function: Callable[[_Item], None],
    items: Iterable[_Item],
) -> None:
    """Call a function for every item, several at a time; the first error cancels the calls that have not begun."""
    futures = [pool.submit(function, item) for item in items]
    try:
        for future in as_completed(futures):
            future.result()
    except BaseException:
        _cancel(futures)
        raise


def _cancel(futures: Iterable[Future[Any]]) -> None:
    """Cancel the calls that have not begun, and wait for those that run."""
    running = [future for future in futures if not future.cancel()]
    wait(running)
