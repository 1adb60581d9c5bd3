"""Endpoints in containers of this machine: what is missing is told, and those of processes are another host's."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.local.container import ContainerHost
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, Served
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.names import HostName
from orchestrator.errors import EndpointError, MachineError, OrchestratorError
from orchestrator.settings import Settings
from orchestrator.targets.local import containers, sdk
from orchestrator.targets.local.sdk import environment_of
from tests.stand_ins.docker import DockerStandIn

BOX = Deployment(name="box", host=HostName.CONTAINER)


@pytest.fixture
def host(settings: Settings) -> ContainerHost:
    return ContainerHost(settings)


def test_without_docker(host: ContainerHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="An endpoint in a container needs docker"):
        host.plan(BOX)


@pytest.mark.parametrize(("gpu", "flags"), [(False, " --cpu"), (True, "")])
def test_without_the_image_the_command_that_builds_it_is_told(
    host: ContainerHost, docker: DockerStandIn, monkeypatch: pytest.MonkeyPatch, gpu: bool, flags: str
) -> None:
    monkeypatch.setattr(containers, "has_gpu_here", lambda: gpu)
    docker.fails("image", "No such image")
    with pytest.raises(MachineError, match="orchestrator-inference:") as raised:
        host.plan(BOX)
    assert raised.value.next_step == f"python -m orchestrator infra image inference --build-only{flags}"


@pytest.mark.usefixtures("docker")
def test_the_sdk_is_asked_for_only_after_everything_else_is_checked(
    host: ContainerHost, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "free_bytes", lambda _folder: 0)
    with pytest.raises(OrchestratorError, match="Not every adapter can be served"):
        host.plan(BOX.model_copy(update={"adapters": ("dgo",)}))
    plan = host.plan(BOX)
    with pytest.raises(MachineError, match="The SageMaker SDK"):
        host.deploy(plan)
    assert not (settings.endpoints / BOX.name).exists()


def test_endpoints_of_both_hosts_of_this_machine_are_kept_apart(host: ContainerHost, settings: Settings) -> None:
    processes = LocalHost(settings)
    for deployment in (BOX, Deployment(name="plain")):
        served = Served(
            deployment=deployment,
            created=datetime.now(UTC),
            adapters={},
            base_folder=None,
            base_sha256=None,
        )
        EndpointFolder(settings.endpoints / deployment.name).new_server(served)
    assert (host.names(), processes.names()) == (["box"], ["plain"])
    with pytest.raises(EndpointError, match="exists with --host container"):
        processes.plan(Deployment(name="box"))
    with pytest.raises(EndpointError, match="no endpoint"):
        processes.describe("box")
    with pytest.raises(EndpointError, match="no endpoint"):
        host.delete("plain")
    assert processes.collect() == ["plain: the command that deployed it was interrupted before a server ran"]
    assert host.names() == ["box"]


def test_leftovers_that_cannot_be_looked_for_are_not_called_none(
    host: ContainerHost, docker: DockerStandIn, settings: Settings
) -> None:
    docker.fails("version", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
    assert host.collect() == []  # nobody has used a container here
    environment_of(settings.cache).mkdir(parents=True)
    with pytest.raises(MachineError, match="the docker engine is not running"):
        host.collect()
