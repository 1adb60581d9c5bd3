"""Jobs as containers on this machine: SageMaker local mode, through the SageMaker SDK.

The SDK's call blocks until the job has ended, and the SDK needs another environment than ours. `local_mode.py` makes
the call in a process of that environment, which the worker waits for as for any training.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from orchestrator.container_images import ImageKind, image_here
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import CACHE_VARIABLE, DEFAULT_ROOT, has_gpu_here
from orchestrator.docker import Docker
from orchestrator.errors import JobError, MachineError
from orchestrator.requests import (
    LOCAL_GPU_INSTANCE,
    LOCAL_INSTANCE,
    LocalContainer,
    Request,
    channel_uris,
)
from orchestrator.settings import Settings
from orchestrator.storage import folder_of, write_atomically
from orchestrator.targets.local import local_mode
from orchestrator.targets.local.job_folder import JobFolder
from orchestrator.targets.local.launcher import Launch, Launched
from orchestrator.targets.local.local_jobs import LOCK_SECONDS, LocalJobs
from orchestrator.targets.local.queue import Turn
from orchestrator.targets.local.sdk import python_of, require_sdk
from orchestrator.targets.names import TargetName
from orchestrator.terminal import printable

JOB_LABEL = "orchestrator.job"
"""Of containers: which job they belong to, by the handle of its folder."""
FOLDER_LABEL = "orchestrator.folder"
"""Of containers: the folder of their job."""
_DOING = "A job in a container"
_HANDLE = re.compile(r"(\d{2,}) ([\w.-]+)")
_CONTAINER_CACHE = "/opt/cache"
_PASSED_ON = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE", "HF_ENDPOINT")
"""Variables that a training process would inherit and a container would not."""
_SECRET = "HF_TOKEN"  # noqa: S105  (its name; docker takes the value from the environment, and no file has it)
_UNSAFE_IN_MOUNTS = ":"


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
        for_gpu = has_gpu_here()
        image = image_here(ImageKind.TRAINING, for_gpu=for_gpu)
        instance_type = LOCAL_GPU_INSTANCE if for_gpu else LOCAL_INSTANCE
        return LocalContainer(image, instance_type)

    def require_machine(self, request: Request) -> None:
        """Raise MachineError when this machine lacks what the job needs: docker, its image, the SDK."""
        super().require_machine(request)
        docker = _docker()
        image = request["AlgorithmSpecification"]["TrainingImage"]
        if not docker.has_image(image):
            raise MachineError(
                f"The image {image}, which the job runs in, is not on this machine.",
                next_step=_build_command(image),
            )
        folders = [self.settings.home, *map(folder_of, channel_uris(request).values())]
        for folder in folders:
            if _UNSAFE_IN_MOUNTS in str(folder):
                raise MachineError(
                    f"Docker cannot mount {folder}: its path has a colon.",
                    next_step="move it, or set ORCHESTRATOR_HOME to a folder without one",
                )
        require_sdk(self.settings.cache)

    def sweep(self) -> None:
        """Delete what killed commands left half-written, and containers of jobs that do not run any more."""
        super().sweep()
        collect_containers(_docker(), self.settings.jobs)

    def discard(self, name: str, *, adapter: bool = False) -> None:
        """Delete an ended job, its files and what is left of its containers."""
        folder = self._job(name).path
        super().discard(name, adapter=adapter)
        _end(_docker(), _label_of(folder))


class ContainerLauncher:
    """Starts local mode as a process; its handle is that process's id and the label of its containers."""

    def require_machine(self) -> None:
        """Raise MachineError unless docker and docker compose are there and this user may use them."""
        docker = _docker()
        docker.require_engine(_DOING)
        docker.require_compose()

    def start(self, launch: Launch) -> Launched:
        """Give the request to the SDK's local session; what an earlier attempt left running is ended before."""
        docker = _docker()
        folder = launch.environment.root.parent
        label = _label_of(folder)
        _end(docker, label)
        work = folder / "local_mode"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        order = _order(launch, work, label, docker)
        file = work / local_mode.ORDER_FILE
        write_atomically(file, json.dumps(order, indent=2))
        process = subprocess.Popen(
            [str(python_of(launch.cache)), "-I", local_mode.__file__, str(file)],
            env=_own_variables(os.environ),
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
        """Remove the containers, upon which local mode ends; or end it, where there are none yet."""
        pid, label = _parts_of(handle)
        docker = _docker()
        containers = docker.containers(f"{JOB_LABEL}={label}")
        if containers:
            docker.kill(containers, "KILL")
        else:
            _signal(pid, signal.SIGKILL)


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


def _docker() -> Docker:
    return Docker(lambda _line: None, again="type this command again")


def _build_command(image: str) -> str:
    """Return the command that builds the image of a request; an older version's cannot be built any more."""
    if image == image_here(ImageKind.TRAINING, for_gpu=False):
        return command("infra", "image", "training", "--build-only", "--cpu")
    if image == image_here(ImageKind.TRAINING, for_gpu=True):
        return command("infra", "image", "training", "--build-only")
    return "submit the job again with --restart: it was submitted by another version"


def _label_of(folder: Path) -> str:
    """Return what the containers of a job are labelled with: several homes may have jobs of one name."""
    digits = sha256(os.fsencode(folder)).hexdigest()[:12]
    return f"{folder.name}-{digits}"


def _end(docker: Docker, label: str) -> None:
    docker.remove(docker.containers(f"{JOB_LABEL}={label}"))


def _order(launch: Launch, work: Path, label: str, docker: Docker) -> local_mode.Order:
    """Return what local mode is told: the request, where its folders lie, and whose files it writes."""
    root = launch.environment.root
    channels = {}
    for channel, uri in channel_uris(launch.request).items():
        channels[channel] = str(folder_of(uri))
    user = "0:0"
    if not docker.is_rootless():
        user = f"{os.getuid()}:{os.getgid()}"
    variables = {
        CACHE_VARIABLE: _CONTAINER_CACHE,
        "HF_HOME": f"{_CONTAINER_CACHE}/huggingface",
        "HOME": "/tmp",  # noqa: S108  (of the container, whose user has no home)
        "USER": "job",
    }
    for name in _PASSED_ON:
        if name in os.environ:
            variables[name] = os.environ[name]
    return {
        "request": launch.request,
        "root": str(root),
        "work": str(work),
        "channels": channels,
        "folders": {
            f"{DEFAULT_ROOT}/model": str(launch.environment.model),
            f"{DEFAULT_ROOT}/checkpoints": str(launch.environment.checkpoints),
            _CONTAINER_CACHE: str(_made(launch.cache)),
        },
        "job_label": f"{JOB_LABEL}={label}",
        "labels": {JOB_LABEL: label, FOLDER_LABEL: str(root.parent)},
        "user": user,
        "variables": variables,
        "inherited": [_SECRET] if _SECRET in os.environ else [],
    }


def _made(folder: Path) -> Path:
    """Return a folder that exists: docker makes a missing one, as root's."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of local mode: without credentials, which the SDK would write into a file and hand on."""
    variables = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
    nowhere = {
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return {**variables, **nowhere}


def _parts_of(handle: str) -> tuple[int, str]:
    """Return process id and label of a handle; a damaged one must not reach others."""
    match = _HANDLE.fullmatch(handle)
    if match is None:
        raise JobError(f'"{printable(handle)}" is no container of a job: its state.json was changed.')
    return int(match[1]), match[2]


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it has just ended
        return
