from collections.abc import Iterator

import pytest
from account import open_account
from sagemaker_simulator import SageMakerSimulator

from orchestrator.settings import Settings
from orchestrator.targets.local.process import ProcessTarget


@pytest.fixture
def target(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings, lock_seconds=1)


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerSimulator]:
    with open_account(monkeypatch) as made:
        yield made
