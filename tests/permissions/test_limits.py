"""What the policies of the template do not allow: nothing beyond the product's own ways through."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from sagemaker_simulator import permissions, roles

from orchestrator.aws.client import calling
from orchestrator.contract.digest import hash_file
from orchestrator.errors import AccessError
from orchestrator.infra import account as infra
from orchestrator.settings import Settings
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.meter import Meter
from orchestrator.storage.upload import Upload, Uploader
from tests.permissions.conftest import REGION
from tests.permissions.walk import World

Client = Callable[[str], Any]


def _nobody(_event: object) -> None:
    """Hear what happens and say nothing."""


def _bucket(world: World) -> Bucket:
    return Bucket(world.submitter, world.account.bucket, world.account.account_id)


def _put(prefix: str) -> Callable[[World], object]:
    return lambda world: _bucket(world).call("put_object", Key=f"{prefix}/dog/adapter.json", Body=b"{}")


def _ask(service: str, operation: str, **parameters: Any) -> Callable[[World], object]:
    return lambda world: getattr(world.submitter.client(service), operation)(**parameters)


FORBIDDEN_TO_WHO_SUBMITS: dict[str, Callable[[World], object]] = {
    "writing an adapter": _put("adapters"),
    "writing a checkpoint": _put("checkpoints"),
    "writing beside all prefixes": _put("elsewhere"),
    "writing what images are built from": _put("builds"),
    "reading a checkpoint": lambda world: _bucket(world).get("checkpoints/x", max_bytes=10),
    "deleting what is stored": lambda world: _bucket(world).call("delete_object", Key="data/x"),
    "changing the stack": lambda world: infra.up(world.submitter, Settings.from_environment(), {}, report=_nobody),
    "removing the stack": lambda world: infra.down(world.submitter, Settings.from_environment(), report=_nobody),
    "reading another stack": _ask("cloudformation", "describe_stacks", StackName="another"),
    "reading another log": _ask("logs", "describe_log_streams", logGroupName="/aws/lambda/another"),
    "writing a log": _ask("logs", "create_log_group", logGroupName="/aws/sagemaker/TrainingJobs"),
    "changing one's rights": _ask("iam", "list_users"),
}


@pytest.mark.parametrize("what", FORBIDDEN_TO_WHO_SUBMITS)
def test_whoever_submits_cannot_do_more(world: World, what: str) -> None:
    with pytest.raises(AccessError), calling(what):
        FORBIDDEN_TO_WHO_SUBMITS[what](world)


def test_whoever_submits_can_hand_on_the_jobs_role_alone(world: World) -> None:
    world.owner("iam").create_role(RoleName="powerful", AssumeRolePolicyDocument='{"Statement": []}')
    request = {
        "TrainingJobName": "mine",
        "RoleArn": f"arn:aws:iam::{world.account.account_id}:role/powerful",
        "AlgorithmSpecification": {"TrainingImage": world.account.training_image, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": f"s3://{world.account.bucket}/adapters/mine"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    with pytest.raises(AccessError, match="iam:PassRole is not allowed"), calling("submit"):
        world.submitter.client("sagemaker").create_training_job(**request)


def _replace(key: str) -> Callable[[World], object]:
    return lambda world: _bucket(world).call("put_object", Key=key, Body=b"mine")


def _replace_in_parts(key: str) -> Callable[[World], object]:
    def replace(world: World) -> object:
        bucket = _bucket(world)
        upload = {"Key": key, "UploadId": bucket.call("create_multipart_upload", Key=key)["UploadId"]}
        part = bucket.call("upload_part", **upload, PartNumber=1, Body=b"mine")
        parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
        return bucket.call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})

    return replace


def _replace_what_it_has_read(key: str) -> Callable[[World], object]:
    def replace(world: World) -> object:
        bucket = _bucket(world)
        etag = bucket.call("head_object", Key=key)["ETag"]
        return bucket.call("put_object", Key=key, Body=b"mine", IfMatch=etag)

    return replace


WAYS = {"at once": _replace, "in parts": _replace_in_parts, "by its ETag": _replace_what_it_has_read}
SHARED = [
    *("data/of-another", "code/of-another", "models/of-another"),
    *("manifests/data/of-another", "manifests/code/of-another", "manifests/models/of-another"),
    f"manifests/hub/org%2Fmodel/{'4d7a' * 10}.json",
]


@pytest.mark.parametrize("key", SHARED)
@pytest.mark.parametrize("way", WAYS)
def test_whoever_submits_replaces_no_code_no_model_and_no_data_of_others(world: World, key: str, way: str) -> None:
    asked = {"Bucket": world.account.bucket, "Key": key}
    world.owner("s3").delete_object(**asked)
    world.owner("s3").put_object(**asked, Body=b"theirs", IfNoneMatch="*")
    with pytest.raises(AccessError), calling("replace it"):
        WAYS[way](key)(world)
    assert world.owner("s3").get_object(**asked)["Body"].read() == b"theirs"


def test_whoever_submits_mirrors_a_branch_again(world: World) -> None:
    replace = _replace("manifests/hub/org%2Fmodel/main.json")
    replace(world)
    replace(world)


@pytest.mark.parametrize("bytes_", [3, 11 * 2**20], ids=["at once", "in parts"])
def test_whoever_submits_adds_what_is_not_there(world: World, tmp_path: Path, bytes_: int) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(bytes_))
    digest = hash_file(path)
    upload = Upload(f"models/{digest.sha256}/weights", path, digest.size, digest.sha256)
    uploader = Uploader(_bucket(world), Meter("models", 0), parts_above=6 * 2**20, part_bytes=5 * 2**20)
    uploader.send([upload], {})
    stored = _bucket(world).head(upload.key)
    assert stored is not None
    assert stored.size == bytes_


@pytest.fixture(scope="module")
def job(world: World) -> Client:
    """Make clients that may what a job may."""
    credentials = roles.assume(world.account.role_arn, REGION)
    return lambda service: boto3.client(service, **credentials)


@pytest.fixture(scope="module")
def _objects(world: World) -> None:
    for prefix in ("adapters", "checkpoints", "manifests", "elsewhere"):
        world.owner("s3").put_object(Bucket=world.account.bucket, Key=f"{prefix}/x", Body=b"x")


@pytest.mark.usefixtures("_objects")
@pytest.mark.parametrize(
    ("operation", "asked"),
    [
        ("delete_object", {"Key": "adapters/x"}),
        ("delete_object", {"Key": "data/x"}),
        ("put_object", {"Key": "data/x"}),
        ("put_object", {"Key": "code/x"}),
        ("put_object", {"Key": "manifests/x"}),
        ("get_object", {"Key": "adapters/x"}),
        ("get_object", {"Key": "manifests/x"}),
        ("get_object", {"Key": "elsewhere/x"}),
        ("list_objects_v2", {}),
        ("list_objects_v2", {"Prefix": "manifests/"}),
    ],
    ids=str,
)
def test_a_job_reaches_its_own_prefixes_alone(world: World, job: Client, operation: str, asked: dict[str, str]) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        getattr(job("s3"), operation)(Bucket=world.account.bucket, **asked)


@pytest.mark.usefixtures("_objects")
def test_a_job_lets_go_of_its_own_checkpoints(world: World, job: Client) -> None:
    job("s3").delete_object(Bucket=world.account.bucket, Key="checkpoints/x")
    assert "Contents" not in job("s3").list_objects_v2(Bucket=world.account.bucket, Prefix="checkpoints/x")


def test_a_job_writes_no_other_log(job: Client) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        job("logs").create_log_group(logGroupName="/aws/lambda/another")


def test_a_job_writes_no_other_metrics(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "NAMESPACE", "AWS/Billing")
    assert permissions.missing_for_metrics(world.account.role_arn) == "cloudwatch:PutMetricData"


def test_a_job_pulls_no_other_image(world: World) -> None:
    role, image = world.account.role_arn, world.account.training_image
    assert permissions.missing_for_image(role, image) is None
    for another in ("another", "orchestrator-inference"):  # training pulls no image of endpoints
        assert permissions.missing_for_image(role, image.replace("orchestrator-training", another))


def test_the_key_is_good_for_the_bucket_alone(world: World, job: Client) -> None:
    for client in (world.submitter.client("kms"), job("kms")):
        with pytest.raises(ClientError, match="AccessDenied"):
            client.generate_data_key(KeyId=world.account.kms_key_arn, KeySpec="AES_256")


def test_the_bucket_is_closed_to_whom_nobody_can_listen_to(world: World) -> None:
    asked = {"Bucket": world.account.bucket, "Body": b"x", "IfNoneMatch": "*"}
    world.owner("s3").put_object(**asked, Key="data/secret")
    with pytest.raises(ClientError, match="AccessDenied"):  # the owner, who may everything
        world.owner("s3", endpoint_url=f"http://s3.{REGION}.amazonaws.com").put_object(**asked, Key="data/another")


@pytest.mark.parametrize(
    ("account", "region", "is_trusted"),
    [("123456789012", REGION, True), ("210987654321", REGION, False), ("123456789012", "us-east-1", False)],
)
def test_the_role_is_taken_on_for_this_stacks_jobs_alone(
    world: World, account: str, region: str, is_trusted: bool
) -> None:
    job_arn = f"arn:aws:sagemaker:{region}:{account}:training-job/job"
    assert roles.trusts_service(world.account.role_arn, job_arn) is is_trusted
