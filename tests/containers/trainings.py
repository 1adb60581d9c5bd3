"""Trainings of a few steps in the real image, and what they leave."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from orchestrator.container_images import ImageKind, image_here
from orchestrator.docker import Docker
from tests.containers.engine import lacking

SHORT = ("steps=3", "rank=2", "evaluation_prompts=1", "evaluation_seeds=1", "inference_steps=2", "checkpoint_steps=1")
STARTED_SECONDS = 600
Typed = Callable[..., Any]


def built(engine: Docker, kind: ImageKind) -> str:
    """Return the name of an image that `infra image --build-only --cpu` has built."""
    image = image_here(kind, for_gpu=False)
    if not engine.has_image(image):
        lacking(f"The image {image} is not built")
    return image


def submit(*more: str) -> list[str]:
    """Return the words of a short training; later settings override those before them."""
    words = ["submit", "dreambooth"]
    for setting in SHORT:
        words += ["-s", setting]
    return [*words, *more]


def weights(job: dict[str, Any]) -> str:
    """Return the hash of the weights that a job has trained: names, shapes and bytes.

    The file has beside them which libraries made them, of which torch may have another build here than in the image.
    """
    content = load_file(_file(job))
    sha256 = hashlib.sha256()
    for name, tensor in sorted(content.items()):
        sha256.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha256.update(tensor.numpy().tobytes())
    return sha256.hexdigest()


def made_by(job: dict[str, Any]) -> Any:
    """Return the versions of the libraries that made the weights of a job."""
    with safe_open(_file(job), "pt") as file:
        return json.loads(file.metadata()["orchestrator"])["libraries"]


def file_sha256(job: dict[str, Any]) -> str:
    """Return the hash of the file of the weights of a job."""
    return hashlib.sha256(_file(job).read_bytes()).hexdigest()


def _file(job: dict[str, Any]) -> Path:
    assert job["status"] == "Completed", job
    return Path(job["adapter"]) / "pytorch_lora_weights.safetensors"


def wait_for_checkpoint(folder: Path) -> None:
    """Wait until the job of a folder has kept one."""
    deadline = time.monotonic() + STARTED_SECONDS
    while not list((folder / "ml" / "checkpoints").glob("step-*/checkpoint.json")):
        assert time.monotonic() < deadline, (folder / "log.txt").read_text()
        time.sleep(0.2)
