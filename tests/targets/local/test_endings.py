"""How jobs end that are killed, stopped for good, or begun again by two at once."""

import os
import signal
import threading
from pathlib import Path

from orchestrator.errors import JobError
from orchestrator.jobs.job import Job
from orchestrator.storage import folder_of
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.process import ProcessTarget
from tests.targets.local.running import BLOCKED_AT_STEP_5, MakeRequest, start, training_pid

DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + BLOCKED_AT_STEP_5


def kill_worker(target: ProcessTarget, job: Job) -> None:
    state = JobFolder(target.settings.jobs / job.name).state()
    assert state is not None
    assert state.worker_pid is not None
    os.kill(state.worker_pid, signal.SIGKILL)


def test_a_published_adapter_is_the_only_one_and_its_checkpoints_are_gone(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request("checkpoint(5); finish()"))
    job.wait()
    ml = JobFolder(target.settings.jobs / job.name).environment
    assert not ml.model.exists()
    assert not ml.checkpoints.exists()
    assert (folder_of(job.describe().output) / "weights.safetensors").exists()
    assert job.explain().cause == "It is complete."


def test_a_job_that_does_not_publish_keeps_its_checkpoints(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request("checkpoint(5); finish(b'one', claimed=b'two')"))
    job.wait()
    assert target.checkpoint_step(job.name) == 5


def test_a_reported_failure_outlives_a_worker_without_a_last_word(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    script = "emit(event='failed', kind='disk-full', message='The disk is full.', next_step='free space'); "
    job = start(target, training_request(script + BLOCKED_AT_STEP_5))
    trainer = training_pid(job)
    kill_worker(target, job)
    os.kill(trainer, signal.SIGKILL)
    description = job.wait()
    assert (description.status, description.failure_reason) == (JobStatus.FAILED, "The disk is full.")
    explanation = job.explain()
    assert explanation.cause.startswith("The disk is full.")
    assert explanation.next_step == "free space"


def test_a_failure_of_an_earlier_attempt_is_not_the_cause_of_the_next(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    script = """
    if not list((root / "checkpoints").iterdir()):
        checkpoint(5)
        emit(event="failed", kind="nan-loss", message="Loss is NaN.")
        sys.exit(1)
    """
    job = start(target, training_request(script + "\n    " + BLOCKED_AT_STEP_5))
    job.wait()
    job.resume()
    trainer = training_pid(job)
    kill_worker(target, job)
    os.kill(trainer, signal.SIGKILL)
    assert "ended without a message" in str(job.wait().failure_reason)


def test_a_resumed_run_that_is_killed_at_once_has_not_lost_its_steps(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    script = """
    if not list((root / "checkpoints").iterdir()):
        checkpoint(92)
        sys.exit(1)
    emit(event="resumed", step=92)
    """
    job = start(target, training_request(script + "\n    emit(event='phase', name=str(os.getpid())); block()"))
    job.wait()
    assert "92 steps are done" in job.explain().cause
    job.resume()
    os.kill(training_pid(job), signal.SIGKILL)
    job.wait()
    explanation = job.explain()
    assert "92 steps are done. A retry resumes from step 92." in explanation.cause
    assert explanation.next_step == "python -m orchestrator jobs retry job"


def test_a_job_that_does_not_stop_in_time_is_killed_and_says_so(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request(DEAF))
    training_pid(job)
    description = job.stop(grace_seconds=0)
    assert description.status is JobStatus.STOPPED
    assert "did not end after it was asked to stop" in str(description.failure_reason)
    assert "did not end after it was asked to stop" in job.explain().cause
    job.resume()
    training_pid(job)
    assert job.describe().status is JobStatus.IN_PROGRESS
    assert "killed on request" in str(job.stop(now=True).failure_reason)


def test_a_job_without_its_worker_can_be_killed_and_says_so(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request(DEAF))
    training_pid(job)
    kill_worker(target, job)
    description = job.stop(now=True)
    assert description.status is JobStatus.STOPPED
    assert "killed on request" in str(description.failure_reason)


def test_a_job_that_is_killed_while_it_starts_is_stopped(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request("signal.signal(signal.SIGTERM, signal.SIG_IGN); block()"))
    stopped = job.stop(now=True)
    assert stopped.status is JobStatus.STOPPED
    assert "checkpoint" not in str(stopped.failure_reason)  # it had none


def test_of_retries_at_once_one_starts_and_the_others_are_told(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    script = "\nif not list((root / 'checkpoints').iterdir()):\n    checkpoint(5)\n    sys.exit(1)\n"
    job = start(target, training_request(script + BLOCKED_AT_STEP_5))
    job.wait()
    told = []

    def retry() -> None:
        try:
            job.resume()
        except JobError as error:
            told.append((error.message, error.next_step))

    threads = [threading.Thread(target=retry) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.kill(training_pid(job), signal.SIGKILL)
    job.wait()
    assert len(told) == 3
    assert all("running" in message or "InProgress" in message for message, _ in told)
    assert {next_step for _, next_step in told} == {"python -m orchestrator jobs wait job"}


def test_a_retry_that_cannot_help_is_not_offered(target: ProcessTarget, training_request: MakeRequest) -> None:
    broken = "emit(event='failed', kind='base-model', message='It is damaged.', next_step='replace it'); sys.exit(1)"
    job = start(target, training_request(broken))
    job.wait()
    explanation = job.explain()
    assert explanation.cause == "It is damaged. No step is done yet. A retry would end in the same way."
    assert explanation.next_step == "replace it"


def test_a_folder_of_the_person_that_is_gone_is_named_and_not_done_without(
    target: ProcessTarget, training_request: MakeRequest, tmp_path: Path
) -> None:
    request = training_request("finish()")
    gone = {"S3DataType": "S3Prefix", "S3Uri": (tmp_path / "clip").as_uri()}
    channel = {"ChannelName": "scorer", "DataSource": {"S3DataSource": gone}}
    job = start(target, {**request, "InputDataConfig": [*request["InputDataConfig"], channel]})
    description = job.wait()
    assert description.status is JobStatus.FAILED
    assert f"{tmp_path / 'clip'} (scorer), which is gone" in str(description.failure_reason)
    assert "jobs retry" in str(job.explain().next_step)
