"""An account with a bucket, and a host whose calls a test can look at and disturb."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from account import push
from moto import mock_aws
from sagemaker_simulator.validation import LOADER

from orchestrator.aws import client as aws_module
from orchestrator.contract.bundle import BundleKind
from orchestrator.endpoints.sagemaker.host import SageMakerHost
from orchestrator.models.tree import model_tree
from orchestrator.planning.bundle import bundle_tree
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import Settings
from tests.endpoints.sagemaker.deployments import ACCOUNT, REGION, publish_adapter
from tests.endpoints.sagemaker.service import Service


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[Service]:
    """The service, in an account that this machine knows."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    _read_models_once(monkeypatch)
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.aws_file.write_text(ACCOUNT.model_dump_json())
    with mock_aws():
        boto3.client("s3").create_bucket(
            Bucket=ACCOUNT.bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        push(str(ACCOUNT.inference_image))
        boto3.client("iam").create_role(RoleName="endpoint", AssumeRolePolicyDocument="{}")
        for tree in (bundle_tree(BundleKind.SERVING), model_tree(BUILTIN_MODEL)):  # what is there is not sent again
            manifest = f"manifests/{tree.kind}/{tree.sha256}.json"
            boto3.client("s3").put_object(Bucket=ACCOUNT.bucket, Key=manifest, Body=b"{}")
        yield Service()


def _read_models_once(patch: pytest.MonkeyPatch) -> None:
    """Have all sessions share what they read of botocore's models, which is most of what making a client costs."""
    new_session = aws_module._new_session

    def make() -> Any:
        session = new_session()
        session._session.register_component("data_loader", LOADER)
        return session

    patch.setattr(aws_module, "_new_session", make)


@pytest.fixture
def make_host(service: Service, settings: Settings) -> Callable[[], SageMakerHost]:
    """Make a host, as another process or another machine does."""

    def make() -> SageMakerHost:
        host = SageMakerHost(settings, sleep=service.sleep, now=lambda: service.now)
        service.attach(host._aws)
        return host

    return make


@pytest.fixture
def host(make_host: Callable[[], SageMakerHost]) -> SageMakerHost:
    return make_host()


@pytest.fixture
def publish(settings: Settings) -> Callable[..., Path]:
    """Publish an adapter on this machine."""

    return functools.partial(publish_adapter, settings)
