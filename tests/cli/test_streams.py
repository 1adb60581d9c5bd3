"""Commands whose standard streams are closed, full, or cannot hold every character: cron, daemons and old locales."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.process import ProcessTarget

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]
FAILS_ONCE = """
if not list((root / "checkpoints").iterdir()):
    checkpoint(5)
    sys.exit(1)
block()
"""


def in_shell(redirection: str, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with streams redirected as a shell does it."""
    words = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
    return subprocess.run(words, capture_output=True, check=False)


def orchestrator(redirection: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    return in_shell(redirection, sys.executable, "-m", "orchestrator", *words)


@pytest.mark.parametrize("closed", CLOSED)
def test_a_job_started_with_closed_streams_runs_and_can_be_stopped(
    settings: Settings, training_request: Callable[..., Request], closed: str
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request(FAILS_ONCE))
    job = Job(target, "job")
    job.wait()
    assert orchestrator(closed, "jobs", "retry", "job", "--detach").returncode == 0
    assert job.describe().status is JobStatus.IN_PROGRESS
    assert target.queue.jobs() == ["job"]
    job.stop(now=True)
    assert job.describe().status is JobStatus.STOPPED
    assert target.queue.jobs() == []


def test_a_program_without_streams_keeps_the_lock_of_the_job_it_starts(
    settings: Settings, training_request: Callable[..., Request]
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request(FAILS_ONCE))
    job = Job(target, "job")
    job.wait()
    program = (
        "from orchestrator.settings import Settings; from orchestrator.targets.local.process import ProcessTarget;"
        "ProcessTarget(Settings.from_environment()).resume('job')"
    )
    assert in_shell("<&- >&- 2>&-", sys.executable, "-c", program).returncode == 0
    assert job.describe().status is JobStatus.IN_PROGRESS
    job.stop(now=True)
    assert target.queue.jobs() == []
