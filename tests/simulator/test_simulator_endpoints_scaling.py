"""Asynchronous endpoints of the simulator, and what scales by itself: to zero, and back when there is work."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from account import BUCKET
from botocore.exceptions import ClientError
from hosted import ASYNCHRONOUS, SCALABLE, asked, config_request, model_request, serve, stand_in_account
from sagemaker_simulator import SageMakerSimulator


@pytest.fixture
def simulator(aws: None) -> Iterator[SageMakerSimulator]:
    yield from stand_in_account()


def serve_asynchronously(simulator: SageMakerSimulator, sagemaker: Any, **environment: str) -> None:
    sagemaker.create_model(**model_request(environment=environment))
    sagemaker.create_endpoint_config(**config_request(), AsyncInferenceConfig=ASYNCHRONOUS)
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    simulator.hosting.run_until("endpoint", "InService")


def send(**fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = boto3.client("sagemaker-runtime").invoke_endpoint_async(EndpointName="endpoint", **fields)
    return answer


def stored(uri: str) -> str:
    place = urlsplit(uri)
    found = boto3.client("s3").get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))["Body"].read()
    return str(found.decode())


def instances(sagemaker: Any) -> int:
    found: int = sagemaker.describe_endpoint(EndpointName="endpoint")["ProductionVariants"][0]["CurrentInstanceCount"]
    return found


def scale_to_zero() -> None:
    """Register the endpoint to have no instance while nothing waits, and to be woken by its backlog."""
    scaling = boto3.client("application-autoscaling")
    scaling.register_scalable_target(**SCALABLE, MinCapacity=0, MaxCapacity=2)
    backlog = {
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": "EndpointName", "Value": "endpoint"}],
        "Statistic": "Average",
    }
    scaling.put_scaling_policy(
        **SCALABLE,
        PolicyName="tracking",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 2.0,
            "CustomizedMetricSpecification": backlog,
            "ScaleInCooldown": 600,
        },
    )


def wake() -> None:
    policy = boto3.client("application-autoscaling").put_scaling_policy(
        **SCALABLE,
        PolicyName="wake",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    )
    boto3.client("cloudwatch").put_metric_alarm(
        AlarmName="waiting",
        Namespace="AWS/SageMaker",
        MetricName="HasBacklogWithoutCapacity",
        Dimensions=[{"Name": "EndpointName", "Value": "endpoint"}],
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        AlarmActions=[policy["PolicyARN"]],
    )


def test_an_answer_comes_to_the_bucket(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    serve_asynchronously(simulator, sagemaker)
    s3.put_object(Bucket=BUCKET, Key="requests/one.json", Body=b"from the bucket")
    inline = send(Body=b"in the request", ContentType="application/json", Accept="image/png")
    fetched = send(InputLocation=f"s3://{BUCKET}/requests/one.json", Filename="one.out", S3OutputPathExtension="mine")
    simulator.hosting.wait_for_answers("endpoint")
    assert '"in the request"' in stored(inline["OutputLocation"])
    assert '"Accept": "image/png"' in stored(inline["OutputLocation"])
    assert fetched["OutputLocation"] == f"s3://{BUCKET}/answers/mine/one.out"
    assert "from the bucket" in stored(fetched["OutputLocation"])
    with pytest.raises(ClientError, match="is asynchronous"):
        asked()


def test_a_failure_comes_to_the_bucket_too(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve_asynchronously(simulator, sagemaker, STAND_IN_STATUS="500")
    failed = send(Body=b"one")
    missing = send(InputLocation=f"s3://{BUCKET}/requests/none.json")
    simulator.hosting.wait_for_answers("endpoint")
    assert "Received server error (500) from primary" in stored(failed["FailureLocation"])
    assert "NoSuchKey" in stored(missing["FailureLocation"])


def test_an_answer_that_takes_longer_than_its_request_allows_is_a_failure(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    serve_asynchronously(simulator, sagemaker, STAND_IN_SECONDS="3")
    failed = send(Body=b"one", InvocationTimeoutSeconds=1)
    simulator.hosting.wait_for_answers("endpoint")
    assert "Your invocation timed out" in stored(failed["FailureLocation"])


def test_a_body_that_is_too_large_is_refused(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve_asynchronously(simulator, sagemaker)
    with pytest.raises(ClientError, match="length less than or equal to 128000"):
        send(Body=b"x" * 128_001)


def test_an_endpoint_scales_to_zero_and_is_woken_by_its_backlog(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve_asynchronously(simulator, sagemaker)
    scale_to_zero()
    wake()
    simulator.clock.advance(480)
    assert instances(sagemaker) == 1  # not before the cooldown is over
    simulator.clock.advance(300)
    simulator.hosting.run_until("endpoint", "InService")
    assert instances(sagemaker) == 0
    answer = send(Body=b"good morning")
    simulator.clock.advance(60)
    simulator.hosting.run_until("endpoint", "InService")
    assert instances(sagemaker) == 1
    simulator.hosting.wait_for_answers("endpoint")
    assert "good morning" in stored(answer["OutputLocation"])


def test_without_a_policy_for_it_nothing_wakes_an_endpoint(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve_asynchronously(simulator, sagemaker)
    scale_to_zero()
    simulator.clock.advance(900)
    simulator.hosting.run_until("endpoint", "InService")
    send(Body=b"is anybody there")
    simulator.clock.advance(3600)
    assert instances(sagemaker) == 0
    assert simulator.hosting.backlog(simulator.hosting.endpoint("endpoint")).size == 1


def test_a_request_that_waited_too_long_for_an_instance_is_a_failure(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    serve_asynchronously(simulator, sagemaker)
    none = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 0}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="endpoint", DesiredWeightsAndCapacities=none)
    simulator.hosting.run_until("endpoint", "InService")
    expired, patient = send(Body=b"one", RequestTTLSeconds=60), send(Body=b"two")
    simulator.clock.advance(120)
    one = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 1}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="endpoint", DesiredWeightsAndCapacities=one)
    simulator.hosting.run_until("endpoint", "InService")
    simulator.hosting.wait_for_answers("endpoint")
    assert "expired" in stored(expired["FailureLocation"])
    assert "two" in stored(patient["OutputLocation"])


def test_many_requests_a_minute_start_another_instance(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    scaling = boto3.client("application-autoscaling")
    scaling.register_scalable_target(**SCALABLE, MinCapacity=1, MaxCapacity=2)
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    scaling.put_scaling_policy(
        **SCALABLE,
        PolicyName="tracking",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": 2.0, "PredefinedMetricSpecification": metric},
    )
    for _ in range(5):
        asked()
    simulator.clock.advance(60)
    simulator.hosting.run_until("endpoint", "InService")
    assert instances(sagemaker) == 2


def test_the_deletion_of_an_endpoint_ends_its_scaling(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve_asynchronously(simulator, sagemaker)
    scale_to_zero()
    other = config_request("other", InstanceType="ml.g6.xlarge")
    sagemaker.create_endpoint_config(**other, AsyncInferenceConfig=ASYNCHRONOUS)
    with pytest.raises(ClientError, match="must be deregistered as scalable targets"):
        sagemaker.update_endpoint(EndpointName="endpoint", EndpointConfigName="other")
    sagemaker.delete_endpoint(EndpointName="endpoint")
    targets = boto3.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert targets["ScalableTargets"] == []
