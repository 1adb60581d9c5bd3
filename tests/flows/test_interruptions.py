"""Jobs on SageMaker that are cut off and go on: real training, and the bytes of a job that was left alone."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from account import BUCKET
from sagemaker_simulator import FailIn, Interruption

from benchmarks.cloud import (
    RUNTIME_MINUTES,
    STEPS,
    Cloud,
    adapter_hashes,
    checkpoint_keys,
    cloud,
    reach_limit,
    resumed_in,
    steps_in,
    submit,
    uninterrupted,
    whole_checkpoints,
)
from orchestrator.contract.checkpoints import HISTORY_FILE
from orchestrator.errors import JobError
from orchestrator.jobs.job import Job
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.sagemaker.attempts import attempt_name


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("home")) as account:
        yield account


@pytest.fixture(scope="module")
def reference(there: Cloud) -> dict[str, str]:
    """The files of a job that nothing happened to."""
    hashes = uninterrupted(there)
    assert {"pytorch_lora_weights.safetensors", "contact_sheet.png"} <= set(hashes)
    return hashes


def train_to(there: Cloud, attempt: str, step: int) -> None:
    """Let an attempt train until it has said that a step is done."""
    there.simulator.run_until(attempt, "Training")
    there.simulator.wait_for_line(attempt, f'"step":{step},')


def newest(there: Cloud, job: Job) -> int:
    return max(whole_checkpoints(there, job), default=0)


def test_a_spot_job_goes_on_by_itself_however_its_instance_is_taken(there: Cloud, reference: dict[str, str]) -> None:
    before_the_first_checkpoint = Interruption(when_logged='"step":1,')
    with_half_a_checkpoint_copied = Interruption(when_synced="step-00000008/")
    with_notice = Interruption(when_logged='"step":11,', notice=True)
    for interruption in (before_the_first_checkpoint, with_half_a_checkpoint_copied, with_notice):
        there.simulator.inject(interruption)
    job = submit(there, "taken", spot=True)
    landed = []
    for _ in range(3):
        there.simulator.run_until(job.name, "Interrupted")
        landed.append(newest(there, job))
        said = steps_in(there.simulator.log_lines(job.name))[-1]
        there.simulator.run_until(job.name, "Training")
    there.simulator.run_to_end(job.name)
    assert landed[0] == 0
    assert 0 < landed[1] < 8
    assert landed[2] == said >= 11  # with notice no step is lost
    assert resumed_in(there.simulator.log_lines(job.name)) == landed[1:]
    assert job.describe().status is JobStatus.COMPLETED
    assert adapter_hashes(there, job) == reference
    assert steps_in_history(there, job) == list(range(1, STEPS + 1))


def steps_in_history(there: Cloud, job: Job) -> list[int]:
    """Return the steps of the curve that a job's report shows."""
    lines = there.target.store.get_bytes(f"checkpoints/{job.describe().identity}/{HISTORY_FILE}").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["step"] for row in rows if "step" in row]  # the others are warnings


def test_a_job_at_its_time_limit_is_gone_on_with(there: Cloud, reference: dict[str, str]) -> None:
    job = submit(there, "limited")
    second, third = (attempt_name(job.name, number) for number in (2, 3))
    train_to(there, job.name, 3)
    reach_limit(there, job.name)
    there.simulator.run_to_end(job.name)
    assert job.describe().stage == "MaxRuntimeExceeded"
    explanation = job.explain()
    assert f"time limit of {RUNTIME_MINUTES} minutes" in explanation.cause
    assert explanation.next_step == f"python -m orchestrator jobs retry {job.name}"

    job.resume()
    train_to(there, second, 9)
    reach_limit(there, second, kill=True)
    there.simulator.run_to_end(second)
    assert job.describe().stage == "MaxRuntimeExceeded"
    landed = newest(there, job)

    job.resume()
    there.simulator.run_to_end(third)
    first_steps = steps_in(there.simulator.log_lines(job.name))
    assert resumed_in(there.simulator.log_lines(second)) == [first_steps[-1]]  # the step it was stopped at
    assert resumed_in(there.simulator.log_lines(third)) == [landed]
    assert job.describe().status is JobStatus.COMPLETED
    assert adapter_hashes(there, job) == reference


def test_an_adapter_that_did_not_reach_the_bucket_is_uploaded_by_a_retry_without_a_step(
    there: Cloud, reference: dict[str, str]
) -> None:
    there.simulator.inject(FailIn("Uploading", "ClientError: Artifact upload failed: Insufficient permissions"))
    job = submit(there, "not-uploaded")
    assert there.simulator.run_to_end(job.name).status == "Failed"
    steps = steps_in(there.simulator.log_lines(job.name))
    assert newest(there, job) == steps[-1] == STEPS
    with pytest.raises(JobError, match=f"a checkpoint at step {STEPS}"):  # and nothing starts over
        submit(there, "not-uploaded")
    job.resume()
    second = attempt_name(job.name, 2)
    there.simulator.run_to_end(second)
    assert steps_in(there.simulator.log_lines(second)) == []
    assert adapter_hashes(there, job) == reference


def nothing(there: Cloud, keys: dict[str, str]) -> None:
    """Leave the checkpoint as it is."""


def cut_short(there: Cloud, keys: dict[str, str]) -> None:
    s3 = there.target.aws.client("s3")
    where = {"Bucket": BUCKET, "Key": keys["tensors.safetensors"]}
    whole = s3.get_object(**where)["Body"].read()
    s3.put_object(**where, Body=whole[: len(whole) // 2])


def without_manifest(there: Cloud, keys: dict[str, str]) -> None:
    there.target.aws.client("s3").delete_object(Bucket=BUCKET, Key=keys["checkpoint.json"])


def test_a_stopped_job_goes_on_from_the_newest_checkpoint_that_is_whole(
    there: Cloud, reference: dict[str, str]
) -> None:
    job, number, landed = submit(there, "stopped"), 1, []
    for damage in (nothing, cut_short, without_manifest):
        attempt = attempt_name(job.name, number)
        train_to(there, attempt, 3 * number - 1)
        there.target.stop(job.name)
        assert there.simulator.run_to_end(attempt).status == "Stopped"
        saved = newest(there, job)
        assert saved == steps_in(there.simulator.log_lines(attempt))[-1]  # no step is lost
        damage(there, checkpoint_keys(there, job)[saved])
        landed.append(newest(there, job))
        assert damage is nothing or 0 < landed[-1] < saved
        job.resume()
        number += 1
    attempts = [attempt_name(job.name, each) for each in range(2, number + 1)]
    there.simulator.run_to_end(attempts[-1])
    assert [resumed_in(there.simulator.log_lines(attempt)) for attempt in attempts] == [[step] for step in landed]
    assert job.describe().status is JobStatus.COMPLETED
    assert adapter_hashes(there, job) == reference


@pytest.mark.parametrize("words", [("-s", "checkpoint_minutes=300"), ("--max-usd", "0.15")], ids=" ".join)
def test_spot_is_refused_where_no_checkpoint_would_land(settings: Settings, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "orchestrator", "submit", "dreambooth", "--target", "sagemaker", "--dry-run"]
    on_demand, on_spot = (
        subprocess.run([*command, *words, *flags], capture_output=True, text=True, check=False)
        for flags in ([], ["--spot"])
    )
    assert on_demand.returncode == 0
    assert (on_spot.returncode, on_spot.stdout) == (2, "")
    assert "writes none" in on_spot.stderr
    assert "leave spot out" in on_spot.stderr
