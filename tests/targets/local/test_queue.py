"""Jobs of one machine that wait for one another: real processes, in the order in which they came."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.errors import JobError, OrchestratorError
from orchestrator.jobs.job import Job, submit
from orchestrator.planning.plan import Plan
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.local_jobs import LocalJobs
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.local.queue import Queue, Turn
from tests.targets.local.running import BLOCKED_AT_STEP_5, MakeRequest, start, training_pid

# Fails when another job is at work, and says in which order they were.
ONE_AT_A_TIME = """
busy = root.parents[2] / "busy"
os.close(os.open(busy, os.O_CREAT | os.O_EXCL))
with (root.parents[2] / "order").open("a") as order:
    order.write(root.parent.name + "\\n")
busy.unlink()
finish()
"""


@pytest.fixture
def queued(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings, Turn.QUEUED, lock_seconds=1)


@pytest.fixture
def alone(settings: Settings) -> ProcessTarget:
    return ProcessTarget(settings, Turn.ALONE, lock_seconds=1)


@pytest.fixture
def first(alone: ProcessTarget, training_request: MakeRequest) -> Job:
    """A job that runs until its training is killed."""
    job = start(alone, training_request(BLOCKED_AT_STEP_5, name="first"))
    training_pid(job)
    return job


def a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def a_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [a_folder, Path.touch, a_loop])
@pytest.mark.parametrize("name", ["00000001", "00000002", "00000009", "3 notes", "9" * 200, "7.bak"])
def test_what_else_lies_in_the_queue_refuses_no_job(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    queue = Queue(tmp_path / "queue")
    queue.folder.mkdir()
    make(queue.folder / name)
    with queue.take("a") as first, queue.take("b") as second:
        assert queue.jobs() == ["a", "b"]
        assert queue.jobs_before(second.path) == ["a"]
        assert queue.jobs_before(first.path) == []
        queue.wait_for_turn(first.path)


@pytest.mark.parametrize("place", ["queue", "queue/lock"])
def test_what_is_in_the_place_of_the_queue_is_named(tmp_path: Path, place: str) -> None:
    queue = Queue(tmp_path / "queue")
    path = tmp_path / place
    if place == "queue":
        path.touch()
    else:
        a_folder(path)
    with pytest.raises(JobError) as raised:
        queue.take("a")
    assert raised.value.next_step == f"rm -r {path}"


def end(job: Job) -> None:
    os.kill(training_pid(job), signal.SIGKILL)
    job.wait()


def worker_pid(target: LocalJobs, job: Job) -> int:
    """Return the process of a worker that has begun to wait or to train: it says so in the job's log."""
    for event in job.events(follow=True, latest_attempt=True):
        if event.event == "phase" and event.name != "starting":
            break
    state = JobFolder(target.settings.jobs / job.name).state()
    assert state is not None
    assert state.worker_pid is not None
    return state.worker_pid


def stage(job: Job) -> tuple[JobStatus, str | None]:
    found = job.describe()
    return found.status, found.stage


def test_queued_jobs_run_one_after_another_in_the_order_they_came(
    first: Job, queued: ProcessTarget, training_request: MakeRequest
) -> None:
    names = ["zebra", "ape", "mole"]
    jobs = [start(queued, training_request(ONE_AT_A_TIME, name=name)) for name in names]
    assert [stage(job) for job in jobs] == [
        (JobStatus.QUEUED, "behind first"),
        (JobStatus.QUEUED, "behind zebra and 1 more"),
        (JobStatus.QUEUED, "behind ape and 2 more"),
    ]
    assert jobs[0].describe().started is None
    assert "behind first" in jobs[0].explain().cause
    assert [summary.status for summary in queued.summaries() if not isinstance(summary, Exception)][1:] == [
        JobStatus.QUEUED
    ] * 3
    end(first)
    assert [job.wait().status for job in jobs] == [JobStatus.COMPLETED] * 3
    assert (queued.settings.home / "order").read_text().split() == names
    phases = [event for event in jobs[0].events() if event.event == "phase"]
    assert [phase.name for phase in phases] == ["queued behind first", "starting"]
    assert None not in [phase.at for phase in phases]


def test_jobs_that_queue_at_once_never_run_at_once(
    first: Job, queued: ProcessTarget, training_request: MakeRequest
) -> None:
    requests = [training_request(ONE_AT_A_TIME, name=f"job-{number}") for number in range(3)]
    threads = [threading.Thread(target=queued.create, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end(first)
    for request in requests:
        assert Job(queued, request["TrainingJobName"]).wait().status is JobStatus.COMPLETED


def test_a_first_job_in_the_queue_starts_at_once(queued: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(queued, training_request("finish()"))
    assert job.wait().status is JobStatus.COMPLETED
    assert [event.name for event in job.events() if event.event == "phase"] == ["starting"]


@pytest.mark.parametrize("victims", ["worker first", "all at once"])
def test_a_killed_runner_frees_the_queue(
    first: Job, queued: ProcessTarget, training_request: MakeRequest, victims: str
) -> None:
    waiting = start(queued, training_request("finish()", name="waiting"))
    trainer = training_pid(first)
    ticket = min(queued.settings.queue.glob("0*"))
    open_files = Path(f"/proc/{trainer}/fd")
    assert ticket.resolve() in [file.resolve() for file in open_files.iterdir()]  # it keeps the place of the job
    os.kill(worker_pid(queued, first), signal.SIGKILL)
    if victims == "worker first":
        assert stage(waiting) == (JobStatus.QUEUED, "behind first")
    os.kill(trainer, signal.SIGKILL)
    assert waiting.wait().status is JobStatus.COMPLETED


def test_a_queued_job_is_stopped_before_it_starts_and_lets_the_next_one_through(
    first: Job, queued: ProcessTarget, training_request: MakeRequest
) -> None:
    script = "emit(event='phase', name='ran'); finish()"
    second = start(queued, training_request(script, name="second"))
    third = start(queued, training_request("finish()", name="third"))
    found = second.stop()
    assert (found.status, found.failure_reason) == (JobStatus.STOPPED, "It was stopped before its turn came.")
    assert second.explain().next_step == "python -m orchestrator jobs retry second"
    assert stage(third) == (JobStatus.QUEUED, "behind first")
    end(first)
    assert third.wait().status is JobStatus.COMPLETED
    assert "ran" not in [event.name for event in second.events() if event.event == "phase"]


def test_a_queued_job_can_be_killed_and_removed(
    first: Job, queued: ProcessTarget, training_request: MakeRequest
) -> None:
    killed = start(queued, training_request("finish()", name="killed"))
    removed = start(queued, training_request("finish()", name="removed"))
    assert killed.stop(now=True).status is JobStatus.STOPPED
    removed.remove(adapter=False)
    assert queued.names() == ["first", "killed"]
    end(first)


def test_two_jobs_run_at_once_only_when_asked(
    first: Job, alone: ProcessTarget, settings: Settings, training_request: MakeRequest
) -> None:
    request = training_request("finish()", name="second")
    with pytest.raises(JobError, match="first is under way on this machine") as raised:
        alone.create(request)
    assert "--queue" in str(raised.value.next_step)
    assert "--together" in str(raised.value.next_step)
    assert alone.names() == ["first"]
    together = ProcessTarget(settings, Turn.TOGETHER)
    assert start(together, request).wait().status is JobStatus.COMPLETED
    end(first)


def test_the_same_job_is_attached_to_while_it_runs(first: Job, alone: ProcessTarget, queued: ProcessTarget) -> None:
    request = JobFolder(alone.settings.jobs / "first").request()
    for target in (alone, queued):
        assert submit(Plan(request=request), target).started is False
    end(first)
    assert submit(Plan(request=request), alone, restart=True).started
    end(first)


def test_a_refused_restart_keeps_what_it_would_have_replaced(
    alone: ProcessTarget, settings: Settings, training_request: MakeRequest
) -> None:
    request = training_request("checkpoint(5); sys.exit(1)", name="old")
    start(alone, request).wait()
    running = start(alone, training_request(BLOCKED_AT_STEP_5, name="running"))
    with pytest.raises(JobError, match="running is under way"):
        submit(Plan(request=request), alone, restart=True)
    with pytest.raises(JobError, match="running is under way"):
        Job(alone, "old").resume()
    assert alone.checkpoint_step("old") == 5
    end(running)


@pytest.mark.parametrize("obstacle", ["the adapter's name is taken", "the disk is full", "it waits behind another job"])
def test_a_restart_that_cannot_start_deletes_nothing(
    alone: ProcessTarget,
    queued: ProcessTarget,
    training_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    obstacle: str,
) -> None:
    request = training_request("checkpoint(5); sys.exit(1)", name="old")
    start(alone, request).wait()
    if obstacle == "the adapter's name is taken":
        other = training_request("finish()", name="other")
        other["OutputDataConfig"] = request["OutputDataConfig"]
        start(alone, other).wait()
    elif obstacle == "the disk is full":
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1))
    else:
        running = start(alone, training_request(BLOCKED_AT_STEP_5, name="running"))
        queued.resume("old")
    with pytest.raises(OrchestratorError):
        alone.restart(request)
    assert alone.checkpoint_step("old") == 5
    if obstacle == "it waits behind another job":
        assert Job(alone, "old").describe().status is JobStatus.QUEUED
        alone.discard("old")
        end(running)


def test_of_several_that_want_to_be_alone_one_runs(alone: ProcessTarget, training_request: MakeRequest) -> None:
    requests = [training_request(BLOCKED_AT_STEP_5, name=f"job-{number}") for number in range(4)]
    refused: list[JobError] = []

    def create(request: Request) -> None:
        try:
            alone.create(request)
        except JobError as error:
            refused.append(error)

    threads = [threading.Thread(target=create, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    (name,) = alone.names()
    end(Job(alone, name))


def test_after_a_restart_of_the_machine_a_queued_job_is_known_to_have_ended_and_runs_again(
    first: Job, queued: ProcessTarget, alone: ProcessTarget, training_request: MakeRequest
) -> None:
    waiting = start(queued, training_request("finish()", name="waiting"))
    trainer = training_pid(first)
    for pid in (worker_pid(queued, waiting), worker_pid(queued, first), trainer):
        os.kill(pid, signal.SIGKILL)
    first.wait()
    found = waiting.wait()
    assert found.status is JobStatus.FAILED
    assert "turn had not come" in str(found.failure_reason)
    assert waiting.explain().next_step == "python -m orchestrator jobs retry waiting"
    Job(alone, "waiting").resume()
    assert waiting.wait().status is JobStatus.COMPLETED


def test_a_job_that_is_tried_again_goes_to_the_end_of_the_queue(
    first: Job, queued: ProcessTarget, training_request: MakeRequest
) -> None:
    second = start(queued, training_request(BLOCKED_AT_STEP_5, name="second"))
    end(first)
    Job(queued, "first").resume()
    training_pid(second)
    assert stage(first) == (JobStatus.QUEUED, "behind second")
    end(second)
    end(first)


def test_tickets_of_what_has_ended_are_dropped_and_no_number_is_given_twice(settings: Settings) -> None:
    queue = Queue(settings.queue)
    with queue.take("one"), queue.take("two") as two:
        pass
    with queue.take("three") as three, queue.take("four") as four:
        assert two.path.name == "00000002"
        assert queue.jobs_before(four.path) == ["three"]
        three.close()
        with queue.take("five") as five:
            assert queue.jobs_before(five.path) == ["four"]
            assert five.path.name > four.path.name
        assert [path.name for path in sorted(settings.queue.glob("0*"))] == [four.path.name, five.path.name]
