"""Trainings of a few steps in the real image, and what they leave."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """Return the hash of the weights that a job has trained."""
    assert job["status"] == "Completed", job
    file = Path(job["adapter"]) / "pytorch_lora_weights.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def wait_for_checkpoint(folder: Path) -> None:
    """Wait until the job of a folder has kept one."""
    deadline = time.monotonic() + STARTED_SECONDS
    while not list((folder / "ml" / "checkpoints").glob("step-*/checkpoint.json")):
        assert time.monotonic() < deadline, (folder / "log.txt").read_text()
        time.sleep(0.2)
