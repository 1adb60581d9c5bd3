"""What a machine lacks for jobs in containers is one message with the next command, before anything starts."""

import json
import os
from pathlib import Path

import pytest

from orchestrator.container_images import ImageKind, image_here
from orchestrator.errors import MachineError
from orchestrator.requests import LOCAL_GPU_INSTANCE, LOCAL_INSTANCE, Request
from orchestrator.settings import Settings
from orchestrator.targets.local import container, containers, sdk
from orchestrator.targets.local.container import ContainerTarget
from tests.containers.engine import in_container
from tests.stand_ins.docker import DockerStandIn
from tests.targets.local.running import MakeRequest

NO_SOCKET = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
NOT_MINE = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get"


@pytest.fixture
def target(settings: Settings) -> ContainerTarget:
    return ContainerTarget(settings)


@pytest.fixture
def request_here(training_request: MakeRequest) -> Request:
    return in_container(training_request("finish()"), image_here(ImageKind.TRAINING, for_gpu=False))


def refusal(target: ContainerTarget, request: Request) -> MachineError:
    with pytest.raises(MachineError) as raised:
        target.create(request)
    assert target.names() == []
    return raised.value


def test_without_docker(
    target: ContainerTarget, request_here: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refusal(target, request_here)
    assert error.message == "A job in a container needs docker, which is not installed on this machine."
    assert "docs.docker.com" in error.next_step


@pytest.mark.parametrize(("said", "next_step"), [(NO_SOCKET, "systemctl start docker"), (NOT_MINE, "usermod -aG")])
def test_without_an_engine_that_this_user_may_use(
    target: ContainerTarget, request_here: Request, docker: DockerStandIn, said: str, next_step: str
) -> None:
    docker.fails("version", said)
    assert next_step in refusal(target, request_here).next_step


def test_an_engine_that_docker_host_names_is_not_told_to_be_started(
    target: ContainerTarget, request_here: Request, docker: DockerStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.fails("version", NO_SOCKET)
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")
    next_step = refusal(target, request_here).next_step
    assert next_step.startswith("unset DOCKER_HOST  (it names unix:///elsewhere.sock, where no engine answers; then: ")


def test_a_job_is_not_removed_while_its_containers_cannot_be_looked_for(
    target: ContainerTarget, request_here: Request, docker: DockerStandIn
) -> None:
    folder = target.settings.jobs / "job"
    folder.mkdir(parents=True)
    (folder / "request.json").write_text(json.dumps(request_here))
    docker.fails("version", NO_SOCKET)
    with pytest.raises(MachineError, match="the docker engine is not running"):
        target.discard("job")
    assert target.names() == ["job"]


@pytest.mark.parametrize("predecessor", [True, False])
def test_without_compose_its_predecessor_will_do(
    target: ContainerTarget,
    request_here: Request,
    docker: DockerStandIn,
    monkeypatch: pytest.MonkeyPatch,
    predecessor: bool,
) -> None:
    docker.fails("compose", "docker: 'compose' is not a docker command.")
    docker.fails("image", "No such image")
    monkeypatch.setenv("PATH", str(docker.program.parent))
    if predecessor:
        old = docker.program.with_name("docker-compose")
        old.write_text("#!/bin/sh\n")
        old.chmod(0o755)
    error = refusal(target, request_here)
    assert ("docker compose, which is not installed" in error.message) != predecessor


@pytest.mark.parametrize(("for_gpu", "flags"), [(False, "--build-only --cpu"), (True, "--build-only")])
def test_without_the_image_the_command_that_builds_it_is_told(
    target: ContainerTarget, request_here: Request, docker: DockerStandIn, for_gpu: bool, flags: str
) -> None:
    docker.fails("image", "No such image")
    image = image_here(ImageKind.TRAINING, for_gpu=for_gpu)
    request_here["AlgorithmSpecification"]["TrainingImage"] = image
    error = refusal(target, request_here)
    assert image in error.message
    assert error.next_step == f"python -m orchestrator infra image training {flags}"


@pytest.mark.usefixtures("docker")
def test_without_the_sdk_it_is_installed_and_a_failure_leaves_nothing(
    target: ContainerTarget, request_here: Request, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    error = refusal(target, request_here)
    assert "could not be installed" in error.message
    assert "No matching distribution" in error.message
    assert "check the network" in error.next_step
    assert "Installing the SageMaker SDK" in capfd.readouterr().err
    assert list((target.settings.cache / "sdk").iterdir()) == []


@pytest.mark.usefixtures("docker")
def test_without_room_for_the_sdk(
    target: ContainerTarget, request_here: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "free_bytes", lambda _folder: 700_000_000)
    error = refusal(target, request_here)
    assert "700 MB are free" in error.message
    assert "ORCHESTRATOR_HOME" in error.next_step


@pytest.mark.usefixtures("docker")
def test_a_folder_that_docker_cannot_mount_is_named(
    target: ContainerTarget, request_here: Request, tmp_path: Path
) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    source = request_here["InputDataConfig"][0]["DataSource"]["S3DataSource"]
    source["S3Uri"] = folder.as_uri()
    assert f"{folder}: its path has a colon" in refusal(target, request_here).message


@pytest.mark.parametrize("gpu", [True, False])
def test_jobs_use_the_gpus_of_a_machine_that_has_some(
    target: ContainerTarget, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    monkeypatch.setattr(containers, "has_gpu_here", lambda: gpu)
    found = target.container
    assert found.instance_type == (LOCAL_GPU_INSTANCE if gpu else LOCAL_INSTANCE)
    assert found.image == image_here(ImageKind.TRAINING, for_gpu=gpu)


@pytest.mark.parametrize("handle", ["-1 job", "1 job", "12 job;rm", "12", ""])
def test_a_damaged_handle_reaches_nobody(handle: str) -> None:
    with pytest.raises(Exception, match="is no container of a job"):
        container.ContainerLauncher().stop(handle)
