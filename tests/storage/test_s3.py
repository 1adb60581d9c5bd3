"""What is S3's own: few requests, nothing half done, nothing of a stranger."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.core.models import botocore_stubber

from orchestrator.aws.client import Aws
from orchestrator.contract.digest import FileDigest, hash_files, tree_sha256
from orchestrator.errors import (
    AccessError,
    AccountError,
    ConflictError,
    CredentialsError,
    MissingError,
    ServiceError,
)
from orchestrator.storage import S3Store
from orchestrator.storage.bucket import Bucket
from tests.faults.wire import Body, Wire, broken, lost

OWNER_HEADER = "x-amz-expected-bucket-owner"


def test_a_second_put_of_a_complete_tree_is_one_request(store: S3Store, tree: Path, wire: Wire) -> None:
    store.put_tree("data", tree)
    wire.sent.clear()
    store.put_tree("data", tree)
    assert wire.sent == ["HeadObject"]


def test_the_manifest_is_written_last(store: S3Store, tree: Path, wire: Wire) -> None:
    store.put_tree("data", tree)
    puts = [request.url for request in wire.requests if request.method == "PUT"]
    assert ["/manifests/" in url for url in puts] == [False] * 4 + [True]


def test_a_half_finished_tree_is_completed_and_what_is_there_is_not_sent_again(
    store: S3Store, tree: Path, wire: Wire, aws: Aws, tmp_path: Path, keys: Callable[[], list[str]]
) -> None:
    denied = wire.refusal(403, "AccessDenied", "Access Denied")
    wire.answer("PutObject", lambda _: None, lambda _: None, forever=denied)
    with pytest.raises(AccessError):
        store.put_tree("data", tree)
    present = len(keys())
    assert 0 < present < 4
    wire.answer("PutObject")
    wire.sent.clear()
    uri = store.put_tree("data", tree)
    assert wire.count("PutObject") == 4 - present + 1
    store.get_tree(uri, tmp_path / "back")


def test_a_file_of_a_half_finished_tree_that_is_not_what_it_should_be_is_replaced(
    store: S3Store, tree: Path, aws: Aws, tmp_path: Path
) -> None:
    sha256 = tree_sha256(hash_files(tree))
    aws.client("s3").put_object(Bucket="orchestrator-bucket", Key=f"data/{sha256}/unet/weights", Body=b"W" * 3000)
    store.get_tree(store.put_tree("data", tree), tmp_path / "back")


def test_a_put_whose_answer_is_lost_is_no_conflict_with_oneself(store: S3Store, tree: Path, wire: Wire) -> None:
    wire.answer("PutObject", lost("ReadTimeoutError"))
    store.put_tree("data", tree)
    assert wire.count("PutObject") == 5 + 1


def test_a_new_object_in_the_place_of_other_bytes_is_a_conflict(
    aws: Aws, wire: Wire, digest_of: Callable[[bytes], FileDigest]
) -> None:
    bucket = Bucket(aws, "orchestrator-bucket", "123456789012")
    bucket.put_new("key", b"mine", digest_of(b"mine"))
    with pytest.raises(ConflictError):
        bucket.put_new("key", b"yours", digest_of(b"yours"))
    assert bucket.get("key", most_bytes=10) == b"mine"


def test_two_puts_of_one_tree_at_once_both_succeed(
    aws: Aws, store: S3Store, tree: Path, keys: Callable[[], list[str]]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        uris = list(pool.map(lambda _: store.put_tree("data", tree), range(4)))
    assert len(set(uris)) == 1
    assert len(keys()) == 5


def test_a_tree_travels_both_ways_although_half_of_all_requests_fail(
    store: S3Store, tree: Path, wire: Wire, tmp_path: Path
) -> None:
    dice = random.Random(3)
    busy = wire.refusal(503, "SlowDown", "Please reduce your request rate.")
    wire.otherwise = lambda request: busy(request) if dice.random() < 0.5 else None
    uri = store.put_tree("data", tree)
    dice.seed(3)  # the threads of the upload took their turns in no order
    store.get_tree(uri, tmp_path / "back")
    assert hash_files(tmp_path / "back") == hash_files(tree)


def test_a_put_that_has_begun_outlasts_an_outage_after_the_sdks_budget_of_retries_is_spent(
    store: S3Store, tree: Path, wire: Wire, waits: list[float]
) -> None:
    failure = wire.refusal(500, "InternalError", "We encountered an internal error.")
    wire.answer("GetObject", forever=failure)
    for _ in range(6):
        with pytest.raises(ServiceError):
            store.get_json("a.json")
    waits.clear()
    wire.answer("ListObjectsV2", failure, failure, failure)
    store.put_tree("data", tree)
    assert waits == [1.0, 2.0, 4.0]


def test_when_nothing_gets_through_the_error_says_so(store: S3Store, tree: Path, wire: Wire) -> None:
    wire.answer("PutObject", forever=wire.refusal(503, "SlowDown", "Please reduce your request rate."))
    with pytest.raises(ServiceError, match="too many requests"):
        store.put_tree("data", tree)


def test_a_store_that_cannot_be_reached_is_no_long_wait(
    store: S3Store, tree: Path, wire: Wire, waits: list[float]
) -> None:
    wire.otherwise = broken("EndpointConnectionError")
    with pytest.raises(ServiceError, match="cannot be reached"):
        store.put_tree("data", tree)
    assert sum(waits) < 0.05 * 2**7


# --- whose bucket


def test_nothing_goes_into_a_bucket_of_another_account(
    aws: Aws, tree: Path, wire: Wire, keys: Callable[[], list[str]]
) -> None:
    def check_owner(request: AWSPreparedRequest) -> AWSResponse | None:
        ours = request.headers[OWNER_HEADER] == b"123456789012"
        return None if ours else wire.refusal(403, "AccessDenied", "Access Denied")(request)

    wire.otherwise = check_owner
    with pytest.raises(AccessError, match=r"bucket of account 999999999999: .*belongs to another account"):
        S3Store(aws, "orchestrator-bucket", "999999999999").put_tree("data", tree)
    assert keys() == []
    S3Store(aws, "orchestrator-bucket", "123456789012").put_tree("data", tree)


def test_no_bucket_is_named_with_the_command_that_makes_it(aws: Aws, wire: Wire) -> None:
    with pytest.raises(MissingError, match="no such bucket") as caught:
        S3Store(aws, "no-such-bucket", "123456789012").get_json("a.json")
    assert caught.value.next_step == "python -m orchestrator infra up"


def test_an_expired_session_is_named_although_the_first_request_gets_no_reason(
    store: S3Store, tree: Path, wire: Wire
) -> None:
    expired = wire.refusal(400, "ExpiredToken", "The provided token has expired.")
    wire.otherwise = expired
    with pytest.raises(CredentialsError, match="session has expired"):
        store.put_tree("data", tree)


# --- what comes back


def test_progress_goes_up_to_the_whole_both_ways(aws: Aws, wire: Wire, tree: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    store = S3Store(aws, "orchestrator-bucket", "123456789012", progress=lambda *news: told.append(news))
    uri = store.put_tree("data", tree)
    assert told == sorted(told)
    assert told[-1] == ("data", 3002, 3002)
    told.clear()
    store.put_tree("data", tree)
    assert told == [("data", 3002, 3002)]
    told.clear()
    store.get_tree(uri, tmp_path / "back")
    assert told[-1] == ("data", 3002, 3002)


def test_a_changed_object_is_refused_and_nothing_stays(store: S3Store, tree: Path, aws: Aws, tmp_path: Path) -> None:
    uri = store.put_tree("data", tree)
    key = uri.removeprefix("s3://orchestrator-bucket/") + "unet/weights"
    for content in (b"W" * 3000, b"w" * 2999, b"w" * 3001):
        aws.client("s3").put_object(Bucket="orchestrator-bucket", Key=key, Body=content)
        with pytest.raises((AccountError, ServiceError)):
            store.get_tree(uri, tmp_path / "back")
        assert {path.name for path in tmp_path.iterdir()} == {"tree"}


def manifest(aws: Aws, files: dict[str, FileDigest]) -> str:
    """Store a manifest that fits its own hash, as somebody with the key to the bucket could."""
    text = json.dumps({"format": 1, "files": {name: digest.model_dump() for name, digest in files.items()}})
    tree = tree_sha256(files)
    aws.client("s3").put_object(Bucket="orchestrator-bucket", Key=f"manifests/data/{tree}.json", Body=text)
    return f"s3://orchestrator-bucket/data/{tree}/"


@pytest.mark.parametrize("name", ["../../escaped", "/var/escaped", "a/../../escaped"])
def test_a_manifest_cannot_name_a_file_outside(
    name: str, store: S3Store, aws: Aws, tmp_path: Path, digest_of: Callable[[bytes], FileDigest]
) -> None:
    uri = manifest(aws, {name: digest_of(b"evil")})
    with pytest.raises(AccountError, match="cannot be written to a disk"):
        store.get_tree(uri, tmp_path / "deep" / "back")
    assert list(tmp_path.rglob("*escaped*")) == []


def test_another_manifest_in_the_place_of_the_right_one_is_refused(
    store: S3Store, aws: Aws, tree: Path, tmp_path: Path, digest_of: Callable[[bytes], FileDigest]
) -> None:
    uri = store.put_tree("data", tree)
    other = manifest(aws, {"a": digest_of(b"a")})
    client = aws.client("s3")
    names = [f"manifests/data/{address.rstrip('/')[-64:]}.json" for address in (uri, other)]
    content = client.get_object(Bucket="orchestrator-bucket", Key=names[1])["Body"].read()
    client.put_object(Bucket="orchestrator-bucket", Key=names[0], Body=content)
    with pytest.raises(AccountError, match="not what was stored"):
        store.get_tree(uri, tmp_path / "back")


def test_a_download_that_breaks_off_goes_on_where_it_was(
    store: S3Store, tree: Path, wire: Wire, tmp_path: Path
) -> None:
    uri = store.put_tree("data", tree)

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
    store.get_tree(uri, tmp_path / "back")
    assert hash_files(tmp_path / "back") == hash_files(tree)
    starts = [request.headers["Range"] for request in wire.requests if "Range" in request.headers]
    assert starts[:2] == [b"bytes=1500-", b"bytes=2250-"]


def test_a_download_that_gets_no_byte_gives_up(store: S3Store, tree: Path, wire: Wire, tmp_path: Path) -> None:
    uri = store.put_tree("data", tree)
    wire.answer("GetObject", lambda _: None, forever=broken("ConnectionClosedError"))
    with pytest.raises(ServiceError, match="no answer came"):
        store.get_tree(uri, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_long_listing_comes_in_pages_and_whole(store: S3Store, aws: Aws) -> None:
    for number in range(5):
        store.put_json(f"many/{number}", number)
    aws.client("s3").meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
    )
    assert list(store.list_prefix("many/")) == [f"many/{number}" for number in range(5)]


def test_a_tree_of_another_bucket_is_not_asked_for(store: S3Store, tmp_path: Path, wire: Wire) -> None:
    with pytest.raises(Exception, match="not in s3://orchestrator-bucket/"):
        store.get_tree(f"s3://somebody-elses/data/{'0' * 64}/", tmp_path / "back")
    assert wire.sent == []
