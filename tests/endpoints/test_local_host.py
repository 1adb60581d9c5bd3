"""Endpoints on this machine: real servers, which are replaced, killed, and left behind by commands that were killed."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.endpoints.deployment import Deployment, Lease
from orchestrator.endpoints.hosts import EndpointDescription, EndpointStatus
from orchestrator.endpoints.local.calls import ServerCalls
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, ServerFolder
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.local.processes import Process
from orchestrator.errors import EndpointError, OrchestratorError, SpecError
from orchestrator.settings import Settings
from orchestrator.storage import S3Store
from tests.endpoints.made import publish_loras
from tests.storage.conftest import ACCOUNT, BUCKET, aws, store, wire

__all__ = ["aws", "store", "wire"]  # fixtures of a bucket on moto

WAIT_SECONDS = 120.0
LEASE = Lease(ttl_seconds=3600)
BODY = json.dumps({"inputs": "a photo", "parameters": {"seed": 1, "num_inference_steps": 2}}).encode()


def deployed(host: LocalHost, **fields: Any) -> EndpointDescription:
    """Deploy an endpoint and return it once it is settled."""
    deployment = Deployment(name="mine", **fields)
    host.deploy(host.plan(deployment))
    return host.wait_until_in_service("mine", WAIT_SECONDS)


def process_of(settings: Settings, name: str = "mine") -> Process:
    """Return the process that answers."""
    answering = EndpointFolder(settings.endpoints / name).answering()
    assert answering is not None
    state = answering.state()
    assert state is not None
    return state.process


def running_port(settings: Settings) -> int:
    answering = EndpointFolder(settings.endpoints / "mine").answering()
    assert answering is not None
    port = answering.progress().port
    assert port is not None
    return port


def servers_of(settings: Settings) -> list[ServerFolder]:
    return EndpointFolder(settings.endpoints / "mine").servers()


def living_servers(settings: Settings) -> int:
    """Return how many servers of this home there are, known or not: their folder is their current one."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            folder = str((process / "cwd").readlink())
        except OSError:
            continue
        if b"entrypoints.serve" in words and folder.startswith(str(settings.home)):
            count += 1
    return count


@pytest.fixture(scope="module")
def served(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home with the endpoint "mine", which two commands have deployed at the same time."""
    home = tmp_path_factory.mktemp("served") / "a home, #1 é"
    home.mkdir()
    (home / "adapters").symlink_to(published / "adapters")
    here = Settings(home=home)
    plan = LocalHost(here).plan(Deployment(name="mine", adapters=("dog",)))
    both = [threading.Thread(target=LocalHost(here).deploy, args=(plan,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(servers_of(here)) == 1
    yield here
    if EndpointFolder(here.endpoints / "mine").exists():
        LocalHost(here).delete("mine")


@pytest.fixture
def running(served: Settings) -> LocalHost:
    """The host of this endpoint, with the adapter that it had first."""
    host = LocalHost(served)
    found = deployed(host, adapters=("dog",), slots=host.deployment("mine").slots)
    assert (found.status, found.adapters, found.failure_reason) == (EndpointStatus.IN_SERVICE, ("dog",), None)
    assert living_servers(served) == 1
    return host


def test_an_endpoint_is_deployed_once_and_its_adapters_change_without_a_restart(running: LocalHost) -> None:
    here = running.settings
    token = here.endpoints / "mine" / "token"
    process = process_of(here)
    assert stat.S_IMODE(token.stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
    assert token.read_text() not in (Path("/proc") / str(process.pid) / "cmdline").read_text()
    assert token.read_text() not in "\n".join(running.log_lines("mine", follow=False))
    assert running.invoke("mine", BODY, "image/png").media_type == "image/png"

    same = running.plan(running.deployment("mine"))
    assert "runs already" in dict(same.facts)["status"]
    running.deploy(same)
    assert process_of(here) == process

    # A command that is killed before it writes down what it has changed.
    token_text = token.read_text()
    (adapter,) = (here.endpoints / "mine" / "adapters").iterdir()
    calls = ServerCalls("mine", running_port(here), token_text)
    calls.json("POST", "/adapters", {"name": "left é/?", "src": str(adapter)})
    running.deploy(same)
    assert set(running.contents("mine").adapters) == {"dog"}

    changed = deployed(running, adapters=("cat",), slots=running.deployment("mine").slots, lease=LEASE)
    assert process_of(here) == process
    assert changed.adapters == ("cat",)
    assert set(running.contents("mine").adapters) == {"cat"}
    assert changed.lease.ttl_seconds == 3600
    assert len(list((here.endpoints / "mine" / "adapters").iterdir())) == 1  # the other's files are gone


def test_an_adapter_of_the_account_is_fetched_into_the_endpoint_and_learned(
    running: LocalHost, published: Path, store: S3Store, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (published / "adapters" / "cat").iterdir():
        key = f"adapters/cloud/cloud-0123456789/output/model/{file.name}"
        aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
    account = {"REGION": "us-east-1", "ACCOUNT_ID": ACCOUNT, "BUCKET": BUCKET}
    account["ROLE_ARN"] = f"arn:aws:iam::{ACCOUNT}:role/ours"
    account["TRAINING_IMAGE"] = "image"
    for name, value in account.items():
        monkeypatch.setenv(f"ORCHESTRATOR_{name}", value)
    process = process_of(running.settings)
    found = deployed(running, adapters=("dog", "cloud"), slots=running.deployment("mine").slots)
    assert found.adapters == ("cloud", "dog")
    assert process_of(running.settings) == process
    assert running.invoke("mine", BODY, "image/png").media_type == "image/png"


def test_an_update_that_fails_leaves_the_endpoint_as_it_was_and_says_why(
    running: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = process_of(running.settings)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    after = deployed(running, base_model="nobody/no-such-model")
    assert (after.status, after.base_model, after.adapters) == (EndpointStatus.IN_SERVICE, "builtin", ("dog",))
    assert "update failed" in str(after.failure_reason)
    assert "no-such-model" in str(after.failure_reason)
    assert process_of(running.settings) == process
    assert running.invoke("mine", BODY, "image/png").media_type == "image/png"
    again = deployed(running, adapters=("dog",), slots=running.deployment("mine").slots)
    assert again.failure_reason is None
    assert process_of(running.settings) == process


def test_what_needs_another_server_has_it_take_the_place_of_the_one_that_answers(running: LocalHost) -> None:
    process = process_of(running.settings)
    replaced = deployed(running, adapters=("dog",), slots=running.deployment("mine").slots + 1)
    assert replaced.status is EndpointStatus.IN_SERVICE
    assert process_of(running.settings) != process
    assert running.invoke("mine", BODY, "image/png").media_type == "image/png"
    await_end(servers_of(running.settings)[0])
    assert living_servers(running.settings) == 1


def test_a_lease_that_is_over_ends_the_server_and_gc_deletes_the_endpoint(running: LocalHost) -> None:
    here = running.settings
    deployed(running, adapters=("dog",), slots=running.deployment("mine").slots, lease=LEASE)
    assert running.collect() == []
    server = servers_of(here)[-1]
    served = server.served()
    server.write_served(served.model_copy(update={"created": served.created - timedelta(hours=2)}))
    await_end(server)
    found = running.describe("mine")
    assert (found.status, found.expired) == (EndpointStatus.STOPPED, "its time of 1h is over")
    assert "time of 1h is over" in str(found.failure_reason)
    assert "mine: its time of 1h is over" in running.collect()
    assert list(here.endpoints.iterdir()) == []


def await_end(server: ServerFolder) -> None:
    """Wait until a server and its supervisor have ended."""
    with (server.path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)


KILLED = {
    "before the server is written down": "ServerFolder.write_served = die",
    "before the server is started": "starting.subprocess.run = die",
}
SCRIPT = """
import os, subprocess, sys
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.local import host, starting
from orchestrator.endpoints.local.endpoint_folder import ServerFolder
from orchestrator.settings import Settings

run = subprocess.run
def die(*words, **options):
    os._exit(9)
def start_and_die(*words, **options):
    run(*words, **options)
    os._exit(9)
here = host.LocalHost(Settings.from_environment())
plan = here.plan(Deployment(name="mine", adapters=("dog",)))
{fault}
here.deploy(plan)
"""


@pytest.mark.parametrize("fault", KILLED.values(), ids=KILLED)
def test_a_command_that_is_killed_anywhere_leaves_nothing_that_gc_or_the_next_one_does_not_find(
    host: LocalHost, here: Settings, fault: str
) -> None:
    script = SCRIPT.format(fault=fault)
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == 9
    assert living_servers(here) == 0
    assert not any(summary.status is EndpointStatus.IN_SERVICE for summary in described(host))
    gone = host.collect()
    assert "interrupted" in gone[0]
    assert list(here.endpoints.iterdir()) == []


def test_a_server_outlives_the_command_that_is_killed_and_when_it_is_killed_itself_the_same_command_starts_it_again(
    host: LocalHost, here: Settings
) -> None:
    script = SCRIPT.format(fault="starting.subprocess.run = start_and_die")
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert deployed(host, adapters=("dog",)).status is EndpointStatus.IN_SERVICE
    assert living_servers(here) == 1
    process_of(here).send(signal.SIGKILL)
    await_end(servers_of(here)[-1])
    found = host.describe("mine")
    assert (found.status, found.adapters) == (EndpointStatus.FAILED, ("dog",))
    assert str(found.failure_reason).endswith("or somebody has ended it.")  # not by what the server logged last
    assert str(found.next_step).endswith("deploy mine --adapters dog")
    with pytest.raises(EndpointError, match="does not run"):
        host.invoke("mine", BODY, "image/png")
    # The supervisor is killed too: the server goes on without it, and can be ended.
    assert deployed(host, adapters=("dog",)).failure_reason is None
    state = servers_of(here)[-1].state()
    assert state is not None
    os.kill(state.supervisor.pid, signal.SIGKILL)
    assert host.invoke("mine", BODY, "image/png").media_type == "image/png"
    gone = host.delete("mine")
    assert any("server (process" in what for what in gone)
    assert living_servers(here) == 0
    assert list(here.endpoints.iterdir()) == []
    with pytest.raises(EndpointError, match='no endpoint "mine"'):
        host.describe("mine")


def described(host: LocalHost) -> list[EndpointDescription]:
    found = []
    for summary in host.summaries():
        assert isinstance(summary, EndpointDescription)
        assert "interrupted" in str(summary.failure_reason)
        found.append(summary)
    return found


def test_a_number_that_another_process_was_given_is_never_taken_for_the_server() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        real = Process.now(child.pid)
        other = real.model_copy(update={"started": "another time"})
        other.send(signal.SIGKILL)
        assert (real.is_alive, other.is_alive) == (True, False)
        real.send(signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
    assert not real.is_alive


Refusal = Callable[..., OrchestratorError]


@pytest.fixture
def refusal(host: LocalHost, here: Settings) -> Refusal:
    def refused(**fields: Any) -> OrchestratorError:
        with pytest.raises(OrchestratorError) as raised:
            host.plan(Deployment(name="mine", **fields))
        assert not here.endpoints.exists()
        return raised.value

    return refused


def test_adapters_of_another_base_model_are_refused_before_anything_starts(refusal: Refusal, here: Settings) -> None:
    (here.home / "adapters").unlink()
    publish_loras(here.home, "other", fingerprint="0" * 64)
    (problem,) = refusal(adapters=("other",)).problems
    assert problem.where == "other"
    assert "trained on" in problem.what


def test_every_adapter_that_cannot_be_served_is_named_at_once(refusal: Refusal, here: Settings) -> None:
    names = [problem.where for problem in refusal(adapters=("dog", "dgo", "kat")).problems]
    assert names == ["dgo", "kat"]


def test_a_base_model_that_cannot_be_used_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    error = refusal(base_model=str(tmp_path / "nowhere"))
    assert isinstance(error, SpecError)
    assert error.problems[0].where == "--base-model"
