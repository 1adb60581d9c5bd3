"""Nothing a job sends or leaves holds a secret of the person who started it: planted everywhere, found nowhere."""

import base64
import gzip
import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pytest
from sagemaker_simulator import SimulatorServer

from orchestrator.settings import Settings
from tests.flows.conftest import Run, Start
from tests.flows.planted import (
    VARIABLES,
    all_secrets,
    files_below,
    found_in,
    plant_home,
    plant_model,
    plant_pictures,
)

SHORT = ["-s", "steps=2", "-s", "evaluation_prompts=1", "-s", "evaluation_seeds=1", "-s", "inference_steps=2"]
CLASS_PICTURES = ["-s", "prior_preservation=true", "-s", "class_images=1"]
DREAMBOOTH = ["submit", "dreambooth", *SHORT, *CLASS_PICTURES, "--prompt", "a photo of sks monster"]


class Wire:
    """Keeps all that comes over the wire, but for the two headers that a client signs in with."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.heard: list[bytes] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        length = None if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length is not None else environ["wsgi.input"].read()
        environ["wsgi.input"] = BytesIO(body)
        signing = {"HTTP_AUTHORIZATION", "HTTP_X_AMZ_SECURITY_TOKEN"}
        self.heard += [body, *(f"{key}: {environ[key]}".encode() for key in environ if key not in signing)]
        answer: Iterable[bytes] = self._application(environ, start_response)
        return answer


@pytest.fixture
def wire(service: SimulatorServer) -> Wire:
    wire = Wire(service._server.app)
    service._server.app = wire
    return wire


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """A home, pictures and a model, with secrets in all of them."""
    plant_home(tmp_path / "kim")
    plant_pictures(tmp_path / "photos")
    plant_model(tmp_path / "model")
    return tmp_path


@pytest.fixture
def run(start: Start, variables: dict[str, str], person: Path) -> Run:
    """Run a command as that person and return what it printed as JSON."""
    hub = {"HOME": str(person / "kim"), "HF_HOME": str(person / "kim" / ".cache" / "huggingface")}
    variables |= {**VARIABLES, **hub}

    def run(*words: str) -> Any:
        output, errors = start(*words).communicate()
        assert found_in([output.encode(), errors.encode()]) == set()
        return json.loads(output)

    return run


@pytest.fixture
def words(person: Path) -> list[str]:
    return [*DREAMBOOTH, "--images", str(person / "photos"), "--base-model", str(person / "model")]


def client(service: SimulatorServer, name: str) -> Any:
    keys = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "none"}
    return boto3.client(name, region_name="eu-west-1", endpoint_url=service.url, **keys)


def objects(service: SimulatorServer, bucket: str) -> dict[str, bytes]:
    """Return every object of a bucket, and the versions of those that were deleted or replaced."""
    s3 = client(service, "s3")
    found: dict[str, bytes] = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for one in page.get("Versions", []):
            where = {"Key": one["Key"], "VersionId": one["VersionId"]}
            found[f"{one['Key']}?{one['VersionId']}"] = s3.get_object(Bucket=bucket, **where)["Body"].read()
    return found


def log_lines(service: SimulatorServer, job: str) -> list[str]:
    logs = client(service, "logs")
    events = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=job)["events"]
    return [event["message"] for event in events]


def test_the_search_finds_every_secret_where_it_was_planted(person: Path) -> None:
    variables = "\n".join(VARIABLES.values()).encode()
    assert found_in([*files_below(person), variables]) == {*all_secrets(), "latitude"}
    for one in all_secrets():
        text = f"x{one}y".encode()
        dresses = [text, gzip.compress(text), base64.b64encode(b"z" + text), text.hex().encode()]
        assert [found_in([dress]) for dress in dresses] == [{one}] * len(dresses)


@pytest.mark.usefixtures("docker")
@pytest.mark.filterwarnings("ignore:Tried to parse")  # what moto's CloudFormation leaves out of the stack
def test_no_secret_leaves_with_a_job_on_sagemaker(
    settings: Settings, service: SimulatorServer, wire: Wire, run: Run, words: list[str], person: Path
) -> None:
    bucket = run("infra", "up")["bucket"]
    # As in the template: moto leaves this out of the stack. Checkpoints of a complete job are old versions only.
    client(service, "s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    run("infra", "image")
    job = run(*words, "--target", "sagemaker", "--yes", "--name", "mine")
    assert job["status"] == "Completed", job
    run("adapters", "pull", "mine", "--to", str(person / "pulled"))

    account = settings.aws()
    assert account is not None
    stored = objects(service, account.bucket)
    logged = log_lines(service, job["name"])
    described = client(service, "sagemaker").describe_training_job(TrainingJobName=job["name"])
    tags = client(service, "sagemaker").list_tags(ResourceArn=described["TrainingJobArn"])
    # What is searched is there: the model, the code, the pictures, checkpoints, the adapter, and a log.
    assert {key.partition("/")[0] for key in stored} >= {"models", "code", "data", "checkpoints", "adapters"}
    assert any('"event"' in line for line in logged)
    assert any(b"CreateTrainingJob" in heard for heard in wire.heard)

    assert found_in([*stored.values(), "\n".join(stored).encode()]) == set()
    assert found_in([repr([logged, described, tags]).encode()]) == set()
    assert found_in(repr(one.parameters).encode() for one in service.simulator.requests.of()) == set()
    assert found_in(wire.heard) == set()
    assert found_in([*files_below(settings.home), *files_below(person / "pulled")]) == set()


def test_no_secret_is_left_by_a_job_on_this_machine(settings: Settings, run: Run, words: list[str]) -> None:
    job = run(*words)
    assert job["status"] == "Completed", job
    kept = list(files_below(settings.home))
    assert any(b"adapter.json" in one for one in kept)
    assert found_in(kept) == set()
