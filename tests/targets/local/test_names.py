"""Whose an adapter's name is, and how it is given back."""

import os
import signal

import pytest

from orchestrator.errors import JobError
from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.targets.local.process import ProcessTarget
from tests.targets.local.running import BLOCKED_AT_STEP_5, MakeRequest, start, training_pid


@pytest.fixture
def request_for_dog(target: ProcessTarget, training_request: MakeRequest) -> MakeRequest:
    """Make a request whose adapter is to be called `dog`."""

    def make(script: str, *, name: str) -> Request:
        request = training_request(script, name=name)
        request["OutputDataConfig"]["S3OutputPath"] = (target.settings.adapters / "dog").as_uri()
        return request

    return make


def weights(target: ProcessTarget) -> bytes:
    return (target.settings.adapters / "dog" / "weights.safetensors").read_bytes()


def test_the_name_of_a_finished_adapter_is_refused_before_anything_is_spent(
    target: ProcessTarget, request_for_dog: MakeRequest
) -> None:
    start(target, request_for_dog("finish(b'first')", name="first")).wait()
    with pytest.raises(JobError, match="taken by the job first") as raised:
        target.create(request_for_dog("finish(b'second')", name="second"))
    assert "jobs remove --adapter first" in raised.value.next_step
    assert [path.name for path in target.settings.jobs.iterdir()] == ["first"]
    assert weights(target) == b"first"


def test_the_name_a_running_job_works_for_is_refused(target: ProcessTarget, request_for_dog: MakeRequest) -> None:
    job = start(target, request_for_dog(BLOCKED_AT_STEP_5, name="first"))
    trainer = training_pid(job)
    with pytest.raises(JobError, match="taken by the job first"):
        target.create(request_for_dog("finish()", name="second"))
    os.kill(trainer, signal.SIGKILL)
    job.wait()


def test_a_job_that_made_nothing_gives_its_name_to_the_next_and_cannot_take_it_back(
    target: ProcessTarget, request_for_dog: MakeRequest
) -> None:
    failed = start(target, request_for_dog("checkpoint(5); sys.exit(1)", name="first"))
    failed.wait()
    start(target, request_for_dog("finish(b'second')", name="second")).wait()
    assert weights(target) == b"second"
    with pytest.raises(JobError, match="taken by the job second"):
        failed.resume()
    assert target.checkpoint_step("first") == 5


def test_a_removed_job_leaves_its_adapter_which_keeps_the_name(
    target: ProcessTarget, request_for_dog: MakeRequest
) -> None:
    first = request_for_dog("finish(b'first')", name="first")
    job = start(target, first)
    job.wait()
    job.remove(adapter=False)
    assert target.names() == []
    with pytest.raises(JobError, match="belongs to no job"):
        target.create(request_for_dog("finish(b'second')", name="second"))
    assert weights(target) == b"first"
    start(target, first).wait()  # the same job may make it again


def test_a_job_removed_with_its_adapter_leaves_nothing(target: ProcessTarget, request_for_dog: MakeRequest) -> None:
    job = start(target, request_for_dog("finish(b'first')", name="first"))
    job.wait()
    job.remove(adapter=True)
    assert list(target.settings.jobs.iterdir()) == []
    assert [path.name for path in target.settings.adapters.iterdir()] == [".owners"]
    start(target, request_for_dog("finish(b'second')", name="second")).wait()
    assert weights(target) == b"second"


def test_a_removed_job_does_not_take_the_adapter_of_another(
    target: ProcessTarget, request_for_dog: MakeRequest
) -> None:
    failed = start(target, request_for_dog("sys.exit(1)", name="first"))
    failed.wait()
    start(target, request_for_dog("finish(b'second')", name="second")).wait()
    failed.remove(adapter=True)
    assert weights(target) == b"second"


def test_a_running_job_is_not_removed(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request(BLOCKED_AT_STEP_5))
    trainer = training_pid(job)
    with pytest.raises(JobError, match="running") as raised:
        job.remove(adapter=True)
    assert raised.value.next_step == "python -m orchestrator jobs stop job"
    assert training_pid(job) == trainer
    os.kill(trainer, signal.SIGKILL)
    job.wait()


def test_a_damaged_job_can_be_removed(target: ProcessTarget) -> None:
    damaged = target.settings.jobs / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "request.json").write_text("")
    job = Job(target, "damaged")
    with pytest.raises(JobError, match="damaged") as raised:
        job.describe()
    assert raised.value.next_step == "python -m orchestrator jobs remove damaged"
    job.remove(adapter=False)
    assert not damaged.exists()


def test_what_killed_processes_left_is_swept_once_it_is_old(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    for root in (target.settings.jobs, target.settings.adapters, target.settings.store):
        for name in ("old", "new"):
            (root / f".scratch-{name}" / "inside").mkdir(parents=True)
        os.utime(root / ".scratch-old", (0, 0))
    start(target, training_request("finish()")).wait()
    for root in (target.settings.jobs, target.settings.adapters, target.settings.store):
        assert [path.name for path in root.glob(".scratch-*")] == [".scratch-new"]
