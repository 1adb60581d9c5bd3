"""The smallest requests for an endpoint, and one that is in service."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
from account import BUCKET, IMAGE, ROLE, Request, furnish
from sagemaker_simulator import STAND_IN, SageMakerSimulator, in_process

SCALABLE = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/endpoint/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
ASYNCHRONOUS = {"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/answers", "S3FailurePath": f"s3://{BUCKET}/failures"}}


def stand_in_account() -> Iterator[SageMakerSimulator]:
    """Yield a simulator in a furnished account, whose endpoints run a server that stands in."""
    with SageMakerSimulator(images={IMAGE: STAND_IN}) as made, in_process(made):
        furnish()
        yield made


def model_request(name: str = "model", *, environment: dict[str, str] | None = None, **container: Any) -> Request:
    """Return a CreateModel request, whose data it stores; fields replace those of its container."""
    boto3.client("s3").put_object(Bucket=BUCKET, Key="model/server.json", Body=b"{}")
    source = {"S3Uri": f"s3://{BUCKET}/model/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    whole = {"Image": IMAGE, "ModelDataSource": {"S3DataSource": source}, "Environment": environment or {}, **container}
    return {"ModelName": name, "PrimaryContainer": whole, "ExecutionRoleArn": ROLE}


def config_request(name: str = "config", *, model: str | None = "model", **variant: Any) -> Request:
    """Return a CreateEndpointConfig request; fields replace those of its variant."""
    whole = {
        "VariantName": "AllTraffic",
        "InstanceType": "ml.g5.xlarge",
        "InitialInstanceCount": 1,
        **({"ModelName": model} if model else {}),
        **variant,
    }
    return {"EndpointConfigName": name, "ProductionVariants": [whole]}


def create(sagemaker: Any, *, environment: dict[str, str] | None = None, **variant: Any) -> None:
    """Create a model, a configuration and an endpoint of the names model, config and endpoint."""
    sagemaker.create_model(**model_request(environment=environment))
    sagemaker.create_endpoint_config(**config_request(**variant))
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")


def serve(simulator: SageMakerSimulator, sagemaker: Any, **options: Any) -> None:
    """Create an endpoint and let it come in service."""
    create(sagemaker, **options)
    simulator.hosting.run_until("endpoint", "InService")


def asked(body: bytes = b"{}", *, endpoint: str = "endpoint", **options: Any) -> dict[str, Any]:
    """Invoke an endpoint and return what its stand-in was asked."""
    answer = boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName=endpoint, Body=body, **options)
    told: dict[str, Any] = json.loads(answer["Body"].read())
    return told
