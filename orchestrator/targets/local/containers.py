"""What jobs and endpoints in containers on this machine share: what they need of it, and what local mode is told."""

import json
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from orchestrator.container_images import ImageKind, image_here
from orchestrator.contract.command_line import command
from orchestrator.contract.environment import CACHE_VARIABLE, has_gpu_here
from orchestrator.docker import Docker
from orchestrator.errors import MachineError
from orchestrator.requests import LOCAL_GPU_INSTANCE, LOCAL_INSTANCE, LocalContainer
from orchestrator.storage import write_atomically
from orchestrator.targets.local import local_mode
from orchestrator.targets.local.sdk import python_of

JOB_LABEL = "orchestrator.job"
"""Of containers: the job or server that they belong to, as `label_of` its folder."""
FOLDER_LABEL = "orchestrator.folder"
"""Of containers: that folder."""
_CONTAINER_CACHE = "/opt/cache"
_PASSED_ON = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE", "HF_ENDPOINT")
"""Variables that a process would inherit and a container would not."""
_SECRET = "HF_TOKEN"  # noqa: S105  (its name; docker takes the value from the environment, and no file has it)


def quiet_docker() -> Docker:
    """Return the engine, for calls that show nothing."""
    return Docker(lambda _line: None, again="type this command again")


def require_docker(doing: str) -> None:
    """Raise MachineError unless docker and docker compose are there and this user may use them."""
    docker = quiet_docker()
    docker.require_engine(doing)
    docker.require_compose()


def require_engine_if_any(doing: str) -> None:
    """Raise MachineError where docker is installed and its engine does not answer: containers of ours may run in it."""
    docker = quiet_docker()
    if docker.is_installed():
        docker.require_engine(doing)


def container_here(kind: ImageKind) -> LocalContainer:
    """Return what jobs or endpoints of this machine run in: containers with its GPUs, if it has any."""
    for_gpu = has_gpu_here()
    image = image_here(kind, for_gpu=for_gpu)
    instance_type = LOCAL_GPU_INSTANCE if for_gpu else LOCAL_INSTANCE
    return LocalContainer(image, instance_type)


def require_image_here(image: str, kind: ImageKind) -> None:
    """Raise MachineError unless the engine has an image."""
    if quiet_docker().has_image(image):
        return
    build = ["infra", "image", kind, "--build-only"]
    next_step = "submit the job again with --restart: it was submitted by another version"  # which built the image
    if image == image_here(kind, for_gpu=False):
        next_step = command(*build, "--cpu")
    elif image == image_here(kind, for_gpu=True):
        next_step = command(*build)
    raise MachineError(f"The image {image} is not on this machine.", next_step=next_step)


def require_mountable(folders: Iterable[Path]) -> None:
    """Raise MachineError for a folder that docker compose cannot mount."""
    for folder in folders:
        if ":" in str(folder):
            raise MachineError(
                f"Docker cannot mount {folder}: its path has a colon.",
                next_step="move it, or set ORCHESTRATOR_HOME to a folder without one",
            )


def label_of(folder: Path) -> str:
    """Return what the containers of a job or server are labelled with: several homes may have jobs of one name."""
    digits = sha256(os.fsencode(folder)).hexdigest()[:12]
    return f"{folder.name}-{digits}"


def blank_order(folder: Path, work: Path, cache: Path, docker: Docker) -> local_mode.Order:
    """Return what local mode is told of any containers of a job or server; `work` is for what the SDK writes.

    They run as this user, so that what they write is this user's, and share the cache.
    """
    user = "0:0"
    if not docker.is_rootless():
        user = f"{os.getuid()}:{os.getgid()}"
    variables = {
        CACHE_VARIABLE: _CONTAINER_CACHE,
        "HF_HOME": f"{_CONTAINER_CACHE}/huggingface",
        "HOME": "/tmp",  # noqa: S108  (of the container, whose user has no home)
        "USER": "orchestrator",
    }
    for name in _PASSED_ON:
        if name in os.environ:
            variables[name] = os.environ[name]
    cache.mkdir(parents=True, exist_ok=True)  # docker would make it, as root's
    label = label_of(folder)
    return {
        "request": {},
        "serving": None,
        "root": "",
        "work": str(work),
        "channels": {},
        "sources": {},
        "folders": {_CONTAINER_CACHE: str(cache)},
        "job_label": f"{JOB_LABEL}={label}",
        "labels": {JOB_LABEL: label, FOLDER_LABEL: str(folder)},
        "user": user,
        "variables": variables,
        "inherited": [_SECRET] if _SECRET in os.environ else [],
    }


def local_mode_command(order: local_mode.Order, cache: Path) -> list[str]:
    """Write down what local mode is told and return the command that runs it, in the environment of the SDK."""
    file = Path(order["work"]) / local_mode.ORDER_FILE
    write_atomically(file, json.dumps(order, indent=2))
    return [str(python_of(cache)), "-I", local_mode.__file__, str(file)]
