"""A training process that is stopped in the middle: a real one, which stops itself by its own number."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from orchestrator.cli.progress_line import plain_line
from orchestrator.cli.timeline import Timeline
from orchestrator.contract.events import Step
from orchestrator.jobs.explanation import explain
from orchestrator.jobs.job import Job
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.process import ProcessTarget
from tests.targets.local.running import MakeRequest, start, training_pid

STOPS_AFTER_STEP_5 = """
from datetime import UTC, datetime
emit(event="phase", name=str(os.getpid()))
emit(event="phase", name="training", of=10)
for step in range(1, 11):
    now = datetime.now(UTC).isoformat()
    emit(event="step", at=now, step=step, of=10, loss=0.5, learning_rate=1e-4, seconds_per_step=0.1)
    if step == 5:
        os.kill(os.getpid(), signal.SIGSTOP)
finish()
"""
HOUR = 3600.0


def test_a_process_that_is_stopped_is_said_to_hang_and_goes_on_when_it_is_woken(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request(STOPS_AFTER_STEP_5))
    pid = training_pid(job)
    with ExitStack() as woken:
        woken.callback(os.kill, pid, signal.SIGCONT)
        timeline = followed_to_step_5(job)
        while state_of(pid) != "T":
            os.sched_yield()
        now = time.time()
        assert "hangs" not in told(job, now)
        later = told(job, now + HOUR)
        assert "5 of 10 steps are done. But no step has ended for 60 minutes" in later
        assert "jobs stop job && python -m orchestrator jobs retry job" in later
        assert "no step for" not in plain_line(timeline, now)
        assert "no step for 1:00:0" in plain_line(timeline, now + HOUR)
    assert job.wait().status is JobStatus.COMPLETED
    assert "hangs" not in told(job, now + HOUR)


def told(job: Job, now: float) -> str:
    """Return what `jobs explain` says at a moment."""
    explanation = explain(job.describe(), job.log_lines(latest_attempt=True), None, now)
    return f"{explanation.cause} {explanation.next_step}"


def followed_to_step_5(job: Job) -> Timeline:
    """Return what a person who watches the job has heard up to there."""
    timeline = Timeline()
    for event in job.events(follow=True, latest_attempt=True):
        timeline.hear(event, time.time())
        if isinstance(event, Step) and event.step == 5:
            return timeline
    raise AssertionError("the script ended before it stopped")


def state_of(pid: int) -> str:
    """Return the state of a process as Linux has it: T for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
