"""Bringing files into a bucket: each once, in parts when large, several at a time, and never half an object."""

import base64
import hashlib
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from orchestrator.contract.digest import FileDigest
from orchestrator.errors import ConflictError, MachineError, MissingError, OrchestratorError
from orchestrator.storage.bucket import Bucket, Stored, is_whole, labels
from orchestrator.storage.meter import Meter

THREADS = 8
PART_BYTES = 16 * 2**20
PARTS_ABOVE_BYTES = 64 * 2**20
_MOST_PARTS = 10_000  # the service's limit
_PARTS_AHEAD = 2 * THREADS  # read and not yet sent: this many times PART_BYTES is the memory it takes

_Part = dict[str, Any]
_Item = TypeVar("_Item")


class Upload(NamedTuple):
    """A file and where it goes."""

    key: str
    path: Path
    size: int
    sha256: str

    @property
    def digest(self) -> FileDigest:
        """Size and hash as one value."""
        return FileDigest(size=self.size, sha256=self.sha256)


class Uploader:
    """Brings files into one bucket."""

    def __init__(
        self, bucket: Bucket, meter: Meter, *, parts_above: int = PARTS_ABOVE_BYTES, part_bytes: int = PART_BYTES
    ) -> None:
        self._bucket = bucket
        self._meter = meter
        self._parts_above = parts_above
        self._part_bytes = part_bytes

    def send(self, uploads: Iterable[Upload], present: Container[str]) -> None:
        """Bring files in; those that are `present` and prove to be whole are not sent again."""
        uploads = list(uploads)
        with ThreadPoolExecutor(THREADS) as pool:
            small = [upload for upload in uploads if not self._in_parts(upload)]
            at_once(pool, lambda upload: self._send_file(upload, present, pool), small)
            for upload in filter(self._in_parts, uploads):  # one after the other, each with all threads
                self._send_file(upload, present, pool)

    def _send_file(self, upload: Upload, present: Container[str], pool: ThreadPoolExecutor) -> None:
        there = self._bucket.head(upload.key) if upload.key in present else None
        in_parts = self._in_parts(upload)
        if there is not None and is_whole(there, upload.digest, in_parts=in_parts):
            self._meter.add(upload.size)
        elif in_parts:
            self._send_in_parts(upload, there, pool)
        else:
            if there is None:
                self._bucket.put_new(upload.key, upload.path, upload.digest)
            else:  # damaged, and no tree can need it as it is
                self._bucket.put(upload.key, upload.path, upload.digest, IfMatch=there.etag)
            self._meter.add(upload.size)

    def _in_parts(self, upload: Upload) -> bool:
        return upload.size > self._parts_above

    def _send_in_parts(self, upload: Upload, there: Stored | None, pool: ThreadPoolExecutor) -> None:
        opened = self._bucket.call("create_multipart_upload", Key=upload.key, **labels(upload.digest))
        about = {"Key": upload.key, "UploadId": opened["UploadId"]}
        try:
            parts = self._send_parts(upload, about, pool)
            condition = {"IfMatch": there.etag} if there else {"IfNoneMatch": "*"}
            self._bucket.call("complete_multipart_upload", **about, MultipartUpload={"Parts": parts}, **condition)
        except BaseException as error:  # Ctrl-C too: parts of an open upload cost money and show in no listing
            with suppress(OrchestratorError):  # the first error says more; the bucket's lifecycle takes the rest
                self._bucket.call("abort_multipart_upload", **about)
            if not self._was_completed(upload, error):
                raise

    def _was_completed(self, upload: Upload, error: BaseException) -> bool:
        """Return whether the file is there all the same: an answer was lost, or somebody was quicker with it."""
        if not isinstance(error, (ConflictError, MissingError)):
            return False
        stored = self._bucket.head(upload.key)
        return stored is not None and is_whole(stored, upload.digest, in_parts=True)

    def _send_parts(self, upload: Upload, about: dict[str, str], pool: ThreadPoolExecutor) -> list[_Part]:
        size = max(self._part_bytes, -(-upload.size // _MOST_PARTS))
        whole = hashlib.sha256()
        sent: list[Future[_Part]] = []
        try:
            with upload.path.open("rb") as file:
                while part := file.read(size):
                    whole.update(part)
                    if len(sent) >= _PARTS_AHEAD:
                        sent[-_PARTS_AHEAD].result()
                    sent.append(pool.submit(self._send_part, about, len(sent) + 1, part))
            if whole.hexdigest() != upload.sha256:
                raise MachineError(f"{upload.path} changed while it was sent.", next_step="run the command again")
            return [future.result() for future in sent]
        except BaseException:
            _end(sent)
            raise

    def _send_part(self, about: dict[str, str], number: int, part: bytes) -> _Part:
        checksum = base64.b64encode(hashlib.sha256(part).digest()).decode()
        answer = self._bucket.call(
            "upload_part",
            **about,
            PartNumber=number,
            Body=part,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum,
        )
        self._meter.add(len(part))
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}


def at_once(pool: ThreadPoolExecutor, function: Callable[[_Item], None], items: Iterable[_Item]) -> None:
    """Call a function for every item, several at a time; the first error ends it and what has not begun."""
    futures = [pool.submit(function, item) for item in items]
    try:
        for future in as_completed(futures):
            future.result()
    except BaseException:
        _end(futures)
        raise


def _end(futures: Iterable[Future[Any]]) -> None:
    """Begin nothing more, and wait for what runs."""
    wait([future for future in futures if not future.cancel()])
