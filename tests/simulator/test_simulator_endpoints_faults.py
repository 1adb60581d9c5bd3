"""What goes wrong with endpoints of the simulator: by itself, and because a test wants it to."""

import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from account import BUCKET
from botocore.exceptions import ClientError, ConnectionClosedError
from hosted import asked, config_request, create, model_request, serve, stand_in_account
from sagemaker_simulator import (
    SageMakerSimulator,
    ServerDeath,
    UnhealthyContainer,
    access_denied,
    hosting_internal_error,
    insufficient_capacity,
    lost_answer,
    model_download_timeout,
    serving_image_failure,
    throttling,
)
from sagemaker_simulator.hosting.faults import HostingFault


@pytest.fixture
def simulator(aws: None) -> Iterator[SageMakerSimulator]:
    yield from stand_in_account()


def reason(sagemaker: Any) -> str:
    return str(sagemaker.describe_endpoint(EndpointName="endpoint")["FailureReason"])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (insufficient_capacity(), "due to InsufficientInstanceCapacity error"),
        (model_download_timeout(), "download for production variant AllTraffic timed out"),
        (serving_image_failure(), "model container for variant AllTraffic starts correctly"),
        (UnhealthyContainer(), "for production variant AllTraffic did not pass the ping health check"),
        (hosting_internal_error(), "Request to service failed"),
    ],
)
def test_an_endpoint_that_is_to_fail_fails_with_the_reason_of_the_service(
    simulator: SageMakerSimulator, sagemaker: Any, fault: HostingFault, words: str
) -> None:
    simulator.hosting.inject(fault, "endpoint")
    create(sagemaker)
    simulator.hosting.run_until("endpoint", "Failed")
    assert words in reason(sagemaker)
    with pytest.raises(ClientError, match="Cannot update failed endpoint"):
        sagemaker.update_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    sagemaker.delete_endpoint(EndpointName="endpoint")
    simulator.hosting.run_until_gone("endpoint")


def test_an_update_that_is_to_fail_leaves_the_endpoint_as_it_was(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    simulator.hosting.inject(UnhealthyContainer())
    sagemaker.create_endpoint_config(**config_request("new"))
    sagemaker.update_endpoint(EndpointName="endpoint", EndpointConfigName="new")
    simulator.hosting.run_until("endpoint", "RollingBack")
    simulator.hosting.run_until("endpoint", "InService")
    assert "did not pass the ping health check" in reason(sagemaker)
    assert sagemaker.describe_endpoint(EndpointName="endpoint")["EndpointConfigName"] == "config"
    assert asked(b"as it was")["body"] == "as it was"


def test_a_planned_fault_that_befalls_no_endpoint_fails_its_test(aws: None) -> None:
    simulator = SageMakerSimulator()
    simulator.hosting.inject(ServerDeath(), "endpoint")
    simulator.close()
    with pytest.raises(AssertionError, match="ServerDeath"):
        simulator.require_faults_happened()


def test_a_container_that_never_becomes_healthy_has_its_time(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.hosting.startup_patience = 0.1
    before = simulator.clock.now()
    seconds = {"ContainerStartupHealthCheckTimeoutInSeconds": 900}
    create(sagemaker, environment={"STAND_IN_PING": "503"}, **seconds)
    simulator.hosting.run_until("endpoint", "Failed")
    assert "did not pass the ping health check" in reason(sagemaker)
    assert (simulator.clock.now() - before).total_seconds() == 120 + 60 + 60 + 900


def test_a_container_that_ends_at_once_does_not_become_healthy(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    create(sagemaker, environment={"STAND_IN_EXIT": "3"})
    simulator.hosting.run_until("endpoint", "Failed")
    assert "did not pass the ping health check" in reason(sagemaker)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second loopback address")
def test_a_server_that_listens_on_its_own_loopback_only_is_not_reached(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    simulator.hosting.startup_patience = 0.5
    create(sagemaker, environment={"STAND_IN_HOST": "127.0.0.1"})
    simulator.hosting.run_until("endpoint", "Failed")
    assert "did not pass the ping health check" in reason(sagemaker)


def test_model_data_that_is_gone_when_it_is_needed(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="one.tar.gz", Body=b"no archive")
    source = {"S3Uri": f"s3://{BUCKET}/one.tar.gz", "S3DataType": "S3Object", "CompressionType": "Gzip"}
    sagemaker.create_model(**model_request(ModelDataSource={"S3DataSource": source}))
    sagemaker.create_endpoint_config(**config_request())
    s3.delete_object(Bucket=BUCKET, Key="one.tar.gz")
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    simulator.hosting.run_until("endpoint", "Failed")
    assert "Failed to download model data for production variant AllTraffic" in reason(sagemaker)


def test_capacity_that_comes_back_in_time_is_used(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.capacity["ml.g5.xlarge"] = 0
    create(sagemaker)
    simulator.clock.advance(300)
    assert sagemaker.describe_endpoint(EndpointName="endpoint")["EndpointStatus"] == "Creating"
    simulator.capacity["ml.g5.xlarge"] = 1
    simulator.hosting.run_until("endpoint", "InService")
    sagemaker.create_endpoint(EndpointName="second", EndpointConfigName="config")
    simulator.hosting.run_until("second", "Failed")


def test_a_quota_counts_what_endpoints_have_and_what_an_update_needs_beside(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    simulator.quotas["ml.g5.xlarge for endpoint usage"] = 1
    serve(simulator, sagemaker)
    words = "'ml.g5.xlarge for endpoint usage' is 1 Instances, with current utilization of 1 Instances"
    for call, named in ((sagemaker.create_endpoint, "second"), (sagemaker.update_endpoint, "endpoint")):
        with pytest.raises(ClientError, match=words) as refused:
            call(EndpointName=named, EndpointConfigName="config")
        assert refused.value.response["Error"]["Code"] == "ResourceLimitExceeded"
    with pytest.raises(ClientError, match=words):
        more = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="endpoint", DesiredWeightsAndCapacities=more)


def test_a_server_that_dies_answers_nothing_and_is_started_again(
    simulator: SageMakerSimulator, sagemaker: Any, waits: list[float]
) -> None:
    serve(simulator, sagemaker)
    simulator.hosting.inject(ServerDeath(after_requests=1))
    assert asked(b"well")["body"] == "well"
    with pytest.raises(ClientError, match="Received server error \\(503\\) from primary"):
        asked()
    with pytest.raises(ClientError, match="The service is unavailable"):
        asked()
    server = simulator.hosting.server("endpoint")
    simulator.clock.advance(60)
    simulator.wait_for(lambda: server.is_healthy)
    assert asked(b"again")["body"] == "again"


def test_requests_to_an_endpoint_have_faults_like_those_of_jobs(
    simulator: SageMakerSimulator, sagemaker: Any, waits: list[float]
) -> None:
    sagemaker.create_model(**model_request())
    sagemaker.create_endpoint_config(**config_request())
    simulator.faults.add(lost_answer(), "CreateEndpoint", times=None)
    with pytest.raises(ConnectionClosedError):
        boto3.client("sagemaker").create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    simulator.faults.clear()
    assert simulator.requests.of("CreateEndpoint")[0].committed
    simulator.hosting.run_until("endpoint", "InService")
    simulator.faults.add(throttling(), "InvokeEndpoint", service="sagemaker-runtime")
    assert asked(b"in the end")["body"] == "in the end"
    assert simulator.requests.count("InvokeEndpoint", service="sagemaker-runtime") == 2


def test_alarms_and_scaling_have_faults_too(simulator: SageMakerSimulator, waits: list[float]) -> None:
    simulator.faults.add(access_denied("cloudwatch:DescribeAlarms"), "DescribeAlarms", service="cloudwatch")
    with pytest.raises(ClientError, match="not authorized to perform: cloudwatch:DescribeAlarms") as refused:
        boto3.client("cloudwatch").describe_alarms()
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    simulator.faults.add(throttling(), "DescribeScalableTargets", service="application-auto-scaling")
    scaling = boto3.client("application-autoscaling")
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []


def test_a_container_that_does_not_end_when_asked_is_killed(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker, environment={"STAND_IN_STUBBORN": "1"})
    server = simulator.hosting.server("endpoint")
    sagemaker.delete_endpoint(EndpointName="endpoint")
    simulator.clock.advance(29)
    assert not server.has_ended
    simulator.clock.advance(31)
    simulator.hosting.run_until_gone("endpoint")
    assert server.exit_status == 128 + 9


def test_an_endpoint_shows_a_status_that_it_does_not_reach(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    simulator.hosting.show("endpoint", "SystemUpdating")
    assert sagemaker.describe_endpoint(EndpointName="endpoint")["EndpointStatus"] == "SystemUpdating"
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.delete_endpoint(EndpointName="endpoint")


def test_names_are_taken_until_a_deletion_is_over(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    sagemaker.delete_endpoint(EndpointName="endpoint")
    with pytest.raises(ClientError, match="Cannot create already existing endpoint"):
        sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.delete_endpoint(EndpointName="endpoint")
    simulator.hosting.run_until_gone("endpoint")
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    simulator.hosting.run_until("endpoint", "InService")
