"""Jobs in real containers, through the SDK: of a few lines, in an image without libraries."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from orchestrator.contract.events import parse
from orchestrator.docker import Docker
from orchestrator.endpoints.local.container import ContainerHost
from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.container import FOLDER_LABEL, ContainerTarget, collect_containers
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.names import TargetName
from tests.containers.engine import in_container, run
from tests.targets.local.running import BLOCKED_AT_STEP_5, MakeRequest

MEETS = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen
import time
config = json.loads((root / "input" / "config" / "resourceconfig.json").read_text())
hosts = sorted(config["hosts"])
number = hosts.index(config["current_host"])

class Greeting(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

if number == 0:
    server = HTTPServer(("0.0.0.0", 8000), Greeting)
    server.handle_request()
else:
    while True:
        try:
            emit(event="phase", name=urlopen(f"http://{hosts[0]}:8000").read().decode())
            break
        except OSError:
            time.sleep(0.1)
"""


def start(target: ContainerTarget, request: Request) -> Job:
    target.create(request)
    return Job(target, request["TrainingJobName"])


def wait_for_phase(job: Job) -> str:
    """Return the first phase that the script says of its latest attempt."""
    for event in job.events(follow=True, latest_attempt=True):
        if event.event == "phase" and event.name != "starting":
            return event.name
    raise AssertionError("\n".join(["the script ended before it said a phase:", *job.log_lines()]))


def containers_of(job: Job, *, running: bool = False) -> list[str]:
    folder = Path(str(job.target.root(job.name))).parent
    words = ["ps", "--quiet", "--filter", f"label={FOLDER_LABEL}={folder}"]
    return run(*words, *([] if running else ["--all"])).split()


def test_a_job_leaves_what_it_leaves_as_a_process_and_no_container(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest, settings: Settings
) -> None:
    script = """
    emit(event="phase", name="trains")
    (root / "output" / "data" / "samples" / "1.txt").write_text("sample")
    finish()
    """
    job = start(containers, in_container(training_request(script), small_image))
    ended = job.wait()
    assert ended.status is JobStatus.COMPLETED, "\n".join(job.log_lines())
    assert ended.target is TargetName.CONTAINER
    beside = start_process(ProcessTarget(settings), training_request(script, name="beside"))
    assert beside.wait().status is JobStatus.COMPLETED
    files = sorted(path.name for path in (settings.adapters / "job").iterdir())
    assert files == sorted(path.name for path in (settings.adapters / "beside").iterdir())
    assert (containers.root("job") / "output" / "data" / "samples" / "1.txt").read_text() == "sample"
    assert "trains" in [event.name for event in job.events() if event.event == "phase"]
    assert containers_of(job) == []
    assert owners(settings.home) == {os.getuid()}
    assert {target.names()[0] for target in (containers, ProcessTarget(settings))} == {"job", "beside"}


def start_process(target: ProcessTarget, request: Request) -> Job:
    target.create(request)
    return Job(target, request["TrainingJobName"])


def owners(folder: Path) -> set[int]:
    """Return who owns the files below a folder; links lead to what is shared between tests."""
    return {path.lstat().st_uid for path in folder.rglob("*")}


def test_a_job_is_stopped_at_its_checkpoint_and_resumed_from_it(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    script = f"""
    if (root / "checkpoints" / "step-00000009").exists():
        finish()
        sys.exit()
    signal.signal(signal.SIGTERM, lambda *_: (checkpoint(9), os._exit(143)))
    {BLOCKED_AT_STEP_5}
    """
    job = start(containers, in_container(training_request(script), small_image))
    wait_for_phase(job)
    assert job.stop().status is JobStatus.STOPPED
    assert containers.checkpoint_step(job.name) == 9
    assert containers_of(job) == []
    job.resume()
    assert job.wait().status is JobStatus.COMPLETED


def test_a_job_that_is_stopped_before_its_container_is_there_ends(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    job = start(containers, in_container(training_request(BLOCKED_AT_STEP_5), small_image))
    assert job.stop().status is JobStatus.STOPPED
    assert containers_of(job) == []


def test_a_job_that_is_killed_before_its_container_is_there_says_so(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    job = start(containers, in_container(training_request(BLOCKED_AT_STEP_5), small_image))
    ended = job.stop(now=True)
    assert ended.status is JobStatus.STOPPED
    assert "It was killed on request." in str(ended.failure_reason)
    assert containers_of(job) == []


def test_a_job_is_killed(containers: ContainerTarget, small_image: str, training_request: MakeRequest) -> None:
    script = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{BLOCKED_AT_STEP_5}"
    job = start(containers, in_container(training_request(script), small_image))
    wait_for_phase(job)
    ended = job.stop(now=True)
    assert (ended.status, ended.failure_reason) == (
        JobStatus.STOPPED,
        "It was killed on request. Progress since its newest checkpoint is lost.",
    )
    assert containers_of(job) == []


def test_what_a_job_failed_of_is_told(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    script = """
    emit(event="failed", kind="nan", message="The loss is not a number.", next_step="lower the rate")
    sys.exit(1)
    """
    ended = start(containers, in_container(training_request(script), small_image)).wait()
    assert (ended.status, ended.failure_reason) == (JobStatus.FAILED, "The loss is not a number.")
    assert ended.next_step == "lower the rate"


def test_a_container_that_is_killed_from_outside_is_a_failure_that_can_be_resumed(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    job = start(containers, in_container(training_request(BLOCKED_AT_STEP_5), small_image))
    wait_for_phase(job)
    run("kill", *containers_of(job, running=True))
    ended = job.wait()
    assert ended.status is JobStatus.FAILED
    assert "was killed (SIGKILL)" in str(ended.failure_reason)
    assert containers.checkpoint_step(job.name) == 5


def test_containers_that_outlive_local_mode_are_ended_by_the_next_job(
    containers: ContainerTarget, engine: Docker, small_image: str, training_request: MakeRequest
) -> None:
    job = start(containers, in_container(training_request(BLOCKED_AT_STEP_5), small_image))
    wait_for_phase(job)
    folder = JobFolder(containers.settings.jobs / job.name)
    state = folder.state()
    assert state
    assert state.handle
    for pid in [state.worker_pid, int(state.handle.split()[0])]:
        os.kill(int(str(pid)), signal.SIGKILL)
    subprocess.run(["pkill", "-KILL", "-f", str(folder.path / "local_mode")], check=True)  # docker compose of this job
    assert containers.wait_for_end(job.name, 20)
    assert len(containers_of(job, running=True)) == 1
    assert ContainerHost(containers.settings).collect() == [f"container of the job {job.name}"]
    assert containers_of(job) == []
    assert collect_containers(engine, containers.settings.jobs) == []


def test_jobs_run_side_by_side(containers: ContainerTarget, small_image: str, training_request: MakeRequest) -> None:
    first = start(containers, in_container(training_request(BLOCKED_AT_STEP_5, name="first"), small_image))
    wait_for_phase(first)
    second = start(containers, in_container(training_request("finish()", name="second"), small_image))
    assert second.wait().status is JobStatus.COMPLETED
    assert first.describe().status is JobStatus.IN_PROGRESS
    first.stop(now=True)


def test_two_hosts_reach_one_another(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    script = f"{MEETS}\nif number == 0: finish()\n"
    job = start(containers, in_container(training_request(script), small_image, hosts=2))
    assert job.wait().status is JobStatus.COMPLETED, "\n".join(job.log_lines())
    assert "hello" in [event.name for event in job.events() if event.event == "phase"]


def test_inputs_cannot_be_changed_by_a_job(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    script = """
    try:
        (root / "input" / "data" / "code" / "added").touch()
    except OSError as error:
        emit(event="phase", name=type(error).__name__ + str(error.errno))
    """
    job = start(containers, in_container(training_request(script), small_image))
    assert wait_for_phase(job) == "OSError30"
    job.wait()


def test_no_credentials_reach_a_container_or_a_file(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSECRET")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "KEYSECRET")
    monkeypatch.setenv("HF_TOKEN", "HFSECRET")
    script = """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    secret = [name for name, value in os.environ.items() if "SECRET" in value]
    emit(event="phase", name=json.dumps(secret))
    block()
    """
    job = start(containers, in_container(training_request(script), small_image))
    assert json.loads(wait_for_phase(job)) == ["HF_TOKEN"]  # a model may need it; docker took it from the environment
    written = b"".join(path.read_bytes() for path in containers.settings.jobs.rglob("*") if path.is_file())
    assert b"SECRET" not in written.replace(b"AKID", b"")
    job.stop()


def test_every_line_of_the_log_is_as_the_job_printed_it(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    script = "\nfor number in range(2000): emit(event='phase', name=str(number))\nfinish()\n"
    job = start(containers, in_container(training_request(script), small_image))
    job.wait()
    printed = [event.name for line in job.log_lines() if (event := parse(line)) and event.event == "phase"]
    assert [name for name in printed if name.isdigit()] == [str(number) for number in range(2000)]


def test_a_container_that_docker_cannot_start_is_told_of(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    request = in_container(training_request("finish()"), small_image)
    request["ResourceConfig"]["InstanceType"] = "local_gpu"
    if "nvidia" in run("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this engine has GPUs")
    ended = start(containers, request).wait()
    assert ended.status is JobStatus.FAILED
    assert "could not" in str(ended.failure_reason)
    assert "NVIDIA Container Toolkit" in str(ended.next_step)


def test_a_job_of_another_local_target_is_not_started_anew(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest, settings: Settings
) -> None:
    start_process(ProcessTarget(settings), training_request("finish()", name="job")).wait()
    request = in_container(training_request("finish()", name="again"), small_image)
    request["TrainingJobName"] = "job"
    with pytest.raises(Exception, match="submitted with --target local before"):
        containers.create(request)


def test_libraries_of_the_caller_do_not_reach_docker_compose(
    containers: ContainerTarget,
    small_image: str,
    training_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for name in ("docker", "compose", "yaml"):
        (libraries / f"{name}.py").write_text("raise ImportError('another version')")
    monkeypatch.setenv("PYTHONPATH", str(libraries), prepend=os.pathsep)
    job = start(containers, in_container(training_request("finish()"), small_image))
    assert job.wait().status is JobStatus.COMPLETED, "\n".join(job.log_lines())


def test_a_host_that_is_done_ends_no_other(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    script = f"{MEETS}\nif number == 0: time.sleep(3); finish()\n"
    job = start(containers, in_container(training_request(script), small_image, hosts=2))
    assert job.wait().status is JobStatus.COMPLETED, "\n".join(job.log_lines())


def test_a_host_that_fails_ends_the_others(
    containers: ContainerTarget, small_image: str, training_request: MakeRequest
) -> None:
    script = f"{MEETS}\nif number == 1: sys.exit(3)\nblock()\n"
    job = start(containers, in_container(training_request(script), small_image, hosts=2))
    ended = job.wait()
    assert (ended.status, ended.failure_reason) == (JobStatus.FAILED, "The training process ended with exit code 3.")
