"""The command line as a person or a script meets it: as a process, with real arguments."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contract.recipe import recipe_class, to_hyperparameters
from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.resources import BUILTIN_MODEL, SAMPLE_IMAGES
from orchestrator.settings import Settings
from orchestrator.targets.local.process import ProcessTarget
from orchestrator.targets.local.queue import Turn

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
    ("submit", "textual-inversion", "--images", ".", "--prompt", "<a>", "-s", "placeholder_token=<b>"),
    ("sweep", "dreambooth", "--base-model", "org/a", "-s", "base_model=org/b,org/c"),
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


@pytest.mark.parametrize("words", [("completion",), ("completion", "tcsh"), ("submit", "dreambooth", "--target", "x")])
def test_a_missing_or_unknown_choice_is_told_in_one_line(run: Run, words: tuple[str, ...]) -> None:
    message, next_step = run(*words).stderr.splitlines()
    assert "\\" not in message
    assert message.endswith(("bash, zsh, fish", "'bash', 'zsh', 'fish'.", "'local', 'container', 'sagemaker'."))
    assert next_step.startswith("Next: ")


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


def test_a_failed_job_says_where_its_report_lies_and_a_retry_has_none_of_it(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    script = """
    report = root / "output" / "data" / "report.html"
    assert not report.exists()
    if not (root / "checkpoints" / "step-00000001").exists():
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("a page")
        checkpoint(1)
    sys.exit(1)
    """
    target = ProcessTarget(settings)
    target.create(training_request(script, name="mine"))
    Job(target, "mine").wait()
    report = json.loads(run("jobs", "show", "mine", "--json").stdout)["report"]
    assert Path(report).read_text() == "a page"
    assert report in run("jobs", "show", "mine").stdout
    assert f"Report: {report}" in run("jobs", "wait", "mine").stderr
    run("jobs", "retry", "mine")
    assert json.loads(run("jobs", "show", "mine", "--json").stdout)["report"] is None


def test_a_log_cannot_steer_the_terminal(run: Run, ended_job: Job) -> None:
    for words in (("logs", ended_job.name), ("explain", ended_job.name), ("show", ended_job.name)):
        result = run("jobs", *words)
        assert "\x1b" not in result.stdout + result.stderr
    log = run("jobs", "logs", ended_job.name).stdout.splitlines()
    assert "gone" in log
    assert log[-1].endswith("Error: \\x1b[2Jcleared Next: \\x1b[31mred")


def test_json_logs_are_events_only(run: Run, ended_job: Job) -> None:
    lines = run("jobs", "logs", ended_job.name, "--json").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["phase", "checkpoint", "failed"]


def test_the_path_of_an_image_can_be_opened_as_it_is_printed(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    script = """
    (root / "output" / "data" / "samples" / "step-2.png").touch()
    emit(event="sample", path="output/data/samples/step-2.png")
    sys.exit(1)
    """
    ProcessTarget(settings).create(training_request(script))
    for printed in (run("jobs", "wait", "job").stderr, run("jobs", "logs", "job").stdout):
        (path,) = re.findall("image: (.+)", printed)
        assert Path(path).is_file()


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
    manifest = settings.adapters / "done" / "adapter.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "images": 5, "captions": 2}))
    folder = str(settings.adapters / "done")
    only = "weight_name='pytorch_lora_weights.safetensors', use_safetensors=True"
    line = f"pipe.load_lora_weights({folder!r}, {only})"
    shown = run("jobs", "show", "done").stdout
    assert line in shown
    assert "5 images, 2 with a caption" in shown
    assert json.loads(run("jobs", "show", "done", "--json").stdout)["loading"] == [line]


def test_a_stopped_job_is_no_success(run: Run, settings: Settings, training_request: Callable[..., Request]) -> None:
    ProcessTarget(settings).create(training_request("block()", name="slow"))
    assert json.loads(run("jobs", "stop", "slow", "--json").stdout)["status"] == "Stopped"
    result = run("jobs", "wait", "slow")
    assert (result.returncode, result.stderr.count("Error")) == (4, 0)
    assert "Stopped slow." in result.stdout
    assert re.search(r"Resume it with: \S.* jobs retry slow\n", result.stdout)
    assert json.loads(run("jobs", "wait", "slow", "--json").stdout)["status"] == "Stopped"
    assert "jobs retry slow" in run("jobs", "show", "slow").stdout


def test_an_adapter_is_deleted_only_once_somebody_has_said_so(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    target = ProcessTarget(settings)
    for name in ("one", "two"):
        target.create(training_request("finish()", name=name))
        Job(target, name).wait()
    adapter = settings.adapters / "one"
    refused = run("jobs", "remove", "one", "--adapter")
    assert (refused.returncode, adapter.exists()) == (2, True)
    assert "add --yes" in refused.stderr
    assert _typed(b"n\n", "jobs", "remove", "one", "--adapter") == 1
    assert (adapter.exists(), target.has("one")) == (True, True)
    assert _typed(b"y\n", "jobs", "remove", "one", "--adapter") == 0
    assert (adapter.exists(), target.has("one")) == (False, False)
    assert run("jobs", "remove", "two", "--adapter", "--yes").returncode == 0
    assert not (settings.adapters / "two").exists()


def _typed(keys: bytes, *words: str) -> int:
    """Type keys at the question of a command on a terminal, and return its exit code."""
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "orchestrator", *words]
    client = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True)
    os.close(side)
    _read_until(terminal, b"?")
    os.write(terminal, keys)
    code = client.wait()
    os.close(terminal)
    return code


def test_a_plan_for_a_model_of_unknown_size_says_that_its_disk_is_unknown(run: Run) -> None:
    images = ("--images", str(SAMPLE_IMAGES), "--prompt", "a photo of sks monster")
    plan = run("submit", "dreambooth", "--dry-run", "--base-model", "acme/model", *images).stdout
    assert "unknown, as the size of the model is" in " ".join(plan.split())


def test_a_dry_run_says_that_a_name_is_taken(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request("finish()", name="dog"))
    Job(target, "dog").wait()
    before = sorted(settings.home.rglob("*"))
    words = ("submit", "dreambooth", "--dry-run", "--name")
    taken = run(*words, "dog", "--json")
    assert (taken.returncode, json.loads(taken.stdout)["HyperParameters"]["recipe"]) == (0, '"dreambooth"')
    assert 'The adapter name "dog" is taken by the job dog' in taken.stderr
    assert run(*words, "cat", "--json").stderr == ""
    swept = run("sweep", "dreambooth", "-s", "rank=4,8", "--name", "dog", "--dry-run")
    assert "taken" not in swept.stderr  # each adapter has a name of its own
    assert "Without --dry-run this starts the job" in run(*words, "cat").stderr
    assert "without --dry-run nothing would be" in run(*words, "dog").stderr
    name = json.loads(run(*words, "cat", "--json").stdout)["TrainingJobName"]
    target.create(training_request("checkpoint(1); sys.exit(1)", name=name))
    Job(target, name).wait()
    assert f"The job {name} was submitted before and is Failed." in run(*words, "cat").stderr
    assert [path for path in before if not path.exists()] == []


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("finish()", [], "was submitted before and is Completed"),
        ("finish()", ["--restart"], "Without --dry-run this starts it again"),
        ("finish()", ["--resume"], "was submitted before and is Completed"),
        ("sys.exit(1)", [], "Without --dry-run this starts it again"),
        ("checkpoint(1); sys.exit(1)", [], "was submitted before and is Failed"),
        ("checkpoint(1); sys.exit(1)", ["--resume"], "Without --dry-run this resumes it"),
        ("checkpoint(1); sys.exit(1)", ["--restart"], "Without --dry-run this starts it again"),
        (None, ["--resume"], "There is no earlier run of this job to resume"),
    ],
)
def test_a_dry_run_says_of_an_earlier_run_what_the_submit_would_do(
    run: Run,
    settings: Settings,
    training_request: Callable[..., Request],
    script: str | None,
    options: list[str],
    said: str,
) -> None:
    target = ProcessTarget(settings)
    words = ("submit", "dreambooth", "--dry-run", *options)
    name = json.loads(run(*words, "--json").stdout)["TrainingJobName"]
    if script is not None:
        target.create(training_request(script, name=name))
        Job(target, name).wait()
    errors = run(*words).stderr
    assert said in errors
    assert ("without --dry-run nothing would be" in errors) == ("Without --dry-run this" not in errors)


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
        assert client.stderr.readline() == "starting  elapsed 0:00\n"
        client.send_signal(signal.SIGINT)
        words = client.stderr.read()
    assert client.returncode == 130
    assert "slow keeps running" in words
    assert "jobs wait slow" in words
    assert "jobs stop slow" in words
    assert target.describe("slow").status == "InProgress"
    Job(target, "slow").stop(now=True)


@pytest.mark.parametrize(
    ("first_attempt", "kept"),
    [("checkpoint(5)", b"Its checkpoint at step 5 is kept."), ("", b"It has no checkpoint yet")],
)
def test_ctrl_c_at_the_question_leaves_the_job_running(
    settings: Settings,
    training_request: Callable[..., Request],
    listening_to_ctrl_c: None,
    first_attempt: str,
    kept: bytes,
) -> None:
    target = ProcessTarget(settings)
    script = f"""
    if not (root / "again").exists():
        (root / "again").touch()
        {first_attempt}
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
    assert kept in _read_until(terminal, b"Stop slow?")
    _interrupt_until(terminal, client, b"-m orchestrator jobs stop slow")
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


def _read_until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 4096)  # raises OSError, and fails the test, when the client ends before
    return seen


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


def test_a_class_prompt_that_nobody_wrote_is_shown_before_training(run: Run) -> None:
    words = ("submit", "dreambooth", "--images", str(SAMPLE_IMAGES), "--dry-run", "-s", "prior_preservation=true")
    words += ("--prompt", "a pair of sks shoes")
    assert 'The class pictures are drawn for "a pair of shoes"' in run(*words).stderr
    assert "class pictures" not in run(*words, "-s", "class_prompt=a photo of shoes").stderr


def test_a_setting_without_effect_is_warned_of(run: Run) -> None:
    result = run("submit", "dreambooth", "--dry-run", "--json", "-s", "tuner=full", "-s", "rank=4")
    assert "Warning: rank: has no effect: tuner=full" in result.stderr
    assert json.loads(result.stdout)


SUBMIT = ("submit", "dreambooth")
SWEEP = ("sweep", "dreambooth", "-s", "rank=4,8")


@pytest.mark.parametrize(
    ("words", "target", "problem"),
    [
        (SUBMIT, "local", "a broken image"),
        (SUBMIT, "sagemaker", "a caption without the word"),
        (SWEEP, "local", "a caption without the word"),
        (SWEEP, "sagemaker", "a broken image"),
    ],
)
def test_warnings_are_printed_with_the_problems_of_a_first_attempt(
    run: Run, tmp_path: Path, words: tuple[str, ...], target: str, problem: str
) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    if problem == "a broken image":
        (tmp_path / "broken.png").write_bytes(b"")
    else:
        (tmp_path / "black.txt").write_text("nothing")
    options = ("--images", str(tmp_path), "--prompt", "a photo of sks dog", "--target", target, "--dry-run")
    result = run(*words, *options)
    assert result.returncode == 3
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Error: ")
    assert lines[-1].startswith("Next: ")
    warnings = [line for line in lines if line.startswith("Warning: ")]
    assert sum("black.png: is black all over" in line for line in warnings) == 1
    assert sum("there " in line and " image" in line for line in warnings) == 1
    assert sum("the built-in model" in line for line in warnings) == 1
    assert len(warnings) == 3
    if words == SUBMIT:
        error = json.loads(run(*words, *options, "--json").stdout)["error"]
        assert len(error["warnings"]) == 3


def test_a_list_of_jobs_tells_step_recipe_prompt_and_changed_settings(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    script = """
    emit(event="step", step=120, of=180, loss=0.5, learning_rate=1e-4, seconds_per_step=0.01)
    print("noise" * 1000)
    """
    recipe = recipe_class("dreambooth")(instance_prompt="a photo of zwx dog", rare_token="zwx", rank=16)
    first = {**training_request(script, name="first"), "HyperParameters": to_hyperparameters(recipe)}
    ProcessTarget(settings).create(first)
    ProcessTarget(settings).create(training_request("sys.exit(1)", name="second"))
    for name in ("first", "second"):
        Job(ProcessTarget(settings), name).wait()
    listed = json.loads(run("jobs", "list", "--json").stdout)
    changed = {"rank": 16, "rare_token": "zwx", "instance_prompt": "a photo of zwx dog"}
    told = [(job["recipe"], job["settings"], job["step"], job["steps"]) for job in listed]
    assert told[0] == ("dreambooth", changed, 120, 180)
    assert told[1][2:] == (None, None)
    _, row, second_row = run("jobs", "list").stdout.splitlines()
    assert "120/180" in row
    assert 'dreambooth "a photo of zwx dog" rare_token=zwx rank=16' in row
    assert second_row.startswith("second  Failed")


def test_captions_that_would_not_teach_the_word_are_refused(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    for name, colour, caption in (("one", "red", "a sks dog asleep"), ("two", "blue", "a dog asleep")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    result = run("submit", "dreambooth", "--images", str(tmp_path), "--prompt", "a photo of sks dog")
    assert result.returncode == 3
    assert "two.png" in result.stderr
    assert "one.png: its caption" not in result.stderr


def shown_defaults(run: Run, *words: str) -> dict[str, str]:
    """Return the defaults that `recipes show` prints, by field."""
    found = {}
    for line in run("recipes", "show", *words).stdout.splitlines():
        field, _, rest = line.partition(" ")
        found[field] = rest.split()[0] if rest.strip() else ""
    return found


def test_the_defaults_that_are_shown_are_those_of_the_model_and_the_tuner(run: Run) -> None:
    builtin = shown_defaults(run, "dreambooth")
    assert (builtin["learning_rate"], builtin["resolution"], builtin["instance_prompt"]) == ("0.0013", "64", "required")
    model = ("--base-model", "stabilityai/stable-diffusion-xl-base-1.0")
    full = shown_defaults(run, "dreambooth", *model, "-s", "tuner=full")
    assert (full["learning_rate"], full["resolution"], full["tuner"]) == ("5e-06", "1024", "full")
    schema = json.loads(run("recipes", "show", "dreambooth", *model, "-s", "tuner=full", "--json").stdout)
    assert schema["properties"]["learning_rate"]["default"] == 5e-06


@pytest.mark.parametrize("words", [("-s", "tunr=full"), ("-s", "tuner=ful"), ("--base-model", "./nowhere/at/all")])
def test_defaults_of_what_cannot_be_chosen_are_refused(run: Run, words: tuple[str, ...]) -> None:
    result = run("recipes", "show", "dreambooth", *words)
    assert result.returncode == 2
    assert "Error: " in result.stderr
    assert result.stdout == ""


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
    third = ("submit", "dreambooth", "--name", "cat")
    assert "start after them" in run(*third, "--dry-run").stdout
    assert "The jobs slow, dog" in run(*third).stderr
    assert "behind slow" in run(*submitted, "--detach").stdout  # the same job: attached to, not refused
    assert json.loads(run("jobs", "stop", "dog", "--json").stdout)["status"] == "Stopped"
    assert "under way" in run("jobs", "retry", "dog").stderr
    Job(target, "slow").stop(now=True)


def test_jobs_under_way_are_counted_in_the_advice(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request("block()", name="slow"))
    planned = run("submit", "dreambooth", "--dry-run")
    assert "slow: add --queue to start after it," in planned.stdout
    assert "Without --dry-run this starts the job" not in planned.stderr
    target.create(training_request("block()", name="slower"))
    assert "slow, slower: add --queue to start after them," in run("submit", "dreambooth", "--dry-run").stdout
    for name in ("slow", "slower"):
        Job(target, name).stop(now=True)


def test_a_queued_job_is_taken_out_of_the_queue(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request("block()", name="slow"))
    ProcessTarget(settings, Turn.QUEUED).create(training_request("finish()", name="waiting"))
    assert "waits in the queue" in run("jobs", "remove", "--help").stdout
    (settings.jobs / "waiting" / "log.txt").unlink()
    log = run("jobs", "logs", "waiting")
    assert (log.returncode, log.stdout) == (0, "")
    assert "waiting has printed nothing yet. Why: " in log.stderr
    removed = run("jobs", "remove", "waiting").stdout
    assert removed == "Took waiting out of the queue and removed it: it had not started.\n"
    assert not target.has("waiting")
    Job(target, "slow").stop(now=True)


def test_a_log_that_is_missing_is_said_to_be(run: Run, settings: Settings, ended_job: Job) -> None:
    (settings.jobs / ended_job.name / "log.txt").unlink()
    for words in (("--follow",), ("--json",)):
        result = run("jobs", "logs", ended_job.name, *words)
        assert (result.returncode, result.stdout) == (0, "")
        assert "first-job left no log. Why: " in result.stderr
        assert "jobs explain first-job" in result.stderr


def test_a_job_that_is_over_is_not_stopped_again(
    run: Run, settings: Settings, training_request: Callable[..., Request], ended_job: Job
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request("finish()", name="done"))
    Job(target, "done").wait()
    stopped = run("jobs", "stop", "done")
    assert stopped.returncode == 0
    assert stopped.stdout.startswith("done is complete already; there was nothing to stop. See: ")
    assert len(stopped.stdout.splitlines()) == 1
    assert f"{ended_job.name} is over (it failed) already" in run("jobs", "stop", ended_job.name, "--now").stdout
    assert json.loads(run("jobs", "stop", "done", "--json").stdout)["status"] == "Completed"


@pytest.mark.parametrize("damage", ["gone", "no manifest", "cut", "changed"])
def test_a_job_whose_adapter_is_lost_names_the_command_that_makes_room_for_another(
    settings: Settings, training_request: Callable[..., Request], damage: str
) -> None:
    target = ProcessTarget(settings)
    request = training_request("finish()", name="done")
    target.create(request)
    job = Job(target, "done")
    job.wait()
    adapter = settings.adapters / "done"
    match damage:
        case "gone":
            shutil.rmtree(adapter)
        case "no manifest":
            (adapter / "adapter.json").unlink()
        case "cut":
            (adapter / "adapter.json").write_text("{")
        case "changed":
            (adapter / "weights.safetensors").write_bytes(b"")
    problem = job.finished().problem
    assert problem is not None
    assert problem.next_step == "python -m orchestrator jobs remove done  # then submit it again"
    explanation = job.explain()
    assert problem.message in explanation.cause
    assert explanation.next_step == problem.next_step
    job.remove(adapter=False)
    target.create(request)
    job.wait()
    assert job.finished().problem is None


def test_a_scorer_of_ones_own_is_named_wherever_the_job_is(
    run: Run, settings: Settings, training_request: Callable[..., Request], tmp_path: Path
) -> None:
    clip = shutil.copytree(BUILTIN_MODEL / "clip", tmp_path / "my-clip")
    for file in (BUILTIN_MODEL / "tokenizer").iterdir():
        shutil.copyfile(file, clip / file.name)
    words = ("submit", "dreambooth", "--scorer", str(clip), "--dry-run")
    assert f"the CLIP in {clip}" in run(*words).stdout
    assert "the CLIP in s3://" in run(*words, "--target", "sagemaker").stdout
    assert "the CLIP in" not in run("submit", "dreambooth", "--dry-run").stdout
    assert f"the CLIP in {clip}" in run("sweep", *words[1:], "-s", "rank=4,8").stdout
    planned = json.loads(run(*words, "--json").stdout)
    request = training_request("finish()", name="done")
    read = {channel["ChannelName"]: channel for channel in planned["InputDataConfig"]}
    request["InputDataConfig"].append(read["scorer"])
    target = ProcessTarget(settings)
    target.create(request)
    Job(target, "done").wait()
    assert f"the CLIP in {clip}" in run("jobs", "show", "done").stdout
    assert json.loads(run("jobs", "show", "done", "--json").stdout)["scorer"] == clip.as_uri()
    assert json.loads(run("jobs", "list", "--json").stdout)[0]["scorer"] == clip.as_uri()


def test_the_order_of_jobs_is_for_this_machine_and_said_once(run: Run) -> None:
    assert "choose one" in run("submit", "dreambooth", "--queue", "--together").stderr
    on_sagemaker = run("submit", "dreambooth", "--target", "sagemaker", "--queue", "--dry-run")
    assert "--queue can only be given for a job on this machine" in on_sagemaker.stderr
