"""An account behind a URL, and the real commands as processes that find it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sagemaker_simulator import Image, SageMakerSimulator, SimulatorServer, WallClock

from orchestrator.settings import Settings

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., Any]


class AnyImage(dict[str, Image]):
    """Every image is this interpreter with one torch thread, as the commands of the tests have."""

    def get(self, key: str, default: Any = None) -> Image:  # noqa: ARG002
        return Image(environment={"OMP_NUM_THREADS": "1"}, toolkit=False)


@pytest.fixture
def service() -> Iterator[SimulatorServer]:
    with SimulatorServer(SageMakerSimulator(WallClock(), images=AnyImage())) as server:
        yield server


@pytest.fixture
def variables(service: SimulatorServer) -> dict[str, str]:
    """The environment of somebody who is signed in to the account; a test can add to it."""
    return {
        "AWS_ENDPOINT_URL": service.url,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture
def start(settings: Settings, variables: dict[str, str]) -> Start:
    """Start a command of that person."""

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
    """Return what a command prints as JSON."""
    output, errors = process.communicate()
    assert output, errors
    return json.loads(output)
