"""Empty a bucket: delete every version of every object, and abort unfinished uploads."""

from contextlib import suppress

from orchestrator.aws.errors import Failure, error_for
from orchestrator.errors import MissingError
from orchestrator.settings import ADAPTERS_PREFIX, IMAGES_PREFIX
from orchestrator.storage.bucket import Bucket

_BY_PRODUCTS = ("/output/data/", "/tensorboard-output/")
"""Folders of a job, beside that of its adapter."""
_AT_ONCE = 1000  # most objects that one DeleteObjects request takes


def result_names(bucket: Bucket) -> list[str]:
    """Return the names of the adapters and of the batches of images in a bucket; none if the bucket is gone.

    What a job left that made neither is none: its report and TensorBoard's files.
    """
    names = set()
    try:
        keys = [*bucket.list(ADAPTERS_PREFIX), *bucket.list(IMAGES_PREFIX)]
    except MissingError:
        return []
    for key in keys:
        is_by_product = any(part in key for part in _BY_PRODUCTS)
        if not is_by_product:
            names.add(key.split("/")[1])
    return sorted(names)


def empty(bucket: Bucket) -> int:
    """Delete every version of every object and abort unfinished uploads; return how many versions there were.

    Idempotent; a bucket that is gone is empty.
    """
    deleted = 0
    try:
        # From the first page each time: the marker of the next page would name a deleted object.
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
    """Return the first remaining versions and delete markers."""
    page = bucket.call("list_object_versions", MaxKeys=_AT_ONCE)
    versions = []
    for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
        versions.append({"Key": entry["Key"], "VersionId": entry["VersionId"]})
    return versions


def _delete(bucket: Bucket, versions: list[dict[str, str]]) -> None:
    answer = bucket.call("delete_objects", Delete={"Objects": versions, "Quiet": True})
    errors = answer.get("Errors")
    if errors:  # the request succeeds even if it could not delete some of the objects
        first = errors[0]
        message = f"{first.get('Key')}: {first.get('Message')} ({len(errors)} objects)"
        failure = Failure(
            (str(first.get("Code")),),
            message,
            service="s3",
            operation="DeleteObject",
        )
        raise error_for(failure, f"empty the bucket {bucket.name}")
