"""Files between S3 and the folders of a job."""

import os
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

_PARTS_ABOVE_BYTES = 8 * 2**20  # boto3's own border


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI."""
    parts = urlsplit(uri, allow_fragments=False)
    return parts.netloc, parts.path.lstrip("/") + (f"?{parts.query}" if parts.query else "")


def keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    """Return every key that begins with a prefix: also those of a neighbour whose name begins like ours."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def relative(key: str, prefix: str) -> PurePosixPath:
    """Return where the object of a channel lies in the channel's folder."""
    if prefix.endswith("/") or key.startswith(f"{prefix}/"):
        return PurePosixPath(key[len(prefix) :].lstrip("/"))
    return PurePosixPath(key[len(prefix.rpartition("/")[0]) :].lstrip("/"))


def download(s3: Any, uri: str, folder: Path) -> int:
    """Fetch all objects below a prefix and return how many there were."""
    bucket, prefix = split(uri)
    found = [key for key in keys(s3, bucket, prefix) if not key.endswith("/")]
    for key in found:
        path = folder / relative(key, prefix)
        if ".." in path.parts:
            raise ValueError(f"The key {key} leads out of the channel's folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
                file.write(chunk)
    return len(found)


class Upload:
    """Puts files into S3, encrypted as the job asks for."""

    def __init__(self, s3: Any, uri: str, kms_key: str | None = None) -> None:
        self.s3 = s3
        self.bucket, key = split(uri)
        self.prefix = f"{key.rstrip('/')}/" if key else ""
        self.encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}

    def put(self, path: Path, name: str) -> None:
        """Put a file: in parts when it is large, which are given up when one does not arrive."""
        if path.stat().st_size > _PARTS_ABOVE_BYTES:
            with path.open("rb") as file:
                self.s3.upload_fileobj(file, self.bucket, self.prefix + name, ExtraArgs=self.encryption)
            return
        # Read once: a container may be writing the file, and then its checksum would be of other bytes than are sent.
        # S3 would refuse them, moto keeps them.
        body = path.read_bytes()
        self.s3.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=body, **self.encryption)

    def folder(self, folder: Path, name: str) -> None:
        """Put every file of a folder under a name."""
        for path in files(folder):
            self.put(path, f"{name}/{path.relative_to(folder).as_posix()}")

    def archive(self, folder: Path, name: str) -> None:
        """Put a folder's content as one archive."""
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w:gz") as tar:
                for path in files(folder):
                    tar.add(path, path.relative_to(folder).as_posix())
            archive.seek(0)
            self.s3.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=archive, **self.encryption)


def files(folder: Path) -> list[Path]:
    """Return the files there are now; folders that a running container removes meanwhile have none."""
    return sorted(Path(place) / name for place, _, names in os.walk(folder) for name in names)


def described(error: ClientError) -> str:
    """Return the words for a failed transfer that the service would use."""
    detail = error.response["Error"]
    return f"{detail.get('Code', 'Unknown')} ({error.operation_name}): {detail.get('Message', '')}"
