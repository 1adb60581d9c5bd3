"""Paths of data files: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

PACKAGE = Path(__file__).parent
ASSETS = PACKAGE / "assets"


def _data_folder(name: str) -> Path:
    """Return a folder that is `orchestrator/_NAME` in a wheel and `NAME` beside the package in a checkout."""
    installed = PACKAGE / f"_{name}"
    if installed.is_dir():
        return installed
    return PACKAGE.parent / name


ENTRYPOINTS = _data_folder("entrypoints")
STACK_TEMPLATE = _data_folder("infra") / "stack.yaml"
CONTAINERS = _data_folder("containers")
INSTANCES_TABLE = ASSETS / "instances.json"
BUILTIN_MODEL = ASSETS / "base_model"
AESTHETIC_HEAD = ASSETS / "aesthetic" / "head.safetensors"
"""Head of the aesthetic reward for the CLIP of the built-in model."""
SAMPLE_IMAGES = ASSETS / "sample"
SAMPLE_PROMPTS = ASSETS / "prompts"
SAMPLES = (SAMPLE_IMAGES, ASSETS / "style", ASSETS / "layouts")


def sample_prompts(*, builtin: bool) -> Path:
    """Return the file of prompts that suits the built-in model, or models of photos."""
    return SAMPLE_PROMPTS / ("drawings.txt" if builtin else "photos.txt")
