"""A Hub on a loopback address that the real client library talks to, and a bucket on moto."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from orchestrator.aws import Aws
from orchestrator.storage import S3Store
from tests.faults.wire import Wire
from tests.hub.server import Files, HubServer, ask_only, serving

ACCOUNT = "123456789012"  # moto's
BUCKET = "orchestrator-bucket"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub, an empty cache, and nobody signed in."""
    with serving() as server:
        ask_only(server, tmp_path, monkeypatch)
        yield server


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    # moto answers what goes to AWS; what goes to the loopback Hub passes.
    with mock_aws():
        yield Aws("us-east-1")


@pytest.fixture
def wire(aws: Aws) -> Wire:
    aws.client("s3").create_bucket(Bucket=BUCKET)
    return Wire(aws.client("s3"))


@pytest.fixture
def store(aws: Aws, wire: Wire) -> S3Store:
    return S3Store(aws, BUCKET, ACCOUNT)


@pytest.fixture
def files() -> Files:
    """A model as the Hub has it, with what no run reads beside it."""
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
    content = {f"{part}/config.json": f'{{"_class_name": "{name}"}}' for part, name in parts.items()}
    content |= {f"{part}/model.safetensors": f"weights of {part}" for part in parts}
    content |= {"tokenizer/vocab.json": "{}", "tokenizer/merges.txt": "#", "scheduler/scheduler_config.json": "{}"}
    content["model_index.json"] = '{"_class_name": "StableDiffusionPipeline"}'
    unread = ("unet/diffusion_pytorch_model.bin", "unet/model.fp16.safetensors", "model.ckpt", "README.md")
    content |= dict.fromkeys((*unread, "safety_checker/model.safetensors"), "nothing reads this")
    return {name: text.encode() for name, text in content.items()}
