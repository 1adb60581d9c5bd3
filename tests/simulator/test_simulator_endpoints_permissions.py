"""While policies are enforced, whoever deploys an endpoint needs SageMaker's actions, and its role those of its own."""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import boto3
import pytest
from account import BUCKET, ROLE
from botocore.exceptions import ClientError
from hosted import SCALABLE, config_request, model_request, stand_in_account
from sagemaker_simulator import SageMakerSimulator, enforce_policies

HERE = "arn:aws:sagemaker:eu-west-1:123456789012"
NETWORK = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
WORKER = {
    "s3:ListBucket": f"arn:aws:s3:::{BUCKET}",
    "s3:GetObject": f"arn:aws:s3:::{BUCKET}/*",
    "logs:CreateLogGroup": "*",
    "logs:CreateLogStream": "*",
    "logs:DescribeLogStreams": "*",
    "logs:PutLogEvents": "*",
    "ecr:GetAuthorizationToken": "*",
    "ecr:BatchCheckLayerAvailability": "*",
    "ecr:BatchGetImage": "*",
    "ecr:GetDownloadUrlForLayer": "arn:aws:ecr:eu-west-1:123456789012:repository/training",
    "ec2:CreateNetworkInterface": "*",
    "ec2:CreateNetworkInterfacePermission": "*",
    "ec2:DeleteNetworkInterface": "*",
    "ec2:DeleteNetworkInterfacePermission": "*",
    "ec2:DescribeDhcpOptions": "*",
    "ec2:DescribeNetworkInterfaces": "*",
    "ec2:DescribeSecurityGroups": "*",
    "ec2:DescribeSubnets": "*",
    "ec2:DescribeVpcs": "*",
}
CALLER = {
    "sagemaker:CreateModel": f"{HERE}:model/model",
    "sagemaker:CreateEndpointConfig": f"{HERE}:endpoint-config/config",
    "sagemaker:CreateEndpoint": [f"{HERE}:endpoint/endpoint", f"{HERE}:endpoint-config/config"],
    "sagemaker:AddTags": f"{HERE}:model/model",
    "sagemaker:InvokeEndpoint": f"{HERE}:endpoint/endpoint",
    "sagemaker:DeleteEndpoint": f"{HERE}:endpoint/endpoint",
    "iam:PassRole": ROLE,
    "application-autoscaling:DeregisterScalableTarget": "*",
}


class Caller(NamedTuple):
    """Somebody with policies."""

    sagemaker: Any
    runtime: Any
    model: dict[str, Any]

    def create(self) -> None:
        self.sagemaker.create_model(**self.model, VpcConfig=NETWORK, Tags=[{"Key": "owner", "Value": "me"}])
        self.sagemaker.create_endpoint_config(**config_request())
        self.sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")


def document(actions: dict[str, Any], without: str) -> str:
    statements = []
    for action, resource in actions.items():
        if action != without:
            statements.append({"Effect": "Allow", "Action": action, "Resource": resource})
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@pytest.fixture
def simulator(aws: None) -> Iterator[SageMakerSimulator]:
    yield from stand_in_account()


@pytest.fixture
def caller(simulator: SageMakerSimulator) -> Iterator[Callable[..., Caller]]:
    """Make somebody with policies, less one action; from then on they are enforced."""
    iam = boto3.client("iam")
    iam.create_user(UserName="somebody")
    keys = iam.create_access_key(UserName="somebody")["AccessKey"]
    credentials = {"aws_access_key_id": keys["AccessKeyId"], "aws_secret_access_key": keys["SecretAccessKey"]}
    enforcement = enforce_policies()

    def make(without: str = "") -> Caller:
        model = model_request()
        iam.put_user_policy(UserName="somebody", PolicyName="p", PolicyDocument=document(CALLER, without))
        iam.put_role_policy(RoleName="training", PolicyName="p", PolicyDocument=document(WORKER, without))
        boto3.client("application-autoscaling").register_scalable_target(**SCALABLE, MinCapacity=1, MaxCapacity=2)
        enforcement.__enter__()
        clients = (boto3.client(name, **credentials) for name in ("sagemaker", "sagemaker-runtime"))
        return Caller(*clients, model)

    yield make
    enforcement.__exit__(None, None, None)


def test_these_actions_carry_an_endpoint(simulator: SageMakerSimulator, caller: Callable[..., Caller]) -> None:
    somebody = caller()
    somebody.create()
    simulator.hosting.run_until("endpoint", "InService")
    assert somebody.runtime.invoke_endpoint(EndpointName="endpoint", Body=b"{}")["Body"].read()
    streams = somebody.runtime.invoke_endpoint_with_response_stream(EndpointName="endpoint", Body=b"{}")
    assert list(streams["Body"])
    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:InvokeEndpoint on resource"):
        somebody.runtime.invoke_endpoint(EndpointName="other", Body=b"{}")
    somebody.sagemaker.delete_endpoint(EndpointName="endpoint")
    simulator.hosting.run_until_gone("endpoint")
    assert any("stand-in serves" in line for line in simulator.hosting.log_lines("endpoint"))


@pytest.mark.parametrize(
    "action",
    [
        "sagemaker:CreateModel",
        "sagemaker:AddTags",
        "iam:PassRole",
        "sagemaker:CreateEndpointConfig",
        "sagemaker:CreateEndpoint",
    ],
)
def test_a_caller_without_an_action_is_refused_by_its_name(caller: Callable[..., Caller], action: str) -> None:
    with pytest.raises(ClientError, match=f"AccessDeniedException.*user/somebody is not authorized.*{action}"):
        caller(without=action).create()


def test_an_endpoint_that_scales_is_deleted_by_whoever_may_end_its_scaling(
    simulator: SageMakerSimulator, caller: Callable[..., Caller]
) -> None:
    somebody = caller(without="application-autoscaling:DeregisterScalableTarget")
    somebody.create()
    simulator.hosting.run_until("endpoint", "InService")
    with pytest.raises(ClientError, match="does not have application-autoscaling:DeregisterScalableTarget permission"):
        somebody.sagemaker.delete_endpoint(EndpointName="endpoint")


def test_a_role_that_may_not_list_the_model_data_is_refused_at_once(caller: Callable[..., Caller]) -> None:
    with pytest.raises(ClientError, match="Could not access model data"):
        caller(without="s3:ListBucket").create()


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("s3:GetObject", "Failed to download model data"),
        ("ecr:BatchGetImage", "CannotStartContainerError"),
        ("ec2:DescribeVpcs", "not authorized to perform: ec2:DescribeVpcs"),
    ],
)
def test_a_role_without_an_action_fails_where_it_is_needed(
    simulator: SageMakerSimulator, caller: Callable[..., Caller], action: str, reason: str
) -> None:
    caller(without=action).create()
    simulator.hosting.run_until("endpoint", "Failed")
    assert reason in str(simulator.hosting.endpoint("endpoint").failure_reason)


def test_a_role_that_may_not_write_logs_serves_in_the_dark(
    simulator: SageMakerSimulator, caller: Callable[..., Caller]
) -> None:
    caller(without="logs:PutLogEvents").create()
    simulator.hosting.run_until("endpoint", "InService")
