"""The process target with real processes: what `jobs` says has to be true whatever was killed."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.contract.events import parse
from orchestrator.contract.recipe import to_hyperparameters
from orchestrator.contract.recipes.dreambooth import DreamBooth
from orchestrator.errors import JobError
from orchestrator.jobs.job import Job, Submission, submit
from orchestrator.planning.plan import Plan
from orchestrator.requests import Request
from orchestrator.storage import folder_of
from orchestrator.targets.base import JobStatus, JobSummary
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.process import ProcessTarget
from tests.targets.local.running import BLOCKED_AT_STEP_5, MakeRequest, start, training_pid


def test_a_job_that_ends_well_leaves_a_verified_adapter(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request("finish()"))
    assert job.wait().status is JobStatus.COMPLETED
    manifest = job.finished().manifest
    assert manifest is not None
    assert manifest.damaged_files(folder_of(job.describe().output)) == []


def test_a_list_of_jobs_names_the_folder_of_a_base_model_as_a_person_knows_it(
    target: ProcessTarget, training_request: MakeRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "own models" / "sd15"
    folder.mkdir(parents=True)
    request = training_request("finish()")
    source = {"S3DataType": "S3Prefix", "S3Uri": folder.as_uri(), "S3DataDistributionType": "FullyReplicated"}
    request["InputDataConfig"].append({"ChannelName": "base_model", "DataSource": {"S3DataSource": source}})
    recipe = DreamBooth(instance_prompt="a photo of sks dog", base_model="./sd15")
    request["HyperParameters"] = to_hyperparameters(recipe)
    start(target, request).wait()
    (summary,) = target.summaries()
    assert isinstance(summary, JobSummary)
    assert summary.settings["base_model"] == str(folder)


def test_an_adapter_that_does_not_match_its_manifest_is_not_published(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request("finish(weights=b'one', claimed=b'two')"))
    description = job.wait()
    assert description.status is JobStatus.FAILED
    assert "weights.safetensors" in str(description.failure_reason)
    assert not folder_of(job.describe().output).exists()


def test_the_failure_a_job_reports_is_what_it_failed_of(target: ProcessTarget, training_request: MakeRequest) -> None:
    script = (
        "emit(event='failed', kind='nan-loss', message='Loss is NaN at step 7.', next_step='lower it'); sys.exit(1)"
    )
    job = start(target, training_request(script))
    assert job.wait().failure_reason == "Loss is NaN at step 7."
    explanation = job.explain()
    assert explanation.cause.startswith("Loss is NaN at step 7.")
    assert explanation.next_step == "lower it"


def test_a_crash_is_explained_by_its_last_words(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request("raise RuntimeError('the engine fell off')"))
    assert job.wait().status is JobStatus.FAILED
    assert any("the engine fell off" in line for line in job.explain().evidence)


def test_a_killed_training_process_is_a_failed_job_that_names_the_signal(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request(BLOCKED_AT_STEP_5))
    os.kill(training_pid(job), signal.SIGKILL)
    description = job.wait()
    assert description.status is JobStatus.FAILED
    assert "SIGKILL" in str(description.failure_reason)
    assert "from step 5" in job.explain().cause
    assert job.explain().next_step == "python -m orchestrator jobs retry job"


def test_when_all_processes_are_killed_the_job_is_not_called_running(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request(BLOCKED_AT_STEP_5))
    trainer = training_pid(job)
    state = JobFolder(target.settings.jobs / job.name).state()
    assert state is not None
    assert state.worker_pid is not None
    os.kill(state.worker_pid, signal.SIGKILL)
    os.kill(trainer, signal.SIGKILL)
    description = job.wait()
    assert description.status is JobStatus.FAILED
    assert "ended without a message" in str(description.failure_reason)


def test_stop_passes_the_signal_on_and_is_no_failure(target: ProcessTarget, training_request: MakeRequest) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: (checkpoint(9), os._exit(143)))\n" + BLOCKED_AT_STEP_5
    job = start(target, training_request(script))
    training_pid(job)
    job.stop()
    assert job.wait().status is JobStatus.STOPPED
    assert target.checkpoint_step(job.name) == 9


def test_resume_runs_the_same_bundle_and_keeps_the_checkpoints(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    script = """
    if not list((root / "checkpoints").iterdir()):
        checkpoint(5)
        sys.exit(1)
    emit(event="resumed", step=5)
    finish()
    """
    job = start(target, training_request(script))
    assert job.wait().status is JobStatus.FAILED
    job.resume()
    assert job.wait().status is JobStatus.COMPLETED
    assert [event.event for event in job.events()] == ["phase", "checkpoint", "phase", "resumed"]


def test_the_training_has_the_environment_of_the_request(target: ProcessTarget, training_request: MakeRequest) -> None:
    script = """
    emit(event="phase", name=os.environ["GREETING"])
    emit(event="phase", name=str(Path(os.environ["DATA"]).samefile(root / "input" / "data" / "code")))
    """
    request = training_request(script)
    request["Environment"] = {"GREETING": "hello", "DATA": "/opt/ml/input/data/code"}
    job = start(target, request)
    job.wait()
    _attempt, *said = [event.name for event in job.events() if event.event == "phase"]
    assert said == ["hello", "True"]


def test_a_line_cut_off_by_a_kill_does_not_swallow_the_next(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    script = """
    if not list((root / "checkpoints").iterdir()):
        checkpoint(5)
        os.write(1, b'{"event": "st')
        sys.exit(1)
    finish()
    """
    job = start(target, training_request(script))
    job.wait()
    job.resume()
    job.wait()
    assert sum(event.event == "phase" for event in job.events()) == 2


def submit_at_once(target: ProcessTarget, request: Request, **flags: bool) -> list[Submission | JobError]:
    """Submit one plan from four threads and return what each got."""
    plan, outcomes = Plan(request=request, warnings=()), []

    def one() -> None:
        try:
            outcomes.append(submit(plan, ProcessTarget(target.settings), **flags))
        except JobError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_submits_of_one_job_at_once_are_one_job(target: ProcessTarget, training_request: MakeRequest) -> None:
    outcomes = submit_at_once(target, training_request(BLOCKED_AT_STEP_5))
    started = [outcome.started for outcome in outcomes if isinstance(outcome, Submission)]
    assert sorted(started) == [False, False, False, True]
    assert target.names() == ["job"]
    os.kill(training_pid(Job(target, "job")), signal.SIGKILL)
    Job(target, "job").wait()


def test_restarts_at_once_leave_one_whole_job(target: ProcessTarget, training_request: MakeRequest) -> None:
    request = training_request("checkpoint(5); finish()")
    start(target, request).wait()
    for _ in range(3):
        outcomes = submit_at_once(target, request, restart=True)
        assert any(isinstance(outcome, Submission) and outcome.started for outcome in outcomes), outcomes
        job = Job(target, "job")
        assert job.wait().status is JobStatus.COMPLETED
        manifest = job.finished().manifest
        assert manifest is not None
        assert manifest.damaged_files(folder_of(job.describe().output)) == []
    assert [path.name for path in target.settings.jobs.iterdir()] == ["job"]


def test_a_restart_does_not_see_what_was_thrown_away(target: ProcessTarget, training_request: MakeRequest) -> None:
    request = training_request(
        "emit(event='item', done=len(list((root / 'checkpoints').iterdir())), of=1); checkpoint(5)"
    )
    job = start(target, request)
    job.wait()
    submit(Plan(request=request, warnings=()), target, restart=True)
    job.wait()
    assert [event.done for event in job.events() if event.event == "item"] == [0]


def test_what_a_killed_client_left_in_a_folder_is_no_part_of_the_next_job(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    left = target.settings.jobs / "job"
    (left / "ml" / "checkpoints" / "step-00000007").mkdir(parents=True)
    (left / "stop").touch()
    job = start(target, training_request("finish()"))
    assert job.wait().status is JobStatus.COMPLETED
    assert target.checkpoint_step("job") is None


def test_a_restart_replaces_the_jobs_own_adapter(target: ProcessTarget, training_request: MakeRequest) -> None:
    start(target, training_request("finish(b'old')")).wait()
    target.discard("job")
    request = training_request("finish(b'new')", name="other")
    request["TrainingJobName"] = "job"
    request["OutputDataConfig"]["S3OutputPath"] = (target.settings.adapters / "job").as_uri()
    job = start(target, request)
    assert job.wait().status is JobStatus.COMPLETED
    assert (folder_of(job.describe().output) / "weights.safetensors").read_bytes() == b"new"


def test_a_running_job_is_not_started_twice(target: ProcessTarget, training_request: MakeRequest) -> None:
    request = training_request(BLOCKED_AT_STEP_5)
    job = start(target, request)
    trainer = training_pid(job)
    with pytest.raises(JobError, match="InProgress"):
        job.resume()
    with pytest.raises(JobError, match="exists"):
        target.create(request)
    with pytest.raises(JobError, match="running"):
        submit(Plan(request=request, warnings=()), target, restart=True)
    assert training_pid(job) == trainer
    os.kill(trainer, signal.SIGKILL)
    job.wait()


def test_a_job_whose_worker_was_killed_can_still_be_stopped(
    target: ProcessTarget, training_request: MakeRequest
) -> None:
    job = start(target, training_request(BLOCKED_AT_STEP_5))
    training_pid(job)
    state = JobFolder(target.settings.jobs / job.name).state()
    assert state is not None
    assert state.worker_pid is not None
    os.kill(state.worker_pid, signal.SIGKILL)
    job.stop()
    assert job.wait().status is JobStatus.FAILED


@pytest.mark.parametrize("moment", range(5))
def test_stop_at_any_moment_of_the_start_is_a_stop(
    target: ProcessTarget, training_request: MakeRequest, moment: int
) -> None:
    job = start(target, training_request("block()", name=f"job-{moment}"))
    job.stop()
    assert job.wait().status is JobStatus.STOPPED


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("sys.exit(0)", "no manifest"),
        ("(root / 'model' / 'adapter.json').write_text('{}')", "manifest cannot be read"),
        ("print('9' * 5000); print('{' + '[' * 99999); sys.exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), 35)", "signal 35"),
        ("os.write(1, bytes(range(256)) * 9); sys.exit(4)", "exit code 4"),
    ],
)
def test_the_cause_of_an_odd_end_is_not_lost(
    target: ProcessTarget, training_request: MakeRequest, script: str, cause: str
) -> None:
    assert cause in str(start(target, training_request(script)).wait().failure_reason)


def test_one_damaged_job_does_not_hide_the_others(target: ProcessTarget, training_request: MakeRequest) -> None:
    start(target, training_request("finish()")).wait()
    damaged = target.settings.jobs / "damaged"
    damaged.mkdir()
    (damaged / "request.json").write_text("")
    assert set(target.names()) == {"damaged", "job"}
    with pytest.raises(JobError, match="damaged"):
        target.describe("damaged")


def test_a_killed_client_leaves_the_job_running(
    target: ProcessTarget, training_request: MakeRequest, tmp_path: Path
) -> None:
    request = training_request("checkpoint(5); Path(sys.argv[0]); block()")
    code = (
        "import sys, json; from orchestrator.settings import Settings; from orchestrator.jobs.job import Job;"
        "from orchestrator.targets.local.process import ProcessTarget; t = ProcessTarget(Settings.from_environment());"
        "t.create(json.load(sys.stdin)); print('made', flush=True); Job(t, 'job').wait()"
    )
    import json

    client = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps(request))
    client.stdin.close()
    assert client.stdout.readline() == "made\n"
    client.kill()
    client.wait()
    client.stdout.close()
    job = Job(target, "job")
    assert next(event for event in job.events(follow=True) if event.event == "checkpoint")
    assert job.describe().status is JobStatus.IN_PROGRESS
    job.stop()
    assert job.wait().status is JobStatus.STOPPED


def test_the_log_is_followed_to_its_last_line(target: ProcessTarget, training_request: MakeRequest) -> None:
    job = start(target, training_request("for i in range(2000): emit(event='item', done=i, of=2000)"))
    events = [event for line in job.log_lines(follow=True) if (event := parse(line)) and event.event == "item"]
    assert [event.done for event in events] == list(range(2000))


@pytest.mark.parametrize("name", ["nothing", "..", "a/b", ""])
def test_a_job_that_is_not_there(target: ProcessTarget, name: str) -> None:
    with pytest.raises(JobError, match="no job"):
        target.describe(name)
