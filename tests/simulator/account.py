"""An account with a bucket, a role and data, and the smallest request the service takes."""

import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto import mock_aws
from sagemaker_simulator import SageMakerSimulator, in_process
from sagemaker_simulator.validation import LOADER

REGION = "eu-west-1"
BUCKET = "pictures"
ROLE = "arn:aws:iam::123456789012:role/training"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/training:1"
Request = dict[str, Any]
# What the scripts of `training_request` can use.
PRELUDE = """
import json, os, signal, sys
from pathlib import Path

root = Path(os.environ["ORCHESTRATOR_ML_ROOT"])

def say(*words):
    print(*words, flush=True)

def checkpoint(step):
    (root / "checkpoints" / f"step-{step}").write_text(str(step))

def block():
    say("blocked")
    while True:
        signal.pause()

"""


def use_default_session() -> None:
    """Make a default session that reads each of botocore's models once for all tests."""
    boto3.setup_default_session()
    boto3.DEFAULT_SESSION._session.register_component("data_loader", LOADER)


@contextmanager
def open_account(patch: pytest.MonkeyPatch) -> Iterator[SageMakerSimulator]:
    """Open an account in this process that has all a job needs, and a simulator in it."""
    patch.setenv("AWS_DEFAULT_REGION", REGION)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with mock_aws(), SageMakerSimulator() as made, in_process(made):
        use_default_session()
        furnish()
        yield made


def furnish() -> None:
    """Make the bucket, the role and the image every job needs, and two channels' objects."""
    push(IMAGE)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=BUCKET, Key="data/one.txt", Body=b"1")
    s3.put_object(Bucket=BUCKET, Key="data/deep/two.txt", Body=b"2")
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam = boto3.client("iam")
    iam.create_role(RoleName="training", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))


def push(image: str) -> None:
    """Put an image of nothing into the registry that its name says, with its repository if that is not there."""
    ecr = boto3.client("ecr")
    repository, tag = image.partition("/")[2].split(":")
    if repository not in {one["repositoryName"] for one in ecr.describe_repositories()["repositories"]}:
        ecr.create_repository(repositoryName=repository)
    manifest = '{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}'
    ecr.put_image(repositoryName=repository, imageTag=tag, imageManifest=manifest)


def training_request(script: str = "pass", *, name: str = "job", **fields: Any) -> Request:
    """Return a request whose container runs a script, which goes up as a channel. Fields replace the request's own."""
    code = PRELUDE + textwrap.dedent(script)
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"code/{name}/script.py", Body=code.encode())
    return bare_request(name, **fields)


def bare_request(name: str = "job", **fields: Any) -> Request:
    """Return the same request without its script: no call is made."""
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python", "-m", "script"],
        },
        "InputDataConfig": [channel("training", "data/"), channel("code", f"code/{name}/")],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out/", "CompressionType": "NONE"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "HyperParameters": {"recipe": '"dreambooth"'},
        "Environment": {"PYTHONPATH": "/opt/ml/input/data/code"},
        **fields,
    }


def channel(name: str, prefix: str) -> Request:
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{prefix}", "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def spot(**fields: Any) -> Request:
    """Return the fields of a job on spot capacity with checkpoints."""
    return {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
        "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints/job"},
        **fields,
    }
