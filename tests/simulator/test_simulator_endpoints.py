"""Endpoints of the simulator: created, called, updated, scaled, deleted."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from account import BUCKET, IMAGE, ROLE
from botocore.exceptions import ClientError
from hosted import asked, config_request, create, model_request, serve, stand_in_account
from sagemaker_simulator import SageMakerSimulator


@pytest.fixture
def simulator(aws: None) -> Iterator[SageMakerSimulator]:
    yield from stand_in_account()


def described(sagemaker: Any) -> dict[str, Any]:
    found: dict[str, Any] = sagemaker.describe_endpoint(EndpointName="endpoint")
    return found


def test_an_endpoint_goes_through_its_statuses_and_answers(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    create(sagemaker)
    assert described(sagemaker)["EndpointStatus"] == "Creating"
    assert described(sagemaker)["PendingDeploymentSummary"]["EndpointConfigName"] == "config"
    with pytest.raises(ClientError, match="Endpoint endpoint of account 123456789012 not found"):
        asked()
    simulator.hosting.run_until("endpoint", "InService")
    variant = described(sagemaker)["ProductionVariants"][0]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    told = asked(b'{"inputs": "a dog"}', ContentType="application/json", Accept="image/png", CustomAttributes="a=1")
    assert told["body"] == '{"inputs": "a dog"}'
    assert told["headers"]["Accept"] == "image/png"
    assert told["headers"]["X-Amzn-SageMaker-Custom-Attributes"] == "a=1"
    sagemaker.delete_endpoint(EndpointName="endpoint")
    assert described(sagemaker)["EndpointStatus"] == "Deleting"
    simulator.hosting.run_until_gone("endpoint")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        described(sagemaker)
    assert "stand-in ends" in simulator.hosting.log_lines("endpoint")


def test_the_container_gets_its_model_data_its_variables_and_the_word_serve(
    simulator: SageMakerSimulator, sagemaker: Any, s3: Any
) -> None:
    s3.put_object(Bucket=BUCKET, Key="code/deep/one.py", Body=b"1")
    source = {"S3Uri": f"s3://{BUCKET}/code/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    request = model_request(
        environment={"PYTHONPATH": "/opt/ml/additional-model-data-sources/code"},
        AdditionalModelDataSources=[{"ChannelName": "code", "S3DataSource": source}],
    )
    sagemaker.create_model(**request)
    sagemaker.create_endpoint_config(**config_request())
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    simulator.hosting.run_until("endpoint", "InService")
    server = simulator.hosting.server("endpoint")
    root = server.layout.root
    assert (root / "model" / "server.json").read_bytes() == b"{}"
    assert (root / "additional-model-data-sources" / "code" / "deep" / "one.py").read_bytes() == b"1"
    variables = server.layout.variables(server.order.container["Environment"], "eu-west-1")
    assert variables["PYTHONPATH"] == f"{root}/additional-model-data-sources/code"
    assert "stand-in serves, started with ['serve']" in simulator.hosting.log_lines("endpoint")
    streams = boto3.client("logs").describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/endpoint")["logStreams"]
    assert [one["logStreamName"].split("/")[0] for one in streams] == ["AllTraffic"]


def test_names_are_unique_without_their_case_and_missing_things_are_named(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    create(sagemaker)
    here = "arn:aws:sagemaker:eu-west-1:123456789012"
    with pytest.raises(ClientError, match=f'Cannot create already existing model "{here}:model/model"'):
        sagemaker.create_model(**model_request("MODEL"))
    with pytest.raises(ClientError, match="Cannot create already existing endpoint configuration"):
        sagemaker.create_endpoint_config(**config_request())
    with pytest.raises(ClientError, match=f'already existing endpoint "{here}:endpoint/endpoint"'):
        sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    with pytest.raises(ClientError, match=r'Could not find endpoint configuration ".*:endpoint-config/none"'):
        sagemaker.create_endpoint(EndpointName="two", EndpointConfigName="none")
    with pytest.raises(ClientError, match=r'Could not find model ".*:model/none"'):
        sagemaker.create_endpoint_config(**config_request("two", model="none"))
    for call in (sagemaker.describe_model, sagemaker.delete_model):
        with pytest.raises(ClientError, match="Could not find model"):
            call(ModelName="none")


def test_everything_is_listed_tagged_and_described_as_it_was_made(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    create(sagemaker)
    sagemaker.create_model(**model_request("second"), Tags=[{"Key": "owner", "Value": "me"}])
    names = [one["ModelName"] for one in sagemaker.list_models(NameContains="e", MaxResults=1)["Models"]]
    assert len(names) == 1
    pages = sagemaker.get_paginator("list_models").paginate(PaginationConfig={"PageSize": 1})
    assert sorted(one["ModelName"] for page in pages for one in page["Models"]) == ["model", "second"]
    assert [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]] == ["config"]
    assert sagemaker.list_endpoints(StatusEquals="InService")["Endpoints"] == []
    arn = sagemaker.describe_model(ModelName="second")["ModelArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "us"}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["owner"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "us"}]
    container = sagemaker.describe_model(ModelName="model")["PrimaryContainer"]
    assert container == {"Mode": "SingleModel", **model_request()["PrimaryContainer"]}
    config = sagemaker.describe_endpoint_config(EndpointConfigName="config")
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.g5.xlarge"
    sagemaker.delete_model(ModelName="second")
    with pytest.raises(ClientError, match="Could not find resource"):
        sagemaker.list_tags(ResourceArn=arn)


def test_an_endpoint_outlives_its_model_and_its_configuration(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    sagemaker.delete_endpoint_config(EndpointConfigName="config")
    sagemaker.delete_model(ModelName="model")
    assert described(sagemaker)["EndpointConfigName"] == "config"
    assert asked(b"still there")["body"] == "still there"


def _source(**fields: str) -> dict[str, Any]:
    whole = {"S3Uri": f"s3://{BUCKET}/model/", "S3DataType": "S3Prefix", "CompressionType": "None", **fields}
    return {"ModelDataSource": {"S3DataSource": whole}}


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (_source(S3Uri=f"s3://{BUCKET}/model"), "must end with a forward slash"),
        (_source(CompressionType="Gzip"), "CompressionType must be None"),
        (_source(S3Uri=f"s3://{BUCKET}/nothing/"), "Could not access model data at s3://pictures/nothing/"),
        ({"Image": "python:3.11"}, "Invalid image URI"),
        ({"Image": IMAGE.replace("eu-west-1", "us-east-1")}, "is in the region us-east-1"),
        ({"Image": IMAGE.replace("training:1", "training:2")}, "Requested image .* not found"),
        ({"Mode": "MultiModel"}, "no multi-model endpoints"),
        ({"ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}, "cannot both be specified"),
    ],
)
def test_a_model_that_the_service_refuses(
    simulator: SageMakerSimulator, sagemaker: Any, container: dict[str, Any], words: str
) -> None:
    with pytest.raises(ClientError, match=words):
        sagemaker.create_model(**model_request(**container))


def test_a_model_needs_a_role_that_the_service_may_assume(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    with pytest.raises(ClientError, match="Could not access model data"):
        sagemaker.create_model(**{**model_request(), "ExecutionRoleArn": f"{ROLE}2"})


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"VolumeSizeInGB": 30}, "VolumeSizeInGB is not supported"),
        ({"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}, "one InstanceType only"),
        ({"InstanceType": "ml.g99.xlarge"}, "enum value set"),
        ({"ContainerStartupHealthCheckTimeoutInSeconds": 5000}, "less than or equal to 3600"),
        ({"ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 0}}, "host inference components"),
    ],
)
def test_a_configuration_that_the_service_refuses(
    simulator: SageMakerSimulator, sagemaker: Any, variant: dict[str, Any], words: str
) -> None:
    sagemaker.create_model(**model_request())
    with pytest.raises(ClientError, match=words):
        sagemaker.create_endpoint_config(**config_request(**variant))


def update(sagemaker: Any, **policy: Any) -> None:
    """Update the endpoint to a second model, which says so."""
    sagemaker.create_model(**model_request("second", environment={"STAND_IN_NAME": "second"}))
    sagemaker.create_endpoint_config(**config_request("new", model="second"))
    traffic = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 60}
    blue_green = {"TrafficRoutingConfiguration": traffic, "TerminationWaitInSeconds": 120}
    sagemaker.update_endpoint(
        EndpointName="endpoint",
        EndpointConfigName="new",
        DeploymentConfig={"BlueGreenUpdatePolicy": blue_green, **policy},
    )


def test_an_update_serves_from_the_old_container_until_the_new_one_is_ready(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    serve(simulator, sagemaker)
    update(sagemaker)
    assert described(sagemaker)["EndpointStatus"] == "Updating"
    assert described(sagemaker)["EndpointConfigName"] == "config"
    assert described(sagemaker)["PendingDeploymentSummary"]["EndpointConfigName"] == "new"
    assert asked()["name"] == ""
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.delete_endpoint(EndpointName="endpoint")
    simulator.hosting.run_until("endpoint", "InService")
    assert asked()["name"] == "second"
    assert described(sagemaker)["EndpointConfigName"] == "new"
    assert "PendingDeploymentSummary" not in described(sagemaker)


def test_a_request_that_the_old_container_has_is_answered_by_it(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker, environment={"STAND_IN_SECONDS": "1"})
    answers: list[dict[str, Any]] = []
    slow = threading.Thread(target=lambda: answers.append(asked()))
    server = simulator.hosting.server("endpoint")
    slow.start()
    simulator.wait_for(lambda: server.in_flight == 1)
    update(sagemaker)
    simulator.hosting.run_until("endpoint", "InService")
    slow.join()
    assert answers[0]["name"] == ""


def test_an_alarm_that_rings_while_an_update_is_watched_brings_the_old_container_back(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    serve(simulator, sagemaker)
    cloudwatch = boto3.client("cloudwatch")
    dimensions = [{"Name": "EndpointName", "Value": "endpoint"}, {"Name": "VariantName", "Value": "AllTraffic"}]
    cloudwatch.put_metric_alarm(
        AlarmName="errors",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=dimensions,
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )
    update(sagemaker, AutoRollbackConfiguration={"Alarms": [{"AlarmName": "errors"}]})
    while asked()["name"] != "second":
        simulator.hosting.step("endpoint")
    cloudwatch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="a test")
    simulator.hosting.run_until("endpoint", "RollingBack")
    simulator.hosting.run_until("endpoint", "InService")
    assert asked()["name"] == ""
    assert described(sagemaker)["EndpointConfigName"] == "config"
    assert "errors" in described(sagemaker)["FailureReason"]


def test_a_variant_gets_more_instances_and_fewer(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    for count in (3, 1):
        wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="endpoint", DesiredWeightsAndCapacities=wanted)
        assert described(sagemaker)["EndpointStatus"] == "Updating"
        assert described(sagemaker)["ProductionVariants"][0]["DesiredInstanceCount"] == count
        simulator.hosting.run_until("endpoint", "InService")
        assert described(sagemaker)["ProductionVariants"][0]["CurrentInstanceCount"] == count
    with pytest.raises(ClientError, match="must be greater than or equal to 1"):
        none = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 0}]
        sagemaker.update_endpoint_weights_and_capacities(EndpointName="endpoint", DesiredWeightsAndCapacities=none)


def test_variants_get_requests_by_their_weights_and_by_name(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    request = config_request()
    for name, weight in (("much", 3.0), ("little", 1.0)):
        sagemaker.create_model(**model_request(name, environment={"STAND_IN_NAME": name}))
        variant = {**request["ProductionVariants"][0], "VariantName": name, "ModelName": name}
        request["ProductionVariants"].append({**variant, "InitialVariantWeight": weight})
    del request["ProductionVariants"][0]
    sagemaker.create_endpoint_config(**request)
    sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
    simulator.hosting.run_until("endpoint", "InService")
    names = [asked()["name"] for _ in range(8)]
    assert (names.count("much"), names.count("little")) == (6, 2)
    assert asked(TargetVariant="little")["name"] == "little"


def test_an_update_can_keep_the_number_of_instances(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker, InitialInstanceCount=3)
    sagemaker.create_endpoint_config(**config_request("new"))
    for retain, count in ((True, 3), (False, 1)):
        sagemaker.update_endpoint(EndpointName="endpoint", EndpointConfigName="new", RetainAllVariantProperties=retain)
        simulator.hosting.run_until("endpoint", "InService")
        assert described(sagemaker)["ProductionVariants"][0]["CurrentInstanceCount"] == count


def test_what_the_runtime_api_refuses(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    with pytest.raises(ClientError, match="TargetModel is not supported"):
        asked(TargetModel="other.tar.gz")
    with pytest.raises(ClientError, match="Inference Component dog not found"):
        asked(InferenceComponentName="dog")
    with pytest.raises(ClientError, match="Variant other not found"):
        asked(TargetVariant="other")
    with pytest.raises(ClientError, match="InvokeEndpointAsync is not supported"):
        boto3.client("sagemaker-runtime").invoke_endpoint_async(EndpointName="endpoint", Body=b"{}")
    simulator.hosting.payload_bytes = 10
    with pytest.raises(ClientError, match="HTTP content length exceeded 10 bytes") as refused:
        asked(b"more than ten bytes")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_an_error_of_the_container_is_a_model_error_with_its_words(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    serve(simulator, sagemaker, environment={"STAND_IN_STATUS": "422"})
    with pytest.raises(ClientError, match=r"Received client error \(422\) from primary with message") as failed:
        asked(b"what is wrong")
    answer = failed.value.response
    assert answer["Error"]["Code"] == "ModelError"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert answer["OriginalStatusCode"] == 422
    assert "what is wrong" in json.loads(answer["OriginalMessage"])["body"]
    assert "/aws/sagemaker/Endpoints/endpoint" in answer["LogStreamArn"]


def test_an_answer_that_takes_too_long_is_a_model_error(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker, environment={"STAND_IN_SECONDS": "5"})
    simulator.hosting.invocation_seconds = 0.2
    with pytest.raises(ClientError, match="Your invocation timed out"):
        asked()


def test_an_answer_comes_as_a_stream(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    answer = boto3.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
        EndpointName="endpoint", Body=b"x" * 100_000, Accept="text/event-stream"
    )
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert len(parts) > 1
    told = json.loads(b"".join(parts))
    assert told["body"] == "x" * 100_000
    assert told["headers"]["Accept"] == "text/event-stream"


def test_the_figures_of_an_endpoint_are_in_cloudwatch(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    serve(simulator, sagemaker)
    asked()
    now = simulator.clock.now()
    dimensions = [{"Name": "EndpointName", "Value": "endpoint"}, {"Name": "VariantName", "Value": "AllTraffic"}]
    metric = {"Namespace": "AWS/SageMaker", "MetricName": "Invocations", "Dimensions": dimensions}
    answer = boto3.client("cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": "q", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}],
        StartTime=now.timestamp() - 120,
        EndTime=now.timestamp() + 120,
    )
    assert answer["MetricDataResults"][0]["Values"] == [1.0]
