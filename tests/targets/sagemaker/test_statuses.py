"""Every status that the service may give: those that are known, `Deleting`, and those of tomorrow."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sagemaker_simulator import SageMakerSimulator

from orchestrator.cli.progress import follow
from orchestrator.cli.results import print_job
from orchestrator.errors import JobError
from orchestrator.jobs import job as jobs
from orchestrator.jobs.job import Job
from orchestrator.planning.plan import Plan
from orchestrator.targets.base import JobStatus, JobSummary
from orchestrator.targets.sagemaker.target import SageMakerTarget
from tests.targets.sagemaker.requests import JOB, request

Ask = Callable[..., Any]


def ended(simulator: SageMakerSimulator, target: SageMakerTarget, script: str = "sys.exit(1)") -> Job:
    target.create(request(script))
    simulator.run_to_end(JOB)
    return Job(target, JOB)


@pytest.mark.parametrize(
    ("word", "secondary", "known"),
    [
        ("Deleting", "Completed", JobStatus.DELETING),
        ("Deleting", "Stopped", JobStatus.DELETING),
        ("Archived", "Archived", JobStatus.UNKNOWN),
        ("InProgress", "Thinking", JobStatus.IN_PROGRESS),
    ],
)
def test_a_job_of_any_status_is_listed_shown_and_explained(
    simulator: SageMakerSimulator,
    target: SageMakerTarget,
    capsys: pytest.CaptureFixture[str],
    word: str,
    secondary: str,
    known: JobStatus,
) -> None:
    job = ended(simulator, target)
    say(target, word, secondary)
    (listed,) = target.summaries()
    assert isinstance(listed, JobSummary)
    assert (listed.status, job.describe().status) == (known, known)
    print_job(job, as_json=False)
    assert known.value in capsys.readouterr().out
    explanation = job.explain()
    assert explanation.cause
    assert explanation.next_step.startswith("python -m orchestrator jobs ")


def test_the_next_command_that_is_shown_is_the_one_that_helps(
    simulator: SageMakerSimulator, target: SageMakerTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = '{"event": "failed", "kind": "scorer", "message": "No CLIP.", "next_step": "name another --scorer"}'
    job = ended(simulator, target, f"say({reported!r}); sys.exit(1)")
    print_job(job, as_json=False)
    shown = capsys.readouterr().out
    assert "name another --scorer" in shown
    assert "retry" not in shown


def say(target: SageMakerTarget, status: str, secondary: str) -> None:
    """Have the service answer with a status that its model may not list yet."""

    def change(parsed: dict[str, Any], **_: Any) -> None:
        for one in [parsed, *parsed.get("TrainingJobSummaries", [])]:
            if "TrainingJobStatus" in one:
                one.update(TrainingJobStatus=status, SecondaryStatus=secondary)

    target.aws.client("sagemaker").meta.events.register("after-call.sagemaker", change)


def test_a_job_that_is_being_deleted_has_ended_for_whoever_waits_or_watches(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    job = ended(simulator, target)
    say(target, "Deleting", "Failed")
    assert target.wait_for_end(JOB, seconds=0)
    follow(job, quiet=True)
    target.stop(JOB)
    assert simulator.requests.count("StopTrainingJob") == 0


def test_a_job_of_an_unknown_status_may_still_be_stopped(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("block()"))
    say(target, "Thinking", "Thinking")
    assert not target.wait_for_end(JOB, seconds=0)
    target.stop(JOB)
    assert simulator.job(JOB).status == "Stopping"


@pytest.mark.parametrize(
    "act",
    [
        lambda target: jobs.submit(Plan(request=request()), target),
        lambda target: jobs.submit(Plan(request=request()), target, restart=True),
        lambda target: jobs.submit(Plan(request=request()), target, resume=True),
        lambda target: target.create(request()),
        lambda target: target.resume(JOB),
        lambda target: target.restart(request()),
    ],
    ids=["submit", "submit --restart", "submit --resume", "create", "resume", "restart"],
)
def test_nothing_is_started_under_the_name_of_a_job_that_is_being_deleted(
    simulator: SageMakerSimulator, target: SageMakerTarget, act: Ask
) -> None:
    simulator.seconds_per_call.clear()
    ended(simulator, target)
    target.discard(JOB)
    assert target.describe(JOB).status is JobStatus.DELETING
    with pytest.raises(JobError, match="is being deleted") as raised:
        act(target)
    assert raised.value.next_step
    simulator.clock.advance(60)
    assert target.names() == []
    assert jobs.submit(Plan(request=request()), target).started


def test_a_job_that_is_being_deleted_can_be_removed_again(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    """By somebody else too, who looked at it before it was gone."""
    simulator.seconds_per_call.clear()
    ended(simulator, target)
    target.discard(JOB)
    target.discard(JOB)
    attempts = target._jobs.attempts(JOB)
    simulator.clock.advance(60)
    for attempt in attempts:
        target._jobs.delete(attempt)
    assert target.names() == []


@pytest.mark.parametrize("name", ["ml.m5.large", "ml.p5en.48xlarge"])
def test_a_job_on_an_instance_without_a_known_price_is_shown_all_the_same(
    simulator: SageMakerSimulator, target: SageMakerTarget, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    resources = {"InstanceType": name, "InstanceCount": 1, "VolumeSizeInGB": 10}
    target.create(request("sys.exit(1)", ResourceConfig=resources))
    simulator.run_to_end(JOB)
    print_job(Job(target, JOB), as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert f"no price of {name} is known here" in said
    assert "billed seconds" in said
    print_job(Job(target, JOB), as_json=True)
    assert json.loads(capsys.readouterr().out)["usd"] is None
