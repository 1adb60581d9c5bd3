"""Fixtures that more than one folder of tests uses."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.requests import BUNDLE_CHANNEL, IDENTITY_TAG, Request
from orchestrator.settings import Settings
from tests.stand_ins.docker import DockerStandIn

OWN_GPU = "ORCHESTRATOR_OWN_GPU"
"""Set where tests may use a GPU: `make test-gpu` sets it."""

# Two test processes share two cores: torch threads of their own would only wait for one another. Commands inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The suite computes on the CPU, whatever else a machine has; `make test-gpu` is for a GPU.
if OWN_GPU not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation of its own, for this process and for the commands it starts."""
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "a home, #1 100% é"))
    return Settings.from_environment()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds the AWS SDK would have waited between attempts: its own clock, which no setting reaches."""
    import botocore.endpoint

    seconds: list[float] = []
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=seconds.append))
    return seconds


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerStandIn:
    """A docker on PATH that builds nothing, for this process and for the commands it starts."""
    stand_in = DockerStandIn(tmp_path / "docker")
    monkeypatch.setenv("DOCKER_STAND_IN", str(stand_in.folder))
    monkeypatch.setenv("PATH", str(stand_in.program.parent), prepend=os.pathsep)
    return stand_in


@pytest.fixture
def training_request(tmp_path: Path, settings: Settings) -> Callable[..., Request]:
    """Make a request whose bundle is a training script of a few lines: the process target runs any bundle."""

    def make(script: str, *, name: str = "job") -> Request:
        bundle = tmp_path / f"bundle-{name}"
        (bundle / "entrypoints").mkdir(parents=True)
        (bundle / "entrypoints" / "__init__.py").touch()
        (bundle / "entrypoints" / "train.py").write_text(_PRELUDE + textwrap.dedent(script))
        source = {"S3DataType": "S3Prefix", "S3Uri": bundle.as_uri(), "S3DataDistributionType": "FullyReplicated"}
        return {
            "TrainingJobName": name,
            "AlgorithmSpecification": {"ContainerEntrypoint": ["python", "-m", "entrypoints.train"]},
            "HyperParameters": {"recipe": '"dreambooth"'},
            "InputDataConfig": [{"ChannelName": BUNDLE_CHANNEL, "DataSource": {"S3DataSource": source}}],
            "OutputDataConfig": {"S3OutputPath": (settings.adapters / name).as_uri()},
            "Tags": [{"Key": IDENTITY_TAG, "Value": "0" * 64}],
        }

    return make


# What the scripts of `training_request` can use: a real process that speaks the contract, without torch.
_PRELUDE = '''
import hashlib, json, os, signal, sys
from pathlib import Path

root = Path(os.environ.get("ORCHESTRATOR_ML_ROOT", "/opt/ml"))

def emit(**event):
    print(json.dumps(event), flush=True)

def checkpoint(step):
    folder = root / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(exist_ok=True)
    for name in ("tensors.safetensors", "checkpoint.json"):
        (folder / name).write_text("{}")
    emit(event="checkpoint", step=step)

def finish(weights=b"weights", claimed=None, name="weights.safetensors"):
    (root / "model" / name).write_bytes(weights)
    digest = {"sha256": hashlib.sha256(claimed or weights).hexdigest(), "size": len(weights)}
    base = {"id": "builtin", "fingerprint": "f", "family": "sd"}
    manifest = {"recipe": "dreambooth", "config": {}, "base_model": base, "dataset_sha256": "d", "trigger": "sks",
                "bundle_sha256": "b", "libraries": {}, "files": {name: digest}}
    (root / "model" / "adapter.json").write_text(json.dumps(manifest))

def block():
    """Stand still until a signal comes."""
    signal.pause()
'''
