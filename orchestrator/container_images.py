"""The images that jobs and endpoints run in: what they are made of, and their names on this machine.

Their tag is derived from the files they are built from, so that a name always means the same image.
"""

from enum import StrEnum

from orchestrator import __version__
from orchestrator.contract.digest import hash_file, tree_sha256
from orchestrator.resources import CONTAINERS

_CPU = "-cpu"


class ImageKind(StrEnum):
    """The images, by the names of their folders in `containers/`."""

    TRAINING = "training"
    """Runs jobs."""
    INFERENCE = "inference"
    """Runs endpoints."""


SOURCES = (
    ".dockerignore",
    "start.py",
    "training/Dockerfile",
    "training/requirements.txt",
    "training/requirements-cpu.txt",
    "inference/Dockerfile",
    "inference/requirements.txt",
    "inference/requirements-cpu.txt",
)
"""Files of `containers/` that the images are built from. Both have one tag, as the stack has one parameter for it."""


def image_tag() -> str:
    """Return the version and ten digits of the hash of the files that the images are built from."""
    files = {name: hash_file(CONTAINERS / name) for name in SOURCES}
    digits = tree_sha256(files)[:10]
    return f"{__version__}-{digits}"


def image_here(kind: ImageKind, *, for_gpu: bool) -> str:
    """Return the name of an image that is built for this machine alone: `orchestrator-training:0.1.0-0123456789-cpu`.

    Without a GPU it has torch without CUDA: a tenth of the size.
    """
    variant = "" if for_gpu else _CPU
    return f"orchestrator-{kind}:{image_tag()}{variant}"
