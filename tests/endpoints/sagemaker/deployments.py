"""What the tests of this folder deploy, and where."""

import json
from pathlib import Path
from typing import Any

from orchestrator.contract.adapter import MANIFEST_FILE
from orchestrator.contract.digest import hash_file
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.names import HostName, Mode
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import AwsSettings, Settings

REGION = "eu-west-1"
ACCOUNT = AwsSettings(
    region=REGION,
    account_id="123456789012",
    bucket="pictures",
    role_arn="arn:aws:iam::123456789012:role/training",
    endpoint_role_arn="arn:aws:iam::123456789012:role/endpoint",
    training_image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/orchestrator-training:1",
    inference_image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/orchestrator-inference:1",
)


def deployment(mode: Mode = Mode.REALTIME, **fields: Any) -> Deployment:
    """Return a deployment on SageMaker."""
    if mode is not Mode.REALTIME:
        fields.setdefault("fewest_instances", 0)
    return Deployment(**{"name": "dogs", "host": HostName.SAGEMAKER, "mode": mode, **fields})


def publish_adapter(
    settings: Settings, name: str, content: bytes = b"weights", *, family: str = "sd", kind: str = "lora"
) -> Path:
    """Publish an adapter on this machine."""
    folder = settings.adapters / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "pytorch_lora_weights.safetensors"
    weights.write_bytes(content)
    digest = hash_file(weights)
    fingerprint = files_sha256(BUILTIN_MODEL, weight_files(BUILTIN_MODEL)) if family == "sd" else "f"
    base = {"id": "builtin", "fingerprint": fingerprint, "family": family}
    manifest: dict[str, Any] = {
        "kind": kind,
        "parts": ["unet"],
        "recipe": "lora",
        "config": {},
        "base_model": base,
        "dataset_sha256": "d",
        "trigger": None,
        "bundle_sha256": "b",
        "libraries": {},
        "files": {weights.name: digest.model_dump()},
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder
