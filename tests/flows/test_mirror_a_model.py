"""A gated model of the Hub, copied into the bucket once, and a job that trains on the copy cut off from the network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sagemaker_simulator import SimulatorServer

from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.resources import BUILTIN_MODEL
from tests.flows.conftest import Run, Start
from tests.models.server import HubServer, files_of, serving

MODEL = "somebody/shapes"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"  # noqa: S105  (of the Hub below)
SHORT = ["-s", "steps=2", "-s", "evaluation_prompts=0", "-s", "class_images=2", "-s", "inference_steps=2"]
SUBMIT = ["submit", "dreambooth", "--base-model", MODEL, *SHORT, "-s", "resolution=64", "--name", "mine"]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving() as server:
        server.add(MODEL, {**files_of(BUILTIN_MODEL), "unet/diffusion_pytorch_model.bin": b"pickle"}, gated=True)
        server.tokens[TOKEN] = {MODEL}
        yield server


@pytest.fixture
def run(start: Start, variables: dict[str, str], hub: HubServer, tmp_path: Path) -> Run:
    """Run a command of somebody who is signed in to both, and return what it printed as JSON."""
    variables |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "huggingface"), "HF_TOKEN": TOKEN}

    def run(*words: str) -> Any:
        output, errors = start(*words).communicate()
        assert TOKEN not in output + errors
        assert output, errors
        return json.loads(output)

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
    job = run(*SUBMIT, "--target", "sagemaker", "--yes")
    assert job["status"] == "Completed", job
    assert hub.asked == []
    (request,) = (one.parameters for one in requests.of("CreateTrainingJob"))
    assert request["EnableNetworkIsolation"]
    assert TOKEN not in json.dumps(request, default=str)
    run("adapters", "pull", "mine", "--to", str(tmp_path / "pulled"))
    base = AdapterManifest.read(tmp_path / "pulled").base_model
    assert (base.id, base.revision) == (MODEL, model["commit"])
    assert base.fingerprint == files_sha256(BUILTIN_MODEL, weight_files(BUILTIN_MODEL))
