"""Jobs as containers on this machine: SageMaker local mode, through the SageMaker SDK.

The SDK's call blocks until the job has ended, and the SDK needs another environment than ours. `local_mode.py` makes
the call in a process of that environment, which the worker waits for as for any training.
"""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from orchestrator.container_images import ImageKind
from orchestrator.contract.environment import DEFAULT_ROOT
from orchestrator.docker import Docker
from orchestrator.errors import JobError
from orchestrator.requests import LocalContainer, Request, channel_uris
from orchestrator.settings import Settings
from orchestrator.storage import folder_of
from orchestrator.targets.local import local_mode
from orchestrator.targets.local.containers import (
    FOLDER_LABEL,
    JOB_LABEL,
    blank_order,
    container_here,
    label_of,
    local_mode_command,
    quiet_docker,
    require_docker,
    require_engine_if_any,
    require_image_here,
    require_mountable,
)
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.launcher import Launch, Launched
from orchestrator.targets.local.local_jobs import LOCK_SECONDS, LocalJobs
from orchestrator.targets.local.queue import Turn
from orchestrator.targets.local.sdk import require_sdk
from orchestrator.targets.names import TargetName
from orchestrator.terminal import printable

_HANDLE = re.compile(r"(\d{2,}) ([\w.-]+)")


class ContainerTarget(LocalJobs):
    """Runs a request in containers."""

    def __init__(
        self,
        settings: Settings,
        turn: Turn = Turn.TOGETHER,
        *,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        super().__init__(TargetName.CONTAINER, ContainerLauncher(), settings, turn, lock_seconds=lock_seconds)

    @property
    def container(self) -> LocalContainer:
        """What jobs of this machine run in: containers with its GPUs, if it has any."""
        return container_here(ImageKind.TRAINING)

    def require_machine(self, request: Request) -> None:
        """Raise MachineError when this machine lacks what the job needs: docker, its image, the SDK."""
        super().require_machine(request)
        image = request["AlgorithmSpecification"]["TrainingImage"]
        require_image_here(image, ImageKind.TRAINING)
        require_mountable([self.settings.home, *map(folder_of, channel_uris(request).values())])
        require_sdk(self.settings.cache)

    def sweep(self) -> None:
        """Delete what killed commands left half-written, and containers of jobs that do not run any more."""
        super().sweep()
        collect_containers(quiet_docker(), self.settings.jobs)

    def discard(self, name: str, *, adapter: bool = False) -> None:
        """Delete an ended job, its files and what is left of its containers.

        Raises MachineError where the engine cannot be asked for them.
        """
        folder = self._job(name).path
        require_engine_if_any("Removing a job in a container")
        super().discard(name, adapter=adapter)
        _end(quiet_docker(), label_of(folder))


class ContainerLauncher:
    """Starts local mode as a process; its handle is that process's id and the label of its containers."""

    def require_machine(self) -> None:
        """Raise MachineError unless docker and docker compose are there and this user may use them."""
        require_docker("A job in a container")

    def start(self, launch: Launch) -> Launched:
        """Give the request to the SDK's local session; what an earlier attempt left running is ended before."""
        docker = quiet_docker()
        folder = launch.environment.root.parent
        label = label_of(folder)
        _end(docker, label)
        work = folder / "local_mode"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        order = _order(launch, work, docker)
        process = subprocess.Popen(
            local_mode_command(order, launch.cache),
            cwd=work,
            stdin=launch.held[0],  # what it starts inherits it, and so keeps the job's lock
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=launch.held,
            encoding="utf-8",
            errors="replace",
        )
        return Launched(
            handle=f"{process.pid} {label}",
            lines=process.stdout or (),
            wait=process.wait,
        )

    def stop(self, handle: str) -> None:
        """Have local mode send SIGTERM to the containers, once they are there."""
        pid, _ = _parts_of(handle)
        _signal(pid, signal.SIGTERM)

    def kill(self, handle: str) -> None:
        """End the containers, upon which local mode ends, which does the same to those that are yet to start."""
        pid, label = _parts_of(handle)
        _signal(pid, signal.SIGUSR1)
        docker = quiet_docker()
        docker.kill(docker.containers(f"{JOB_LABEL}={label}"), "KILL")


def collect_containers(docker: Docker, jobs: Path) -> list[str]:
    """Remove the containers of jobs below `jobs` that do not run any more, and return the names of these jobs.

    They are left where local mode itself was killed: the engine goes on with what it has begun.
    """
    collected = []
    for container in docker.containers(FOLDER_LABEL):
        folder = docker.labels(container).get(FOLDER_LABEL)
        if folder is None:
            continue
        job = JobFolder(Path(folder))
        if job.path.parent == jobs and not job.is_running():
            docker.remove([container])
            collected.append(job.name)
    return collected


def _end(docker: Docker, label: str) -> None:
    docker.remove(docker.containers(f"{JOB_LABEL}={label}"))


def _order(launch: Launch, work: Path, docker: Docker) -> local_mode.Order:
    """Return what local mode is told: the request, and where the folders of the job lie."""
    root = launch.environment.root
    channels = {}
    for channel, uri in channel_uris(launch.request).items():
        channels[channel] = str(folder_of(uri))
    order = blank_order(root.parent, work, launch.cache, docker)
    order["request"] = launch.request
    order["root"] = str(root)
    order["channels"] = channels
    order["folders"][f"{DEFAULT_ROOT}/model"] = str(launch.environment.model)
    order["folders"][f"{DEFAULT_ROOT}/checkpoints"] = str(launch.environment.checkpoints)
    return order


def _parts_of(handle: str) -> tuple[int, str]:
    """Return process id and label of a handle; a damaged one must not reach others."""
    match = _HANDLE.fullmatch(handle)
    if match is None:
        raise JobError(f'"{printable(handle)}" is no container of a job: its state.json was changed.')
    return int(match[1]), match[2]


def _signal(pid: int, number: int) -> None:
    """Send a signal to local mode; nothing where it has ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it has just ended
        return
