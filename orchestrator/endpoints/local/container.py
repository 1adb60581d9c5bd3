"""Endpoints of this machine as containers: the image of SageMaker's endpoints, through SageMaker local mode."""

import socket
from collections.abc import Sequence
from pathlib import Path

from orchestrator.container_images import ImageKind
from orchestrator.contract.environment import DEFAULT_ROOT
from orchestrator.contract.serving import (
    BASE_MODEL_FOLDER,
    CODE_SOURCE,
    EVERYWHERE,
    LOCALHOST,
    ORDER_FILE,
    SOURCES_FOLDER,
)
from orchestrator.endpoints.hosts import DeploymentPlan, EndpointDescription
from orchestrator.endpoints.local.endpoint_folder import EndpointFolder, Served, ServerFolder
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.local.starting import order_of, run_supervisor, store_code
from orchestrator.endpoints.names import HostName
from orchestrator.settings import Settings
from orchestrator.targets.local import local_mode
from orchestrator.targets.local.container import collect_containers
from orchestrator.targets.local.containers import (
    FOLDER_LABEL,
    blank_order,
    container_here,
    local_mode_command,
    quiet_docker,
    require_docker,
    require_engine_if_any,
    require_image_here,
    require_mountable,
)
from orchestrator.targets.local.sdk import is_in_use, require_sdk

PORT_VARIABLE = "SAGEMAKER_BIND_TO_PORT"
_SOURCES = DEFAULT_ROOT / SOURCES_FOLDER


def start_container(endpoint: EndpointFolder, served: Served, settings: Settings) -> ServerFolder:
    """Start another server in a container, which replaces the one that runs once it serves, and return it.

    Raises MachineError when no process can be started.
    """
    code = store_code(settings)
    port = _free_port()
    order = order_of(endpoint, served)
    base_folder = None
    if order.base_folder is not None:
        base_folder = _SOURCES / BASE_MODEL_FOLDER
    told = order.model_copy(update={"host": EVERYWHERE, "port": port, "base_folder": base_folder})
    server = endpoint.new_server(served)
    model = server.path / "model"
    model.mkdir(mode=0o700)  # the order has the endpoint's token
    (model / ORDER_FILE).write_text(told.model_dump_json(), encoding="utf-8")
    sources = {
        f"{DEFAULT_ROOT}/model": model,
        str(_SOURCES / CODE_SOURCE): code,
        str(endpoint.adapters): endpoint.adapters,  # at the same path, so that a server can be told of later ones
    }
    if order.base_folder is not None:
        sources[str(_SOURCES / BASE_MODEL_FOLDER)] = order.base_folder
    words = local_mode_command(_local_mode_order(server, sources, port, settings), settings.cache)
    run_supervisor(endpoint, server, code, "", words)
    return server


class ContainerHost(LocalHost):
    """Runs each endpoint as a container, which a detached process watches as a server of this machine."""

    name = HostName.CONTAINER
    start_server = staticmethod(start_container)

    def require_machine(self) -> None:
        """Raise MachineError when this machine lacks what a server in a container runs with."""
        require_docker("An endpoint in a container")
        require_image_here(container_here(ImageKind.INFERENCE).image, ImageKind.INFERENCE)
        require_mountable([self.settings.home])

    def deploy(self, plan: DeploymentPlan) -> EndpointDescription:
        """Start the container of an endpoint, or change what the one that runs serves. Idempotent.

        The SDK, which starts it, is installed first where it is not; a plan waits for no installation.
        """
        require_sdk(self.settings.cache)
        return super().deploy(plan)

    def delete(self, name: str, *, keep_logs: bool = False) -> Sequence[str]:
        """End the servers of an endpoint, remove their containers and delete its folder; return what is gone."""
        folder = self._endpoint(name).path
        return [*super().delete(name, keep_logs=keep_logs), *_remove_containers(folder)]

    def collect(self) -> Sequence[str]:
        """Delete endpoints whose lease has ended, and what interrupted commands and jobs left; return all.

        Raises MachineError where containers were used before and the engine cannot be asked for them.
        """
        gone = [*super().collect()]
        if is_in_use(self.settings.cache):
            require_engine_if_any("Looking for containers that were left")
        gone += self._leftovers()
        for job in collect_containers(quiet_docker(), self.settings.jobs):
            gone.append(f"container of the job {job}")
        return gone

    def _leftovers(self) -> list[str]:
        """Remove the containers of servers that do not run any more."""
        docker = quiet_docker()
        gone = []
        for container in docker.containers(FOLDER_LABEL):
            folder = Path(docker.labels(container).get(FOLDER_LABEL, ""))
            is_ours = self.settings.endpoints in folder.parents
            if is_ours and not (folder.name.isdecimal() and ServerFolder(folder).is_alive()):
                docker.remove([container])
                gone.append(f"container {container}")
        return gone


def _remove_containers(endpoint: Path) -> list[str]:
    """Remove what is left of the containers of an endpoint, and name them."""
    docker = quiet_docker()
    gone = []
    for container in docker.containers(FOLDER_LABEL):
        folder = Path(docker.labels(container).get(FOLDER_LABEL, ""))
        if endpoint in folder.parents:
            docker.remove([container])
            gone.append(f"container {container}")
    return gone


def _local_mode_order(
    server: ServerFolder,
    sources: dict[str, Path],
    port: int,
    settings: Settings,
) -> local_mode.Order:
    """Return what local mode is told: the image, where its folders lie, and its port."""
    work = server.path / "local_mode"
    work.mkdir()
    order = blank_order(server.path, work, settings.cache, quiet_docker())
    order["sources"] = {inside: str(folder) for inside, folder in sources.items()}
    runs_in = container_here(ImageKind.INFERENCE)
    order["serving"] = {
        "image": runs_in.image,
        "instance_type": runs_in.instance_type,
        "port": port,
        "environment": {
            PORT_VARIABLE: str(port),
            "PYTHONPATH": str(_SOURCES / CODE_SOURCE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        },
    }
    return order


def _free_port() -> int:
    """Return a port that nobody listens on now; where another program takes it meanwhile, docker says so."""
    with socket.socket() as listening:
        listening.bind((LOCALHOST, 0))
        port: int = listening.getsockname()[1]
        return port
