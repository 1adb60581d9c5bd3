from collections.abc import Iterator

import pytest
from account import REGION, furnish, use_default_session
from moto import mock_aws
from sagemaker_simulator import SageMakerSimulator, in_process

from orchestrator.settings import Settings
from orchestrator.targets.process import ProcessTarget


@pytest.fixture
def target(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings, lock_seconds=1)


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerSimulator]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with mock_aws(), SageMakerSimulator() as made, in_process(made):
        use_default_session()
        furnish()
        yield made
