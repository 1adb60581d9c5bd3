"""The policy of those who label: it carries `label`, nothing in it is without use, and nothing else goes."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest
import yaml
from account import bare_request
from moto import mock_aws
from sagemaker_simulator import SageMakerSimulator, enforce_policies, in_process, principals

from orchestrator.aws.client import Aws, calling
from orchestrator.contract.labels import LabelMessage, RoundManifest
from orchestrator.errors import AccessError
from orchestrator.infra import account as infra
from orchestrator.jobs.exchanges import exchange_of, finder
from orchestrator.labels import queue as queue_module
from orchestrator.labels.desk import Desk
from orchestrator.labels.exchange import Exchange
from orchestrator.labels.open_round import Said
from orchestrator.labels.queue import LabelQueue
from orchestrator.requests import IDENTITY_TAG
from orchestrator.settings import AwsSettings, Settings
from orchestrator.storage.bucket import Bucket
from orchestrator.targets.names import TargetName
from orchestrator.targets.opening import open_target
from tests.labels.made import label, made_round
from tests.permissions.conftest import REGION, _Always, _close_the_bucket, _hire, _set_up_machine
from tests.permissions.grants import actions_of
from tests.permissions.test_endpoints import _written_down
from tests.template import template

[LABELS] = yaml.safe_load(Path(__file__).with_name("needs.yaml").read_text())["labels"]
JOB = "fox-0123456789"
CHECKPOINTS = "checkpoints/0123/"


class Labelled(NamedTuple):
    """A round of a job that was labelled with the policy for that."""

    account: AwsSettings
    manifest: RoundManifest
    exchange: Exchange
    asked: set[str]
    """What was asked for."""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labelled]:
    """Label a round by hand, and by a message."""
    folder = tmp_path_factory.mktemp("labels")
    settings = Settings(home=folder / "home")
    simulator = SageMakerSimulator(images=_Always())
    with pytest.MonkeyPatch.context() as patch, mock_aws(), simulator, in_process(simulator):
        _set_up_machine(patch, settings, simulator)
        patch.setattr(queue_module, "_WAIT_SECONDS", 0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Tried to parse")  # what moto leaves out of the stack
            account = infra.up(Aws(REGION), settings, {"Labels": "make"}, report=lambda _event: None)
        manifest = _drawn(account, folder / "exchange")
        _close_the_bucket(account.bucket)
        keys = _hire("lin", managed=account.label_policy_arn)
        patch.setenv("AWS_ACCESS_KEY_ID", keys["aws_access_key_id"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", keys["aws_secret_access_key"])
        asked: dict[str, set[str]] = defaultdict(set)
        patch.setattr(principals, "may", _written_down(asked, principals.may))
        with enforce_policies():
            target = open_target(TargetName.SAGEMAKER, settings)
            LabelQueue(Aws(REGION), str(account.label_queue_url)).collect(finder([target]))
            exchange = exchange_of(target, JOB)
            desk = Desk(exchange, folder / "kept")
            desk.picture(manifest.samples[0].id)
            with desk.sending():
                desk.add(Said(id="f" * 32, by="ada", round=0, sample=manifest.samples[1].id, rating=5))
            yield Labelled(account, manifest, exchange, asked["lin"])


def _drawn(account: AwsSettings, folder: Path) -> RoundManifest:
    """Make a job that has drawn a round, and a message with a label of it."""
    s3 = boto3.client("s3")
    manifest = made_round(folder, job=JOB)
    for path in sorted(folder.rglob("*.*")):
        key = f"{CHECKPOINTS}exchange/{path.relative_to(folder).as_posix()}"
        s3.put_object(Bucket=account.bucket, Key=key, Body=path.read_bytes())
    request = bare_request(
        JOB,
        RoleArn=account.role_arn,
        OutputDataConfig={"S3OutputPath": f"s3://{account.bucket}/adapters/fox/"},
        CheckpointConfig={"S3Uri": f"s3://{account.bucket}/{CHECKPOINTS}"},
        Tags=[{"Key": IDENTITY_TAG, "Value": "0" * 64}],
    )
    del request["InputDataConfig"]
    boto3.client("sagemaker").create_training_job(**request)
    rated = label(1, by="ben", sample=manifest.samples[0].id, rating=2)
    message = LabelMessage(job=JOB, round=0, labels=(rated,))
    boto3.client("sqs").send_message(QueueUrl=account.label_queue_url, MessageBody=message.model_dump_json())
    return manifest


def test_the_policy_carries_labels_by_hand_and_through_the_queue(labelled: Labelled) -> None:
    settlement = labelled.exchange.settled(0)
    assert settlement.people == ("ada", "ben")
    assert len(settlement.missing) == 4


def test_what_is_granted_is_what_is_asked_for(labelled: Labelled) -> None:
    granted = actions_of(template()["Resources"]["LabelPolicy"]["Properties"]["PolicyDocument"])
    assert granted == sorted(LABELS["actions"])
    assert set(granted) - labelled.asked == set(), "granted, and never asked for"


@pytest.mark.parametrize(
    "key",
    [
        "checkpoints/0123/exchange/rounds/0000/manifest.json",
        "checkpoints/0123/exchange/rounds/0000/closed.json",
        "checkpoints/0123/exchange/rounds/0000/pictures/0.png",
        "checkpoints/0123/step-00000001/checkpoint.json",
        "adapters/fox/adapter.json",
    ],
)
def test_whoever_labels_changes_nothing_but_labels(labelled: Labelled, key: str) -> None:
    bucket = Bucket(Aws(REGION), labelled.account.bucket, labelled.account.account_id)
    with pytest.raises(AccessError):
        bucket.call("put_object", Key=key, Body=b"{}")


def test_whoever_labels_reads_no_checkpoint_and_no_photo(labelled: Labelled) -> None:
    bucket = Bucket(Aws(REGION), labelled.account.bucket, labelled.account.account_id)
    for prefix in ("checkpoints/0123/step", "data/", ""):
        with pytest.raises(AccessError):
            bucket.list(prefix)
        with pytest.raises(AccessError):
            bucket.get(f"{prefix}x", max_bytes=10)


def test_whoever_labels_starts_and_stops_no_job(labelled: Labelled) -> None:
    sagemaker = Aws(REGION).client("sagemaker")
    for doing, deed in {
        "stop": lambda: sagemaker.stop_training_job(TrainingJobName=JOB),
        "start": lambda: sagemaker.create_training_job(**bare_request("mine", RoleArn=labelled.account.role_arn)),
    }.items():
        with pytest.raises(AccessError), calling(doing):
            deed()
