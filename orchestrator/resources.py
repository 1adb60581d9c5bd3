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
SAMPLE_IMAGES = ASSETS / "sample"
SAMPLES = (SAMPLE_IMAGES, ASSETS / "style", ASSETS / "layouts")
