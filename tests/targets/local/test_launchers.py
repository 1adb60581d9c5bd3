"""The life of a local job is the same whatever starts the training: here a shell does."""

import pytest

from orchestrator.errors import MachineError
from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.local_jobs import LocalJobs
from orchestrator.targets.names import TargetName
from tests.targets.local.running import MakeRequest
from tests.targets.local.second_launcher import TOOL, ShellLauncher

FIRST_ATTEMPT = (
    "mkdir checkpoints/step-00000005; cd checkpoints/step-00000005; echo 1 > tensors.safetensors; "
    "echo 1 > checkpoint.json; cd ../..; echo attempt 1 waits"
)
SCRIPT = f"""
if [ -d checkpoints/step-00000005 ]; then echo attempt 2 fails; exit 3; fi
{FIRST_ATTEMPT}
while true; do sleep 0.01; done
"""


@pytest.fixture
def shell_jobs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> LocalJobs:
    monkeypatch.setenv(TOOL, "/bin/sh")
    return LocalJobs(TargetName.LOCAL, ShellLauncher(), settings, lock_seconds=1)


@pytest.fixture
def shell_request(training_request: MakeRequest) -> Request:
    request = training_request("")
    request["AlgorithmSpecification"]["ContainerEntrypoint"] = [SCRIPT]
    return request


def started(jobs: LocalJobs, request: Request) -> Job:
    """Return a job whose first attempt has come to its checkpoint and waits."""
    jobs.create(request)
    job = Job(jobs, request["TrainingJobName"])
    assert "attempt 1 waits" in job.log_lines(follow=True)
    return job


def test_a_job_of_another_launcher_is_stopped_and_resumed(shell_jobs: LocalJobs, shell_request: Request) -> None:
    job = started(shell_jobs, shell_request)
    assert job.describe().status is JobStatus.IN_PROGRESS
    assert job.stop().status is JobStatus.STOPPED
    assert shell_jobs.checkpoint_step(job.name) == 5
    job.resume()
    ended = job.wait()
    assert (ended.status, ended.failure_reason) == (JobStatus.FAILED, "The training process ended with exit code 3.")
    assert [line for line in job.log_lines() if line.startswith("attempt")] == ["attempt 1 waits", "attempt 2 fails"]


def test_a_job_of_another_launcher_is_killed(shell_jobs: LocalJobs, shell_request: Request) -> None:
    job = started(shell_jobs, shell_request)
    ended = job.stop(now=True)
    assert ended.status is JobStatus.STOPPED
    assert "killed on request" in str(ended.failure_reason)


def test_what_the_launcher_lacks_is_said_before_a_job_is_made(
    shell_jobs: LocalJobs, shell_request: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOOL)
    with pytest.raises(MachineError, match="no shell"):
        shell_jobs.create(shell_request)
    assert shell_jobs.names() == []


def test_a_resumed_job_has_the_machines_of_the_request_and_stays_as_old(
    shell_jobs: LocalJobs, shell_request: Request
) -> None:
    job = started(shell_jobs, shell_request)
    created = job.stop(now=True).created
    changed = {**shell_request, "ResourceConfig": {"InstanceCount": 2}, "HyperParameters": {"recipe": '"other"'}}
    shell_jobs.resume(job.name, changed)
    assert job.wait().created == created
    kept = JobFolder(shell_jobs.settings.jobs / job.name).request()
    assert kept == {**shell_request, "ResourceConfig": {"InstanceCount": 2}}
