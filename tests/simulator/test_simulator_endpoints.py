"""Endpoints of the simulator: created, called, updated, deleted, and what goes wrong with them."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from account import IMAGE, furnish
from botocore.exceptions import ClientError
from hosted import create
from sagemaker_simulator import STAND_IN, SageMakerSimulator, in_process


@pytest.fixture
def simulator(aws: None) -> Iterator[SageMakerSimulator]:
    with SageMakerSimulator(images={IMAGE: STAND_IN}) as made, in_process(made):
        furnish()
        yield made


@pytest.fixture
def runtime(simulator: SageMakerSimulator) -> Any:
    return boto3.client("sagemaker-runtime")


def asked(runtime: Any, body: bytes = b"{}", **options: Any) -> dict[str, Any]:
    """Invoke the endpoint and return what the stand-in was asked."""
    answer = runtime.invoke_endpoint(EndpointName="endpoint", Body=body, **options)
    return json.loads(answer["Body"].read())


def test_an_endpoint_goes_through_its_statuses_and_answers(
    simulator: SageMakerSimulator, sagemaker: Any, runtime: Any
) -> None:
    create(sagemaker)
    created = sagemaker.describe_endpoint(EndpointName="endpoint")
    assert created["EndpointStatus"] == "Creating"
    assert created["PendingDeploymentSummary"]["EndpointConfigName"] == "config"
    with pytest.raises(ClientError, match="Endpoint endpoint of account 123456789012 not found"):
        asked(runtime)
    simulator.hosting.run_until("endpoint", "InService")
    variant = sagemaker.describe_endpoint(EndpointName="endpoint")["ProductionVariants"][0]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    told = asked(runtime, b'{"inputs": "a dog"}', ContentType="application/json", Accept="image/png")
    assert told["body"] == '{"inputs": "a dog"}'
    assert told["headers"]["Accept"] == "image/png"
    sagemaker.delete_endpoint(EndpointName="endpoint")
    assert sagemaker.describe_endpoint(EndpointName="endpoint")["EndpointStatus"] == "Deleting"
    simulator.hosting.run_until_gone("endpoint")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        sagemaker.describe_endpoint(EndpointName="endpoint")
    assert "stand-in ends" in simulator.hosting.log_lines("endpoint")
