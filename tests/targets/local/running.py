"""Real jobs of a few lines, and how a test meets them at a known place."""

from collections.abc import Callable

from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.targets.local.process import ProcessTarget

MakeRequest = Callable[..., Request]
BLOCKED_AT_STEP_5 = "checkpoint(5); emit(event='phase', name=str(os.getpid())); block()"


def start(target: ProcessTarget, request: Request) -> Job:
    """Submit a request as it is."""
    target.create(request)
    return Job(target, request["TrainingJobName"])


def training_pid(job: Job) -> int:
    """Wait for the script to say its process id, which it does before it blocks."""
    for event in job.events(follow=True, latest_attempt=True):
        if event.event == "phase" and event.name.isdigit():
            return int(event.name)
    raise AssertionError("the script ended before it blocked")
