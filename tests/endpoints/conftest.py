"""A home with small adapters of the built-in base model, and endpoints that never outlive their tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.endpoints.local.endpoint_folder import EndpointFolder
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.local.removal import end_all
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings
from tests.endpoints.made import publish_loras


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the adapters dog and cat, which tests only read."""
    home = tmp_path_factory.mktemp("published") / "home"
    publish_loras(home, "dog", "cat")
    return home


@pytest.fixture
def here(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home of its own with the adapters."""
    home = tmp_path / "a home, #1 é"
    home.mkdir()
    (home / "adapters").symlink_to(published / "adapters")
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(home))
    return Settings.from_environment()


@pytest.fixture
def host(here: Settings) -> Iterator[LocalHost]:
    """This machine; what runs on it when the test ends is deleted."""

    def report(error: OrchestratorError) -> None:
        raise error

    opened = LocalHost(here, report)
    yield opened
    for path in here.endpoints.glob("[!.]*"):
        endpoint = EndpointFolder(path)
        end_all(endpoint.servers(), "The test is over.", 30.0)
