"""`label` as a command: which exchange is meant, what is shown, what is missing."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.contract.labels import EXCHANGE_FOLDER, LABELS_FOLDER, RoundManifest, round_folder
from orchestrator.contract.preferences import PREFERENCES_FILE
from orchestrator.errors import AccountError, JobError, MachineError
from orchestrator.settings import Settings
from orchestrator.targets.local.kept_labels import OF_ENDED_JOBS
from orchestrator.targets.local.process import ProcessTarget
from tests.labels.made import file_of, label, made_round
from tests.labels.served import ROOT
from tests.targets.local.running import MakeRequest, start


def run(*words: str) -> str:
    """Give a command and return what it prints; raises its error."""
    return CliRunner().invoke(cli, ["label", *words], catch_exceptions=False).stdout


def rate(exchange: Path, manifest: RoundManifest) -> None:
    """Have two people rate two samples, one of them in a line that is torn."""
    one, other = (sample.id for sample in manifest.samples[:2])
    labels = [
        label(1, sample=one, rating=2),
        label(2, by="ben", sample=one, rating=4),
        label(3, sample=other, rating=1),
    ]
    folder = exchange / round_folder(manifest.round) / LABELS_FOLDER
    folder.mkdir()
    (folder / "all.jsonl").write_bytes(file_of(*labels) + b'{"id":')


def test_the_rounds_of_a_job_of_this_machine_are_found_by_the_first_letters_of_its_name(
    settings: Settings, training_request: MakeRequest
) -> None:
    target = ProcessTarget(settings)
    job = start(target, training_request("finish()", name="fox-0123456789"))
    job.wait()
    with pytest.raises(JobError, match="No round waits for labels"):
        run("fox", "--show")
    root = target.root(job.name)
    exchange = root / "checkpoints" / EXCHANGE_FOLDER
    manifest = made_round(exchange, job=job.name, number=2)
    rate(exchange, manifest)
    shown = json.loads(run("fox", "--show", "--json"))
    assert shown["round"] == 2
    assert shown["ratings"][manifest.samples[0].id] == {"mean": 3.0, "by": {"ada": 2, "ben": 4}}
    assert shown["people"] == ["ada", "ben"]


def test_what_is_shown_names_counts_and_damaged_lines(tmp_path: Path, settings: Settings) -> None:
    rate(tmp_path, made_round(tmp_path))
    lines = [" ".join(line.split()) for line in run(str(tmp_path), "--show").splitlines()]
    assert lines[:5] == ["round 0", "people ada, ben", "rated 2 images", "compared 0 pairs", "without a label 4 images"]
    assert "damaged lines 1" in lines
    assert lines[-1].startswith("all.jsonl, line 4: ")


def test_a_word_that_is_neither_job_nor_folder_is_refused(settings: Settings) -> None:
    with pytest.raises(JobError, match="There is no job"):
        run("nothing", "--show")


def test_a_folder_without_rounds_is_refused_by_what_it_lacks(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(JobError, match="it has no folder rounds/"):
        run(str(tmp_path))


def test_collecting_needs_an_account_with_a_queue(tmp_path: Path, settings: Settings, monkeypatch: Any) -> None:
    with pytest.raises(AccountError, match="No AWS account is set up"):
        run(str(tmp_path), "--collect")
    account = {
        "region": "eu-west-1",
        "account_id": "123456789012",
        "bucket": "pictures",
        "role_arn": "arn:aws:iam::123456789012:role/training",
        "training_image": "image:1",
    }
    for field, value in account.items():
        monkeypatch.setenv(f"ORCHESTRATOR_{field.upper()}", value)
    with pytest.raises(AccountError, match="no queue for labels") as raised:
        run(str(tmp_path), "--collect")
    assert raised.value.next_step.endswith("infra up --labels")


def test_without_the_pages_libraries_the_extra_is_named_and_labels_are_shown_all_the_same(
    tmp_path: Path, settings: Settings
) -> None:
    made_round(tmp_path)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "fastapi.py").write_text("raise ImportError('not installed', name='fastapi')")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(hidden), str(ROOT)])}
    command = [sys.executable, "-m", "orchestrator", "label", str(tmp_path)]

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], capture_output=True, text=True, env=variables, check=False, cwd=ROOT)

    refused = ask()
    assert refused.returncode == 5
    assert "needs fastapi" in refused.stderr
    assert 'pip install "orchestrator[label]"' in refused.stderr
    assert ask("--show").returncode == 0


def test_a_port_in_use_is_named(tmp_path: Path, settings: Settings) -> None:
    made_round(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(MachineError, match="cannot be used"):
        run(str(tmp_path), "--port", str(taken.getsockname()[1]))


def test_closing_a_round_needs_a_label_and_keeps_what_was_said_until_then(tmp_path: Path, settings: Settings) -> None:
    manifest = made_round(tmp_path)
    with pytest.raises(JobError, match="Nobody has labelled round 0"):
        run(str(tmp_path), "--close")
    rate(tmp_path, manifest)
    run(str(tmp_path), "--close")
    late = label(9, by="eve", sample=manifest.samples[2].id, rating=5)
    (tmp_path / round_folder(0) / LABELS_FOLDER / "late.jsonl").write_bytes(file_of(late))
    shown = json.loads(run(str(tmp_path), "--show", "--json"))
    assert len(shown["late"]) == 1
    assert shown["people"] == ["ada", "ben"]


def test_pairs_are_written_into_a_new_folder_and_beside_nothing_else(tmp_path: Path, settings: Settings) -> None:
    exchange = tmp_path / "exchange"
    rate(exchange, made_round(exchange))
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(MachineError, match="is a file"):
        run(str(exchange), "--export", str(taken))
    with pytest.raises(MachineError, match="is not empty"):
        run(str(exchange), "--export", str(exchange))
    refused = CliRunner().invoke(cli, ["label", str(exchange), "--export", str(tmp_path / "new"), "--close"])
    assert refused.exit_code == 2
    run(str(exchange), "--export", str(tmp_path / "new"))
    (line,) = (tmp_path / "new" / PREFERENCES_FILE).read_text().splitlines()
    pair = json.loads(line)
    assert (tmp_path / "new" / pair["chosen"]).is_file()
    assert (tmp_path / "new" / pair["rejected"]).is_file()
    assert pair["prompt"] == "a red bird"


def test_the_labels_of_a_job_that_is_deleted_stay(settings: Settings, training_request: MakeRequest) -> None:
    target = ProcessTarget(settings)
    job = start(target, training_request("finish()", name="fox-0123456789"))
    job.wait()
    exchange = target.root(job.name) / "checkpoints" / EXCHANGE_FOLDER
    rate(exchange, made_round(exchange, job=job.name))
    job.remove(adapter=False)
    (kept,) = (settings.labels / OF_ENDED_JOBS).iterdir()
    shown = json.loads(run(str(kept), "--show", "--json"))
    assert shown["people"] == ["ada", "ben"]
