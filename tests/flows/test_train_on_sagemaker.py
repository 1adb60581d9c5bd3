"""From photos to an adapter on SageMaker: the real commands as processes, a stack, real training, over loopback."""

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
from orchestrator.settings import Settings
from tests.stand_ins.docker import DockerStandIn

SHORT = ["-s", "steps=4", "-s", "evaluation_prompts=1", "-s", "evaluation_seeds=2", "-s", "inference_steps=3"]
DREAMBOOTH = ["submit", "dreambooth", *SHORT, "-s", "class_images=2"]
ON_SAGEMAKER = ["--target", "sagemaker", "--max-usd", "3"]
Run = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]


class AnyImage(dict[str, Image]):
    """Every image is this interpreter with one torch thread, as the commands of the tests have."""

    def get(self, key: str, default: Any = None) -> Image:  # noqa: ARG002
        return Image(environment={"OMP_NUM_THREADS": "1"}, toolkit=False)


@pytest.fixture
def service() -> Iterator[SimulatorServer]:
    with SimulatorServer(SageMakerSimulator(WallClock(), images=AnyImage())) as server:
        yield server


@pytest.fixture
def start(settings: Settings, service: SimulatorServer) -> Start:
    """Start a command that talks to the service with credentials of its own."""
    variables = {
        "AWS_ENDPOINT_URL": service.url,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }

    def start(*words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "orchestrator", *words, "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(command, text=True, env={**os.environ, **variables}, **pipes)

    return start


@pytest.fixture
def run(start: Start) -> Run:
    """Run a command to its end and return what it printed as JSON."""

    def run(*words: str) -> Any:
        return answer(start(*words))

    return run


def answer(process: "subprocess.Popen[str]") -> Any:
    output, errors = process.communicate()
    assert output, errors
    return json.loads(output)


@pytest.mark.filterwarnings("ignore:Tried to parse")  # what moto's CloudFormation leaves out of the stack
def test_two_jobs_at_once_train_on_sagemaker_and_come_back(
    settings: Settings, service: SimulatorServer, start: Start, run: Run, docker: DockerStandIn, tmp_path: Path
) -> None:
    stack = run("infra", "up")
    assert settings.aws_file.is_file(), stack

    # Without the image a job could not start: nothing is sent for it.
    refused = run(*DREAMBOOTH, *ON_SAGEMAKER, "--name", "mine")["error"]
    assert (refused["kind"], refused["next"]) == ("MissingError", "python -m orchestrator infra image")
    assert service.simulator.requests.count("PutObject", service="s3") == 0
    pushed = {"image": stack["training_image"], "built": True, "pushed": True, "warning": ""}
    assert run("infra", "image") == pushed
    assert run("infra", "image") == {**pushed, "built": False, "pushed": False}

    words = ["submit", "textual-inversion", *SHORT, "--name", "word", *ON_SAGEMAKER]
    first, second = (answer(one) for one in [start(*DREAMBOOTH, *ON_SAGEMAKER, "--name", "mine"), start(*words)])
    assert (first["status"], second["status"]) == ("Completed", "Completed"), (first, second)
    assert first["usd"] > 0
    assert {one["name"] for one in run("jobs", "list")} == {first["name"], second["name"]}

    listed = {one["name"]: one for one in run("adapters", "list")}
    assert set(listed) == {"mine", "word"}
    assert run("adapters", "show", "mine") == listed["mine"]
    folder = Path(run("adapters", "pull", "mine", "--to", str(tmp_path / "pulled"))["folder"])
    manifest = AdapterManifest.read(folder)
    assert manifest.damaged_files(folder) == []

    # The same job on this machine: the same bytes, and so the same pictures before and after.
    here = Path(run(*DREAMBOOTH, "--name", "mine")["adapter"])
    assert manifest.files == AdapterManifest.read(here).files

    # The same again is the same job: nothing is sent, nothing is made.
    puts = service.simulator.requests.count("PutObject", service="s3")
    again = run(*DREAMBOOTH, *ON_SAGEMAKER, "--name", "mine")
    assert (again["name"], again["status"]) == (first["name"], "Completed")
    assert service.simulator.requests.count("PutObject", service="s3") == puts
    assert service.simulator.requests.count("CreateTrainingJob") == 2
