"""While moto enforces policies, callers need SageMaker's actions, and the job's role those of its work."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from account import BUCKET, ROLE, bare_request, spot, training_request
from botocore.exceptions import ClientError
from sagemaker_simulator import SageMakerSimulator, enforce_policies

JOBS = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/*"
CALLER = {
    "sagemaker:CreateTrainingJob": JOBS,
    "sagemaker:DescribeTrainingJob": JOBS,
    "sagemaker:AddTags": JOBS,
    "iam:PassRole": ROLE,
}
WORKER = {
    "s3:ListBucket": f"arn:aws:s3:::{BUCKET}",
    "s3:GetObject": f"arn:aws:s3:::{BUCKET}/*",
    "s3:PutObject": f"arn:aws:s3:::{BUCKET}/*",
    "logs:CreateLogGroup": "*",
    "logs:CreateLogStream": "*",
    "logs:PutLogEvents": "*",
    "ecr:GetAuthorizationToken": "*",
    "ecr:BatchCheckLayerAvailability": "*",
    "ecr:BatchGetImage": "*",
    "ecr:GetDownloadUrlForLayer": "arn:aws:ecr:eu-west-1:123456789012:repository/training",
    "logs:DescribeLogStreams": "*",
    "cloudwatch:PutMetricData": "*",
    "kms:Encrypt": "*",
    "kms:GenerateDataKey": "*",
    "kms:Decrypt": "*",
    "kms:CreateGrant": "*",
    **{f"ec2:{action}": "*" for action in ("CreateNetworkInterface", "CreateNetworkInterfacePermission")},
    **{f"ec2:{action}": "*" for action in ("DeleteNetworkInterface", "DeleteNetworkInterfacePermission")},
    **{
        f"ec2:Describe{what}": "*" for what in ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
    },
}
Caller = Callable[..., Any]


def document(actions: dict[str, str], without: str) -> str:
    condition = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": action, "Resource": resource}
                | ({"Condition": condition} if action == "iam:PassRole" else {})
                for action, resource in actions.items()
                if action != without
            ],
        }
    )


@pytest.fixture
def client(simulator: SageMakerSimulator) -> Iterator[Caller]:
    """Make a client for somebody with policies, less one action; from then on they are enforced."""
    request = training_request(
        "checkpoint(1); (root / 'model' / 'weights').touch(); say('done')",
        Tags=[{"Key": "owner", "Value": "me"}],
        VpcConfig={"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        **spot(),
    )
    request["OutputDataConfig"]["KmsKeyId"] = key = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
    request["ResourceConfig"] |= {"InstanceType": "ml.p3.2xlarge", "VolumeSizeInGB": 50, "VolumeKmsKeyId": key}
    iam = boto3.client("iam")
    iam.create_user(UserName="somebody")
    keys = iam.create_access_key(UserName="somebody")["AccessKey"]

    def make(without: str = "") -> Any:
        iam.put_user_policy(UserName="somebody", PolicyName="p", PolicyDocument=document(CALLER, without))
        iam.put_role_policy(RoleName="training", PolicyName="p", PolicyDocument=document(WORKER, without))
        enforcement.__enter__()
        credentials = {"aws_access_key_id": keys["AccessKeyId"], "aws_secret_access_key": keys["SecretAccessKey"]}
        made = boto3.client("sagemaker", **credentials)
        made.submit = lambda: made.create_training_job(**request)
        return made

    enforcement = enforce_policies()
    yield make
    enforcement.__exit__(None, None, None)


def test_these_actions_carry_a_job_from_request_to_result(simulator: SageMakerSimulator, client: Caller) -> None:
    caller = client()
    caller.submit()
    simulator.run_to_end("job")
    job = caller.describe_training_job(TrainingJobName="job")
    assert (job["TrainingJobStatus"], job.get("FailureReason")) == ("Completed", None)


@pytest.mark.parametrize("action", ["sagemaker:CreateTrainingJob", "sagemaker:AddTags", "iam:PassRole"])
def test_a_caller_without_an_action_is_refused_by_its_name(client: Caller, action: str) -> None:
    with pytest.raises(ClientError, match=f"AccessDeniedException.*user/somebody is not authorized.*{action}"):
        client(without=action).submit()


def test_a_role_that_may_not_list_the_data_is_refused_at_once(client: Caller) -> None:
    with pytest.raises(ClientError, match="No S3 objects found under S3 URL"):
        client(without="s3:ListBucket").submit()


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("s3:GetObject", "Data download failed:AccessDenied"),
        ("s3:PutObject", "Checkpoint upload failed:AccessDenied"),
        ("ecr:BatchGetImage", "Cannot pull algorithm container"),
        ("ec2:DescribeVpcs", "not authorized to perform: ec2:DescribeVpcs"),
        ("kms:GenerateDataKey", "Checkpoint upload failed:AccessDenied (PutObject)"),
        ("kms:Encrypt", "Artifact upload failed:AccessDenied"),
        ("kms:CreateGrant", "not authorized to perform: kms:CreateGrant"),
    ],
)
def test_a_role_without_an_action_fails_where_it_is_needed(
    simulator: SageMakerSimulator, client: Caller, action: str, reason: str
) -> None:
    client(without=action).submit()
    assert reason in str(simulator.run_to_end("job").failure_reason)


@pytest.mark.parametrize("action", ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"])
def test_a_role_that_may_not_write_logs_trains_in_the_dark(
    simulator: SageMakerSimulator, client: Caller, action: str
) -> None:
    client(without=action).submit()
    assert simulator.run_to_end("job").status == "Completed"


def test_an_unknown_key_is_no_caller(client: Caller) -> None:
    client()
    stranger = boto3.client("sagemaker", aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x")
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        stranger.create_training_job(**bare_request())
