"""What the service refuses, and with which words; nothing here starts a job."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from account import BUCKET, IMAGE, REGION, ROLE, Request, bare_request, channel, spot, training_request
from botocore.exceptions import ClientError
from sagemaker_simulator import Call, SageMakerSimulator
from sagemaker_simulator.errors import ServiceError
from sagemaker_simulator.operations import OPERATIONS
from sagemaker_simulator.rules import check_training_job
from sagemaker_simulator.validation import service_model, validate


def refused(call: Any, **parameters: Any) -> tuple[str, str]:
    """Return code and message of the refusal."""
    with pytest.raises(ClientError) as error:
        call(**parameters)
    detail = error.value.response["Error"]
    return detail["Code"], detail["Message"]


def changed(path: str, value: Any) -> Request:
    """Return a good request with one value replaced, or removed if it is None."""
    request = bare_request()
    *parents, last = path.split(".")
    place: Any = request
    for name in parents:
        place = place[int(name)] if name.isdigit() else place.setdefault(name, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return request


TAGS = [{"Key": str(number), "Value": ""} for number in range(51)]
BY_THE_MODEL = [
    ("TrainingJobName", "a" * 64, "trainingJobName.*less than or equal to 63"),
    ("TrainingJobName", "a_b", "trainingJobName.*regular expression"),
    ("TrainingJobName", "ends-", "trainingJobName.*regular expression"),
    ("RoleArn", "arn:aws:iam::123456789012:user/somebody", "roleArn.*regular expression"),
    ("ResourceConfig.InstanceType", "ml.g5.huge", "resourceConfig.instanceType.*enum value set"),
    ("AlgorithmSpecification.TrainingInputMode", "Stream", "trainingInputMode.*enum value set"),
    ("HyperParameters", {str(number): "" for number in range(101)}, "hyperParameters.*less than or equal to 100"),
    ("HyperParameters.prompt", "x" * 2501, "hyperParameters.prompt.*less than or equal to 2500"),
    ("HyperParameters.prompt", "two\nlines", "hyperParameters.prompt.*regular expression"),
    ("HyperParameters", {"x" * 257: ""}, "hyperParameters.key.*less than or equal to 256"),
    ("Environment", {"no-dash": ""}, "environment.key.*regular expression"),
    ("Environment.LONG", "x" * 513, "environment.LONG.*less than or equal to 512"),
    ("Tags", TAGS, "tags.*less than or equal to 50"),
    ("Tags", [{"Key": "a*b", "Value": ""}], "tags.1.member.key.*regular expression"),
    ("Tags", [{"Key": "a", "Value": "two\nlines"}], "tags.1.member.value.*regular expression"),
    ("VpcConfig", {"Subnets": [], "SecurityGroupIds": ["sg-1"]}, "vpcConfig.subnets.*greater than or equal to 1"),
    ("VpcConfig", {"Subnets": ["subnet 1"], "SecurityGroupIds": ["sg-1"]}, "subnets.1.member.*regular expression"),
    ("InputDataConfig.0.ChannelName", "a channel", "inputDataConfig.1.member.channelName.*regular expression"),
    ("OutputDataConfig.S3OutputPath", "file:///tmp", "s3OutputPath.*regular expression"),
    ("StoppingCondition.MaxRuntimeInSeconds", 0, "maxRuntimeInSeconds.*greater than or equal to 1"),
    ("RetryStrategy", {"MaximumRetryAttempts": 31}, "maximumRetryAttempts.*less than or equal to 30"),
    ("ResourceConfig.KeepAlivePeriodInSeconds", 99999, "keepAlivePeriodInSeconds.*less than or equal to 21600"),
    ("AlgorithmSpecification.ContainerArguments", ["x" * 257], "containerArguments.1.member.*equal to 256"),
]
BETWEEN_FIELDS = [
    ("AlgorithmSpecification.TrainingImage", None, "either TrainingImage or AlgorithmName"),
    ("AlgorithmSpecification.TrainingImage", "python:3.11", "Invalid image URI"),
    ("AlgorithmSpecification.TrainingImage", IMAGE.replace(REGION, "us-east-1"), "is in the region us-east-1"),
    ("AlgorithmSpecification.MetricDefinitions", [{"Name": "a", "Regex": "("}], "regular expression of metric"),
    ("ResourceConfig", None, "ResourceConfig is required"),
    ("StoppingCondition", None, "StoppingCondition is required"),
    ("ResourceConfig.InstanceCount", None, "InstanceCount must be at least 1"),
    ("ResourceConfig.VolumeKmsKeyId", "alias/mine", "VolumeKmsKeyId is not supported for ml.g5.xlarge"),
    ("ResourceConfig.VolumeSizeInGB", 10_000, "local storage of ml.g5.xlarge, which is fixed at 250 GB"),
    ("ResourceConfig.KeepAlivePeriodInSeconds", 60, "no warm pools"),
    ("ResourceConfig", {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1}, "VolumeSizeInGB must be at least 1"),
    ("StoppingCondition.MaxRuntimeInSeconds", 28 * 86400 + 1, "MaxRuntimeInSeconds must not be greater"),
    ("StoppingCondition.MaxWaitTimeInSeconds", 3600, "only supported when EnableManagedSpotTraining"),
    ("EnableManagedSpotTraining", True, "Invalid MaxWaitTimeInSeconds"),
    ("RoleArn", "arn:aws:iam::999999999999:role/training", "Cross-account pass role"),
    ("InputDataConfig.0.ChannelName", "code", "Duplicate channel name: code"),
    ("InputDataConfig.0.InputMode", "Pipe", "no Pipe mode"),
    ("InputDataConfig.0.CompressionType", "Gzip", "Pipe mode only"),
    ("InputDataConfig.0.DataSource", {}, "exactly one data source"),
    ("OutputDataConfig.S3OutputPath", "s3://Not_A_Bucket/out", "Invalid S3 URI"),
    ("CheckpointConfig", {"S3Uri": "s3://pictures/c", "LocalPath": "/opt/ml/model/c"}, "reserved"),
    ("CheckpointConfig", {"S3Uri": "s3://pictures/out"}, "must differ from the S3OutputPath"),
    ("Tags", [{"Key": "a", "Value": ""}] * 2, "Duplicate tag key"),
    ("Tags", [{"Key": "aws:mine", "Value": ""}], "reserved for system use"),
]


def refusal(request: Request) -> str:
    """Return why a request is refused before the service looks at anything but the request."""
    with pytest.raises(ServiceError) as error:
        validate("CreateTrainingJob", request)
        check_training_job(Call("sagemaker", "CreateTrainingJob", ROLE.split(":")[4], REGION, request))
    assert error.value.code == "ValidationException"
    return error.value.message


@pytest.mark.parametrize(("path", "value", "message"), BY_THE_MODEL + BETWEEN_FIELDS)
def test_a_bad_request_is_refused(path: str, value: Any, message: str) -> None:
    assert re.search(message, refusal(changed(path, value)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 59}},
            "Invalid MaxWaitTimeInSeconds",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "KeepAlivePeriodInSeconds": 60}},
            "KeepAlivePeriodInSeconds is not supported",
        ),
    ],
)
def test_spot_has_rules_of_its_own(fields: Request, message: str) -> None:
    assert message in refusal(bare_request(**spot(**fields)))


def test_all_faults_of_a_request_come_at_once() -> None:
    request = changed("TrainingJobName", "a_b") | {"RoleArn": "arn:aws:iam::123456789012:user/somebody", "Spot": True}
    words = refusal(request)
    assert words.startswith("3 validation errors detected: ")
    assert words.endswith("'spot' is not a member of CreateTrainingJobRequest")
    del request["RoleArn"]
    assert "Value null at 'roleArn'" in refusal(request)


def test_a_wrong_type_is_not_even_read() -> None:
    for value in ("1", True, 1.5):
        with pytest.raises(ServiceError, match="SerializationException"):
            validate("CreateTrainingJob", changed("ResourceConfig.InstanceCount", value))


def test_a_refusal_reaches_the_client_and_leaves_no_job(sagemaker: Any) -> None:
    for path, value, message in BY_THE_MODEL[0], BETWEEN_FIELDS[0]:
        code, words = refused(sagemaker.create_training_job, **changed(path, value))
        assert code == "ValidationException"
        assert re.search(message, words)
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []


def test_a_role_that_is_not_there_or_trusts_others_is_refused(sagemaker: Any) -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    boto3.client("iam").create_role(RoleName="other", AssumeRolePolicyDocument=json.dumps({"Statement": trust}))
    for role in ("nobody", "other"):
        request = training_request(RoleArn=f"arn:aws:iam::123456789012:role/{role}")
        code, words = refused(sagemaker.create_training_job, **request)
        assert code == "ValidationException"
        assert f'role/{role}" is invalid' in words


def test_channels_without_objects_are_refused(sagemaker: Any) -> None:
    for prefix, bucket in (("nothing/", BUCKET), ("data/", "somewhere-else")):
        request = training_request()
        request["InputDataConfig"].append(channel("empty", prefix))
        request["InputDataConfig"][-1]["DataSource"]["S3DataSource"]["S3Uri"] = f"s3://{bucket}/{prefix}"
        code, words = refused(sagemaker.create_training_job, **request)
        assert code == "ValidationException"
        assert words.startswith(f'No S3 objects found under S3 URL "s3://{bucket}/{prefix}"')


def test_a_name_is_taken_once_and_for_all(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    arn = sagemaker.create_training_job(**training_request())["TrainingJobArn"]
    code, words = refused(sagemaker.create_training_job, **training_request())
    assert code == "ResourceInUse"
    assert arn in words
    simulator.run_to_end("job")
    assert refused(sagemaker.create_training_job, **training_request())[0] == "ResourceInUse"


def test_names_are_per_region(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    sagemaker.create_training_job(**training_request())
    elsewhere = boto3.client("sagemaker", region_name="us-east-1")
    there = training_request()
    there["AlgorithmSpecification"]["TrainingImage"] = IMAGE.replace(REGION, "us-east-1")
    assert "us-east-1" in elsewhere.create_training_job(**there)["TrainingJobArn"]


def test_a_quota_counts_the_jobs_that_run(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.quotas["ml.g5.xlarge for training job usage"] = 1
    simulator.quotas["ml.g5.xlarge for spot training job usage"] = 0
    sagemaker.create_training_job(**training_request(name="first"))
    code, words = refused(sagemaker.create_training_job, **training_request(name="second"))
    assert code == "ResourceLimitExceeded"
    assert words.startswith(
        "The account-level service limit 'ml.g5.xlarge for training job usage' is 1 Instances, with current "
        "utilization of 1 Instances and a request delta of 1 Instances."
    )
    assert "'ml.g5.xlarge for spot training" in refused(sagemaker.create_training_job, **training_request(**spot()))[1]
    simulator.run_to_end("first")
    sagemaker.create_training_job(**training_request(name="second"))


def test_a_job_that_is_not_there_is_a_validation_exception(sagemaker: Any) -> None:
    # So it is in the real service, whatever its model says.
    for call in (sagemaker.describe_training_job, sagemaker.stop_training_job, sagemaker.delete_training_job):
        assert refused(call, TrainingJobName="nobody") == ("ValidationException", "Requested resource not found.")


def test_jobs_are_listed_by_name_status_and_time_in_pages(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    for number in range(5):
        sagemaker.create_training_job(**training_request(name=f"dog-{number}"))
        simulator.clock.advance(1)
    sagemaker.create_training_job(**training_request(name="cat"))
    simulator.run_to_end("dog-0")

    def names(**asked: Any) -> list[str]:
        pages = sagemaker.get_paginator("list_training_jobs").paginate(**asked)
        return [one["TrainingJobName"] for page in pages for one in page["TrainingJobSummaries"]]

    assert names(NameContains="dog", MaxResults=2) == [f"dog-{number}" for number in range(5)]
    assert names(SortBy="Name", SortOrder="Descending")[-1] == "cat"
    assert names(StatusEquals="Completed", MaxResults=1) == ["dog-0"]
    third = sagemaker.describe_training_job(TrainingJobName="dog-2")["CreationTime"]
    assert names(CreationTimeAfter=third, NameContains="dog") == ["dog-3", "dog-4"]
    assert names(CreationTimeBefore=datetime.now(UTC) - timedelta(days=9)) == []


def test_the_filter_by_status_is_applied_to_a_page_that_was_taken_before(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    for name in ("one", "two"):
        sagemaker.create_training_job(**training_request(name=name))
        simulator.clock.advance(1)
    page = sagemaker.list_training_jobs(StatusEquals="Completed", MaxResults=1)
    assert page["TrainingJobSummaries"] == []
    assert refused(sagemaker.list_training_jobs, NextToken=page["NextToken"], SortBy="Name")[0] == "ValidationException"
    assert refused(sagemaker.list_training_jobs, NextToken="?")[0] == "ValidationException"


def test_tags_of_the_request_and_later_ones(sagemaker: Any) -> None:
    tags = [{"Key": "owner", "Value": "me"}, {"Key": "recipe", "Value": "dreambooth"}]
    arn = sagemaker.create_training_job(**training_request(Tags=tags))["TrainingJobArn"]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "owner", "Value": "you"}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["recipe"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "owner", "Value": "you"}]
    assert refused(sagemaker.add_tags, ResourceArn=arn, Tags=TAGS[:50])[0] == "ValidationException"
    assert refused(sagemaker.list_tags, ResourceArn=f"{arn}x")[0] == "ValidationException"


def test_only_ended_jobs_are_deleted_and_their_names_are_free_when_they_are_gone(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    sagemaker.create_training_job(**training_request())
    assert refused(sagemaker.delete_training_job, TrainingJobName="job")[0] == "ResourceInUse"
    simulator.run_to_end("job")
    sagemaker.delete_training_job(TrainingJobName="job")
    assert sagemaker.describe_training_job(TrainingJobName="job")["TrainingJobStatus"] == "Deleting"
    assert refused(sagemaker.delete_training_job, TrainingJobName="job")[0] == "ResourceInUse"
    assert refused(sagemaker.create_training_job, **training_request())[0] == "ResourceInUse"
    simulator.clock.advance(30)
    sagemaker.create_training_job(**training_request())


def test_an_operation_that_is_not_built_yet_says_so(sagemaker: Any) -> None:
    code, words = refused(sagemaker.describe_hub, HubName="hub")
    assert code == "UnknownOperationException"
    assert "DescribeHub" in words


def test_every_request_is_recorded_as_it_came(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    request = training_request()
    sagemaker.create_training_job(**request)
    refused(sagemaker.create_training_job, **request)
    first, second = simulator.requests.of("CreateTrainingJob")
    assert first.parameters == second.parameters == request
    assert (first.committed, first.error) == (True, None)
    assert (second.committed, second.error) == (False, "ResourceInUse")
    assert simulator.requests.count("CreateTrainingJob") == 2
    assert simulator.requests.count("PutObject", service="s3") > 0
    assert simulator.requests.count("GetObject", service="s3") == 0, "the simulator's own calls are not the client's"
    assert first.call.account == ROLE.split(":")[4]


def test_the_model_has_the_operations_the_simulator_answers() -> None:
    assert set(OPERATIONS) <= set(service_model().operation_names)
