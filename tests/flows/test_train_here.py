"""From photos to an adapter on this machine: the real command, the real base model, real training."""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kill import Tally, adapter_hashes, kill_through
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.events import Resumed, parse
from orchestrator.contract.figures import FIGURES
from orchestrator.settings import Settings

SHORT = ["-s", "steps=4", "-s", "evaluation_prompts=1", "-s", "evaluation_seeds=1", "-s", "inference_steps=3"]
DREAMBOOTH = ["submit", "dreambooth", *SHORT, "-s", "prior_preservation=true", "-s", "class_images=2"]
KILLS = 5

Run = Callable[..., Any]


@pytest.fixture
def run(settings: Settings) -> Run:
    """Run a command and return what it printed as JSON."""

    def run(*words: str) -> Any:
        command = [sys.executable, "-m", "orchestrator", *words, "--json"]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)

    return run


def test_the_first_command_of_a_newcomer_makes_an_adapter(settings: Settings, run: Run) -> None:
    job = run(*DREAMBOOTH)
    adapter = Path(job["adapter"])
    manifest = AdapterManifest.read(adapter)
    assert job["status"] == "Completed"
    assert {"pytorch_lora_weights.safetensors", "contact_sheet.png", "samples/index.json"} <= set(manifest.files)
    assert manifest.damaged_files(adapter) == []
    assert set(job["metrics"]) == set(FIGURES)
    command = [sys.executable, "-m", "orchestrator", "jobs", "show", job["name"]]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [figure for figure in job["metrics"].values() if f"{figure:.3f}" not in shown] == []
    report = Path(job["report"])
    assert str(report) in shown
    assert "tensorboard --logdir" in shown
    assert report.stat().st_size < 5_000_000
    assert "a photo of sks" in report.read_text(encoding="utf-8")
    # What the adapter says of its data and code is what lies in the store under that hash.
    assert (settings.store / "data" / manifest.dataset_sha256).is_dir()
    assert (settings.store / "code" / manifest.bundle_sha256).is_dir()
    again = run(*DREAMBOOTH)
    assert (again["name"], again["started"]) == (job["name"], job["started"])
    shutil.rmtree(adapter)
    assert f"jobs remove {job['name']}" in run(*DREAMBOOTH)["error"]["next"]


def test_textual_inversion_makes_an_embedding(run: Run) -> None:
    job = run("submit", "textual-inversion", *SHORT, "--name", "word")
    assert Path(job["adapter"]).name == "word"
    assert (Path(job["adapter"]) / "learned_embeds.safetensors").stat().st_size < 20_000


def test_an_adapter_name_that_is_taken_is_not_given_again(run: Run) -> None:
    run(*DREAMBOOTH, "--name", "mine", "-s", "evaluation_prompts=0")
    assert "taken" in run(*DREAMBOOTH, "--name", "mine", "-s", "seed=1")["error"]["message"]


def test_a_stopped_run_is_not_begun_anew_silently_and_resumes(settings: Settings, run: Run) -> None:
    words = [*DREAMBOOTH, "-s", "steps=40", "-s", "checkpoint_steps=1", "-s", "evaluation_prompts=0"]
    name = run(*words, "--detach")["name"]
    follower = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "jobs", "logs", "-f", name], stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    assert any("checkpoint at step" in line for line in follower.stdout)
    stopped = run("jobs", "stop", name)
    follower.communicate()
    assert (stopped["status"], stopped["adapter"]) == ("Stopped", None)
    assert run(*words)["error"]["next"] == f"python -m orchestrator jobs retry {name}"
    assert run(*words, "--resume")["status"] == "Completed"
    log = (settings.jobs / name / "log.txt").read_text()
    resumed = [event for line in log.splitlines() if isinstance(event := parse(line), Resumed)]
    assert [event.step for event in resumed] == [stopped["checkpoint_step"]]


def test_kills_at_random_moments_do_not_change_the_adapter(settings: Settings) -> None:
    seed = os.getpid()
    dice, tally = random.Random(seed), Tally()
    reference = adapter_hashes(settings, "reference")
    while tally.kills < KILLS:
        assert kill_through(settings, f"killed-{tally.runs}", KILLS - tally.kills, dice, tally) == reference, (
            seed,
            tally,
        )


def test_ctrl_c_asks_once_and_leaves_no_half_written_adapter(settings: Settings, run: Run) -> None:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a test run in the background, and its children, ignore it
    terminal, side = pty.openpty()
    words = [*DREAMBOOTH, "-s", "steps=500", "--name", "mine"]
    client = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words],
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    _read_until(terminal, b"training")
    client.send_signal(signal.SIGINT)
    _read_until(terminal, b"Stop mine-")
    os.write(terminal, b"y\n")
    _read_until(terminal, b"Stopped")
    assert client.wait() != 0
    os.close(terminal)
    assert not (settings.adapters / "mine").exists()
    (job,) = run("jobs", "list")
    assert job["status"] == "Stopped"
    assert run("jobs", "show", job["name"])["checkpoint_step"] >= 0


def _read_until(terminal: int, text: bytes) -> None:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 4096)  # raises OSError, and fails the test, when the client ends before
