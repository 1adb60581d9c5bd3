"""The process target with real processes: what `jobs` says has to be true whatever was killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.contract.events import parse
from orchestrator.errors import JobError
from orchestrator.jobs import Job
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.job_folder import JobFolder
from orchestrator.targets.process import ProcessTarget

MakeRequest = Callable[..., Request]
BLOCKED_AT_STEP_5 = "checkpoint(5); emit(event='phase', name=str(os.getpid())); block()"


@pytest.fixture
def target(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings)


def start(target: ProcessTarget, request: Request) -> Job:
    target.create(request)
    return Job(target, request["TrainingJobName"])


def training_pid(job: Job) -> int:
    """Wait for the script to say its process id, which it does before it blocks."""
    for event in job.events(follow=True):
        if event.event == "phase" and event.name.isdigit():
            return int(event.name)
    raise AssertionError("the script ended before it blocked")


def test_a_job_that_ends_well_leaves_a_verified_adapter(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request("finish()"))
    assert job.wait().status is JobStatus.COMPLETED
    manifest = job.manifest()
    assert manifest is not None
    assert manifest.damaged_files(job.adapter_folder()) == []


def test_an_adapter_that_does_not_match_its_manifest_is_not_published(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request("finish(weights=b'one', claimed=b'two')"))
    description = job.wait()
    assert description.status is JobStatus.FAILED
    assert "weights.safetensors" in str(description.failure_reason)
    assert not job.adapter_folder().exists()


def test_an_adapter_of_another_job_is_never_replaced(
    target: ProcessTarget, training_request: MakeRequest, settings: Settings
) -> None:
    first = training_request("finish(b'first')", name="first")
    start(target, first).wait()
    second = training_request("finish(b'second')", name="second")
    second["OutputDataConfig"] = first["OutputDataConfig"]
    job = start(target, second)
    assert "another --name" in str(job.wait().failure_reason)
    assert (settings.adapters / "first" / "weights.safetensors").read_bytes() == b"first"


def test_the_failure_a_job_reports_is_what_it_failed_of(target: ProcessTarget, training_request: MakeRequest) -> None:
    script = (
        "emit(event='failed', kind='nan-loss', message='Loss is NaN at step 7.', next_step='lower it'); sys.exit(1)"
    )
    job = start(target, training_request(script))
    assert job.wait().failure_reason == "Loss is NaN at step 7. Next: lower it"
    explanation = job.explain()
    assert explanation.cause.startswith("Loss is NaN at step 7.")
    assert explanation.next_step == "lower it"


def test_a_crash_is_explained_by_its_last_words(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request("raise RuntimeError('the engine fell off')"))
    assert job.wait().status is JobStatus.FAILED
    assert any("the engine fell off" in line for line in job.explain().evidence)


def test_a_killed_training_process_is_a_failed_job_that_names_the_signal(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request(BLOCKED_AT_STEP_5))
    os.kill(training_pid(job), signal.SIGKILL)
    description = job.wait()
    assert description.status is JobStatus.FAILED
    assert "SIGKILL" in str(description.failure_reason)
    assert "step 5" in job.explain().next_step


def test_when_all_processes_are_killed_the_job_is_not_called_running(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request(BLOCKED_AT_STEP_5))
    trainer = training_pid(job)
    state = JobFolder(target.settings.jobs / job.name).state()
    assert state is not None
    assert state.worker_pid is not None
    os.kill(state.worker_pid, signal.SIGKILL)
    os.kill(trainer, signal.SIGKILL)
    description = job.wait()
    assert description.status is JobStatus.FAILED
    assert "without a word" in str(description.failure_reason)


def test_stop_passes_the_signal_on_and_is_no_failure(target: ProcessTarget, training_request: MakeRequest) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: (checkpoint(9), os._exit(143)))\n" + BLOCKED_AT_STEP_5
    job = start(target, training_request(script))
    training_pid(job)
    job.stop()
    assert job.wait().status is JobStatus.STOPPED
    assert target.checkpoint_step(job.name) == 9


def test_resume_runs_the_same_bundle_and_keeps_the_checkpoints(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    script = """
    if not list((root / "checkpoints").iterdir()):
        checkpoint(5)
        sys.exit(1)
    emit(event="resumed", step=5)
    finish()
    """
    job = start(target, training_request(script))
    assert job.wait().status is JobStatus.FAILED
    job.resume()
    assert job.wait().status is JobStatus.COMPLETED
    assert [event.event for event in job.events()] == ["phase", "checkpoint", "phase", "resumed"]


def test_a_line_cut_off_by_a_kill_does_not_swallow_the_next(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    script = """
    if not list((root / "checkpoints").iterdir()):
        checkpoint(5)
        os.write(1, b'{"event": "st')
        sys.exit(1)
    finish()
    """
    job = start(target, training_request(script))
    job.wait()
    job.resume()
    job.wait()
    assert sum(event.event == "phase" for event in job.events()) == 2


def test_of_two_submits_at_once_one_makes_the_job(target: ProcessTarget, training_request: MakeRequest) -> None:
    request = training_request("finish()")
    refused: list[JobError] = []

    def submit() -> None:
        try:
            ProcessTarget(target.settings).create(request)
        except JobError as error:
            refused.append(error)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert target.names() == ["job"]
    assert Job(target, "job").wait().status is JobStatus.COMPLETED


def test_a_running_job_is_not_started_twice(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request(BLOCKED_AT_STEP_5))
    trainer = training_pid(job)
    impatient = JobFolder(target.settings.jobs / job.name)
    assert impatient.lock(seconds=0) is None
    os.kill(trainer, signal.SIGKILL)
    job.wait()


def test_a_killed_client_leaves_the_job_running(
    target: ProcessTarget, training_request: MakeRequest, tmp_path: Path
) -> None:
    request = training_request("checkpoint(5); Path(sys.argv[0]); block()")
    code = (
        "import sys, json; from orchestrator.settings import Settings; from orchestrator.jobs import Job;"
        "from orchestrator.targets.process import ProcessTarget; t = ProcessTarget(Settings.from_environment());"
        "t.create(json.load(sys.stdin)); print('made', flush=True); Job(t, 'job').wait()"
    )
    import json

    client = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps(request))
    client.stdin.close()
    assert client.stdout.readline() == "made\n"
    client.kill()
    client.wait()
    client.stdout.close()
    job = Job(target, "job")
    assert next(event for event in job.events(follow=True) if event.event == "checkpoint")
    assert job.describe().status is JobStatus.IN_PROGRESS
    job.stop()
    assert job.wait().status is JobStatus.STOPPED


def test_the_log_is_followed_to_its_last_line(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request("for i in range(2000): emit(event='item', done=i, of=2000)"))
    events = [event for line in job.log_lines(follow=True) if (event := parse(line)) and event.event == "item"]
    assert [event.done for event in events] == list(range(2000))


@pytest.mark.parametrize("name", ["nothing", "..", "a/b", ""])
def test_a_job_that_is_not_there(target: ProcessTarget, name: str) -> None:
    with pytest.raises(JobError, match="no job"):
        target.describe(name)
