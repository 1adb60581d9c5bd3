"""An account with a simulator in it."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from account import REGION, furnish, use_default_session
from moto import mock_aws
from sagemaker_simulator import SageMakerSimulator, in_process


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    with mock_aws():
        use_default_session()
        yield


@pytest.fixture
def simulator(aws: None) -> Iterator[SageMakerSimulator]:
    with SageMakerSimulator() as made, in_process(made):
        furnish()
        yield made


@pytest.fixture
def sagemaker(simulator: SageMakerSimulator) -> Any:
    return boto3.client("sagemaker")


@pytest.fixture
def s3(simulator: SageMakerSimulator) -> Any:
    return boto3.client("s3")
