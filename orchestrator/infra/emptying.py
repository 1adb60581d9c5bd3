"""Emptying a bucket: every version of every object, and uploads that were begun and never ended."""

from contextlib import suppress

from orchestrator.aws.errors import Failure, error_for
from orchestrator.errors import MissingError
from orchestrator.settings import ADAPTERS_PREFIX
from orchestrator.storage.bucket import Bucket

_AT_ONCE = 1000  # objects that one request can delete


def adapter_names(bucket: Bucket) -> list[str]:
    """Return the names of the adapters in a bucket; one that is gone has none."""
    try:
        keys = bucket.list(ADAPTERS_PREFIX)
    except MissingError:
        return []
    return sorted({key.split("/")[1] for key in keys})


def empty(bucket: Bucket) -> int:
    """Delete every version of every object and abort unfinished uploads; return how many versions there were.

    Idempotent; a bucket that is gone is empty.
    """
    deleted = 0
    try:
        # From the first page each time: a page that follows a deleted one cannot be asked for.
        while versions := _some_versions(bucket):
            _delete(bucket, versions)
            deleted += len(versions)
        for page in bucket.pages("list_multipart_uploads"):
            for upload in page.get("Uploads", []):
                with suppress(MissingError):  # it ended meanwhile
                    bucket.call(
                        "abort_multipart_upload",
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    )
    except MissingError:  # the bucket is gone
        pass
    return deleted


def _some_versions(bucket: Bucket) -> list[dict[str, str]]:
    """Return some of the versions and delete markers that are left."""
    page = bucket.call("list_object_versions", MaxKeys=_AT_ONCE)
    entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
    return [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]


def _delete(bucket: Bucket, versions: list[dict[str, str]]) -> None:
    answer = bucket.call("delete_objects", Delete={"Objects": versions, "Quiet": True})
    errors = answer.get("Errors")
    if errors:  # the request as a whole succeeds also when single objects do not
        first = errors[0]
        message = f"{first.get('Key')}: {first.get('Message')} ({len(errors)} objects)"
        failure = Failure(
            (str(first.get("Code")),),
            message,
            service="s3",
            operation="DeleteObject",
        )
        raise error_for(failure, f"empty the bucket {bucket.name}")
