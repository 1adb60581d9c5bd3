"""A Hub on a loopback address that the real client library calls, and a bucket on moto."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.aws.client import Aws
from orchestrator.storage import S3Store
from tests.faults.wire import Wire
from tests.models.server import Files, HubServer, ask_only, serving
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
    parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
    content = {f"{part}/config.json": f'{{"_class_name": "{name}"}}' for part, name in parts.items()}
    content |= {f"{part}/model.safetensors": f"weights of {part}" for part in parts}
    content |= {"tokenizer/vocab.json": "{}", "tokenizer/merges.txt": "#", "scheduler/scheduler_config.json": "{}"}
    content["model_index.json"] = '{"_class_name": "StableDiffusionPipeline"}'
    unread = ("unet/diffusion_pytorch_model.bin", "unet/model.fp16.safetensors", "model.ckpt", "README.md")
    content |= dict.fromkeys((*unread, "safety_checker/model.safetensors"), "nothing reads this")
    return {name: text.encode() for name, text in content.items()}
