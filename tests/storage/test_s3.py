"""The store in a bucket: few requests, no partial objects, no bucket of another account."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.core.models import botocore_stubber

from orchestrator.aws.client import ATTEMPTS, Aws
from orchestrator.contract.digest import FileDigest, hash_files
from orchestrator.errors import (
    AccessError,
    AccountError,
    ConflictError,
    CredentialsError,
    MissingError,
    ServiceError,
    SpecError,
)
from orchestrator.storage import S3Store
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.tree import Tree
from tests.faults.wire import Body, Wire, broken, lost

OWNER_HEADER = "x-amz-expected-bucket-owner"


def test_a_second_put_of_a_complete_tree_is_one_request(
    store: S3Store,
    tree: Tree,
    wire: Wire,
) -> None:
    store.put_tree(tree)
    wire.sent.clear()
    store.put_tree(tree)
    assert wire.sent == ["HeadObject"]


def test_the_manifest_is_written_last(store: S3Store, tree: Tree, wire: Wire) -> None:
    store.put_tree(tree)
    puts = [request.url for request in wire.requests if request.method == "PUT"]
    assert ["/manifests/" in url for url in puts] == [False] * 4 + [True]


def test_a_partial_tree_is_completed_and_present_files_are_not_sent_again(
    store: S3Store, tree: Tree, wire: Wire, aws: Aws, tmp_path: Path, keys: Callable[[], list[str]]
) -> None:
    denied = wire.refusal(403, "AccessDenied", "Access Denied")
    wire.answer("PutObject", lambda _: None, lambda _: None, forever=denied)
    with pytest.raises(AccessError):
        store.put_tree(tree)
    present = len(keys())
    assert 0 < present < 4
    wire.answer("PutObject")
    wire.sent.clear()
    store.put_tree(tree)
    assert wire.count("PutObject") == 4 - present + 1
    store.get_files(tree.name, tree.files, tmp_path / "back")


def test_an_object_that_is_not_what_its_name_says_is_neither_used_nor_replaced(
    store: S3Store, tree: Tree, aws: Aws
) -> None:
    key = f"{tree.name}unet/weights"
    aws.client("s3").put_object(Bucket="orchestrator-bucket", Key=key, Body=b"W" * 3000)
    with pytest.raises(AccountError, match="changed since it was stored") as raised:
        store.put_tree(tree)
    assert f"aws s3 rm s3://orchestrator-bucket/{key}" in raised.value.next_step
    assert store.get_bytes(key) == b"W" * 3000
    aws.client("s3").delete_object(Bucket="orchestrator-bucket", Key=key)
    store.put_tree(tree)


def test_a_put_whose_answer_is_lost_does_not_conflict_with_itself(
    store: S3Store,
    tree: Tree,
    wire: Wire,
) -> None:
    wire.answer("PutObject", lost("ReadTimeoutError"))
    store.put_tree(tree)
    assert wire.count("PutObject") == 5 + 1


def test_a_new_object_with_the_key_of_other_bytes_is_a_conflict(
    aws: Aws, wire: Wire, digest_of: Callable[[bytes], FileDigest]
) -> None:
    bucket = Bucket(aws, "orchestrator-bucket", "123456789012")
    bucket.put_new("key", b"mine", digest_of(b"mine"))
    with pytest.raises(ConflictError):
        bucket.put_new("key", b"yours", digest_of(b"yours"))
    assert bucket.get("key", max_bytes=10) == b"mine"


def test_two_puts_of_one_tree_at_once_both_succeed(
    aws: Aws, store: S3Store, tree: Tree, keys: Callable[[], list[str]]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        uris = list(pool.map(lambda _: store.put_tree(tree), range(4)))
    assert len(set(uris)) == 1
    assert len(keys()) == 5


def test_a_tree_travels_both_ways_although_half_of_all_requests_fail(
    store: S3Store, tree: Tree, wire: Wire, tmp_path: Path
) -> None:
    dice = random.Random(3)
    busy = wire.refusal(503, "SlowDown", "Please reduce your request rate.")
    wire.otherwise = lambda request: busy(request) if dice.random() < 0.5 else None
    store.put_tree(tree)
    dice.seed(3)  # the threads of the upload ran in no fixed order
    store.get_files(tree.name, tree.files, tmp_path / "back")
    assert hash_files(tmp_path / "back") == tree.files


def test_a_put_outlasts_an_outage_after_the_sdks_retry_quota_is_spent(
    store: S3Store, tree: Tree, wire: Wire, waits: list[float]
) -> None:
    failure = wire.refusal(500, "InternalError", "We encountered an internal error.")
    wire.answer("GetObject", forever=failure)
    for _ in range(6):
        with pytest.raises(ServiceError):
            store.get_json("a.json")
    waits.clear()
    wire.answer("ListObjectsV2", failure, failure, failure)
    store.put_tree(tree)
    assert waits == [1.0, 2.0, 4.0]


def test_a_file_that_an_earlier_attempt_has_read_is_sent_whole(
    bucket: Bucket, wire: Wire, tmp_path: Path, digest_of: Callable[[bytes], FileDigest]
) -> None:
    busy = wire.refusal(503, "SlowDown", "Please reduce your request rate.")

    def read_and_refuse(request: AWSPreparedRequest) -> AWSResponse | None:
        request.body.read()
        return busy(request)

    content = b"weights" * 1000
    path = tmp_path / "weights"
    path.write_bytes(content)
    # as often as the SDK makes a call; it rewinds the file itself between its own attempts
    wire.answer("PutObject", *[read_and_refuse] * ATTEMPTS)
    bucket.with_retries().put_new("key", path, digest_of(content))
    assert bucket.get("key", max_bytes=len(content)) == content


def test_when_every_request_is_throttled_the_error_says_so(
    store: S3Store,
    tree: Tree,
    wire: Wire,
) -> None:
    wire.answer("PutObject", forever=wire.refusal(503, "SlowDown", "Please reduce your request rate."))
    with pytest.raises(ServiceError, match="too many requests"):
        store.put_tree(tree)


def test_an_unreachable_store_fails_without_a_long_wait(
    store: S3Store, tree: Tree, wire: Wire, waits: list[float]
) -> None:
    wire.otherwise = broken("EndpointConnectionError")
    with pytest.raises(ServiceError, match="cannot be reached"):
        store.put_tree(tree)
    assert sum(waits) < 0.05 * 2**7


# --- whose bucket


def test_nothing_goes_into_a_bucket_of_another_account(
    aws: Aws, tree: Tree, wire: Wire, keys: Callable[[], list[str]]
) -> None:
    def check_owner(request: AWSPreparedRequest) -> AWSResponse | None:
        ours = request.headers[OWNER_HEADER] == b"123456789012"
        return None if ours else wire.refusal(403, "AccessDenied", "Access Denied")(request)

    wire.otherwise = check_owner
    with pytest.raises(AccessError, match=r"bucket of account 999999999999: .*belongs to another account"):
        S3Store(aws, "orchestrator-bucket", "999999999999").put_tree(tree)
    assert keys() == []
    S3Store(aws, "orchestrator-bucket", "123456789012").put_tree(tree)


def test_a_missing_bucket_is_reported_with_the_command_that_creates_it(aws: Aws, wire: Wire) -> None:
    with pytest.raises(MissingError, match="the bucket does not exist") as caught:
        S3Store(aws, "no-such-bucket", "123456789012").get_json("a.json")
    assert caught.value.next_step == "python -m orchestrator infra up"


def test_an_expired_session_is_named_although_the_first_request_gets_no_reason(
    store: S3Store, tree: Tree, wire: Wire
) -> None:
    expired = wire.refusal(400, "ExpiredToken", "The provided token has expired.")
    wire.otherwise = expired
    with pytest.raises(CredentialsError, match="session has expired"):
        store.put_tree(tree)


# --- what comes back


def test_progress_goes_up_to_the_whole_both_ways(
    aws: Aws,
    wire: Wire,
    tree: Tree,
    tmp_path: Path,
) -> None:
    progress: list[tuple[str, int, int]] = []
    store = S3Store(aws, "orchestrator-bucket", "123456789012", progress=lambda *news: progress.append(news))
    store.put_tree(tree)
    assert progress == sorted(progress)
    assert progress[-1] == ("data", 3002, 3002)
    progress.clear()
    store.put_tree(tree)
    assert progress == [("data", 3002, 3002)]
    progress.clear()
    store.get_files(tree.name, tree.files, tmp_path / "back")
    assert progress[-1] == ("data", 3002, 3002)


def test_a_changed_object_is_refused_and_no_file_stays(
    store: S3Store,
    tree: Tree,
    aws: Aws,
    tmp_path: Path,
) -> None:
    store.put_tree(tree)
    key = f"{tree.name}unet/weights"
    for content in (b"W" * 3000, b"w" * 2999, b"w" * 3001):
        aws.client("s3").put_object(Bucket="orchestrator-bucket", Key=key, Body=content)
        with pytest.raises((AccountError, ServiceError)):
            store.get_files(tree.name, tree.files, tmp_path / "back")
        assert {path.name for path in tmp_path.iterdir()} == {"tree"}


@pytest.mark.parametrize("name", ["../../escaped", "/var/escaped", "a/../../escaped"])
def test_a_list_of_files_cannot_name_one_outside(
    name: str, store: S3Store, aws: Aws, tmp_path: Path, digest_of: Callable[[bytes], FileDigest]
) -> None:
    aws.client("s3").put_object(Bucket="orchestrator-bucket", Key=f"data/{name}", Body=b"evil")
    with pytest.raises(AccountError, match="cannot be written to a disk"):
        store.get_files("data/", {name: digest_of(b"evil")}, tmp_path / "deep" / "back")
    assert list(tmp_path.rglob("*escaped*")) == []


def test_an_interrupted_download_resumes_at_the_same_byte(
    store: S3Store, tree: Tree, wire: Wire, tmp_path: Path
) -> None:
    store.put_tree(tree)

    def break_off(request: AWSPreparedRequest) -> AWSResponse:
        answer = botocore_stubber("before-send", request)
        answer.raw = Body(answer.content[: (len(answer.content) + 1) // 2])  # and content-length as it was
        return answer

    wire.answer(
        "GetObject",
        lambda _: None,
        forever=lambda request: break_off(request) if b"weights" in request.url.encode() else None,
    )
    wire.requests.clear()
    store.get_files(tree.name, tree.files, tmp_path / "back")
    assert hash_files(tmp_path / "back") == tree.files
    starts = [request.headers["Range"] for request in wire.requests if "Range" in request.headers]
    assert starts[:2] == [b"bytes=1500-", b"bytes=2250-"]


def test_a_download_that_gets_no_byte_gives_up(
    store: S3Store,
    tree: Tree,
    wire: Wire,
    tmp_path: Path,
) -> None:
    store.put_tree(tree)
    wire.answer("GetObject", lambda _: None, forever=broken("ConnectionClosedError"))
    with pytest.raises(ServiceError, match="no answer came"):
        store.get_files(tree.name, tree.files, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_long_listing_is_read_in_pages(store: S3Store, aws: Aws) -> None:
    for number in range(5):
        store.put_json(f"many/{number}", number)
    aws.client("s3").meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
    )
    assert list(store.list_prefix("many/")) == [f"many/{number}" for number in range(5)]


def test_a_uri_of_another_bucket_is_refused(store: S3Store, wire: Wire) -> None:
    with pytest.raises(SpecError, match="not in s3://orchestrator-bucket/"):
        store.name(f"s3://somebody-elses/data/{'0' * 64}/")
    assert wire.sent == []
