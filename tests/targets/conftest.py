import pytest

from orchestrator.settings import Settings
from orchestrator.targets.process import ProcessTarget


@pytest.fixture
def target(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings, lock_seconds=1)
