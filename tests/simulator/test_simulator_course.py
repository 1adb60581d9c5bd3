"""The course of a job on a clock the test owns: statuses, limits, interruptions, failures, and what it costs."""

from itertools import pairwise
from typing import Any

import pytest
from account import BUCKET, spot, training_request
from botocore.exceptions import ClientError
from sagemaker_simulator import (
    FailIn,
    Interruption,
    SageMakerSimulator,
    Timeline,
    capacity_shortage,
    failed_health_check,
    image_pull_failure,
    internal_server_error,
)

SAVES_ON_SIGTERM = """
def save(*_):
    (root / "model" / "weights").write_text("saved")
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
block()
"""
IGNORES_SIGTERM = "(root / 'model' / 'half').touch(); signal.signal(signal.SIGTERM, lambda *_: say('no')); block()"
# Counts to three, a checkpoint each, from wherever the checkpoints say it was.
RESUMES = """
folder = root / "checkpoints"
done = max((int(path.name.split("-")[1]) for path in folder.glob("step-*")), default=0)
say("from", done)
for step in range(done + 1, 4):
    checkpoint(step)
    if step == 2 and done == 0:
        block()
(root / "model" / "weights").write_text("3")
"""


def describe(sagemaker: Any, name: str = "job") -> dict[str, Any]:
    return dict(sagemaker.describe_training_job(TrainingJobName=name))


def seen(sagemaker: Any, name: str = "job") -> list[str]:
    return [one["Status"] for one in describe(sagemaker, name)["SecondaryStatusTransitions"]]


def keys(s3: Any, prefix: str) -> set[str]:
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return {one["Key"].removeprefix(prefix) for one in found.get("Contents", [])}


def test_time_stands_still_until_the_test_moves_it(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    sagemaker.create_training_job(**training_request())
    statuses = [describe(sagemaker)["SecondaryStatus"]]
    for seconds in (4, 1, 60, 30):
        simulator.clock.advance(seconds)
        statuses.append(describe(sagemaker)["SecondaryStatus"])
    assert statuses == ["Starting", "Starting", "Pending", "Pending", "Downloading"]
    assert "TrainingStartTime" in describe(sagemaker)


def test_a_job_that_goes_well_passes_every_stage_and_says_when(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.timeline = Timeline(training=600)
    sagemaker.create_training_job(**training_request())
    simulator.run_to_end("job")
    job = describe(sagemaker)
    assert seen(sagemaker) == ["Starting", "Pending", "Downloading", "Training", "Uploading", "Completed"]
    transitions = job["SecondaryStatusTransitions"]
    for earlier, later in pairwise(transitions):
        assert earlier["EndTime"] == later["StartTime"]
    assert transitions[0]["StartTime"] == job["CreationTime"]
    assert transitions[-1]["EndTime"] == job["TrainingEndTime"] == job["LastModifiedTime"]
    assert (job["TrainingEndTime"] - job["TrainingStartTime"]).total_seconds() == 30 + 60 + 600 + 20
    assert job["TrainingTimeInSeconds"] == job["BillableTimeInSeconds"] == 710


def test_the_retired_statuses_can_still_be_had(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.timeline = Timeline(retired_statuses=True)
    sagemaker.create_training_job(**training_request())
    simulator.run_to_end("job")
    launching = [
        "Starting",
        "LaunchingMLInstances",
        "PreparingTrainingStack",
        "Downloading",
        "DownloadingTrainingImage",
    ]
    assert seen(sagemaker) == [*launching, "Training", "Uploading", "Completed"]


def test_a_client_can_be_shown_any_status(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    sagemaker.create_training_job(**training_request())
    simulator.show("job", "InProgress", "Updating")
    assert describe(sagemaker)["SecondaryStatus"] == "Updating"


def test_a_polling_client_can_move_the_clock(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.seconds_per_call["DescribeTrainingJob"] = 30
    sagemaker.create_training_job(**training_request())
    assert [describe(sagemaker)["SecondaryStatus"] for _ in range(4)] == [
        "Pending",
        "Pending",
        "Pending",
        "Downloading",
    ]


def test_stop_lets_the_container_save_its_model(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    sagemaker.create_training_job(**training_request(SAVES_ON_SIGTERM))
    simulator.run_until("job", "Training")
    simulator.wait_for_line("job", "blocked")
    sagemaker.stop_training_job(TrainingJobName="job")
    assert describe(sagemaker)["TrainingJobStatus"] == "Stopping"
    simulator.run_to_end("job")
    assert describe(sagemaker)["TrainingJobStatus"] == describe(sagemaker)["SecondaryStatus"] == "Stopped"
    assert seen(sagemaker)[-3:] == ["Stopping", "Uploading", "Stopped"]
    assert keys(s3, "out/job/output/model/") == {"weights"}
    with pytest.raises(ClientError, match="is in status Stopped"):
        sagemaker.stop_training_job(TrainingJobName="job")


def test_who_ignores_sigterm_is_killed_after_two_minutes(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    sagemaker.create_training_job(**training_request(IGNORES_SIGTERM))
    simulator.run_until("job", "Training")
    simulator.wait_for_line("job", "blocked")
    sagemaker.stop_training_job(TrainingJobName="job")
    simulator.wait_for_line("job", "no")
    simulator.clock.advance(119)
    assert describe(sagemaker)["SecondaryStatus"] == "Stopping"
    simulator.clock.advance(1)
    simulator.run_to_end("job")
    assert describe(sagemaker)["TrainingJobStatus"] == "Stopped"


@pytest.mark.parametrize("stage", ["Starting", "Pending", "Downloading"])
def test_a_job_can_be_stopped_before_its_container_runs(
    simulator: SageMakerSimulator, sagemaker: Any, stage: str
) -> None:
    sagemaker.create_training_job(**training_request())
    simulator.run_until("job", stage)
    sagemaker.stop_training_job(TrainingJobName="job")
    simulator.run_to_end("job")
    assert seen(sagemaker)[-2:] == ["Stopping", "Stopped"]
    assert ("TrainingEndTime" in describe(sagemaker)) == (stage == "Downloading")


def test_max_runtime_ends_a_job_with_what_it_saved(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    limit = {"MaxRuntimeInSeconds": 600}
    sagemaker.create_training_job(**training_request(SAVES_ON_SIGTERM, StoppingCondition=limit))
    simulator.run_until("job", "Training")
    simulator.wait_for_line("job", "blocked")
    simulator.clock.advance(600 - 30 - 60 - 1)
    assert describe(sagemaker)["SecondaryStatus"] == "Training"
    simulator.clock.advance(1)
    simulator.run_to_end("job")
    assert simulator.job("job").status == "Stopped"
    assert seen(sagemaker)[-3:] == ["Stopping", "Uploading", "MaxRuntimeExceeded"]
    assert keys(s3, "out/job/output/model/") == {"weights"}


def test_an_interrupted_job_goes_on_from_the_checkpoint_in_s3(
    simulator: SageMakerSimulator, sagemaker: Any, s3: Any
) -> None:
    simulator.inject(Interruption(when_synced="step-2"))
    sagemaker.create_training_job(**training_request(RESUMES, **spot()))
    simulator.run_until("job", "Interrupted")
    simulator.run_to_end("job")
    assert [line for line in simulator.log_lines("job") if line != "blocked"] == ["from 0", "from 2"]
    assert seen(sagemaker)[3:5] == ["Training", "Interrupted"]
    assert seen(sagemaker)[-4:] == ["Downloading", "Training", "Uploading", "Completed"]
    assert keys(s3, "out/job/output/model/") == {"weights"}
    assert {"step-2", "step-3"} <= keys(s3, "checkpoints/job/")


def test_spot_capacity_costs_less_and_idle_time_nothing(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    simulator.inject(Interruption(after_seconds=100))
    sagemaker.create_training_job(**training_request(RESUMES, **spot()))
    simulator.run_until("job", "Training")
    simulator.wait_for(lambda: "step-2" in keys(s3, "checkpoints/job/"))
    simulator.clock.advance(100)
    simulator.run_to_end("job")
    job = describe(sagemaker)
    assert job["TrainingTimeInSeconds"] == (30 + 60 + 100) + (30 + 60 + 20)
    assert job["BillableTimeInSeconds"] == 90


def test_an_interruption_takes_what_had_not_reached_s3(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: checkpoint(9)); checkpoint(1); say('ready'); block()"
    simulator.inject(Interruption(when_synced="step-1"))
    sagemaker.create_training_job(**training_request(script, **spot()))
    simulator.run_until("job", "Interrupted")
    assert keys(s3, "checkpoints/job/") == {"step-1"}


def test_an_interruption_with_notice_lets_the_container_save(
    simulator: SageMakerSimulator, sagemaker: Any, s3: Any
) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: (checkpoint(9), sys.exit(143))); block()"
    sagemaker.create_training_job(**training_request(script, **spot()))
    simulator.run_until("job", "Training")
    simulator.wait_for_line("job", "blocked")
    simulator.interrupt("job", notice=True)
    simulator.run_until("job", "Interrupted")
    assert keys(s3, "checkpoints/job/") == {"step-9"}


def test_a_line_of_the_log_can_be_the_moment(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.inject(Interruption(when_logged="step 2"), job="job")
    sagemaker.create_training_job(**training_request("say('step 2'); checkpoint(2); block()", **spot()))
    simulator.run_until("job", "Interrupted")


def test_waiting_for_spot_capacity_ends_with_max_wait(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.capacity["ml.g5.xlarge"] = 0
    sagemaker.create_training_job(**training_request(**spot()))
    simulator.clock.advance(7199)
    assert describe(sagemaker)["SecondaryStatus"] == "Pending"
    simulator.run_to_end("job")
    assert describe(sagemaker)["SecondaryStatus"] == "MaxWaitTimeExceeded"
    assert "TrainingTimeInSeconds" not in describe(sagemaker)


def test_capacity_that_comes_back_is_used(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.capacity["ml.g5.xlarge"] = 0
    sagemaker.create_training_job(**training_request())
    simulator.clock.advance(100)
    assert "Insufficient capacity" in describe(sagemaker)["SecondaryStatusTransitions"][-1]["StatusMessage"]
    simulator.capacity["ml.g5.xlarge"] = 1
    sagemaker.create_training_job(**training_request(name="other"))
    simulator.run_until("job", "Downloading")
    assert describe(sagemaker, "other")["SecondaryStatus"] == "Pending"
    simulator.run_to_end("job")
    simulator.run_to_end("other")


def test_no_capacity_in_time_is_a_failure(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.capacity["ml.g5.xlarge"] = 0
    sagemaker.create_training_job(**training_request())
    simulator.run_to_end("job")
    assert describe(sagemaker)["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute")


@pytest.mark.parametrize(
    ("fault", "last", "reason"),
    [
        (capacity_shortage(), "Pending", "CapacityError: Unable to provision"),
        (failed_health_check(), "Pending", "InternalServerError: Instance health check failed"),
        (image_pull_failure(), "Downloading", "ClientError: Cannot pull algorithm container"),
        (internal_server_error(), "Training", "InternalServerError: We encountered an internal error"),
        (FailIn("Uploading", "ClientError: Artifact upload failed"), "Training", "ClientError: Artifact upload failed"),
    ],
)
def test_the_service_can_fail_in_any_stage(
    simulator: SageMakerSimulator, sagemaker: Any, fault: FailIn, last: str, reason: str
) -> None:
    simulator.inject(fault)
    sagemaker.create_training_job(**training_request())
    simulator.run_to_end("job")
    assert seen(sagemaker)[-2:] == [last, "Failed"]
    assert describe(sagemaker)["FailureReason"].startswith(reason)


def test_internal_errors_are_retried_as_often_as_asked_for(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.timeline = Timeline(retry_status="Restarting")
    for _ in range(2):
        simulator.inject(internal_server_error(when_logged="go"))
    retry = {"MaximumRetryAttempts": 1}
    sagemaker.create_training_job(**training_request("say('go'); signal.pause()", RetryStrategy=retry))
    simulator.run_to_end("job")
    assert seen(sagemaker).count("Training") == 2
    assert "Restarting" in seen(sagemaker)
    assert describe(sagemaker)["FailureReason"].startswith("InternalServerError")


def test_an_image_that_is_not_in_the_table_cannot_be_pulled(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    simulator.images = {}
    sagemaker.create_training_job(**training_request())
    simulator.run_to_end("job")
    assert "Cannot pull algorithm container" in describe(sagemaker)["FailureReason"]


def test_data_that_went_away_fails_the_download(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    sagemaker.create_training_job(**training_request())
    for key in ("data/one.txt", "data/deep/two.txt", "code/job/script.py"):
        s3.delete_object(Bucket=BUCKET, Key=key)
    s3.delete_bucket(Bucket=BUCKET)
    simulator.run_to_end("job")
    assert describe(sagemaker)["FailureReason"].startswith("ClientError: Data download failed:NoSuchBucket")


def test_output_that_cannot_be_stored_is_a_failure(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    output = {"S3OutputPath": "s3://not-there/out", "CompressionType": "NONE"}
    request = training_request("(root / 'model' / 'w').touch()", OutputDataConfig=output)
    sagemaker.create_training_job(**request)
    assert str(simulator.run_to_end("job").failure_reason).startswith(
        "ClientError: Artifact upload failed:NoSuchBucket"
    )
