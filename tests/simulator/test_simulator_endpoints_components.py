"""Inference components of the simulator: a model's copies on an endpoint, and adapters in its container."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from account import BUCKET, ROLE
from botocore.exceptions import ClientError
from hosted import asked, config_request, model_request, stand_in_account
from sagemaker_simulator import FailLaunch, SageMakerSimulator, insufficient_capacity, model_download_timeout

SCALABLE = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "inference-component/base",
    "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
}
_NEEDS = {"NumberOfAcceleratorDevicesRequired": 1.0, "MinMemoryRequiredInMb": 1024}


@pytest.fixture
def simulator(aws: None) -> Iterator[SageMakerSimulator]:
    yield from stand_in_account()


def host(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    """Have an endpoint in service that hosts components, on up to two instances."""
    scaling = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
    config = config_request(model=None, ManagedInstanceScaling=scaling)
    sagemaker.create_endpoint_config(**config, ExecutionRoleArn=ROLE)
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    simulator.hosting.run_until("endpoint", "InService")


def create_base(sagemaker: Any, model: str = "model", *, copies: int = 1, **environment: str) -> None:
    sagemaker.create_model(**model_request(model, environment=environment))
    sagemaker.create_inference_component(
        InferenceComponentName="base",
        EndpointName="endpoint",
        VariantName="AllTraffic",
        Specification={"ModelName": model, "ComputeResourceRequirements": _NEEDS},
        RuntimeConfig={"CopyCount": copies},
    )


def store_adapter(name: str) -> str:
    """Store the archive of an adapter and return its URI."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        content = name.encode()
        entry = tarfile.TarInfo("adapter.json")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"adapters/{name}.tar.gz", Body=buffer.getvalue())
    return f"s3://{BUCKET}/adapters/{name}.tar.gz"


def create_adapter(sagemaker: Any, name: str = "dog", **container: Any) -> None:
    whole = {"ArtifactUrl": store_adapter(name), **container}
    specification = {"BaseInferenceComponentName": "base", "Container": whole}
    sagemaker.create_inference_component(
        InferenceComponentName=name, EndpointName="endpoint", Specification=specification
    )


def serve(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    """Have the endpoint, its base and one adapter in service."""
    host(simulator, sagemaker)
    create_base(sagemaker)
    simulator.hosting.run_until("base", "InService")
    create_adapter(sagemaker)
    simulator.hosting.run_until("dog", "InService")


def described(sagemaker: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = sagemaker.describe_inference_component(InferenceComponentName=name)
    return found


def test_an_adapter_is_registered_with_the_container_and_named_in_its_requests(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    host(simulator, sagemaker)
    create_base(sagemaker)
    assert described(sagemaker, "base")["InferenceComponentStatus"] == "Creating"
    with pytest.raises(ClientError, match="must be in service"):
        create_adapter(sagemaker)
    simulator.hosting.run_until("base", "InService")
    assert described(sagemaker, "base")["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    create_adapter(sagemaker)
    simulator.hosting.run_until("dog", "InService")
    assert "Adapter-Identifier" not in str(asked(InferenceComponentName="base")["headers"])
    told = asked(InferenceComponentName="dog")
    assert told["headers"]["X-Amzn-SageMaker-Adapter-Identifier"] == "dog"
    assert Path(told["adapters"]["dog"], "adapter.json").read_text() == "dog"
    with pytest.raises(ClientError, match="Inference Component Name header is required"):
        asked()
    assert any("POST /adapters" in line for line in simulator.hosting.log_lines("base"))


def test_an_adapter_that_is_deleted_is_known_to_the_container_no_more(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    serve(simulator, sagemaker)
    with pytest.raises(ClientError, match="while adapter inference components refer to it: dog"):
        sagemaker.delete_inference_component(InferenceComponentName="base")
    with pytest.raises(ClientError, match="while inference components are on it"):
        sagemaker.delete_endpoint(EndpointName="endpoint")
    sagemaker.delete_inference_component(InferenceComponentName="dog")
    simulator.hosting.run_until_gone("dog")
    assert asked(InferenceComponentName="base")["adapters"] == {}
    with pytest.raises(ClientError, match="Inference Component dog of account 123456789012 not found"):
        asked(InferenceComponentName="dog")
    sagemaker.delete_inference_component(InferenceComponentName="base")
    simulator.hosting.run_until_gone("base")
    sagemaker.delete_endpoint(EndpointName="endpoint")
    simulator.hosting.run_until_gone("endpoint")


def test_a_base_that_is_updated_knows_its_adapters_again(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    sagemaker.create_model(**model_request("second", environment={"STAND_IN_NAME": "second"}))
    sagemaker.update_inference_component(
        InferenceComponentName="base",
        Specification={"ModelName": "second", "ComputeResourceRequirements": _NEEDS},
    )
    assert described(sagemaker, "base")["InferenceComponentStatus"] == "Updating"
    assert asked(InferenceComponentName="dog")["name"] == ""
    with pytest.raises(ClientError, match="Cannot update in-progress inference component"):
        sagemaker.delete_inference_component(InferenceComponentName="base")
    simulator.hosting.run_until("base", "InService")
    simulator.wait_for(lambda: "dog" in asked(InferenceComponentName="dog")["adapters"])
    assert asked(InferenceComponentName="dog")["name"] == "second"


def test_a_component_without_copies_answers_nothing_and_has_them_again(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    serve(simulator, sagemaker)
    for copies, count in ((0, 0), (2, 2)):
        sagemaker.update_inference_component_runtime_config(
            InferenceComponentName="base", DesiredRuntimeConfig={"CopyCount": copies}
        )
        simulator.hosting.run_until("base", "InService")
        variant = sagemaker.describe_endpoint(EndpointName="endpoint")["ProductionVariants"][0]
        assert variant["CurrentInstanceCount"] == count
        if not copies:
            with pytest.raises(ClientError, match="has no capacity to process this request"):
                asked(InferenceComponentName="dog")
    simulator.wait_for(lambda: "dog" in asked(InferenceComponentName="dog")["adapters"])


def test_a_component_at_zero_is_woken_by_a_request_that_failed(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    scaling = boto3.client("application-autoscaling")
    scaling.register_scalable_target(**SCALABLE, MinCapacity=0, MaxCapacity=2)
    policy = scaling.put_scaling_policy(
        **SCALABLE,
        PolicyName="wake",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    )
    boto3.client("cloudwatch").put_metric_alarm(
        AlarmName="wake",
        Namespace="AWS/SageMaker",
        MetricName="NoCapacityInvocationFailures",
        Dimensions=[{"Name": "InferenceComponentName", "Value": "base"}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        AlarmActions=[policy["PolicyARN"]],
    )
    sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="base", DesiredRuntimeConfig={"CopyCount": 0}
    )
    simulator.hosting.run_until("base", "InService")
    with pytest.raises(ClientError, match="has no capacity"):
        asked(InferenceComponentName="base")
    simulator.clock.advance(60)
    simulator.hosting.run_until("base", "InService")
    assert asked(InferenceComponentName="base")["body"] == "{}"


def test_an_adapter_that_the_container_refuses_fails_with_its_words(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    host(simulator, sagemaker)
    create_base(sagemaker, STAND_IN_ADAPTERS="507")
    simulator.hosting.run_until("base", "InService")
    create_adapter(sagemaker)
    simulator.hosting.run_until("dog", "Failed")
    assert "received error (507)" in described(sagemaker, "dog")["FailureReason"]
    boto3.client("s3").delete_object(Bucket=BUCKET, Key="adapters/cat.tar.gz")
    create_adapter(sagemaker, "cat", ArtifactUrl=f"s3://{BUCKET}/adapters/none.tar.gz")
    simulator.hosting.run_until("cat", "Failed")
    assert "NoSuchKey" in described(sagemaker, "cat")["FailureReason"]


def test_components_that_are_to_fail_do(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    host(simulator, sagemaker)
    simulator.hosting.inject(insufficient_capacity(), "base")
    create_base(sagemaker, copies=2)
    simulator.hosting.run_until("base", "Failed")
    assert "InsufficientInstanceCapacity" in described(sagemaker, "base")["FailureReason"]
    sagemaker.delete_inference_component(InferenceComponentName="base")
    simulator.hosting.run_until_gone("base")
    simulator.hosting.inject(model_download_timeout(), "base")
    sagemaker.delete_model(ModelName="model")
    create_base(sagemaker)
    simulator.hosting.run_until("base", "Failed")
    assert "timed out" in described(sagemaker, "base")["FailureReason"]
    sagemaker.delete_inference_component(InferenceComponentName="base")
    simulator.hosting.run_until_gone("base")
    create_base(sagemaker, "other")
    simulator.hosting.run_until("base", "InService")
    simulator.hosting.inject(FailLaunch("Adapter", "no memory"), "dog")
    create_adapter(sagemaker)
    simulator.hosting.run_until("dog", "Failed")
    assert described(sagemaker, "dog")["FailureReason"] == "no memory"


def test_components_are_listed_by_their_endpoint(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    found = sagemaker.list_inference_components(EndpointNameEquals="endpoint", SortOrder="Ascending")
    assert [one["InferenceComponentName"] for one in found["InferenceComponents"]] == ["base", "dog"]
    assert sagemaker.list_inference_components(EndpointNameEquals="other")["InferenceComponents"] == []


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"ModelName": "model"}, "ComputeResourceRequirements is required"),
        ({"BaseInferenceComponentName": "base"}, "ArtifactUrl is required"),
        (
            {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": "s3://b/folder/"}},
            "single gzip compressed tar archive",
        ),
        (
            {
                "BaseInferenceComponentName": "base",
                "Container": {"ArtifactUrl": "s3://b/a.tar.gz"},
                "ComputeResourceRequirements": _NEEDS,
            },
            "not supported for adapter inference components",
        ),
    ],
)
def test_a_component_that_the_service_refuses(
    simulator: SageMakerSimulator, sagemaker: Any, specification: dict[str, Any], words: str
) -> None:
    host(simulator, sagemaker)
    with pytest.raises(ClientError, match=words):
        sagemaker.create_inference_component(
            InferenceComponentName="one", EndpointName="endpoint", Specification=specification
        )
