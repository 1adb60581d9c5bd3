"""A bucket, as the tests of `tests/storage` have it, and a docker engine."""

from pathlib import Path

import pytest

from orchestrator.docker import Docker
from orchestrator.settings import Settings
from orchestrator.targets.local.container import ContainerTarget
from tests.containers.engine import build_small_image, require_engine, shared_sdk
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
