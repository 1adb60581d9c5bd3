"""What the submit policy of the template allows, with IAM in force: what the client does, and no more."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from moto import mock_aws

from orchestrator import infra
from orchestrator.aws import Aws
from orchestrator.errors import AccessError
from orchestrator.settings import AwsSettings, Settings
from orchestrator.stack import StackEvent
from orchestrator.storage import S3Store
from orchestrator.storage.bucket import Bucket

REGION = "eu-west-1"


class Desk(NamedTuple):
    """Where somebody sits who has the submit policy and nothing else."""

    aws: Aws
    account: AwsSettings
    settings: Settings


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Make a stack and a person, and put IAM in force."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with mock_aws(), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.filterwarnings("ignore", message="Tried to parse AWS::S3::BucketPolicy")
        patch.setenv("AWS_CONFIG_FILE", str(settings.home / "none"))
        owner = Aws(REGION)
        account = infra.up(owner, settings, {}, told=_nobody)
        key = _hire(owner.client("iam"), str(account.submit_policy_arn))
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        patch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
        yield Desk(Aws(REGION), account, settings)


def _nobody(_event: StackEvent) -> None:
    """Hear what happens and say nothing."""


def _hire(iam: Any, policy_arn: str) -> dict[str, str]:
    """Return the access key of a new user with the policy."""
    iam.create_user(UserName="ada")
    policy = iam.get_policy_version(PolicyArn=policy_arn, VersionId="v1")["PolicyVersion"]["Document"]
    iam.put_user_policy(UserName="ada", PolicyName="submit", PolicyDocument=json.dumps(_widened(policy)))
    key: dict[str, str] = iam.create_access_key(UserName="ada")["AccessKey"]
    return key


def _widened(policy: dict[str, Any]) -> dict[str, Any]:
    """Return the policy with every resource but those of S3 as "*": moto tells resources apart nowhere else."""
    statements = [one if "s3:" in str(one["Action"]) else {**one, "Resource": "*"} for one in policy["Statement"]]
    return {**policy, "Statement": statements}


def test_whoever_submits_can_store_what_a_job_reads_and_fetch_it(desk: Desk, tmp_path: Path) -> None:
    store = S3Store(desk.aws, desk.account.bucket, desk.account.account_id)
    with store.staging() as folder:
        (folder / "picture.png").write_bytes(b"picture")
        uri = store.put_tree("data", folder)
    store.get_tree(uri, tmp_path / "back")
    assert (tmp_path / "back" / "picture.png").read_bytes() == b"picture"


def test_whoever_submits_can_read_the_stack(desk: Desk) -> None:
    desk.settings.aws_file.unlink()
    assert infra.show(desk.aws, desk.settings) == desk.account


Deed = Callable[[Desk], object]
FORBIDDEN: dict[str, Deed] = {
    "deleting what is stored": lambda desk: infra._Bucket(desk.aws, desk.account.bucket)._delete(
        [{"Key": "data/x", "VersionId": "null"}]
    ),
    "writing an adapter": lambda desk: Bucket(desk.aws, desk.account.bucket, desk.account.account_id).call(
        "put_object", Key="adapters/dog/adapter.json", Body=b"{}"
    ),
    "changing the stack": lambda desk: infra.up(desk.aws, desk.settings, {}, told=_nobody),
    "removing the stack": lambda desk: infra.down(desk.aws, desk.settings, told=_nobody),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_whoever_submits_cannot_do_more(desk: Desk, what: str) -> None:
    with pytest.raises(AccessError):
        FORBIDDEN[what](desk)
