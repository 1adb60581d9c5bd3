"""An account on moto with a bucket and a queue."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from orchestrator.aws.client import Aws
from orchestrator.labels.exchange import Exchange
from orchestrator.storage import S3Store

ACCOUNT = "123456789012"  # moto's
BUCKET = "orchestrator-bucket"
PREFIX = "checkpoints/0123/exchange/"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        made = Aws("us-east-1")
        made.client("s3").create_bucket(Bucket=BUCKET)
        yield made


@pytest.fixture
def in_bucket(aws: Aws, waits: list[float]) -> Exchange:
    """An exchange in a bucket, still empty."""
    return Exchange(S3Store(aws, BUCKET, ACCOUNT, sleep=waits.append), PREFIX)


def upload(aws: Aws, folder: Path) -> None:
    """Bring an exchange into the bucket, as the service does with checkpoints."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = PREFIX + path.relative_to(folder).as_posix()
            aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
