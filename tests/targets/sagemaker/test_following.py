"""What follows a job over a service that fails now and then, and a log that comes late."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from sagemaker_simulator import SageMakerSimulator, faults

from orchestrator.aws.client import ATTEMPTS
from orchestrator.errors import ServiceError
from orchestrator.targets.sagemaker import following as following_module
from orchestrator.targets.sagemaker import target as target_module
from orchestrator.targets.sagemaker.target import SageMakerTarget
from tests.targets.sagemaker.requests import JOB, request

PAUSE = 7.0


class Sleeps(list[float]):
    """The pauses of the code under test, which pass at once; some are filled with an event."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: dict[int, Any] = {}

    def sleep(self, seconds: float) -> None:
        self.append(seconds)
        self.meanwhile.get(len(self), lambda: None)()


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch, target: SageMakerTarget, waits: list[float]) -> Sleeps:
    pauses = Sleeps()
    for module in (following_module, target_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pauses.sleep))
    target.poll_seconds = PAUSE
    return pauses


def started(simulator: SageMakerSimulator, target: SageMakerTarget) -> Iterator[str]:
    """Return the lines of a job whose first was read."""
    target.create(request("block()"))
    simulator.run_until(JOB, "Training")
    lines = iter(target.log_lines(JOB, follow=True))
    next(lines)
    return lines


def test_following_gives_up_when_the_service_has_failed_too_often_in_a_row(
    simulator: SageMakerSimulator, target: SageMakerTarget, sleeps: Sleeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "_MAX_FAILED_POLLS", 2)
    lines = started(simulator, target)
    simulator.faults.add(faults.unavailable(), "DescribeTrainingJob", times=None)
    with pytest.raises(ServiceError):
        list(lines)
    assert sleeps == [PAUSE] * 3, "one pause after the poll that went well, and one after each of two failed ones"


def test_a_poll_that_goes_well_forgives_the_failed_ones_before_it(
    simulator: SageMakerSimulator, target: SageMakerTarget, sleeps: Sleeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "_MAX_FAILED_POLLS", 1)
    lines = started(simulator, target)
    for skip in (0, 1, 1):
        simulator.faults.add(faults.unavailable(), "DescribeTrainingJob", times=ATTEMPTS, skip=skip)
    sleeps.meanwhile[8] = lambda: simulator.show(JOB, "Completed", "Completed")
    list(lines)
    simulator.faults.require_used()


def test_each_poll_is_followed_by_one_pause(
    simulator: SageMakerSimulator, target: SageMakerTarget, sleeps: Sleeps
) -> None:
    lines = started(simulator, target)
    simulator.requests.clear()
    sleeps.meanwhile[4] = lambda: simulator.show(JOB, "Completed", "Completed")
    list(lines)
    assert sleeps == [PAUSE] * 5, "the last of them for the log's last lines"
    assert simulator.requests.count("DescribeTrainingJob") == 4, "the one before the first line was read is not counted"


def test_lines_that_reach_the_log_after_the_end_of_the_job_are_shown(
    simulator: SageMakerSimulator, target: SageMakerTarget, sleeps: Sleeps
) -> None:
    target.create(request("say('early')"))
    simulator.run_to_end(JOB)
    sleeps.meanwhile[1] = lambda: write("late")
    printed = [line for line in target.log_lines(JOB, follow=True) if not line.startswith("{")]  # no events
    assert printed[:2] == ["early", "late"]


def write(line: str) -> None:
    """Add a line to the newest log stream, as CloudWatch does some time after it was printed."""
    logs = boto3.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    stream = logs.describe_log_streams(logGroupName=group)["logStreams"][-1]["logStreamName"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream)["events"]
    event = {"timestamp": events[-1]["timestamp"] + 1, "message": line}
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])
