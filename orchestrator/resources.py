"""Where data files lie: in a checkout beside the package, in a wheel within it."""

from pathlib import Path

PACKAGE = Path(__file__).parent
ASSETS = PACKAGE / "assets"


def _carried(name: str) -> Path:
    """Return a folder that a wheel carries as `orchestrator/_NAME` and a checkout has beside the package."""
    installed = PACKAGE / f"_{name}"
    return installed if installed.is_dir() else PACKAGE.parent / name


ENTRYPOINTS = _carried("entrypoints")
STACK_TEMPLATE = _carried("infra") / "stack.yaml"
TRAINING_IMAGE = _carried("containers") / "training"
INSTANCES_TABLE = ASSETS / "instances.json"
BUILTIN_MODEL = ASSETS / "base_model"
SAMPLE_IMAGES = ASSETS / "sample"
