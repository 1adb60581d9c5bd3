"""A gated model of the Hub, copied into the bucket once, and a job that trains on the copy cut off from the network."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sagemaker_simulator import Image, SageMakerSimulator, SimulatorServer, WallClock

from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.families import files_sha256, weight_files
from orchestrator.settings import Settings
from orchestrator.specs import BUILTIN_MODEL
from tests.hub.server import HubServer, files_of, serving

MODEL = "somebody/shapes"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"  # noqa: S105  (of the Hub below)
SHORT = ["-s", "steps=2", "-s", "evaluation_prompts=0", "-s", "class_images=2", "-s", "inference_steps=2"]
SUBMIT = ["submit", "dreambooth", "--base-model", MODEL, *SHORT, "-s", "resolution=64", "--name", "mine"]
Run = Callable[..., Any]


class AnyImage(dict[str, Image]):
    """Every image is this interpreter with one torch thread."""

    def get(self, key: str, default: Any = None) -> Image:  # noqa: ARG002
        return Image(environment={"OMP_NUM_THREADS": "1"}, toolkit=False)


@pytest.fixture
def service() -> Iterator[SimulatorServer]:
    with SimulatorServer(SageMakerSimulator(WallClock(), images=AnyImage())) as server:
        yield server


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving() as server:
        server.add(MODEL, {**files_of(BUILTIN_MODEL), "unet/diffusion_pytorch_model.bin": b"pickle"}, gated=True)
        server.tokens[TOKEN] = {MODEL}
        yield server


@pytest.fixture
def run(settings: Settings, service: SimulatorServer, hub: HubServer, tmp_path: Path) -> Run:
    """Run a command of somebody who is signed in to both, and return what it printed as JSON."""
    variables = {
        "AWS_ENDPOINT_URL": service.url,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "huggingface"),
        "HF_TOKEN": TOKEN,
    }

    def run(*words: str) -> Any:
        command = [sys.executable, "-m", "orchestrator", *words, "--json"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})
        assert TOKEN not in result.stdout + result.stderr
        assert result.stdout, result.stderr
        return json.loads(result.stdout)

    return run


@pytest.mark.usefixtures("docker")
@pytest.mark.filterwarnings("ignore:Tried to parse")  # what moto's CloudFormation leaves out of the stack
def test_a_gated_model_is_trained_on_without_a_token_in_the_job(
    service: SimulatorServer, hub: HubServer, run: Run, tmp_path: Path
) -> None:
    requests = service.simulator.requests
    run("infra", "up")
    run("infra", "image")
    model = run("models", "mirror", MODEL)
    assert model["new"]
    assert model["commit"] == hub.models[MODEL].refs["main"]
    sent, puts = hub.downloads(), requests.count("PutObject", service="s3")
    assert sent
    assert not any(path.endswith(".bin") for path in sent)

    # The same again fetches nothing and stores nothing.
    assert run("models", "mirror", MODEL) == {**model, "new": False}
    assert (hub.downloads(), requests.count("PutObject", service="s3")) == (sent, puts)
    assert run("models", "list") == [{name: model[name] for name in model if name != "new"}]

    hub.asked.clear()
    job = run(*SUBMIT, "--target", "sagemaker")
    assert job["status"] == "Completed", job
    assert hub.asked == []
    (request,) = (one.parameters for one in requests.of("CreateTrainingJob"))
    assert request["EnableNetworkIsolation"]
    assert TOKEN not in json.dumps(request, default=str)
    run("adapters", "pull", "mine", "--to", str(tmp_path / "pulled"))
    base = AdapterManifest.read(tmp_path / "pulled").base_model
    assert (base.id, base.revision) == (MODEL, model["commit"])
    assert base.fingerprint == files_sha256(BUILTIN_MODEL, weight_files(BUILTIN_MODEL))
