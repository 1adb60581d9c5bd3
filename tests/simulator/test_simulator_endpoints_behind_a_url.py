"""Endpoints of the simulator for clients in other processes, on a clock that runs by itself."""

import json
from collections.abc import Iterator

import boto3
import pytest
from account import BUCKET, IMAGE, REGION, furnish, use_default_session
from botocore.exceptions import ClientError
from hosted import ASYNCHRONOUS, asked, config_request, create, model_request
from sagemaker_simulator import STAND_IN, SageMakerSimulator, SimulatorServer, WallClock, connection_reset

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": REGION,
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorServer]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with SimulatorServer(SageMakerSimulator(WallClock(), images={IMAGE: STAND_IN})) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        use_default_session()
        furnish()
        yield running


def test_an_endpoint_behind_a_url_comes_in_service_and_answers_by_itself(server: SimulatorServer) -> None:
    sagemaker = boto3.client("sagemaker")
    hosting = server.simulator.hosting
    create(sagemaker)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="endpoint", WaiterConfig={"Delay": 1})
    server.simulator.faults.add(connection_reset(), "InvokeEndpoint", service="sagemaker-runtime")
    told = asked(b"over http", ContentType="text/plain", CustomAttributes="mine")
    assert told["body"] == "over http"
    assert told["headers"]["Content-Type"] == "text/plain"
    assert told["headers"]["X-Amzn-SageMaker-Custom-Attributes"] == "mine"
    runtime = boto3.client("sagemaker-runtime", endpoint_url=server.url)
    stream = runtime.invoke_endpoint_with_response_stream(EndpointName="endpoint", Body=b"{}")["Body"]
    assert json.loads(b"".join(event["PayloadPart"]["Bytes"] for event in stream))["body"] == "{}"
    with pytest.raises(ClientError, match="Endpoint other of account 123456789012 not found"):
        asked(endpoint="other")
    sagemaker.delete_endpoint(EndpointName="endpoint")
    server.simulator.wait_for(lambda: not hosting.drivers)


def test_an_asynchronous_answer_behind_a_url(server: SimulatorServer, waits: list[float]) -> None:
    sagemaker = boto3.client("sagemaker")
    sagemaker.create_model(**model_request())
    sagemaker.create_endpoint_config(**config_request(), AsyncInferenceConfig=ASYNCHRONOUS)
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    server.simulator.wait_for(lambda: server.simulator.hosting.endpoint("endpoint").status == "InService")
    runtime = boto3.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_async(EndpointName="endpoint", Body=b"later", Filename="one.out")
    server.simulator.hosting.wait_for_answers("endpoint")
    stored = boto3.client("s3").get_object(Bucket=BUCKET, Key="answers/one.out")["Body"].read()
    assert answer["OutputLocation"] == f"s3://{BUCKET}/answers/one.out"
    assert json.loads(stored)["body"] == "later"
