"""Files of a job that are damaged, and files that are no job's: each command answers, and no other job is hidden."""

import copy
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator.__main__ import main
from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.process import ProcessTarget
from tests.targets.local.running import BLOCKED_AT_STEP_5, training_pid

MakeRequest = Callable[..., Request]
FILES = ("request.json", "state.json", "log.txt", "stop", "lock", "worker.txt", "ml", "ml/checkpoints")


def _replace(path: Path, content: bytes | None) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b"{"
    _replace(path, content[: len(content) // 2])


def empty(path: Path) -> None:
    _replace(path, b"")


def binary(path: Path) -> None:
    _replace(path, bytes(range(256)) * 20)


def gone(path: Path) -> None:
    _replace(path, None)


def a_folder(path: Path) -> None:
    _replace(path, None)
    (path / "inside").mkdir(parents=True)


def a_loop(path: Path) -> None:
    _replace(path, None)
    path.symlink_to(path)


def other_json(path: Path) -> None:
    _replace(path, b'{"Tags": 3, "status": "Completed", "log_start": -5, "OutputDataConfig": []}')


def a_list(path: Path) -> None:
    _replace(path, b"[[], 1]")


class Answer(NamedTuple):
    """What a command printed and its exit code."""

    code: int
    out: str
    err: str


Run = Callable[..., Answer]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: whatever is no message of ours is raised."""

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *words])
        code = main()
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture
def finished(settings: Settings, training_request: MakeRequest) -> Callable[[str], Job]:
    def finished(name: str, script: str = "checkpoint(5); finish()") -> Job:
        target = ProcessTarget(settings, lock_seconds=0)
        target.create(training_request(script, name=name))
        job = Job(target, name)
        job.wait()
        return job

    return finished


@pytest.mark.parametrize("damage", [cut, empty, binary, gone, a_folder, a_loop, other_json, a_list])
def test_whatever_happened_to_a_file_of_a_job_every_command_answers_and_others_are_shown(
    run: Run, settings: Settings, finished: Callable[..., Job], damage: Callable[[Path], None]
) -> None:
    finished("whole")
    finished("kept")
    for file in FILES:
        folder = settings.jobs / "hurt"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(settings.jobs / "kept", folder)
        damage(folder / file)
        listed = [job["name"] for job in json.loads(run("jobs", "list", "--json").out)]
        assert {"kept", "whole"} <= set(listed)
        for words in (("show",), ("logs",), ("explain",), ("stop",), ("wait",), ("remove",)):
            answer = run("jobs", *words, "hurt")
            assert (answer.code, answer.err.count("Next: ")) in {(0, 0), (4, 1), (5, 1)}, (file, words, answer)
            assert "operating system" not in answer.err, (file, words, answer)
        assert run("jobs", "show", "whole").code == 0


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value within a JSON value, its own first."""
    yield path
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, one in inner:
        yield from _places(one, (*path, key))


def _with(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """Return a JSON value with another one in one place."""
    if not path:
        return other
    key, *rest = path
    copied = copy.copy(value)
    copied[key] = _with(value[key], tuple(rest), other)
    return copied


@pytest.mark.parametrize("other", ["x", "file://[", 3, [{}], {"x": 3}], ids=repr)
def test_whatever_stands_in_a_member_of_a_request_every_command_answers_and_others_are_shown(
    run: Run, settings: Settings, finished: Callable[..., Job], other: Any
) -> None:
    finished("whole")
    finished("hurt", "sys.exit(1)")
    file = settings.jobs / "hurt" / "request.json"
    written = json.loads(file.read_text())
    retried = 0
    for place in _places(written):
        file.write_text(json.dumps(_with(written, place, other)))
        listed = [job["name"] for job in json.loads(run("jobs", "list", "--json").out)]
        assert "whole" in listed, place
        for words in (("show",), ("explain",), ("stop",)):
            answer = run("jobs", *words, "hurt")
            assert (answer.code, answer.err.count("Next: ")) in {(0, 0), (4, 1), (5, 1)}, (place, words, answer)
        if "hurt" not in listed:
            assert "jobs remove hurt" in run("jobs", "retry", "hurt").err, place
            retried += 1
    assert retried > 10


@pytest.mark.parametrize("damage", [cut, empty, binary, gone, a_folder, other_json])
def test_without_its_state_a_job_is_told_by_what_else_it_left(
    run: Run, settings: Settings, finished: Callable[..., Job], damage: Callable[[Path], None]
) -> None:
    endings = {
        "made": ("checkpoint(5); finish()", "Completed", None),
        "lost": ("emit(event='failed', kind='nan', message='Loss is NaN.'); sys.exit(1)", "Failed", "Loss is NaN."),
    }
    for name, (script, status, why) in endings.items():
        finished(name, script)
        damage(settings.jobs / name / "state.json")
        shown = json.loads(run("jobs", "show", name, "--json").out)
        assert (shown["status"], shown["failure_reason"]) == (status, why)
    assert "is Completed" in run("jobs", "retry", "made").err


@pytest.mark.parametrize("damage", [empty, a_folder])
def test_a_job_with_damaged_files_is_resumed_where_its_request_is_whole(
    run: Run, settings: Settings, finished: Callable[..., Job], damage: Callable[[Path], None]
) -> None:
    job = finished("job", "checkpoint(5); sys.exit(1)")
    for file in ("state.json", "stop", "worker.txt"):
        damage(settings.jobs / "job" / file)
        assert run("jobs", "retry", "job").code == 4  # it fails again
        assert job.describe().failure_reason == "The training process ended with exit code 1."
    damage(settings.jobs / "job" / "request.json")
    assert "jobs remove job" in run("jobs", "retry", "job").err


@pytest.mark.parametrize("damage", [cut, gone])
def test_a_state_that_is_no_more_is_said_and_not_taken_for_a_kill(
    run: Run, settings: Settings, finished: Callable[..., Job], damage: Callable[[Path], None]
) -> None:
    finished("job", "checkpoint(5); sys.exit(1)")
    damage(settings.jobs / "job" / "state.json")
    shown = run("jobs", "show", "job").out
    assert "state.json is missing or damaged" in shown
    assert "killed" not in shown
    explained = run("jobs", "explain", "job").out
    assert "A retry resumes from step 5." in explained
    assert "jobs retry job" in explained
    (settings.jobs / "job" / "stop").touch()
    assert json.loads(run("jobs", "show", "job", "--json").out)["status"] == "Stopped"


def test_a_failure_of_an_earlier_attempt_is_not_told_of_the_latest(
    run: Run, settings: Settings, finished: Callable[..., Job]
) -> None:
    script = """
    if list((root / "checkpoints").iterdir()):
        sys.exit(3)
    checkpoint(5)
    emit(event="failed", kind="nan-loss", message="Loss is NaN.")
    sys.exit(1)
    """
    job = finished("job", script)
    job.resume()
    job.wait()
    (settings.jobs / "job" / "state.json").write_text("{")
    shown = run("jobs", "show", "job").out
    assert "NaN" not in shown
    assert "state.json is missing or damaged" in shown


def test_an_adapter_of_an_earlier_run_does_not_make_a_job_complete(
    run: Run, settings: Settings, finished: Callable[..., Job], training_request: MakeRequest
) -> None:
    job = finished("job")
    job.target.discard("job")
    os.utime(settings.adapters / "job" / "adapter.json", (1, 1))
    again = training_request("sys.exit(1)", name="again")
    again["TrainingJobName"] = "job"
    again["OutputDataConfig"]["S3OutputPath"] = (settings.adapters / "job").as_uri()
    job.target.create(again)
    job.wait()
    (settings.jobs / "job" / "state.json").write_text("{")
    assert json.loads(run("jobs", "show", "job", "--json").out)["status"] == "Failed"


def test_the_adapter_of_another_job_of_the_name_does_not_make_a_job_complete(
    run: Run, settings: Settings, training_request: MakeRequest
) -> None:
    target = ProcessTarget(settings)
    for name, script in (("first", "sys.exit(1)"), ("second", "finish()")):
        request = training_request(script, name=name)
        request["OutputDataConfig"]["S3OutputPath"] = (settings.adapters / "dog").as_uri()
        target.create(request)
        Job(target, name).wait()
        (settings.jobs / name / "state.json").write_text("{")
    shown = [json.loads(run("jobs", "show", name, "--json").out)["status"] for name in ("first", "second")]
    assert shown == ["Failed", "Completed"]


def test_a_job_whose_end_was_not_recorded_is_complete_once_its_adapter_is_there(
    run: Run, settings: Settings, finished: Callable[..., Job]
) -> None:
    finished("job")
    folder = JobFolder(settings.jobs / "job")
    state = folder.state()
    assert state is not None
    folder.write_state(state.model_copy(update={"status": JobStatus.IN_PROGRESS, "ended": None}))
    assert json.loads(run("jobs", "show", "job", "--json").out)["status"] == "Completed"


def test_one_size_is_shown_wherever_an_adapter_is(run: Run, finished: Callable[..., Job]) -> None:
    finished("job", "finish(b'w' * 1_234_567)")
    for words in (("jobs", "show", "job"), ("adapters", "list"), ("adapters", "show", "job")):
        assert "1.23 MB" in run(*words).out


@pytest.mark.parametrize("handle", ["-1", "0", "1", "nobody", ""])
def test_a_handle_that_is_no_process_of_the_job_is_never_signalled(
    run: Run, settings: Settings, training_request: MakeRequest, handle: str
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request(BLOCKED_AT_STEP_5))
    job = Job(target, "job")
    trainer = training_pid(job)
    folder = JobFolder(settings.jobs / "job")
    state = folder.state()
    assert state is not None
    folder.write_state(state.model_copy(update={"handle": handle}))
    answer = run("jobs", "stop", "job", "--now")
    os.kill(trainer, 9)
    job.wait()
    assert answer.code == 4
    assert "state.json" in answer.err


def test_a_running_job_whose_state_is_damaged_is_not_waited_for_forever(
    run: Run, settings: Settings, training_request: MakeRequest
) -> None:
    target = ProcessTarget(settings)
    target.create(training_request(BLOCKED_AT_STEP_5))
    job = Job(target, "job")
    trainer = training_pid(job)
    (settings.jobs / "job" / "state.json").write_text("{")
    answer = run("jobs", "stop", "job")
    was_asked = (settings.jobs / "job" / "stop").exists()
    os.kill(trainer, 9)
    job.wait()
    assert (answer.code, was_asked) == (4, False)
    assert "fuser -k -TERM" in answer.err


def _litter(folder: Path) -> None:
    """Leave what people and systems leave in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text("mine")
    (folder / ".DS_Store").write_bytes(b"\x00")
    (folder / "empty folder").mkdir()
    (folder / "request.json").mkdir()
    (folder / "nowhere").symlink_to(folder / "gone")
    (folder / "round").symlink_to(folder / "round")
    (folder / "odd\udcff").touch()
    os.mkfifo(folder / "pipe")


def test_stray_files_and_odd_folders_disturb_nothing(
    run: Run, settings: Settings, finished: Callable[..., Job]
) -> None:
    for folder in (settings.jobs, settings.adapters, settings.store, settings.sweeps, settings.home / "cache"):
        _litter(folder)
    finished("job")
    words: list[tuple[Any, ...]] = [("jobs", verb, "job") for verb in ("show", "logs", "explain", "stop", "wait")]
    words += [("jobs", "list"), ("adapters", "list"), ("adapters", "show", "job"), ("jobs", "remove", "job")]
    for command in words:
        answer = run(*command)
        assert (answer.code, answer.err) == (0, "") or command[1] == "wait", (command, answer)
    assert json.loads(run("jobs", "list", "--json").out) == []
    assert [adapter["name"] for adapter in json.loads(run("adapters", "list", "--json").out)] == ["job"]


@pytest.mark.parametrize("damage", [cut, empty, binary, gone, a_folder, a_loop])
def test_a_job_whose_adapter_is_damaged_is_not_shown_with_a_load_line(
    run: Run, settings: Settings, finished: Callable[..., Job], damage: Callable[[Path], None]
) -> None:
    for name in ("weights.safetensors", "adapter.json"):
        job = finished(f"job-{name[0]}")
        damage(settings.adapters / job.name / name)
        for words in (("jobs", "show", job.name), ("jobs", "wait", job.name)):
            shown = json.loads(run(*words, "--json").out)
            assert (shown["status"], shown["loading"]) == ("Completed", [])
            assert name in shown["problem"]
            assert f"jobs remove {job.name}  # then submit it again" in shown["next_step"] or (
                "permissions" in shown["next_step"]
            )
            answer = run(*words)
            assert name in answer.out
            assert "pipe." not in answer.out


def test_settings_of_an_account_that_are_damaged_do_not_hide_what_is_on_this_machine(
    run: Run, settings: Settings, finished: Callable[..., Job]
) -> None:
    finished("job")
    settings.aws_file.write_text("{")
    for words in (("jobs", "list"), ("jobs", "show", "job"), ("adapters", "list"), ("adapters", "show", "job")):
        answer = run(*words)
        assert answer.code == 0
        assert "job" in answer.out
        assert "aws.json cannot be read" in answer.err
