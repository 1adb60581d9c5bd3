"""A batch that three instances share: one is lost in the middle, a retry draws the rest, and nothing is drawn twice."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from account import BUCKET, IMAGE, ROLE, furnish, use_default_session
from click.testing import CliRunner
from moto import mock_aws
from sagemaker_simulator import Image, SageMakerSimulator, in_process

from orchestrator.cli import cli
from orchestrator.contract.batch_result import DrawnImages, is_index
from orchestrator.settings import Settings
from tests.endpoints.made import publish_loras
from tests.endpoints.sagemaker.deployments import ACCOUNT, REGION

HOSTS = 3
EVERY_HOST = Image(environment={"OMP_NUM_THREADS": "1"}, every_host=True)
LINES = [{"prompt": "a sks monster", "seed": seed, "steps": 40 + seed, "adapters": ["dog"]} for seed in range(12)]
"""Each is a batch of its own, and takes long enough to be interrupted."""
BATCH = ("generate", "--batch", "lines.jsonl", "--size", "64")
THERE = (*BATCH, "--target", "sagemaker", "--instances", str(HOSTS), "--max-usd", "20")


@pytest.fixture
def simulator(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerSimulator]:
    """An account whose jobs run on all of their instances, and an own folder with the lines."""
    publish_loras(settings.home, "dog")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    Path("lines.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    account = ACCOUNT.model_copy(update={"bucket": BUCKET, "role_arn": ROLE, "training_image": IMAGE})
    settings.aws_file.write_text(account.model_dump_json())
    with mock_aws(), SageMakerSimulator(images={IMAGE: EVERY_HOST}) as simulator, in_process(simulator):
        use_default_session()
        furnish()
        yield simulator


def run(*words: str) -> Any:
    """Give a command and return what it prints as JSON; raises its error."""
    return json.loads(CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False).stdout)


def objects(prefix: str) -> dict[str, Any]:
    """Return the objects below a prefix of the bucket, with the time at which each was written."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {one["Key"]: one["LastModified"] for page in pages for one in page.get("Contents", [])}


def kept(prefix: str) -> dict[str, Any]:
    """Return the images that are kept for a retry."""
    return {key: at for key, at in objects(prefix).items() if key.endswith(".png")}


def test_three_instances_of_which_one_is_lost_leave_each_image_once(simulator: SageMakerSimulator) -> None:
    job = run(*THERE, "--detach")["name"]
    simulator.run_until(job, "Training")
    machines = simulator.machines(job)
    assert [machine.host for machine in machines] == ["algo-1", "algo-2", "algo-3"]

    def drawn(machine: Any) -> int:
        return len(list(machine.layout.checkpoints.rglob("[!.]*.png")))

    simulator.wait_for(lambda: all(drawn(machine) for machine in machines))
    slowest = min(machines, key=drawn)
    assert drawn(slowest) < len(LINES) // HOSTS
    slowest.kill()
    simulator.run_to_end(job)
    failed = simulator.job(job)
    assert (failed.status, "137" in (failed.failure_reason or "")) == ("Failed", True)
    assert objects("images/") == {}
    before = kept("checkpoints/")
    assert HOSTS <= len(before) < len(LINES)

    run("jobs", "retry", job, "--detach")
    retried = f"{job}-r2"
    simulator.run_to_end(retried)
    assert simulator.job(retried).status == "Completed", simulator.job(retried).failure_reason
    after = kept("checkpoints/")
    assert len(after) == len(LINES)
    assert after.items() >= before.items(), "an image was drawn twice"

    left = objects("images/")
    assert objects("adapters/") == {}
    texts = {}
    for key in left:
        name = key.rpartition("/")[2]
        if is_index(name):
            texts[name] = boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    together = DrawnImages.joined(texts)  # which raises for a hole and for a double
    assert (together.hosts, len(texts), len(together.images)) == (HOSTS, HOSTS, len(LINES))
    assert len([key for key in left if key.endswith(".png")]) == len(LINES)

    run(*THERE, "-o", "there")
    run(*BATCH, "-o", "here")  # one process of this machine
    there = {path.name: path.read_bytes() for path in Path("there").glob("*.png")}
    here = {path.name: path.read_bytes() for path in Path("here").glob("*.png")}
    assert len(there) == len(LINES)
    assert there == here
