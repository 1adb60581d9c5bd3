"""A job on SageMaker that waits for people: it leaves a round and ends, and finds their labels when it starts again."""

from datetime import timedelta
from pathlib import Path

import pytest
from sagemaker_simulator import SageMakerSimulator

from orchestrator.errors import JobError
from orchestrator.jobs.exchanges import exchange_of, waits_for_labels
from orchestrator.jobs.job import Job
from orchestrator.labels.desk import Desk
from orchestrator.labels.open_round import Said
from orchestrator.targets.base import JobStatus, JobSummary
from orchestrator.targets.sagemaker.target import SageMakerTarget
from tests.labels.served import ROOT
from tests.targets.sagemaker.requests import JOB, request

# Simulated time runs fast on a busy machine.
LONGEST = {"StoppingCondition": {"MaxRuntimeInSeconds": 28 * 24 * 3600}}
ASKS_AND_TRAINS = f"""
sys.path.insert(0, {str(ROOT)!r})
from datetime import UTC, datetime, timedelta

from orchestrator.contract.environment import EXIT_WAITING
from orchestrator.contract.labels import WAITS
from orchestrator.contract.rounds import AskedOfPeople, DrawnSample, close_round, read_round, settled, write_round

exchange = root / "checkpoints" / "exchange"
manifest = read_round(exchange, 0)
if manifest is None:
    drawn = [DrawnSample(bytes([number]), "a fox", number, 0) for number in range(3)]
    later = datetime.now(UTC) + timedelta(days=1)
    write_round(exchange, AskedOfPeople({JOB!r}, 0, "weights", 1, later), drawn)
    failure = root / "output" / "failure"
    failure.parent.mkdir(parents=True, exist_ok=True)
    failure.write_text("Round 0" + WAITS + "0 of 3 images have one.")
    sys.exit(EXIT_WAITING)
settlement = settled(exchange, manifest)
settlement = close_round(exchange, manifest, settlement)
rewards = [settlement.ratings[sample.id].mean for sample in manifest.samples]
say("rewards", *rewards)
"""


def test_a_job_that_waits_is_listed_as_such_however_many_are_newer(
    simulator: SageMakerSimulator, target: SageMakerTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.create(request(ASKS_AND_TRAINS, **LONGEST))
    target.wait_for_end(JOB, seconds=60)
    monkeypatch.setattr("orchestrator.targets.sagemaker.target._MOST_TOLD", 0)
    (listed,) = target.summaries()
    assert isinstance(listed, JobSummary)
    assert listed.status is JobStatus.STOPPED
    # The round has expired, however far simulated time has run ahead.
    monkeypatch.setattr("orchestrator.targets.sagemaker.target.LONGEST_ROUND", timedelta.min)
    before = simulator.requests.counts()["DescribeTrainingJob"]
    (listed,) = target.summaries()
    assert isinstance(listed, JobSummary)
    assert listed.status is JobStatus.FAILED
    assert simulator.requests.counts()["DescribeTrainingJob"] == before


def test_labels_reach_the_container_when_the_job_starts_again(
    simulator: SageMakerSimulator, target: SageMakerTarget, tmp_path: Path
) -> None:
    target.create(request(ASKS_AND_TRAINS, **LONGEST))
    target.wait_for_end(JOB, seconds=60)
    waiting = target.describe(JOB)
    assert waiting.status is JobStatus.STOPPED  # the service calls it failed
    assert waits_for_labels(waiting)
    with pytest.raises(JobError, match="waits for labels of 3 images of round 0"):
        Job(target, JOB).resume()
    desk = Desk(exchange_of(target, JOB), tmp_path)
    with desk.sending():
        for number, sample in enumerate(desk.manifest.samples):
            desk.add(Said(id=f"{number:032x}", by="ada", round=0, sample=sample.id, rating=number + 2))
    Job(target, JOB).resume()
    target.wait_for_end(JOB, seconds=60)
    assert target.describe(JOB).status is JobStatus.COMPLETED
    log = "\n".join(target.log_lines(JOB, follow=False, latest_attempt=True))
    assert "rewards 2.0 3.0 4.0" in log
    late = Desk(exchange_of(target, JOB), tmp_path)
    assert late.standing(0).closed
