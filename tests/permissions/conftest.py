"""A stack, somebody with the submit policy and nothing else, and policies in force."""

import functools
import json
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from account import push
from moto import mock_aws
from sagemaker_simulator import Image, SageMakerSimulator, enforce_policies, in_process

from orchestrator.aws import client as aws_module
from orchestrator.aws.client import Aws
from orchestrator.infra import account as infra
from orchestrator.settings import HOME_VARIABLE, Settings
from tests.permissions.grants import Grants
from tests.permissions.walk import World
from tests.template import template

REGION = "eu-west-1"
NETWORK = {"Subnets": "subnet-1", "SecurityGroups": "sg-1"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Make the stack as its owner; from then on policies are in force and the commands are given by somebody else."""
    folder = tmp_path_factory.mktemp("permissions")
    settings = Settings(home=folder / "home")
    with pytest.MonkeyPatch.context() as patch, mock_aws(), _simulator(folder) as simulator, in_process(simulator):
        _set_up_machine(patch, settings, simulator)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Tried to parse")  # what moto leaves out of the stack
            account = infra.up(Aws(REGION), settings, NETWORK, report=lambda _event: None)
        _close_the_bucket(account.bucket)
        push(account.training_image)
        owner = functools.cache(functools.partial(boto3.client, **_hire("owner", policy=json.dumps(_EVERYTHING))))
        keys = _hire("ada", managed=account.submit_policy_arn)
        patch.setenv("AWS_ACCESS_KEY_ID", keys["aws_access_key_id"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", keys["aws_secret_access_key"])
        # One session for all commands: each would read the services' models anew.
        patch.setattr(aws_module, "_new_session", functools.cache(aws_module._new_session))
        with enforce_policies():
            yield World(simulator, account, owner, Aws(REGION), Grants(owner, account))


def _close_the_bucket(bucket: str) -> None:
    """Put the bucket's policy in place, which moto's CloudFormation leaves out."""
    document = json.dumps(template()["Resources"]["BucketPolicy"]["Properties"]["PolicyDocument"])
    arn = f"arn:aws:s3:::{bucket}"
    document = document.replace("${Bucket.Arn}", arn).replace('"Bucket.Arn"', f'"{arn}"')
    boto3.client("s3").put_bucket_policy(Bucket=bucket, Policy=document)


_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def _simulator(folder: Path) -> SageMakerSimulator:
    """Return a simulator in which every image is the one of `image.py`."""
    python = folder / "python"
    script = Path(__file__).with_name("image.py").read_text()
    python.write_text(f"#!{sys.executable} -S\n{script}")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return SageMakerSimulator(images=_Always(python=str(python), toolkit=False))


class _Always(dict[str, Image]):
    """The same image under every name."""

    def __init__(self, **about: Any) -> None:
        super().__init__()
        self.image = Image(**about)

    def get(self, key: str, default: Any = None) -> Image:  # noqa: ARG002
        return self.image


def _set_up_machine(patch: pytest.MonkeyPatch, settings: Settings, simulator: SageMakerSimulator) -> None:
    patch.setenv(HOME_VARIABLE, str(settings.home))
    patch.setenv("AWS_CONFIG_FILE", str(settings.home / "none"))
    patch.setenv("AWS_DEFAULT_REGION", REGION)
    patch.setenv("AWS_REGION", REGION)
    patch.delenv("AWS_SESSION_TOKEN", raising=False)
    # Commands that wait let the simulator's time go by.
    waits = SimpleNamespace(sleep=simulator.pass_time, monotonic=time.monotonic)
    for module in ("target", "following"):
        patch.setattr(f"orchestrator.targets.sagemaker.{module}.time", waits)


def _hire(name: str, *, policy: str = "", managed: str | None = None) -> dict[str, str]:
    """Return the access key of a new user with a policy."""
    iam = boto3.client("iam")
    iam.create_user(UserName=name)
    if policy:
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=policy)
    if managed:
        iam.attach_user_policy(UserName=name, PolicyArn=managed)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
