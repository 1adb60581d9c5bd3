"""The policies of endpoints: they carry every call, nothing that is granted is without use, and nothing else goes.

What is asked for is written down while endpoints of all modes are deployed, called, scaled and deleted under the
policies in force. An action that only AWS's documentation asks for is in needs.yaml with the page that does.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
import yaml
from account import push
from botocore.exceptions import ClientError
from moto import mock_aws
from sagemaker_simulator import STAND_IN, SageMakerSimulator, enforce_policies, in_process, policies, principals

from orchestrator.aws.client import Aws, calling
from orchestrator.endpoints.hosts import EndpointStatus
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.errors import AccessError
from orchestrator.infra import account as infra
from orchestrator.settings import AwsSettings, Settings
from tests.endpoints.sagemaker.deployments import deployment, publish_adapter
from tests.permissions.conftest import NETWORK, REGION, _Always, _close_the_bucket, _hire, _set_up_machine
from tests.permissions.grants import actions_of
from tests.template import template

ENDPOINTS = yaml.safe_load(Path(__file__).with_name("needs.yaml").read_text())["endpoints"]
HOUR = 3600.0


class Endpoints(NamedTuple):
    """An account in which endpoints of all modes came and went."""

    simulator: SageMakerSimulator
    account: AwsSettings
    host: SageMakerHost
    asked: dict[str, set[str]]
    """Name of a principal to the actions that it needed."""


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Deploy, call, scale and delete an endpoint of each mode, with the policy for that and nothing else."""
    settings = Settings(home=tmp_path_factory.mktemp("endpoints") / "home")
    simulator = SageMakerSimulator(images=_Always(entrypoint=STAND_IN.entrypoint))
    with pytest.MonkeyPatch.context() as patch, mock_aws(), simulator, in_process(simulator):
        _set_up_machine(patch, settings, simulator)
        account = _made(settings)
        keys = _hire("grace", managed=account.deploy_policy_arn)
        patch.setenv("AWS_ACCESS_KEY_ID", keys["aws_access_key_id"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", keys["aws_secret_access_key"])
        asked: dict[str, set[str]] = defaultdict(set)
        patch.setattr(principals, "may", _written_down(asked, principals.may))
        with enforce_policies():
            publish_adapter(settings, "dog")
            host = SageMakerHost(settings, sleep=simulator.pass_time, now=simulator.clock.now)
            infra.show(Aws(REGION), settings)
            for mode in Mode:
                _come_and_go(host, mode)
            yield Endpoints(simulator, account, host, asked)


def _made(settings: Settings) -> AwsSettings:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tried to parse")  # what moto leaves out of the stack
        account = infra.up(Aws(REGION), settings, NETWORK, report=lambda _event: None)
    _close_the_bucket(account.bucket)
    push(str(account.inference_image))
    return account


def _written_down(asked: dict[str, set[str]], may: Any) -> Any:
    def may_and_write(principal: Any, access: policies.Access) -> bool:
        asked[principal.arn.rpartition("/")[2]].add(access.action)
        allowed: bool = may(principal, access)
        return allowed

    return may_and_write


def _come_and_go(host: SageMakerHost, mode: Mode) -> None:
    host.deploy(host.plan(deployment(mode, adapters=("dog",), most_instances=2)))
    assert host.wait_until_in_service("dogs", HOUR).status is EndpointStatus.IN_SERVICE
    host.invoke("dogs", json.dumps({"inputs": "a dog", "padding": "x" * 200_000}).encode(), "application/json")
    assert list(host.log_lines("dogs", follow=False))
    host.deploy(host.plan(deployment(mode, most_instances=2, slots=3)))
    assert host.wait_until_in_service("dogs", HOUR).status is EndpointStatus.IN_SERVICE
    host.scale("dogs", 2, 2)
    host.wait_until_in_service("dogs", HOUR)
    host.collect()
    host.delete("dogs")


@pytest.mark.parametrize("grant", ENDPOINTS, ids=lambda grant: str(grant["resource"]))
def test_what_is_granted_for_endpoints_is_what_they_ask_for(endpoints: Endpoints, grant: dict[str, Any]) -> None:
    document = template()["Resources"][grant["resource"]]["Properties"]["PolicyDocument"]
    granted = actions_of(document)
    assert granted == sorted(grant["actions"])
    who = (
        "grace" if grant["resource"] == "DeployPolicy" else str(endpoints.account.endpoint_role_arn).rpartition("/")[2]
    )
    documented = {action for action, about in grant["actions"].items() if "documented" in about}
    assert set(granted) - documented - endpoints.asked[who] == set(), "granted, and never asked for"


def test_whoever_deploys_changes_no_endpoint_of_another_program(endpoints: Endpoints) -> None:
    sagemaker = endpoints.host._aws.client("sagemaker")
    with pytest.raises(AccessError), calling("create without a tag"):
        sagemaker.create_model(ModelName="theirs", ExecutionRoleArn=endpoints.account.endpoint_role_arn)
    arn = f"arn:aws:sagemaker:{REGION}:{endpoints.account.account_id}:endpoint/theirs"
    endpoints.simulator.tags[arn] = {"team": "another"}
    tag = {"Key": "orchestrator:endpoint", "Value": "theirs"}
    deeds = {
        "delete": lambda: sagemaker.delete_endpoint(EndpointName="theirs"),
        "update": lambda: sagemaker.update_endpoint(EndpointName="theirs", EndpointConfigName="x"),
        "tag": lambda: sagemaker.add_tags(ResourceArn=arn, Tags=[tag]),
        "alarm": lambda: endpoints.host._aws.client("cloudwatch").delete_alarms(AlarmNames=["theirs"]),
        "alarm of a service that scales": lambda: endpoints.host._aws.client("cloudwatch").delete_alarms(
            AlarmNames=["TargetTracking-service/theirs-AlarmHigh-1"]
        ),
        "replace": lambda: endpoints.host._aws.client("s3").put_object(
            Bucket=endpoints.account.bucket, Key="endpoints/x", Body=b"mine"
        ),
        "adapter": lambda: endpoints.host._aws.client("s3").put_object(
            Bucket=endpoints.account.bucket, Key="adapters/x", Body=b"mine"
        ),
    }
    for doing, deed in deeds.items():
        with pytest.raises(AccessError), calling(doing):
            deed()


def test_the_role_of_endpoints_reads_no_pictures_and_no_checkpoints(endpoints: Endpoints) -> None:
    from sagemaker_simulator import roles

    s3 = boto3.client("s3", **roles.assume(str(endpoints.account.endpoint_role_arn), REGION))
    for key in ("data/x", "checkpoints/x", "adapters/x", "manifests/x"):
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.get_object(Bucket=endpoints.account.bucket, Key=key)
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=endpoints.account.bucket, Key="endpoints/x", Body=b"x", IfNoneMatch="*")


@pytest.mark.parametrize(
    ("account", "region", "is_trusted"),
    [("123456789012", REGION, True), ("210987654321", REGION, False), ("123456789012", "us-east-1", False)],
)
def test_the_role_is_taken_on_for_this_accounts_endpoints_alone(
    endpoints: Endpoints, account: str, region: str, is_trusted: bool
) -> None:
    from sagemaker_simulator import roles

    arn = f"arn:aws:sagemaker:{region}:{account}:model/model"
    assert roles.trusts_service(str(endpoints.account.endpoint_role_arn), arn) is is_trusted
