"""A home that cannot be written: commands that read work, those that write say how to choose another."""

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.jobs.job import Job
from orchestrator.requests import Request
from orchestrator.settings import Settings
from orchestrator.targets.local.process import ProcessTarget

Run = Callable[..., "subprocess.CompletedProcess[str]"]
_PR_CAPBSET_DROP = 24
_OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root writes and reads whatever it likes


def _like_anybody() -> None:
    """Give up what lets root ignore permissions; does nothing for other users."""
    for capability in _OVERRIDES:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.fixture
def run() -> Run:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "orchestrator", *words]
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, preexec_fn=_like_anybody
        )

    return run


@pytest.fixture
def locked(settings: Settings, training_request: Callable[..., Request]) -> Iterator[Settings]:
    """A home with a finished job and a failed one, in which nobody may write."""
    target = ProcessTarget(settings)
    for name, script in (("done", "finish()"), ("failed", "checkpoint(5); sys.exit(1)")):
        target.create(training_request(script, name=name))
        Job(target, name).wait()
    folders = [settings.home, *(path for path in settings.home.rglob("*") if path.is_dir() and not path.is_symlink())]
    for folder in folders:
        folder.chmod(0o500)
    (settings.jobs / "failed" / "lock").chmod(0o400)
    yield settings
    for folder in folders:
        folder.chmod(0o700)


READING = [
    ("jobs", "list"),
    ("jobs", "show", "done"),
    ("jobs", "logs", "failed"),
    ("jobs", "explain", "failed"),
    ("jobs", "stop", "failed"),
    ("adapters", "list"),
    ("adapters", "show", "done"),
    ("recipes", "list"),
    ("submit", "dreambooth", "--dry-run"),
    ("submit", "dreambooth", "--dry-run", "--target", "sagemaker"),
    ("sweep", "dreambooth", "-s", "rank=4,8", "--dry-run"),
]
WRITING = [
    ("submit", "dreambooth"),
    ("sweep", "dreambooth", "-s", "rank=4,8"),
    ("jobs", "retry", "failed"),
    ("jobs", "remove", "done"),
    ("infra", "up"),
]


def test_what_only_reads_needs_no_right_to_write(run: Run, locked: Settings, tmp_path: Path) -> None:
    for words in READING:
        outcome = run(*words)
        assert (outcome.returncode, "Error" in outcome.stderr) == (0, False), (words, outcome.stderr)
    assert {job["name"] for job in json.loads(run("jobs", "list", "--json").stdout)} == {"done", "failed"}
    assert run("adapters", "pull", "done", "--to", str(tmp_path / "pulled")).returncode == 0


def test_what_writes_says_which_folder_it_may_not_write_and_how_to_choose_another(run: Run, locked: Settings) -> None:
    for words in WRITING:
        outcome = run(*words)
        assert outcome.returncode == 5, (words, outcome.stderr)
        assert f"{locked.home} cannot be written" in outcome.stderr
        assert "Next: export ORCHESTRATOR_HOME=" in outcome.stderr


def test_no_folder_is_advised_that_may_not_be_written_either(
    run: Run, locked: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised = "Next: export ORCHESTRATOR_HOME=~/orchestrator\n"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert advised in run("submit", "dreambooth").stderr
    monkeypatch.setenv("HOME", str(locked.home))
    refused = run("submit", "dreambooth").stderr
    assert advised not in refused
    assert "one that you may write to" in refused


def test_a_folder_that_may_not_be_read_is_one_damaged_job(
    run: Run, settings: Settings, training_request: Callable[..., Request]
) -> None:
    target = ProcessTarget(settings)
    for name in ("closed", "open"):
        target.create(training_request("finish()", name=name))
        Job(target, name).wait()
    for path in (settings.jobs / "closed", settings.adapters / "closed"):
        path.chmod(0)
    listed = run("jobs", "list", "--json")
    assert [job["name"] for job in json.loads(listed.stdout)] == ["open"]
    assert "closed is damaged" in listed.stderr
    assert "damaged" in run("jobs", "show", "closed").stderr
    assert [adapter["name"] for adapter in json.loads(run("adapters", "list", "--json").stdout)] == ["open"]
    for path in (settings.jobs / "closed", settings.adapters / "closed"):
        path.chmod(0o700)
