"""The role of builds in the account: what it is granted, who can take it on, and that it reaches nothing else."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws
from sagemaker_simulator import SageMakerSimulator, enforce_policies, in_process, policies, principals, roles

from orchestrator.aws.client import Aws
from orchestrator.infra import account as infra
from orchestrator.settings import AwsSettings, Settings
from tests.permissions.conftest import REGION, _Always, _close_the_bucket, _set_up_machine
from tests.permissions.grants import actions_of
from tests.template import template

[BUILDS] = yaml.safe_load(Path(__file__).with_name("needs.yaml").read_text())["builds"]
ACCOUNT = "123456789012"
PROJECT = f"arn:aws:codebuild:{REGION}:{ACCOUNT}:project/orchestrator-images"


class Built(NamedTuple):
    """A stack with a project, and clients that may what a build may."""

    account: AwsSettings
    role: str
    client: Callable[[str], Any]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Make a stack with a project, and something below each prefix of its bucket."""
    settings = Settings(home=tmp_path_factory.mktemp("builds") / "home")
    simulator = SageMakerSimulator(images=_Always())
    with pytest.MonkeyPatch.context() as patch, mock_aws(), simulator, in_process(simulator):
        _set_up_machine(patch, settings, simulator)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Tried to parse")  # what moto leaves out of the stack
            account = infra.up(Aws(REGION), settings, {"Builds": "make"}, report=lambda _event: None)
        s3 = boto3.client("s3")
        for prefix in ("builds", "data", "code", "adapters", "manifests"):
            s3.put_object(Bucket=account.bucket, Key=f"{prefix}/x", Body=b"x")
        _close_the_bucket(account.bucket)
        [role] = [one["Arn"] for one in boto3.client("iam").list_roles()["Roles"] if "BuildRole" in one["RoleName"]]
        credentials = roles.assume(role, REGION)
        with enforce_policies():
            yield Built(account, role, lambda service: boto3.client(service, **credentials))


def test_what_is_granted_is_accounted_for_and_is_documented() -> None:
    granted = actions_of(template()["Resources"]["BuildPolicy"]["Properties"]["PolicyDocument"])
    assert granted == sorted(BUILDS["actions"])
    assert [action for action, about in BUILDS["actions"].items() if "documented" not in about] == []


def test_a_build_reads_its_source(built: Built) -> None:
    answer = built.client("s3").get_object(Bucket=built.account.bucket, Key="builds/x")
    assert answer["Body"].read() == b"x"


@pytest.mark.parametrize(
    ("operation", "asked"),
    [
        ("get_object", {"Key": "data/x"}),
        ("get_object", {"Key": "code/x"}),
        ("get_object", {"Key": "adapters/x"}),
        ("get_object", {"Key": "manifests/x"}),
        ("put_object", {"Key": "builds/x", "IfNoneMatch": "*"}),
        ("put_object", {"Key": "code/y", "IfNoneMatch": "*"}),
        ("delete_object", {"Key": "builds/x"}),
        ("list_objects_v2", {}),
        ("list_objects_v2", {"Prefix": "builds/"}),
    ],
    ids=str,
)
def test_a_build_reaches_nothing_else_in_the_bucket(built: Built, operation: str, asked: dict[str, str]) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        getattr(built.client("s3"), operation)(Bucket=built.account.bucket, **asked)


@pytest.mark.parametrize(
    ("repository", "action", "may"),
    [
        ("orchestrator-training", "ecr:PutImage", True),
        ("orchestrator-inference", "ecr:PutImage", True),
        ("orchestrator-inference", "ecr:UploadLayerPart", True),
        ("of-another", "ecr:PutImage", False),
        ("of-another", "ecr:BatchGetImage", False),
        ("orchestrator-training", "ecr:BatchDeleteImage", False),
        ("orchestrator-training", "ecr:PutImageTagMutability", False),
    ],
)
def test_a_build_pushes_to_the_two_repositories_alone(built: Built, repository: str, action: str, may: bool) -> None:
    access = policies.Access(action, f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{repository}")
    assert principals.may(principals.of_role(built.role), access) is may


def test_the_key_is_good_for_the_source_alone(built: Built) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):  # not through S3, and not for writing
        built.client("kms").generate_data_key(KeyId=built.account.kms_key_arn, KeySpec="AES_256")


def test_a_build_writes_no_other_log(built: Built) -> None:
    logs = built.client("logs")
    group = "/aws/codebuild/orchestrator-images"
    logs.create_log_stream(logGroupName=group, logStreamName="mine")
    for name in (group, "/aws/codebuild/another"):  # the stack deletes its group, and could not make it beside another
        with pytest.raises(ClientError, match="AccessDenied"):
            logs.create_log_group(logGroupName=name)
    with pytest.raises(ClientError, match="AccessDenied"):
        logs.describe_log_streams(logGroupName=group)


@pytest.mark.parametrize(
    ("source", "is_trusted"),
    [
        (PROJECT, True),
        (PROJECT.replace("orchestrator", "another"), False),
        (PROJECT.replace(ACCOUNT, "210987654321"), False),
        (PROJECT.replace(REGION, "us-east-1"), False),
        (PROJECT.replace("codebuild", "sagemaker"), False),
    ],
)
def test_the_role_is_taken_on_for_the_project_of_this_stack_alone(built: Built, source: str, is_trusted: bool) -> None:
    assert roles.trusts_service(built.role, source, "codebuild.amazonaws.com") is is_trusted
    assert not roles.trusts_service(built.role, source)  # SageMaker
