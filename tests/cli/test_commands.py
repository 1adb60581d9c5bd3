"""The command line as a person or a script meets it: as a process, with real arguments."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.settings import Settings
from orchestrator.targets.local.process import ProcessTarget

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(settings: Settings) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator", *words]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    return run


@pytest.fixture
def ended_job(settings: Settings, training_request: Callable[..., Request]) -> Job:
    """A job that failed with a checkpoint, its log holding what a hostile library could print."""
    target = ProcessTarget(settings)
    script = """
    checkpoint(5)
    print("\\x1b[2Jgone")
    emit(event="failed", kind="bug", message="\\x1b[2Jcleared", next_step="\\x1b[31mred")
    sys.exit(3)
    """
    target.create(training_request(script, name="first-job"))
    job = Job(target, "first-job")
    job.wait()
    return job


BAD = [
    ("submit", "dreamboth"),
    ("submit",),
    ("submit", "dreambooth", "-s", "steps=0"),
    ("submit", "dreambooth", "-s", "steps"),
    ("submit", "dreambooth", "--images", "/no/such/folder", "--prompt", "a photo of sks dog"),
    ("submit", "dreambooth", "--resume", "--restart"),
    ("submit", "no-such-job.yaml"),
    ("sweep", "dreambooth", "-s", "rank=4"),
    ("sweep", "dreambooth", "-s", "rank=4,0", "-s", "stepz=1,2"),
    ("sweep", "dreambooth", "-s", "rank=4,8", "--target", "sagemaker", "--max-usd", "0.1"),
    ("sweep", "no-such-job.yaml", "-s", "rank=4,8"),
    ("jobs", "show", "nothing"),
    ("jobs", "shw"),
    ("jobs", "wait"),
    ("recipes", "show", "lore"),
    ("nonsense",),
    ("jobs", "stop", ""),
    ("submit", "dreambooth", "--images", ""),
    ("submit", "dreambooth", "--base-model", "~nobody-of-that-name/model"),
]


@pytest.mark.parametrize("words", BAD, ids=" ".join)
def test_bad_input_gets_one_message_with_the_next_command_and_leaves_nothing(
    run: Run, settings: Settings, words: tuple[str, ...]
) -> None:
    result = run(*words)
    assert result.returncode not in {0, 1}
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("Next: ") == 1
    assert "Traceback" not in result.stderr
    assert not settings.jobs.exists()


def test_an_error_is_json_for_a_script(run: Run) -> None:
    result = run("submit", "dreambooth", "-s", "stepz=3", "--json")
    error: dict[str, Any] = json.loads(result.stdout)["error"]
    assert result.stderr == ""
    assert error["kind"] == "SpecError"
    assert error["problems"][0]["where"] == "stepz"


@pytest.mark.parametrize(
    "words", [("jobs", "list"), ("recipes", "list"), ("recipes", "show", "dreambooth")], ids=" ".join
)
def test_json_is_all_there_is_on_stdout(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words, "--json")
    assert result.returncode == 0
    json.loads(result.stdout)


def test_a_sweep_is_planned_without_an_account_and_as_json(run: Run, settings: Settings) -> None:
    words = ("sweep", "dreambooth", "-s", "rank=4,8", "--target", "sagemaker", "--max-usd", "0.60", "--dry-run")
    plan = json.loads(run(*words, "--json").stdout)
    assert [job["settings"] for job in plan["jobs"]] == [{"rank": "4"}, {"rank": "8"}]
    assert 0.55 < plan["usd"] <= 0.6
    alone = json.loads(run("submit", "dreambooth", "-s", "rank=8", "--dry-run", "--json").stdout)
    assert plan["jobs"][1]["request"]["TrainingJobName"] == alone["TrainingJobName"]
    shown = run(*words).stdout
    assert "at most $0.60 for 2 jobs" in shown
    assert "LIKELY" in shown
    one_by_one = run("sweep", "dreambooth", "-s", "rank=4,8", "--dry-run").stdout
    assert "minutes (a rough figure: nothing was measured on this machine yet) for 2 jobs" in one_by_one
    assert not settings.home.exists()


def test_a_failed_job_is_shown_explained_and_waited_for_truthfully(run: Run, ended_job: Job) -> None:
    shown = json.loads(run("jobs", "show", "first", "--json").stdout)
    assert (shown["status"], shown["checkpoint_step"], shown["adapter"]) == ("Failed", 5, None)
    explained = json.loads(run("jobs", "explain", ended_job.name, "--json").stdout)
    assert "cleared" in explained["cause"]
    assert explained["next_step"]
    assert run("jobs", "wait", ended_job.name).returncode == 4
    assert [job["name"] for job in json.loads(run("jobs", "list", "--json").stdout)] == ["first-job"]


def test_a_log_cannot_steer_the_terminal(run: Run, ended_job: Job) -> None:
    for words in (("logs", ended_job.name), ("explain", ended_job.name), ("show", ended_job.name)):
        result = run("jobs", *words)
        assert "\x1b" not in result.stdout + result.stderr
    assert "\\x1b[2Jgone" in run("jobs", "logs", ended_job.name).stdout


def test_json_logs_are_events_only(run: Run, ended_job: Job) -> None:
    lines = run("jobs", "logs", ended_job.name, "--json").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["phase", "checkpoint", "failed"]


def test_a_job_name_can_be_cut_short_while_it_is_clear(
    run: Run, ended_job: Job, settings: Settings, training_request: Callable[..., Request]
) -> None:
    assert run("jobs", "show", "fi").returncode == 0
    ProcessTarget(settings).create(training_request("sys.exit(0)", name="final-job"))
    assert "is ambiguous" in run("jobs", "show", "fi").stderr


def test_a_dry_run_shows_the_request_as_json_or_a_plan_and_writes_nothing(run: Run, settings: Settings) -> None:
    words = ("submit", "dreambooth", "--dry-run", "--name", "dog", "-s", "steps=3")
    request = json.loads(run(*words, "--json").stdout)
    assert request["HyperParameters"]["steps"] == "3"
    assert request["TrainingJobName"].startswith("dog-")
    plan = run(*words)
    facts = dict(line.split("  ", 1) for line in plan.stdout.splitlines())
    said = {name: value.strip() for name, value in facts.items()}
    assert said["job"] == request["TrainingJobName"]
    assert said["settings"] == "steps=3"
    assert said["class prompt"] == '"a photo of a monster"'
    assert said["adapter"] == str(settings.adapters / "dog")
    assert "0 with a caption" in said["images"]
    assert "nothing was measured on this machine yet" in said["expected"]
    assert "are free in" in said["disk"]
    assert "Nothing was started" in plan.stderr
    assert not settings.home.exists()


LARGE = ("--base-model", "stabilityai/stable-diffusion-xl-base-1.0", "-s", "resolution=64", "-s", "tuner=full")


def test_a_job_that_does_not_fit_the_disk_is_refused_before_anything_is_stored(run: Run, settings: Settings) -> None:
    words = ("submit", "dreambooth", "--images", str(SAMPLE_IMAGES), "--prompt", "a photo of sks dog", *LARGE)
    endless = ("-s", "keep_checkpoints=1000000")
    plan = run(*words, *endless, "--dry-run")
    assert "settings         resolution=64, keep_checkpoints=1000000, tuner=full\n" in plan.stdout
    assert "WHICH IS TOO LITTLE" in plan.stdout
    assert "unknown: no job that tells the speed" in plan.stdout
    refused = run(*words, *endless)
    assert refused.returncode != 0
    assert "checkpoints" in refused.stderr
    assert "Nothing was started" in refused.stderr
    assert not settings.store.exists()


def test_pictures_that_cannot_be_trained_on_stop_the_job_before_it_starts(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (folder / "note.jpg").write_text("not a picture")
    result = run("submit", "dreambooth", "--images", str(folder), "--prompt", "a photo of sks dog")
    assert result.returncode == 3
    assert "broken.png" in result.stderr
    assert "note.jpg" in result.stderr


def test_a_reader_that_has_seen_enough_is_no_error(run: Run, settings: Settings, ended_job: Job) -> None:
    with (settings.jobs / ended_job.name / "log.txt").open("a") as log:
        log.write("a line\n" * 100_000)
    command = [sys.executable, "-m", "orchestrator", "jobs", "logs", ended_job.name]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert client.stdout is not None
    client.stdout.readline()
    client.stdout.close()
    assert client.stderr is not None
    assert client.stderr.read() == ""
    client.wait()
    client.stderr.close()


def test_a_removed_job_is_gone(run: Run, settings: Settings, ended_job: Job) -> None:
    assert json.loads(run("jobs", "remove", "first", "--json").stdout) == {"removed": "first-job", "adapter": False}
    assert not (settings.jobs / ended_job.name).exists()
    assert "no job" in run("jobs", "show", "first").stderr


def test_a_complete_job_is_shown_with_the_line_that_loads_it(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request("finish(name='pytorch_lora_weights.safetensors')", name="done"))
    Job(target, "done").wait()
    line = f"pipe.load_lora_weights({str(settings.adapters / 'done')!r})"
    assert line in run("jobs", "show", "done").stdout
    assert json.loads(run("jobs", "show", "done", "--json").stdout)["loading"] == [line]


def test_a_stopped_job_is_no_success(run: Run, settings: Settings, training_request: Callable[..., Request]) -> None:
    ProcessTarget(settings).create(training_request("block()", name="slow"))
    assert json.loads(run("jobs", "stop", "slow", "--json").stdout)["status"] == "Stopped"
    result = run("jobs", "wait", "slow")
    assert result.returncode == 4
    assert "jobs retry slow" in result.stderr


@pytest.fixture
def listening_to_ctrl_c() -> None:
    """A test run in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_who_stops_waiting_does_not_stop_the_job(
    settings: Settings, training_request: Callable[..., Request], listening_to_ctrl_c: None
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request("block()", name="slow"))
    command = [sys.executable, "-m", "orchestrator", "jobs", "wait", "slow"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as client:
        assert client.stderr is not None
        assert client.stderr.readline() == "starting\n"
        client.send_signal(signal.SIGINT)
        words = client.stderr.read()
    assert client.returncode == 130
    assert "slow keeps running" in words
    assert "jobs wait slow" in words
    assert target.describe("slow").status == "InProgress"
    Job(target, "slow").stop(now=True)


def test_ctrl_c_at_the_question_leaves_the_job_running(
    settings: Settings, training_request: Callable[..., Request], listening_to_ctrl_c: None
) -> None:
    target = ProcessTarget(settings)
    script = """
    if not list((root / "checkpoints").iterdir()):
        checkpoint(5)
        sys.exit(1)
    emit(event="phase", name="second attempt")
    block()
    """
    target.create(training_request(script, name="slow"))
    Job(target, "slow").wait()
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "orchestrator", "jobs", "retry", "slow"]
    client = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True)
    os.close(side)
    _read_until(terminal, b"second attempt")
    client.send_signal(signal.SIGINT)
    _read_until(terminal, b"Stop slow?")
    _interrupt_until(terminal, client, b"slow keeps running. Watch it with: python -m orchestrator jobs wait slow")
    assert client.wait() == 130
    os.close(terminal)
    assert target.describe("slow").status == "InProgress"
    Job(target, "slow").stop(now=True)


def _interrupt_until(terminal: int, client: "subprocess.Popen[bytes]", text: bytes) -> None:
    """Press Ctrl-C until the text comes: Python misses one between printing a question and waiting for its answer."""
    seen = b""
    while text not in seen:
        client.send_signal(signal.SIGINT)
        while text not in seen and select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096)


def _read_until(terminal: int, text: bytes) -> None:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 4096)  # raises OSError, and fails the test, when the client ends before


def test_a_home_that_cannot_be_is_one_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("~nobody-of-that-name/x", "/dev/null/x"):
        monkeypatch.setenv("ORCHESTRATOR_HOME", home)
        for words in (("submit", "dreambooth"), ("jobs", "list")):
            result = run(*words)
            assert result.returncode == 5
            assert f'ORCHESTRATOR_HOME is set to "{home}"' in result.stderr
            assert "Next: export ORCHESTRATOR_HOME=" in result.stderr


def test_the_version_needs_no_installation(run: Run) -> None:
    assert run("--version").stdout.startswith("orchestrator, version")


def test_one_damaged_job_does_not_hide_the_others(run: Run, settings: Settings, ended_job: Job) -> None:
    (settings.jobs / "damaged").mkdir()
    (settings.jobs / "damaged" / "request.json").write_text("")
    assert [job["name"] for job in json.loads(run("jobs", "list", "--json").stdout)] == [ended_job.name]
    assert "damaged" in run("jobs", "list").stderr


def test_captions_that_would_not_teach_the_word_are_refused(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    for name, colour, caption in (("one", "red", "a sks dog asleep"), ("two", "blue", "a dog asleep")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    result = run("submit", "dreambooth", "--images", str(tmp_path), "--prompt", "a photo of sks dog")
    assert result.returncode == 3
    assert "two.png" in result.stderr
    assert "one.png" not in result.stderr


def test_a_second_job_on_this_machine_is_refused_or_queued(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request("block()", name="slow"))
    submitted = ("submit", "dreambooth", "--name", "dog")
    refused = run(*submitted)
    assert refused.returncode == 4
    assert "slow is under way on this machine" in refused.stderr
    assert "--queue" in refused.stderr
    shown = json.loads(run(*submitted, "--queue", "--detach", "--json").stdout)
    assert (shown["status"], shown["stage"]) == ("Queued", "behind slow")
    assert "Queued: behind slow" in run("jobs", "show", "dog").stdout
    assert [job["status"] for job in json.loads(run("jobs", "list", "--json").stdout)] == ["InProgress", "Queued"]
    assert "behind slow" in run(*submitted, "--detach").stdout  # the same job: attached to, not refused
    assert json.loads(run("jobs", "stop", "dog", "--json").stdout)["status"] == "Stopped"
    assert "under way" in run("jobs", "retry", "dog").stderr
    Job(target, "slow").stop(now=True)


def test_the_order_of_jobs_is_for_this_machine_and_said_once(run: Run) -> None:
    assert "choose one" in run("submit", "dreambooth", "--queue", "--together").stderr
    on_sagemaker = run("submit", "dreambooth", "--target", "sagemaker", "--queue", "--dry-run")
    assert "--queue can only be given for a job on this machine" in on_sagemaker.stderr
