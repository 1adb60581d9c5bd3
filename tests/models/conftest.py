"""A Hub on a loopback address that the real client library calls, and a bucket on moto."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.aws.client import Aws
from orchestrator.storage import S3Store
from tests.faults.wire import Wire
from tests.models.server import Files, HubServer, ask_only, serving
from tests.stand_ins.model import small_model
from tests.storage.conftest import ACCOUNT, BUCKET, aws, digest_of, wire

# Fixtures of a bucket; moto answers the requests to AWS and lets those to the loopback Hub pass.
__all__ = ["ACCOUNT", "BUCKET", "aws", "digest_of", "wire"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub, an empty cache, and nobody signed in."""
    with serving() as server:
        ask_only(server, tmp_path, monkeypatch)
        yield server


@pytest.fixture
def store(aws: Aws, wire: Wire) -> S3Store:
    return S3Store(aws, BUCKET, ACCOUNT)


@pytest.fixture
def files() -> Files:
    """A model as on the Hub, with files that no run reads."""
    unread = ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "model.ckpt")
    others = ("README.md", "safety_checker/model.safetensors")
    return {**small_model(), **dict.fromkeys((*unread, *others), b"nothing reads this")}
