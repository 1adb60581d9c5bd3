"""A plan for SageMaker from a machine with nothing: no network, no credentials, no account, no home to speak of."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sagemaker_simulator import complaint

from orchestrator.contract.digest import hash_files
from orchestrator.resources import BUILTIN_MODEL, SAMPLE_IMAGES

ROOT = Path(__file__).parents[2]
SUBMIT = ("submit", "dreambooth", "--target", "sagemaker", "--dry-run")
HUB = ("--base-model", "stable-diffusion-v1-5/stable-diffusion-v1-5", "--spot", "--max-usd", "2")
ACCOUNT = {
    "ORCHESTRATOR_REGION": "eu-west-1",
    "ORCHESTRATOR_ACCOUNT_ID": "123456789012",
    "ORCHESTRATOR_BUCKET": "ours",
    "ORCHESTRATOR_ROLE_ARN": "arn:aws:iam::123456789012:role/ours",
    "ORCHESTRATOR_TRAINING_IMAGE": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/training:1",
}
# Python's own watch, which no library gets past: no socket does anything, and what is written or imported is noted.
GUARD = """
import os, sys
note = os.open(os.environ["GUARD_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def watch(event, arguments):
    if event.startswith("socket.") and event not in {"socket.gethostname", "socket.__new__"}:
        os.write(note, f"{event}\\n".encode())
        raise OSError(f"no network here: {event}")
    if event == "import" and arguments[0].partition(".")[0] in {"boto3", "botocore"}:
        os.write(note, f"import {arguments[0]}\\n".encode())
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in {"os.mkdir", "os.rename", "os.link", "os.symlink"}:
        path = os.path.abspath(os.fsdecode(arguments[1 if event in {"os.rename", "os.link", "os.symlink"} else 0]))
        if not path.startswith((os.environ["TMPDIR"], os.environ["ORCHESTRATOR_HOME"], "/dev/")):
            os.write(note, f"{event} {path}\\n".encode())

sys.addaudithook(watch)
"""


class Machine(NamedTuple):
    """A machine with an empty home, and a watch on everything that leaves a process."""

    folder: Path

    def python(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        for name in ("home", "here", "scratch", "guard"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "guard" / "sitecustomize.py").write_text(GUARD)
        own = {
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join([str(self.folder / "guard"), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "scratch"),
            "ORCHESTRATOR_HOME": str(self.folder / "ours"),
            "GUARD_NOTES": str(self.folder / "notes"),
        }
        command = [sys.executable, *words]
        return subprocess.run(
            command, env={**own, **variables}, cwd=self.folder / "here", capture_output=True, text=True, check=False
        )

    def notes(self) -> str:
        """Return what the watch has seen."""
        return (self.folder / "notes").read_text()

    def left(self) -> list[Path]:
        """Return what lies around that was not there before."""
        return [path for name in ("home", "here", "scratch") for path in (self.folder / name).rglob("*")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("words", [(), HUB], ids=["sample", "model of the Hub"])
@pytest.mark.parametrize("variables", [{}, ACCOUNT], ids=["no account", "account"])
def test_a_plan_is_whole_and_makes_no_call(machine: Machine, words: tuple[str, ...], variables: dict[str, str]) -> None:
    outcome = machine.python("-m", "orchestrator", *SUBMIT, *words, "--json", **variables)
    assert (outcome.returncode, machine.notes(), machine.left()) == (0, "", []), outcome.stderr
    plan = json.loads(outcome.stdout)
    assert complaint(plan["request"]) is None
    assert plan["account_set_up"] is bool(variables)
    assert plan["placement"]["why"]
    assert plan["placement"]["quota"].endswith("training job usage")
    assert 0 < float(plan["placement"]["cost"]["usd"]) <= (2 if words else 100)
    assert_uploads_are_what_the_job_reads(plan, brings_model=not words)


def assert_uploads_are_what_the_job_reads(plan: dict[str, Any], *, brings_model: bool) -> None:
    channels = plan["request"]["InputDataConfig"]
    read = {channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in channels}
    files = {upload["uri"]: upload["files"] for upload in plan["uploads"]}
    assert set(files) == set(read.values())
    assert len(files[read["training"]]) == len([*SAMPLE_IMAGES.glob("*.png")])
    sent = {name: digest["sha256"] for name, digest in files[read["code"]].items()}
    assert sent["entrypoints/train.py"] == hash_files(ROOT / "entrypoints")["train.py"].sha256
    assert all(digest["size"] >= 0 for listed in files.values() for digest in listed.values())
    assert ("base_model" in read) is brings_model
    if brings_model:
        weights = files[read["base_model"]]["unet/diffusion_pytorch_model.safetensors"]
        assert weights["size"] == (BUILTIN_MODEL / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size


def test_a_person_reads_the_same(machine: Machine) -> None:
    plan = json.loads(machine.python("-m", "orchestrator", *SUBMIT, "--json").stdout)
    outcome = machine.python("-m", "orchestrator", *SUBMIT)
    assert (outcome.returncode, machine.notes(), machine.left()) == (0, "", []), outcome.stderr
    facts = outcome.stdout
    assert "InputDataConfig" not in facts  # the request is for --json, as for a job on this machine
    assert "with --json it prints the request" in outcome.stderr
    for upload in plan["uploads"]:
        assert re.search(rf"{re.escape(upload['uri'])} +{len(upload['files'])} +[\d.]+ (bytes|kB|MB)", facts)
    placement = plan["placement"]
    for said in (placement["instance"]["name"], placement["why"], placement["quota"], f"${placement['cost']['usd']}"):
        assert said in facts
    assert "no account is set up" in facts


def test_the_watch_sees_what_it_is_there_for(machine: Machine) -> None:
    code = """
import contextlib, pathlib, socket, urllib.request
for call in (lambda: socket.socket().connect(("127.0.0.1", 9)), lambda: urllib.request.urlopen("http://localhost:9"),
             lambda: pathlib.Path("file").write_text("x")):
    with contextlib.suppress(OSError):
        call()
import boto3
"""
    machine.python("-c", code)
    notes = machine.notes()
    for seen in ("socket.connect", "socket.getaddrinfo", "open ", "import boto3"):
        assert seen in notes
    assert machine.left() == [machine.folder / "here" / "file"]
