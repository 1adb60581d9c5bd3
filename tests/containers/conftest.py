"""A bucket, as the tests of `tests/storage` have it, and a docker engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.container_images import ImageKind
from orchestrator.docker import Docker
from orchestrator.settings import Settings
from orchestrator.targets.local.container import ContainerTarget
from tests.containers.engine import build_small_image, require_engine, shared_sdk
from tests.containers.trainings import Typed, built
from tests.storage.conftest import aws, wire

ROOT = Path(__file__).parents[2]

__all__ = ["aws", "wire"]


@pytest.fixture(scope="session")
def engine() -> Docker:
    return require_engine()


@pytest.fixture(scope="session")
def small_image(engine: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_small_image(tmp_path_factory.mktemp("small-image"))


@pytest.fixture
def containers(engine: Docker, settings: Settings) -> ContainerTarget:
    shared_sdk(settings.cache, ROOT / ".venv-sdk")
    return ContainerTarget(settings, lock_seconds=1)


@pytest.fixture
def typed(engine: Docker, settings: Settings) -> Typed:
    """Run a command and return what it printed as JSON."""
    built(engine, ImageKind.TRAINING)
    shared_sdk(settings.cache, ROOT / ".venv-sdk")

    def typed(*words: str, **variables: str) -> Any:
        command = [sys.executable, "-m", "orchestrator", *words, "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return json.loads(done.stdout)

    return typed
