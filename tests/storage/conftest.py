"""A bucket on moto, and the wire to it."""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from orchestrator.aws.client import Aws
from orchestrator.contract.digest import FileDigest
from orchestrator.storage import S3Store
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.tree import Tree, tree_of_folder
from orchestrator.storage.upload import Upload
from tests.faults.wire import Wire

ACCOUNT = "123456789012"  # moto's
BUCKET = "orchestrator-bucket"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        yield Aws("us-east-1")


@pytest.fixture
def wire(aws: Aws) -> Iterator[Wire]:
    aws.client("s3").create_bucket(Bucket=BUCKET)
    made = Wire(aws.client("s3"))
    yield made
    made.require_used()


@pytest.fixture
def store(aws: Aws, wire: Wire, waits: list[float]) -> S3Store:
    return S3Store(aws, BUCKET, ACCOUNT, sleep=waits.append)


@pytest.fixture
def bucket(aws: Aws, wire: Wire, waits: list[float]) -> Bucket:
    return Bucket(aws, BUCKET, ACCOUNT, sleep=waits.append)


@pytest.fixture
def keys(aws: Aws, wire: Wire) -> Callable[[], list[str]]:
    """List every object, by a client that no test observes."""
    client = aws._session.client("s3", region_name="us-east-1")
    return lambda: [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


@pytest.fixture
def large(tmp_path: Path) -> Upload:
    """A file of more than two parts."""
    path = tmp_path / "large"
    content = random.Random(1).randbytes(11 * 2**20)
    path.write_bytes(content)
    return Upload("models/large", path, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree with files in folders, an empty file, and names that are not ASCII."""
    folder = tmp_path / "tree"
    (folder / "unet").mkdir(parents=True)
    contents = {
        "a.txt": b"a",
        "empty": b"",
        "unet/weights": b"w" * 3000,
        "ein Füchslein #1.png": b"f",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return tree_of_folder("data", folder)


@pytest.fixture
def digest_of() -> Callable[[bytes], FileDigest]:
    return lambda content: FileDigest(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
