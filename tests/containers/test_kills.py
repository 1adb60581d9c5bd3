"""A training in the real image that is killed in the middle: its job says so, and a retry makes the same bytes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.docker import Docker
from orchestrator.settings import Settings
from orchestrator.targets.base import JobStatus
from orchestrator.targets.local.container import ContainerTarget
from orchestrator.targets.local.containers import FOLDER_LABEL
from orchestrator.targets.local.job_folder import JobFolder
from tests.containers.engine import require_engine, run
from tests.containers.trainings import STARTED_SECONDS, Typed, submit, wait_for_checkpoint, weights

ENGINE_PID = Path("/var/run/docker.pid")
OWN_ENGINE = os.environ.get("ORCHESTRATOR_OWN_ENGINE") == "1"
"""Whether the engine is for these tests alone and may be killed: `.ci/containers` says so of one that it starts."""
STEPS = ("-s", "steps=12")


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, str]:
    """What a training that nobody kills makes: filled by the first test that needs it."""
    return {}


def kill_container(folder: Path) -> None:
    run("kill", *run("ps", "--quiet", "--filter", f"label={FOLDER_LABEL}={folder}").split())


def kill_worker(folder: Path) -> None:
    """Kill what records the state of the job, as the kernel does when memory is short."""
    state = JobFolder(folder).state()
    assert state
    assert state.worker_pid
    os.kill(state.worker_pid, signal.SIGKILL)


def kill_local_mode(folder: Path) -> None:
    """Kill the process that has called the SDK, which has started docker compose."""
    state = JobFolder(folder).state()
    assert state
    assert state.handle
    os.kill(int(state.handle.split()[0]), signal.SIGKILL)


def kill_engine(_folder: Path) -> None:
    os.kill(int(ENGINE_PID.read_text()), signal.SIGKILL)


SAID = {
    kill_container: "was killed (SIGKILL)",
    kill_worker: "ended without a message",
    kill_local_mode: "was killed (SIGKILL)",
    kill_engine: "The Docker engine ended",
}
"""What the failure is called."""


@pytest.mark.parametrize(
    "kill",
    [
        kill_container,
        kill_worker,
        kill_local_mode,
        pytest.param(kill_engine, marks=pytest.mark.skipif(not OWN_ENGINE, reason="it would end containers of others")),
    ],
)
def test_a_killed_training_says_so_and_a_retry_makes_the_same_bytes(
    kill: Callable[[Path], None],
    typed: Typed,
    engine: Docker,
    settings: Settings,
    uninterrupted: dict[str, str],
) -> None:
    if not uninterrupted:
        uninterrupted["weights"] = weights(typed(*submit(*STEPS, "--name", "whole")))
    name = typed(*submit(*STEPS, "--target", "container", "--name", "killed", "--detach"))["name"]
    folder = settings.jobs / name
    wait_for_checkpoint(folder)
    kill(folder)
    target = ContainerTarget(settings)
    try:
        assert target.wait_for_end(name, STARTED_SECONDS)
    finally:
        if kill is kill_engine:
            start_engine()
    ended = target.describe(name)
    assert ended.status is JobStatus.FAILED
    assert SAID[kill] in str(ended.failure_reason)
    explained = typed("jobs", "explain", name)
    assert "jobs retry" in explained["next_step"]
    assert [line for line in explained["evidence"] if "algo-" in line] == []  # docker compose tells of no cause
    assert weights(typed("jobs", "retry", name)) == uninterrupted["weights"]
    assert engine.containers(f"{FOLDER_LABEL}={folder}") == []


def start_engine() -> None:
    """Start the engine anew, for the tests after this one too; one that meets what the killed one left may give up."""
    deadline = time.monotonic() + STARTED_SECONDS
    while subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "the engine does not start again"
        if subprocess.run(["pgrep", "-x", "dockerd"], capture_output=True, check=False).returncode:
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(["setsid", "--fork", "dockerd"], check=True, **silent)
        time.sleep(0.5)
    require_engine()
