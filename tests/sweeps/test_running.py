"""Running the jobs of a sweep on the real targets, with scripts of a few lines in the place of training."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from account import BUCKET, REGION, open_account
from account import training_request as sagemaker_request
from sagemaker_simulator import SageMakerSimulator

from orchestrator.aws.client import Aws
from orchestrator.contract.events import Event, Step
from orchestrator.errors import QuotaError, SpecError
from orchestrator.planning.plan import Plan
from orchestrator.requests import IDENTITY_TAG, Request
from orchestrator.settings import Settings
from orchestrator.specs.building import build_spec
from orchestrator.storage import S3Store
from orchestrator.sweeps.grid import Variant
from orchestrator.sweeps.results import results_of
from orchestrator.sweeps.running import Entry, SweepRun, check
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.sagemaker.target import SageMakerTarget

STEP = """
emit(event="step", step=1, of=1, loss=1, learning_rate=1, seconds_per_step=1)
finish()
"""
FAIL = """
emit(event="failed", kind="nan-loss", message="The loss is not a number.", next_step="lower learning_rate")
sys.exit(1)
"""
MakeRequest = Callable[..., Request]


class Notes:
    """Keeps what the jobs say and how they stand."""

    def __init__(self) -> None:
        self.said: list[tuple[int, Event]] = []
        self.stood: list[tuple[int, str]] = []

    def says(self, number: int, event: Event) -> None:
        self.said.append((number, event))

    def stands(self, number: int, words: str) -> None:
        self.stood.append((number, words))


def entry(request: Request, rank: int = 4, max_usd: str | None = None) -> Entry:
    spec = build_spec({"recipe": "dreambooth", "budget": {"max_usd": max_usd}})
    return Entry(Variant("dreambooth", {"rank": str(rank)}, spec), Plan(request=request, warnings=()))


def test_a_job_that_fails_does_not_stop_the_others(settings: Settings, training_request: MakeRequest) -> None:
    target, notes = ProcessTarget(settings), Notes()
    entries = [
        entry(training_request(script, name=f"job-{rank}"), rank)
        for rank, script in enumerate([STEP, FAIL, STEP], start=1)
    ]
    endings = SweepRun(entries, target, parallel=2, resume=False).run(notes)
    record = results_of(entries, endings, settings.sweeps)
    assert [job.status for job in record.jobs] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED]
    assert [job.is_complete for job in record.jobs] == [True, False, True]
    assert "not a number" in record.jobs[1].why
    assert record.jobs[1].next_step == "lower learning_rate"
    assert {number for number, event in notes.said if isinstance(event, Step)} == {0, 2}
    assert {(0, "Completed"), (1, "Failed"), (2, "Completed")} < set(notes.stood)
    # These adapters have no pictures: that is said, and there is no sheet.
    assert (record.contact_sheet, len(record.remarks)) == (None, 2)
    assert json.loads(Path(record.file).read_text()) == record.model_dump(mode="json")


def test_a_damaged_adapter_is_no_result_of_a_sweep(settings: Settings, training_request: MakeRequest) -> None:
    target = ProcessTarget(settings)
    entries = [entry(training_request(STEP, name=f"job-{rank}"), rank) for rank in (1, 2, 3)]
    endings = SweepRun(entries, target, parallel=3, resume=False).run(Notes())
    (settings.adapters / "job-1" / "weights.safetensors").unlink()
    (settings.adapters / "job-2" / "adapter.json").write_text("{")
    record = results_of(entries, endings, settings.sweeps)
    assert [job.is_complete for job in record.jobs] == [False, False, True]
    assert "weights.safetensors is missing" in record.jobs[0].why
    assert "adapter.json cannot be read" in record.jobs[1].why
    again = SweepRun(entries, target, parallel=3, resume=False).run(Notes())
    messages = [ending.error.message if ending.error else "" for ending in again]
    assert ["cannot be used" in message for message in messages] == [True, True, False]


def test_what_is_done_is_not_run_again_and_what_failed_is(settings: Settings, training_request: MakeRequest) -> None:
    target = ProcessTarget(settings)
    entries = [entry(training_request(script, name=f"job-{script is STEP}")) for script in (STEP, FAIL)]
    run = SweepRun(entries, target, parallel=1, resume=False)
    run.run(Notes())
    before = [target.describe(one.name) for one in entries]
    more = [*entries, entry(training_request(STEP, name="job-of-today"))]
    *_, new = SweepRun(more, target, parallel=1, resume=True).run(Notes())
    assert new.job is not None
    assert new.job.describe().status is JobStatus.COMPLETED
    after = [target.describe(one.name) for one in entries]
    assert after[0] == before[0]
    assert after[1].status is JobStatus.FAILED
    assert after[1].started != before[1].started


def test_jobs_here_run_one_after_the_other(settings: Settings, training_request: MakeRequest) -> None:
    target = ProcessTarget(settings)
    entries = [entry(training_request(STEP, name=f"job-{rank}"), rank) for rank in (1, 2)]
    SweepRun(entries, target, parallel=1, resume=False).run(Notes())
    first, second = (target.describe(one.name) for one in entries)
    assert first.ended
    assert second.started
    assert first.ended <= second.started


def test_or_as_many_at_a_time_as_was_said(settings: Settings, training_request: MakeRequest, tmp_path: Path) -> None:
    """A pipe opens at one end only when somebody opens the other."""
    os.mkfifo(tmp_path / "pipe")
    meet = f"signal.alarm(60); open({str(tmp_path / 'pipe')!r}, MODE).close(); finish()"
    entries = [entry(training_request(meet.replace("MODE", repr(mode)), name=f"job-{mode}")) for mode in "rw"]
    endings = SweepRun(entries, ProcessTarget(settings), parallel=2, resume=False).run(Notes())
    assert [ending.job and ending.job.describe().status for ending in endings] == [JobStatus.COMPLETED] * 2


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerSimulator]:
    with open_account(monkeypatch) as made:
        made.seconds_per_call["DescribeTrainingJob"] = 30  # a client that polls lets time go by
        yield made


@pytest.fixture
def service(simulator: SageMakerSimulator) -> SageMakerTarget:
    aws = Aws(REGION)
    return SageMakerTarget(aws, S3Store(aws, BUCKET, "123456789012"), poll_seconds=0)


def paid(number: int, script: str = "say('trained')", *, minutes: int = 60, max_usd: str | None = None) -> Entry:
    checkpoints = {"S3Uri": f"s3://{BUCKET}/checkpoints/{number}/", "LocalPath": "/opt/ml/checkpoints"}
    tags = [{"Key": IDENTITY_TAG, "Value": str(number) * 64}]
    limit = {"MaxRuntimeInSeconds": minutes * 60}
    name = f"mine-{number:010d}"
    request = sagemaker_request(script, name=name, CheckpointConfig=checkpoints, Tags=tags, StoppingCondition=limit)
    return entry(request, number, max_usd)


def test_where_the_quota_allows_one_job_the_next_waits_for_its_end(
    simulator: SageMakerSimulator, service: SageMakerTarget
) -> None:
    simulator.quotas["ml.g5.xlarge for training job usage"] = 1
    entries, notes = [paid(1), paid(2), paid(3)], Notes()
    endings = SweepRun(entries, service, parallel=3, resume=False).run(notes)
    assert [ending.error for ending in endings] == [None] * 3
    found = [service.describe(one.name) for one in entries]
    assert {one.status for one in found} == {JobStatus.COMPLETED}
    assert all(one.ended and other.created >= one.ended for one, other in pairwise(found))
    assert next(words for number, words in notes.stood if number == 1).startswith("waits")


def test_a_quota_of_none_is_said_of_every_job(simulator: SageMakerSimulator, service: SageMakerTarget) -> None:
    simulator.quotas["ml.g5.xlarge for training job usage"] = 0
    endings = SweepRun([paid(1), paid(2)], service, parallel=2, resume=False).run(Notes())
    assert all(ending.job is None and isinstance(ending.error, QuotaError) for ending in endings)


def test_a_job_that_runs_already_counts_by_its_own_limit(
    simulator: SageMakerSimulator, service: SageMakerTarget
) -> None:
    service.create(paid(1, minutes=240).plan.request)
    check([paid(1, max_usd="10"), paid(2, max_usd="10")], service)
    with pytest.raises(SpecError, match="does not pay"):
        check([paid(1, max_usd="1"), paid(2, max_usd="1")], service)
    assert service.names() == [paid(1).name]


def test_a_job_is_gone_on_with_by_the_limit_of_its_share(
    simulator: SageMakerSimulator, service: SageMakerTarget
) -> None:
    script = """
    folder = root / "checkpoints" / "step-00000001"
    if folder.exists(): sys.exit(0)
    folder.mkdir()
    (folder / "tensors.safetensors").write_text("")
    (folder / "checkpoint.json").write_text("{}")
    sys.exit(1)
    """
    long, short = paid(1, script, minutes=240), paid(1, script, max_usd="2")
    SweepRun([long], service, parallel=1, resume=False).run(Notes())
    check([short], service)
    SweepRun([short], service, parallel=1, resume=True).run(Notes())
    found = service.describe(long.name)
    assert (found.status, found.runtime_limit_seconds) == (JobStatus.COMPLETED, 3600)
