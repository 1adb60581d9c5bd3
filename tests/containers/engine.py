"""A real docker engine for tests, and what they run in it; without one they are skipped.

`make test-containers` sets ORCHESTRATOR_CONTAINERS=1, with which a missing engine is a failure. The base of the images
is ORCHESTRATOR_BASE_IMAGE, any image with Python 3.11 or later, else that of the Dockerfiles.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contract.environment import START_PROGRAM
from orchestrator.docker import Docker
from orchestrator.errors import OrchestratorError
from orchestrator.requests import LOCAL_INSTANCE, Request
from orchestrator.resources import CONTAINERS
from orchestrator.targets.local.sdk import require_sdk

REQUIRED = os.environ.get("ORCHESTRATOR_CONTAINERS") == "1"
BASE_IMAGE = os.environ.get("ORCHESTRATOR_BASE_IMAGE", "python:3.11-slim-bookworm")
SMALL_IMAGE = "orchestrator-test-small"
_DOCKERFILE = f"""
FROM {BASE_IMAGE}
RUN mkdir -p /opt/libraries/bin && ln -s "$(command -v python3)" /opt/libraries/bin/python
COPY start.py {START_PROGRAM}
RUN chmod 755 {START_PROGRAM}
ENV PATH=/opt/libraries/bin:/usr/local/bin:/usr/bin:/bin
"""


def lacking(reason: str) -> None:
    """Skip a test for want of something, or fail it."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(f"{reason} (make test-containers)")


def require_engine() -> Docker:
    """Return the engine."""
    docker = Docker(lambda _line: None)
    try:
        docker.require_engine("A test")
        docker.require_compose()
    except OrchestratorError as error:
        lacking(error.message)
    return docker


def run(*words: Any, **options: Any) -> str:
    """Return what docker prints."""
    return subprocess.run(
        ["docker", *map(str, words)], check=True, capture_output=True, text=True, **options
    ).stdout.strip()


def build_small_image(folder: Path) -> str:
    """Build the image in which jobs of a few lines run: Python and `start-job`, without libraries."""
    shutil.copy(CONTAINERS / "start.py", folder)
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    try:
        run("build", "--tag", SMALL_IMAGE, folder)
    except subprocess.CalledProcessError as error:
        lacking(f"The image {BASE_IMAGE} cannot be used: {error.stderr}")
    return SMALL_IMAGE


def shared_sdk(cache: Path, folder: Path) -> None:
    """Have a home use the SDK that is installed once for all tests."""
    try:
        require_sdk(folder)
    except OrchestratorError as error:
        lacking(error.message)
    cache.mkdir(parents=True)
    (cache / "sdk").symlink_to(folder / "sdk")


def in_container(request: Request, image: str, hosts: int = 1) -> Request:
    """Return a request of this machine as one for containers."""
    entry = request["AlgorithmSpecification"]["ContainerEntrypoint"]
    return {
        **request,
        "AlgorithmSpecification": {"TrainingImage": image, "ContainerEntrypoint": [START_PROGRAM, *entry]},
        "ResourceConfig": {"InstanceType": LOCAL_INSTANCE, "InstanceCount": hosts},
        "Environment": {"PYTHONPATH": "/opt/ml/input/data/code", "PYTHONUNBUFFERED": "1"},
    }
