"""A job whose instance is not available: what is offered, what stands in, and what is waited for."""

from typing import Any

import pytest
from account import BUCKET, REGION, training_request
from sagemaker_simulator import FailIn, Interruption, SageMakerSimulator

from orchestrator.aws.client import Aws
from orchestrator.contract.environment import STOP_GRACE_SECONDS
from orchestrator.errors import AccountError, CapacityError, QuotaError
from orchestrator.jobs import job as jobs
from orchestrator.jobs.capacity import CapacityRetry, acquire
from orchestrator.jobs.job import Job, cost
from orchestrator.planning.placement import Placement, find_placement, stand_ins
from orchestrator.planning.plan import Plan
from orchestrator.requests import IDENTITY_TAG, Request
from orchestrator.specs.building import build_spec
from orchestrator.storage import S3Store
from orchestrator.targets.base import JobStatus
from orchestrator.targets.sagemaker.target import SageMakerTarget

JOB = "mine-0123456789"
FIRST, SECOND = "ml.g4dn.xlarge", "ml.g6.xlarge"
COUNTING = """
    done = sorted((root / "checkpoints").glob("step-*/checkpoint.json"))
    folder = root / "checkpoints" / f"step-{len(done) + 1:08d}"
    folder.mkdir()
    (folder / "tensors.safetensors").write_text("")
    (folder / "checkpoint.json").write_text("{}")
    say("found", len(done))
    if not done and SPOT: block()
"""


@pytest.fixture
def target(simulator: SageMakerSimulator) -> SageMakerTarget:
    aws = Aws(REGION)
    simulator.seconds_per_call["DescribeTrainingJob"] = 60  # a client that polls lets time go by
    return SageMakerTarget(aws, S3Store(aws, BUCKET, "123456789012"), poll_seconds=0)


def planned(*, spot: bool = False) -> Plan:
    """Return a plan of a job with a small script, on the instances a real job would have."""
    spec = build_spec({"recipe": "dreambooth", "compute": {"spot": spot, "max_runtime_minutes": 240}})
    script = COUNTING.replace("SPOT", str(spot))
    whole = training_request(
        script,
        name=JOB,
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/checkpoints/{JOB}/", "LocalPath": "/opt/ml/checkpoints"},
        Tags=[{"Key": IDENTITY_TAG, "Value": "a" * 64}],
        EnableManagedSpotTraining=spot,
    )
    first, *others = (
        Plan(request=placed_request(whole, placed), warnings=(), placement=placed)
        for placed in (find_placement(spec, REGION), *stand_ins(spec, find_placement(spec, REGION)))
    )
    return first.model_copy(update={"stand_ins": tuple(others)})


def placed_request(whole: Request, placed: Placement) -> Request:
    limits = {"MaxRuntimeInSeconds": placed.cost.runtime_seconds}
    if placed.wait_seconds:
        limits["MaxWaitTimeInSeconds"] = placed.wait_seconds
    resources = {**whole["ResourceConfig"], "InstanceType": placed.instance.name}
    return {**whole, "ResourceConfig": resources, "StoppingCondition": limits}


def run(target: SageMakerTarget, plan: Plan, **given: Any) -> Job:
    """Acquire and watch to the end, without a second of waiting; `clock` and `sleep` can be given."""
    retry = CapacityRetry(given.pop("fallback", False), given.pop("minutes", 0))

    def start(way: Plan, again: bool) -> Job:
        job = jobs.submit(way, target, resume=again).job
        job.wait()
        return job

    return acquire(plan, start, retry, given.pop("report", lambda _text: None), **given)


def refused(target: SageMakerTarget, **given: Any) -> AccountError:
    with pytest.raises(AccountError) as raised:
        run(target, planned(), **given)
    return raised.value


def quota(simulator: SageMakerSimulator, instance_type: str, count: int, use: str = "training job usage") -> None:
    simulator.quotas[f"{instance_type} for {use}"] = count


def test_a_quota_that_refuses_is_answered_with_what_could_stand_in(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    quota(simulator, FIRST, 0)
    error = refused(target)
    assert isinstance(error, QuotaError)
    offered = [problem.where for problem in error.problems]
    assert offered[0] == SECOND
    assert all("at most" in problem.what and problem.where in problem.fix for problem in error.problems)
    assert "--fallback" in error.next_step
    assert "request-service-quota-increase" in error.next_step
    assert target.names() == []


def test_the_first_stand_in_that_can_be_had_is_taken(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    quota(simulator, FIRST, 0)
    quota(simulator, SECOND, 0)
    reported: list[str] = []
    job = run(target, planned(), fallback=True, report=reported.append)
    assert job.describe().status is JobStatus.COMPLETED
    assert job.describe().instance_type == "ml.g5.xlarge"
    assert [line.split()[0] for line in reported] == [FIRST, SECOND, "ml.g5.xlarge"]
    assert reported[-1] == "ml.g5.xlarge is used instead."
    assert target.names() == [JOB]


def test_when_nothing_is_available_each_refusal_is_told(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    for plan in (planned(), *planned().stand_ins):
        assert plan.placement
        quota(simulator, plan.placement.instance.name, 0)
    error = refused(target, fallback=True)
    assert len(error.problems) == len(planned().stand_ins)
    assert all("not available either" in problem.what for problem in error.problems)
    assert target.names() == []


def test_a_job_that_got_no_instance_goes_to_another_type(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    simulator.capacity[FIRST] = 0
    assert isinstance(refused(target), CapacityError)
    job = run(target, planned(), fallback=True)
    found = job.describe()
    assert (found.status, found.instance_type) == (JobStatus.COMPLETED, SECOND)
    assert target.names() == [JOB]


def test_what_is_waited_for_is_taken_when_it_comes(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    quota(simulator, FIRST, 0)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        quota(simulator, FIRST, len(slept) // 3)

    job = run(target, planned(), minutes=10, sleep=sleep, clock=lambda: sum(slept))
    assert (job.describe().instance_type, len(slept)) == (FIRST, 3)
    assert job.describe().status is JobStatus.COMPLETED


ABSENT = "The requested resource training-job/ml.g4dn.xlarge is not available in this region"


def test_a_type_that_the_region_does_not_have_is_not_waited_for(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    simulator.inject(FailIn("Pending", ABSENT))
    slept: list[float] = []
    error = refused(target, minutes=60, sleep=slept.append, clock=lambda: sum(slept))
    assert slept == []
    assert simulator.requests.count("CreateTrainingJob") == 1
    assert "--wait-minutes" not in error.next_step
    assert "--fallback" in error.next_step


def test_a_type_that_the_region_does_not_have_is_tried_once_while_others_are_waited_for(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    simulator.inject(FailIn("Pending", ABSENT))
    for plan in planned().stand_ins:
        assert plan.placement
        quota(simulator, plan.placement.instance.name, 0)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        quota(simulator, SECOND, len(slept) // 3)

    job = run(target, planned(), fallback=True, minutes=60, sleep=sleep, clock=lambda: sum(slept))
    assert (job.describe().instance_type, len(slept)) == (SECOND, 3)
    asked = [one.parameters["ResourceConfig"]["InstanceType"] for one in simulator.requests.of("CreateTrainingJob")]
    assert asked.count(FIRST) == 1


def test_a_type_that_the_region_does_not_have_has_a_stand_in(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    simulator.inject(FailIn("Pending", ABSENT))
    assert run(target, planned(), fallback=True).describe().instance_type == SECOND


def test_a_container_that_ran_did_not_lack_an_instance(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    simulator.inject(FailIn("Training", "AlgorithmError: CapacityError: the buffer holds 3, exit code: 1"))
    slept: list[float] = []
    job = run(target, planned(), fallback=True, minutes=60, sleep=slept.append, clock=lambda: sum(slept))
    assert job.describe().status is JobStatus.FAILED
    assert slept == []
    assert simulator.requests.count("CreateTrainingJob") == 1


def test_waiting_has_an_end(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    quota(simulator, FIRST, 0)
    slept: list[float] = []
    assert isinstance(refused(target, minutes=2.5, sleep=slept.append, clock=lambda: sum(slept)), QuotaError)
    assert sum(slept) == 150
    assert simulator.requests.count("CreateTrainingJob") == 4


def test_a_spot_job_that_lost_its_instance_goes_on_elsewhere_from_its_checkpoint(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    simulator.inject(Interruption(when_logged="found", notice=True))
    plan = planned(spot=True)
    target.create(plan.request)
    simulator.run_until(JOB, "Training")
    simulator.capacity[FIRST] = 0
    job = run(target, plan, fallback=True)
    assert (job.describe().status, job.describe().instance_type) == (JobStatus.COMPLETED, SECOND)
    assert [line for line in job.log_lines() if line.startswith("found")] == ["found 0", "found 1"]


def test_what_is_tried_after_a_machine_was_lost_costs_together_no_more_than_the_plan(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    simulator.inject(Interruption(when_logged="found", notice=True))
    plan = planned(spot=True)
    target.create(plan.request)
    simulator.run_until(JOB, "Training")
    simulator.clock.advance(3600)
    simulator.capacity[FIRST] = 0
    job = run(target, plan, fallback=True)
    found, second = job.describe(), simulator.job(f"{JOB}-r2").request
    assert found.instance_type == SECOND
    placed = plan.stand_ins[0].placement
    assert placed
    lost = cost(found.model_copy(update={"billed_attempts": found.billed_attempts[:1]}))
    assert lost
    seconds = second["StoppingCondition"]["MaxRuntimeInSeconds"]
    assert lost + placed.cost.usd_per_hour * (seconds + STOP_GRACE_SECONDS) / 3600 <= placed.cost.usd


def test_what_was_tried_already_is_not_advised(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    for plan in (planned(), *planned().stand_ins):
        assert plan.placement
        quota(simulator, plan.placement.instance.name, 0)
    slept: list[float] = []
    error = refused(target, fallback=True, minutes=60, sleep=slept.append, clock=lambda: sum(slept))
    assert "--fallback" not in error.next_step
    assert "--wait-minutes 120" in error.next_step
    assert "--wait-minutes 60" in refused(target).next_step
