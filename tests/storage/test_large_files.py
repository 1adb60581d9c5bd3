"""Multipart uploads: with checksums, once, and never a partial object."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.aws.client import Aws
from orchestrator.errors import AccessError, MachineError
from orchestrator.storage import S3Store
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.meter import Meter
from orchestrator.storage.tree import Tree
from orchestrator.storage.upload import Upload, Uploader
from tests.faults.wire import Wire, lost

MEBIBYTE = 2**20
OWNER_HEADER = "x-amz-expected-bucket-owner"


def in_parts(bucket: Bucket, meter: Meter | None = None) -> Uploader:
    return Uploader(bucket, meter or Meter("models", 0), parts_above=6 * MEBIBYTE, part_bytes=5 * MEBIBYTE)


def open_uploads(aws: Aws) -> list[str]:
    listed = aws.client("s3").list_multipart_uploads(Bucket="orchestrator-bucket", ExpectedBucketOwner="123456789012")
    return [upload["Key"] for upload in listed.get("Uploads", [])]


def test_a_large_file_is_sent_in_parts_with_checksums_and_only_once(
    bucket: Bucket,
    wire: Wire,
    large: Upload,
) -> None:
    counted: list[int] = []
    meter = Meter("models", 11 * MEBIBYTE, lambda _what, done, _total: counted.append(done))
    in_parts(bucket, meter).send([large], {})
    assert wire.count("UploadPart") == 3
    checked = [request for request in wire.requests if b"x-amz-checksum-sha256" in str(request.headers).encode()]
    assert len(checked) == 3
    assert counted[-1] == 11 * MEBIBYTE
    assert bucket.get("models/large", max_bytes=12 * MEBIBYTE) == large.path.read_bytes()
    in_parts(bucket).send([large], bucket.list("models/"))
    assert wire.count("UploadPart") == 3


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_a_large_file_that_fails_leaves_no_open_upload(
    operation: str, bucket: Bucket, wire: Wire, aws: Aws, large: Upload, keys: Callable[[], list[str]]
) -> None:
    wire.answer(operation, forever=wire.refusal(403, "AccessDenied", "Access Denied"))
    with pytest.raises(AccessError):
        in_parts(bucket).send([large], {})
    assert open_uploads(aws) == []
    assert keys() == []


def test_a_large_file_whose_last_answer_is_lost_does_not_conflict_with_itself(
    bucket: Bucket, wire: Wire, aws: Aws, large: Upload, keys: Callable[[], list[str]]
) -> None:
    wire.answer("CompleteMultipartUpload", lost("ReadTimeoutError"))
    in_parts(bucket).send([large], {})
    assert keys() == ["models/large"]


def test_a_large_file_that_another_process_stored_meanwhile_is_no_conflict(
    bucket: Bucket, wire: Wire, aws: Aws, large: Upload
) -> None:
    in_parts(bucket).send([large], {})
    wire.answer("CompleteMultipartUpload", wire.refusal(412, "PreconditionFailed", "It exists"))
    in_parts(bucket).send([large], {})  # by a listing from before
    assert open_uploads(aws) == []


def test_a_large_file_that_changes_while_it_is_sent_is_not_stored(
    bucket: Bucket, aws: Aws, large: Upload, keys: Callable[[], list[str]]
) -> None:
    with large.path.open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(MachineError, match="changed while it was sent"):
        in_parts(bucket).send([large], {})
    assert keys() == []
    assert open_uploads(aws) == []


def test_every_call_names_the_owner(
    store: S3Store, bucket: Bucket, tree: Tree, wire: Wire, tmp_path: Path, large: Upload
) -> None:
    store.put_tree(tree)
    store.get_files(tree.name, tree.files, tmp_path / "back")
    store.put_json("a.json", 1)
    store.get_json("a.json")
    store.list_prefix("")
    in_parts(bucket).send([large], {})
    wire.answer("CompleteMultipartUpload", forever=wire.refusal(403, "AccessDenied", "Access Denied"))
    with pytest.raises(AccessError):
        in_parts(bucket).send([large], {})
    assert set(wire.sent) == {
        "HeadObject", "PutObject", "GetObject", "ListObjectsV2", "CreateMultipartUpload", "UploadPart",
        "CompleteMultipartUpload", "AbortMultipartUpload",
    }  # fmt: skip
    assert {request.headers.get(OWNER_HEADER) for request in wire.requests} == {b"123456789012"}
