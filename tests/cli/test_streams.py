"""Commands whose standard streams are closed, full, or cannot hold every character: cron, daemons and old locales."""

import os
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
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(words, capture_output=True, check=False, env=buffered)


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


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", [("jobs", "list"), ("recipes", "list"), ("recipes", "list", "--json")])
def test_a_closed_stream_is_no_error(settings: Settings, closed: str, words: tuple[str, ...]) -> None:
    result = orchestrator(closed, *words)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("words", [("recipes", "list"), ("recipes", "list", "--json"), ("--help",)])
def test_a_full_disk_behind_stdout_is_one_message(words: tuple[str, ...]) -> None:
    result = orchestrator(">/dev/full", *words)
    assert result.returncode == 5
    assert result.stderr.decode().splitlines() == [
        "Error: The operating system reported an error: [Errno 28] No space left on device.",
        "Next: check the folder's space and permissions",
    ]


def test_an_error_that_cannot_be_told_is_still_an_error() -> None:
    result = orchestrator(">/dev/full 2>/dev/full", "recipes", "lsit")
    assert result.returncode == 1


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251:strict"])
def test_text_that_the_encoding_lacks_is_printed_as_escapes(
    settings: Settings, training_request: Callable[..., Request], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    target = ProcessTarget(settings)
    script = "emit(event='failed', kind='bug', message='Фото 写真 é \\U0001f600', next_step='è'); sys.exit(1)"
    target.create(training_request(script))
    Job(target, "job").wait()
    for words in (("jobs", "show", "job"), ("jobs", "explain", "job"), ("jobs", "logs", "job")):
        result = orchestrator("", *words)
        assert (result.returncode, result.stderr) == (0, b"")
