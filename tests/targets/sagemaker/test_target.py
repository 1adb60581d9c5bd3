"""Jobs on SageMaker through the real target, and a SageMaker that runs them."""

import itertools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from account import BUCKET, REGION, training_request
from sagemaker_simulator import (
    Interruption,
    SageMakerSimulator,
    capacity_shortage,
    failed_health_check,
    faults,
    image_pull_failure,
)

from orchestrator.aws.client import ATTEMPTS_WHEN_LOST
from orchestrator.cli.progress import follow
from orchestrator.cli.results import print_job
from orchestrator.contract.events import Phase, parse
from orchestrator.contract.recipe import recipe_class, to_hyperparameters
from orchestrator.errors import JobError, JobExistsError, LostAnswerError
from orchestrator.jobs import job as jobs
from orchestrator.jobs.job import Job, cost
from orchestrator.planning.metric_definitions import metric_definitions
from orchestrator.planning.plan import Plan
from orchestrator.planning.pricing import dollars
from orchestrator.targets.base import JobStatus, JobSummary
from orchestrator.targets.names import TargetName
from orchestrator.targets.sagemaker.target import SageMakerTarget
from tests.targets.sagemaker.requests import JOB, request

Ask = Callable[..., Any]

STEPS = """
    done = sorted((root / "checkpoints").glob("step-*/checkpoint.json"))
    figures = {"step": len(done) + 1, "of": 9, "loss": 1, "learning_rate": 1, "seconds_per_step": 1}
    print(json.dumps({"event": "step", **figures}))
    folder = root / "checkpoints" / f"step-{len(done) + 1:08d}"
    folder.mkdir()
    (folder / "tensors.safetensors").touch()
    (folder / "checkpoint.json").write_text("{}")
    (root / "model" / "attempt").write_text(str(len(done)))
"""


def test_a_job_runs_and_says_where_its_adapter_is(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    target.create(request(STEPS))
    assert target.names() == [JOB]
    assert target.describe(JOB).status is JobStatus.IN_PROGRESS
    assert target.wait_for_end(JOB, seconds=60)
    found = target.describe(JOB)
    assert (found.status, found.identity, found.stage) == (JobStatus.COMPLETED, "a" * 64, "Completed")
    assert found.output.endswith(f"/{JOB}/output/model/")
    assert found.billed_attempts[0].seconds
    assert found.instance_type == request()["ResourceConfig"]["InstanceType"]
    assert target.checkpoint_step(JOB) == 1


def test_the_report_of_a_job_is_found(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    report = '(root / "output" / "data" / "report.html").write_text("a page")\n'
    target.create(request(f"{STEPS}    {report}"))
    assert target.report(JOB) is None
    assert target.wait_for_end(JOB, seconds=60)
    uri = target.report(JOB)
    assert uri is not None
    assert target.store.get_bytes(target.store.name(uri)) == b"a page"


def test_following_shows_the_stages_and_every_line_once(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    simulator.seconds_per_call["DescribeTrainingJob"] = 10
    target.create(request("for number in range(300): say(number)"))
    lines = list(target.log_lines(JOB, follow=True))
    assert [line for line in lines if line.isdigit()] == [str(number) for number in range(300)]
    stages = [event.name for line in lines if (event := parse(line)) is not None and event.event == "phase"]
    assert [stage for stage in stages if stage in {"Downloading", "Uploading"}] == ["Downloading", "Uploading"]
    assert stages[-1] == "Completed"
    assert list(target.log_lines(JOB, follow=False)) == [str(number) for number in range(300)]


def told(lines: Iterable[str]) -> list[str]:
    """Return lines, and of the service's stages their names in angle brackets."""
    words = []
    for line in lines:
        event = parse(line)
        words.append(f"<{event.name}>" if isinstance(event, Phase) and event.at is not None else line)
    return words


def test_what_a_container_prints_comes_behind_the_stage_in_which_it_prints(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("say('first'); block()"))
    simulator.run_until(JOB, "Training")
    simulator.wait_for_line(JOB, "blocked")
    lines = target.log_lines(JOB, follow=True)
    until_it_prints = ["<Starting>", "<Pending>", "<Downloading>", "<Training>"]
    assert told(itertools.islice(lines, 6)) == [*until_it_prints, "first", "blocked"]


def test_a_later_stage_comes_behind_what_the_container_printed_before_it(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("say('last')"))
    target.wait_for_end(JOB, seconds=60)
    lines = told(target.log_lines(JOB, follow=True))
    assert lines[-4:] == ["<Training>", "last", "<Uploading>", "<Completed>"]


def test_who_attaches_late_learns_each_stage_with_its_time(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("say('last')"))
    target.wait_for_end(JOB, seconds=60)
    events = [event for line in target.log_lines(JOB, follow=True) if (event := parse(line)) is not None]
    transitions = target.aws.client("sagemaker").describe_training_job(TrainingJobName=JOB)[
        "SecondaryStatusTransitions"
    ]
    assert [(event.name, event.at) for event in events if event.event == "phase"] == [
        (transition["Status"], transition["StartTime"]) for transition in transitions
    ]


@pytest.mark.parametrize("fault", [faults.connection_reset, faults.internal_error, faults.throttling])
def test_the_log_is_whole_although_the_service_fails(
    simulator: SageMakerSimulator, target: SageMakerTarget, fault: Ask
) -> None:
    target.create(request("for number in range(300): say(number)"))
    simulator.faults.add(fault(), "GetLogEvents", service="cloudwatch-logs", times=12, skip=1)
    lines = list(target.log_lines(JOB, follow=True))
    assert [line for line in lines if line.isdigit()] == [str(number) for number in range(300)]


def test_a_reader_whose_token_has_expired_goes_on_by_the_clock(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("for number in range(300): say(number)"))
    refusal = faults.refusal("InvalidParameterException", "The specified nextToken is expired.")
    simulator.faults.add(refusal, "GetLogEvents", service="cloudwatch-logs", skip=1)
    lines = list(target.log_lines(JOB, follow=True))
    assert [line for line in lines if line.isdigit()] == [str(number) for number in range(300)]


def test_a_job_is_gone_on_with_from_its_checkpoints(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    target.create(request(STEPS + "    sys.exit(1 if len(done) < 2 else 0)"))
    target.wait_for_end(JOB, seconds=60)
    failed = target.describe(JOB)
    assert failed.status is JobStatus.FAILED
    for _ in range(2):
        target.resume(JOB)
        target.wait_for_end(JOB, seconds=60)
    found = target.describe(JOB)
    assert found.status is JobStatus.COMPLETED
    assert found.created == failed.created
    assert found.output.endswith(f"/{JOB}-r3/output/model/")
    assert found.identity == "a" * 64
    assert target.names() == [JOB]
    assert target.checkpoint_step(JOB) == 3
    assert len(list(target.log_lines(JOB, follow=False))) == 3
    assert len(list(target.log_lines(JOB, follow=False, latest_attempt=True))) == 1


def test_a_job_that_lists_do_not_name_yet_is_known_to_its_maker(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    simulator.list_lag_seconds = 3600
    target.create(request("sys.exit(0 if 'r2' in os.environ['TRAINING_JOB_NAME'] else 1)"))
    assert target.wait_for_end(JOB, seconds=60)
    assert target.describe(JOB).status is JobStatus.FAILED
    target.resume(JOB)
    assert target.describe(JOB).status is JobStatus.IN_PROGRESS
    assert target.wait_for_end(JOB, seconds=60)
    assert target.describe(JOB).status is JobStatus.COMPLETED


def test_a_complete_job_is_not_gone_on_with(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    target.create(request())
    target.wait_for_end(JOB, seconds=60)
    with pytest.raises(JobError, match="is complete"):
        target.resume(JOB)


def test_a_list_of_jobs_tells_recipe_settings_and_step_of_the_newest(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    recipe = recipe_class("dreambooth")(instance_prompt="a photo of sks dog", rank=16)
    metrics = {**request()["AlgorithmSpecification"], "MetricDefinitions": metric_definitions(steered=False)}
    training = {"HyperParameters": to_hyperparameters(recipe), "AlgorithmSpecification": metrics}
    target.create(request(STEPS, **training))
    target.wait_for_end(JOB, seconds=60)
    (listed,) = target.summaries()
    assert isinstance(listed, JobSummary)
    assert (listed.recipe, listed.step, listed.steps) == ("dreambooth", 1, recipe.steps)
    assert listed.settings == {"instance_prompt": "a photo of sks dog", "rank": 16}
    simulator.faults.add(faults.access_denied("sagemaker:DescribeTrainingJob"), "DescribeTrainingJob")
    (listed,) = target.summaries()
    assert isinstance(listed, JobSummary)
    assert (listed.status, listed.recipe) == (JobStatus.COMPLETED, None)


def test_a_list_of_jobs_is_one_call_and_one_for_each_of_the_newest(
    simulator: SageMakerSimulator, target: SageMakerTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.create(request("sys.exit(1)"))
    target.wait_for_end(JOB, seconds=60)
    created = target.describe(JOB).created
    target.resume(JOB)
    before = sum(simulator.requests.counts().values())
    (listed,) = target.summaries()
    assert sum(simulator.requests.counts().values()) == before + 2
    assert isinstance(listed, JobSummary)
    assert (listed.name, listed.target, listed.region) == (JOB, TargetName.SAGEMAKER, REGION)
    assert (listed.status, listed.created) == (JobStatus.IN_PROGRESS, created)
    monkeypatch.setattr("orchestrator.targets.sagemaker.target._MOST_TOLD", 0)
    assert [summary.name for summary in target.summaries()] == [JOB]
    assert sum(simulator.requests.counts().values()) == before + 3


def test_every_attempt_is_counted_in_what_a_job_costs(
    simulator: SageMakerSimulator, target: SageMakerTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    target.create(request(STEPS + "    sys.exit(0 if done else 1)"))
    target.wait_for_end(JOB, seconds=60)
    first = cost(target.describe(JOB))
    assert first
    cheaper = request(STEPS, ResourceConfig={**request()["ResourceConfig"], "InstanceType": "ml.g4dn.xlarge"})
    target.restart(cheaper)
    print_job(Job(target, JOB), as_json=False)
    assert f"{dollars(first)} for" in (said := capsys.readouterr().out)
    assert "billed seconds so far" in said
    target.wait_for_end(JOB, seconds=60)
    found = target.describe(JOB)
    assert [billed.instance_type for billed in found.billed_attempts] == ["ml.g5.xlarge", "ml.g4dn.xlarge"]
    second = cost(found.model_copy(update={"billed_attempts": found.billed_attempts[1:]}))
    assert second
    assert cost(found) == first + second
    print_job(Job(target, JOB), as_json=False)
    seconds = sum(billed.seconds for billed in found.billed_attempts)
    assert f"{dollars(first + second)} for {seconds} billed seconds in 2 attempts" in capsys.readouterr().out


def test_a_checkpoint_that_has_not_arrived_whole_does_not_count(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request(STEPS))
    target.wait_for_end(JOB, seconds=60)
    half = f"checkpoints/{'a' * 64}/step-00000002/"
    for file in ("checkpoint.json", "tensors.safetensors"):
        boto3.client("s3").put_object(Bucket=BUCKET, Key=half + file, Body=b"{}")
        assert target.checkpoint_step(JOB) == (1 if file == "checkpoint.json" else 2)


SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
}


def test_who_watches_sees_each_stage_behind_what_was_said_before_it(
    simulator: SageMakerSimulator, target: SageMakerTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.seconds_per_call["DescribeTrainingJob"] = 4
    simulator.inject(Interruption(when_logged="resumed", notice=True))
    said = 'print(json.dumps({"event": "resumed", "step": len(done)}), flush=True)'
    target.create(request(f"{STEPS}\n    {said}\n    block() if not done else None", **SPOT))
    simulator.run_until(JOB, "Interrupted")
    follow(Job(target, JOB), quiet=False)
    lines = [line.strip().split("  elapsed")[0] for line in capsys.readouterr().err.splitlines()]
    said = [line for line in lines if not line.startswith(("✓ ", "+ ", "step"))]
    until_it_works = ["waiting for an instance", "download", "container start"]
    assert said[:8] == [*until_it_works, "resumed at step 0", "Interrupted", *until_it_works]
    assert said[8:] == ["resumed at step 1", "upload"]
    follow(Job(target, JOB), quiet=False)
    again = capsys.readouterr().err.splitlines()
    assert again[-1][1:].startswith(" upload")
    assert all(" 24:00:" not in line for line in again), "the time since the job ended is no part of it"


def test_a_job_that_waits_for_another_instance_is_explained(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    simulator.inject(Interruption(when_logged="blocked", notice=True))
    target.create(request(STEPS + "    block()", **SPOT))
    job = Job(target, JOB)
    simulator.run_until(JOB, "Pending")
    assert job.explain().cause == "It is waiting for an instance (Pending) and then starts by itself."
    simulator.run_until(JOB, "Interrupted")
    lost = "Its instance was taken back. It is waiting for an instance ({}) and then resumes from step 1 by itself."
    assert job.explain().cause == lost.format("Interrupted")
    simulator.capacity["ml.g5.xlarge"] = 0
    simulator.run_until(JOB, "Pending")
    assert job.explain().cause == lost.format("Pending")
    assert job.explain().next_step == f"python -m orchestrator jobs wait {JOB}"


def test_a_job_begun_anew_has_none_of_its_checkpoints(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    script = f"{STEPS}    sys.exit(1)"
    target.create(request(script))
    target.wait_for_end(JOB, seconds=60)
    target.restart(request(script))
    target.wait_for_end(JOB, seconds=60)
    assert target.checkpoint_step(JOB) == 1
    target.resume(JOB)
    target.wait_for_end(JOB, seconds=60)
    assert target.checkpoint_step(JOB) == 2


def test_what_a_removed_job_left_in_the_bucket_is_not_gone_on_from(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    """Neither when the job is submitted again, nor when it is begun anew for the second time."""
    begin = [target.create, target.restart]
    for start in begin:
        start(request(STEPS))
        target.wait_for_end(JOB, seconds=60)
    target.discard(JOB)
    simulator.clock.advance(60)
    for start in begin:
        start(request(STEPS))
        assert target.checkpoint_step(JOB) is None
        target.wait_for_end(JOB, seconds=60)
        assert target.checkpoint_step(JOB) == 1


def test_a_job_has_none_of_the_log_of_a_removed_one(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    simulator.clock.advance_to(datetime.now(UTC))  # CloudWatch's own clock is the machine's
    target.create(request("say('old')"))
    target.wait_for_end(JOB, seconds=60)
    target.discard(JOB)
    simulator.clock.advance(60)
    streams = boto3.client("logs").describe_log_streams(logGroupName="/aws/sagemaker/TrainingJobs")["logStreams"]
    simulator.clock.advance_to(datetime.fromtimestamp(streams[-1]["creationTime"] / 1000 + 1, UTC))
    target.create(request("say('new')"))
    target.wait_for_end(JOB, seconds=60)
    assert "old" not in list(target.log_lines(JOB, follow=False))
    assert "old" not in list(target.log_lines(JOB, follow=True))


def test_a_job_that_is_stopping_can_be_told_so_again(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    """By somebody else too, and by whoever has waited for two minutes and is out of patience."""
    target.create(request("signal.signal(signal.SIGTERM, lambda *_: say('soon')); block()"))
    simulator.run_until(JOB, "Training")
    simulator.wait_for_line(JOB, "blocked")  # before, the signal would find no handler
    target.stop(JOB)
    assert target.describe(JOB).status is JobStatus.STOPPING
    target.stop(JOB)
    assert Job(target, JOB).stop(grace_seconds=0).status is JobStatus.STOPPED


def test_a_job_that_somebody_stops_in_the_same_moment_is_stopped(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("block()"))
    simulator.run_until(JOB, "Training")

    def somebody(**_: Any) -> None:
        simulator.show(JOB, "Stopping", "Stopping")

    target.aws.client("sagemaker").meta.events.register("before-call.sagemaker.StopTrainingJob", somebody)
    target.stop(JOB)
    assert simulator.requests.count("StopTrainingJob") == 1
    assert target.describe(JOB).status is JobStatus.STOPPING


def test_a_job_that_runs_loses_none_of_its_attempts(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    target.create(request("sys.exit(1)"))
    target.wait_for_end(JOB, seconds=60)
    target.resume(JOB)
    with pytest.raises(JobError) as raised:
        target.discard(JOB)
    assert raised.value.next_step == f"python -m orchestrator jobs stop {JOB}"
    assert [one["TrainingJobName"] for one in target._jobs.listed()] == [JOB, f"{JOB}-r2"]


def test_somebody_elses_job_that_is_called_like_ours_is_left_alone(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    """Many tools put the seconds since 1970 behind a name, which are ten digits too."""
    theirs = "xgboost-1700000000"
    target.aws.client("sagemaker").create_training_job(**training_request("sys.exit(1)", name=theirs))
    simulator.run_until(theirs, "Failed")
    acts: list[Ask] = [target.resume, target.stop, target.discard, target.describe, target.checkpoint_step]
    for act in acts:
        with pytest.raises(JobError, match="not submitted with orchestrator"):
            act(theirs)
    assert target.aws.client("sagemaker").describe_training_job(TrainingJobName=theirs)["TrainingJobStatus"] == "Failed"


def test_several_instances_talk_to_each_other_encrypted_when_a_job_goes_on_on_them(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("sys.exit(1)", EnableInterContainerTrafficEncryption=False))
    target.wait_for_end(JOB, seconds=60)
    resources = {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2}
    target.resume(JOB, request(ResourceConfig=resources, EnableInterContainerTrafficEncryption=True))
    assert simulator.job(f"{JOB}-r2").request["EnableInterContainerTrafficEncryption"]


def test_a_stopped_job_is_stopped(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    target.create(request("signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); block()"))
    simulator.run_until(JOB, "Training")
    target.stop(JOB)
    target.wait_for_end(JOB, seconds=60)
    assert target.describe(JOB).status is JobStatus.STOPPED
    target.stop(JOB)


def test_a_job_that_reached_its_time_limit_says_so(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    limit = {"MaxRuntimeInSeconds": 600}
    target.create(request("signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); block()", StoppingCondition=limit))
    simulator.run_until(JOB, "Training")
    target.wait_for_end(JOB, seconds=60)
    found = target.describe(JOB)
    assert (found.status, found.failure_reason) == (JobStatus.STOPPED, "It reached its time limit of 10 minutes.")
    explanation = Job(target, JOB).explain()
    assert "can run as long and cost as much again" in explanation.cause
    assert explanation.next_step == f"python -m orchestrator jobs retry {JOB}"


def test_a_job_of_that_name_and_another_identity_is_in_the_way(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request())
    with pytest.raises(JobExistsError):
        target.create(request(identity="b" * 64))


def test_a_job_that_lost_its_steps_is_not_started_over_silently(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    step = '"event": "step", "step": 40, "of": 400, "loss": 1, "learning_rate": 1, "seconds_per_step": 1'
    plan = Plan(request=request(f"    say('{{{step}}}'); sys.exit(1)"), warnings=())
    jobs.submit(plan, target)
    target.wait_for_end(JOB, seconds=60)
    with pytest.raises(JobError, match="after step 40, and has no checkpoint") as refused:
        jobs.submit(plan, target)
    assert "--restart" in str(refused.value.next_step)
    assert jobs.submit(plan, target, restart=True).started


def test_a_job_that_did_no_step_is_submitted_again_without_a_question(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    plan = Plan(request=request("    sys.exit(1)"), warnings=())
    jobs.submit(plan, target)
    target.wait_for_end(JOB, seconds=60)
    assert jobs.submit(plan, target).started


def test_a_retry_orders_nothing_that_the_service_added(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    built_in = {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1}
    older = request("sys.exit(1)", ResourceConfig=built_in)
    older.pop("ProfilerConfig", None)
    target.create(older)
    target.wait_for_end(JOB, seconds=60)
    described = target._jobs.latest(JOB)
    assert described["ResourceConfig"]["VolumeSizeInGB"]
    assert described["ProfilerConfig"] == {"DisableProfiler": False}
    target.resume(JOB)
    sent = simulator.requests.of("CreateTrainingJob")[-1].parameters
    assert sent["ResourceConfig"] == built_in
    assert sent["ProfilerConfig"] == {"DisableProfiler": True}


def test_a_retry_on_another_type_orders_its_volume(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    bare = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 70}
    target.create(request("sys.exit(1)", ResourceConfig=bare))
    target.wait_for_end(JOB, seconds=60)
    target.resume(JOB)
    assert simulator.requests.of("CreateTrainingJob")[-1].parameters["ResourceConfig"] == bare


def test_a_submit_does_not_list_the_whole_account(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    plan = Plan(request=request(), warnings=())
    assert jobs.submit(plan, target).started
    assert not jobs.submit(plan, target).started
    lists = simulator.requests.of("ListTrainingJobs")
    assert lists
    assert {one.parameters.get("NameContains") for one in lists} == {JOB}


def test_the_list_of_jobs_comes_by_the_hundred(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    names = [f"mine-{number:010x}" for number in range(101)]
    wanted = request()
    for name in names:
        boto3.client("sagemaker").create_training_job(**{**wanted, "TrainingJobName": name})
    simulator.requests.clear()
    assert target.names() == names
    assert simulator.requests.count("ListTrainingJobs") == 2


def test_there_is_no_job_of_another_name(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    target.create(request())
    with pytest.raises(JobError, match="no job"):
        target.describe("mine-01234")


def test_jobs_of_others_are_not_listed(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    boto3.client("sagemaker").create_training_job(**{**request(), "TrainingJobName": "somebody-elses"})
    assert target.names() == []


@pytest.mark.parametrize("kind", ["EFS", "FSxLustre", None])
def test_a_job_of_another_program_that_reads_no_bucket_does_not_hide_ours(
    simulator: SageMakerSimulator, target: SageMakerTarget, kind: str | None
) -> None:
    theirs = "others-0123456789"  # named as ours are
    boto3.client("sagemaker").create_training_job(**{**request(), "TrainingJobName": theirs})
    target.create(request())
    source = {}
    if kind is not None:
        system = {"FileSystemId": "fs-0123456789a", "FileSystemType": kind, "DirectoryPath": "/"}
        source["FileSystemDataSource"] = {**system, "FileSystemAccessMode": "ro"}
    channel = {"ChannelName": "train", "DataSource": source}
    simulator.job(theirs).request["InputDataConfig"] = [channel]
    listed = [one.name for one in target.summaries() if isinstance(one, JobSummary)]
    assert listed == [theirs, JOB]


@pytest.mark.parametrize("fault", ["lost", "lost twice", "timeout", "never sent"])
def test_a_lost_answer_makes_one_job(simulator: SageMakerSimulator, target: SageMakerTarget, fault: str) -> None:
    made = {
        "lost": (faults.lost_answer(), 1),
        "lost twice": (faults.lost_answer(), 2),
        "timeout": (faults.read_timeout(after_commit=True), 3),
        "never sent": (faults.read_timeout(after_commit=False), 3),
    }
    answer, times = made[fault]
    simulator.faults.add(answer, "CreateTrainingJob", times=times)
    target.create(request())
    committed = [one for one in simulator.requests.of("CreateTrainingJob") if one.committed]
    assert len(committed) == 1
    assert target.names() == [JOB]


@pytest.mark.parametrize("look", ["DescribeTrainingJob", "ListTags"])
@pytest.mark.parametrize("fault", [faults.throttling, faults.expired_token, faults.lost_answer])
def test_a_look_that_fails_does_not_hide_that_the_job_may_run(
    simulator: SageMakerSimulator, target: SageMakerTarget, waits: list[float], look: str, fault: Ask
) -> None:
    simulator.faults.add(faults.lost_answer(), "CreateTrainingJob", times=ATTEMPTS_WHEN_LOST)
    simulator.faults.add(fault(), look, times=None)
    with pytest.raises(LostAnswerError) as caught:
        target.create(request())
    assert "submit again" in caught.value.next_step
    simulator.faults.require_used()
    simulator.faults.clear()
    assert target.names() == [JOB]


def test_a_request_that_is_gone_on_with_is_the_one_of_before(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("sys.exit(1)"))
    target.wait_for_end(JOB, seconds=60)
    target.resume(JOB)
    first, second = (dict(one.parameters) for one in simulator.requests.of("CreateTrainingJob"))
    assert second.pop("TrainingJobName") == f"{first.pop('TrainingJobName')}-r2"
    assert {name: second[name] for name in first} == first
    assert second.pop("ProfilerConfig") == {"DisableProfiler": True}
    assert not any(value for name, value in second.items() if name not in first)  # flags the service adds, all off


def test_what_the_service_added_to_a_description_is_not_sent_back_to_it(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    target.create(request("sys.exit(1)"))
    target.wait_for_end(JOB, seconds=60)
    described = target._jobs.describe(JOB)
    described["ResourceConfig"] |= {"KeepAlivePeriodInSeconds": 3600, "SelectedInstanceType": "ml.g5.xlarge"}
    described["OutputDataConfig"]["OfTomorrow"] = "x"
    described["DebugHookConfig"] = {"S3OutputPath": "s3://pictures/debug"}
    described["InputDataConfig"][0]["ShuffleConfig"] = {"Seed": 1}
    simulator.tags[described["TrainingJobArn"]]["aws:cloudformation:stack-name"] = "theirs"
    restored = target._jobs.request_of(described)
    assert restored.pop("ProfilerConfig") == {"DisableProfiler": True}
    sent = dict(simulator.requests.of("CreateTrainingJob")[0].parameters)
    added = {name for name in restored if name not in sent}
    assert added <= {"EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining"}
    assert {name: restored[name] for name in sent} == sent


@pytest.mark.parametrize(
    ("fault", "words", "next_step"),
    [
        (capacity_shortage, "no such instances free", "--instance-type"),
        (image_pull_failure, "image could not be pulled", "infra image"),
        (failed_health_check, "not healthy", f"jobs retry {JOB}"),
    ],
)
def test_what_the_service_failed_at_is_explained(
    simulator: SageMakerSimulator, target: SageMakerTarget, fault: Ask, words: str, next_step: str
) -> None:
    simulator.inject(fault())
    target.create(request())
    target.wait_for_end(JOB, seconds=60)
    explanation = Job(target, JOB).explain()
    assert words in explanation.cause
    assert next_step in explanation.next_step
    assert explanation.evidence == (target.describe(JOB).failure_reason,)


def test_memory_that_ran_out_is_told_from_the_log(simulator: SageMakerSimulator, target: SageMakerTarget) -> None:
    target.create(request("say('torch.OutOfMemoryError: CUDA out of memory.'); sys.exit(1)"))
    target.wait_for_end(JOB, seconds=60)
    explanation = Job(target, JOB).explain()
    assert "Memory ran out" in explanation.cause
    assert explanation.evidence == ("torch.OutOfMemoryError: CUDA out of memory.",)


def test_what_a_job_says_of_its_own_failure_is_the_next_step(
    simulator: SageMakerSimulator, target: SageMakerTarget
) -> None:
    words = {"event": "failed", "kind": "gated-model", "message": "It is gated.", "next_step": "mirror it"}
    target.create(request(f"say(json.dumps({words!r})); sys.exit(1)"))
    target.wait_for_end(JOB, seconds=60)
    explanation = Job(target, JOB).explain()
    assert explanation.next_step == "mirror it"
    assert explanation.evidence == ("gated-model: It is gated.",)
