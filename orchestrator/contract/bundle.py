"""Which files of the code travel with a job: a bundle of its own for training and for serving.

An edit of the server changes no training job, and an edit of a recipe no endpoint. A bundle's root is the PYTHONPATH
of the container: `orchestrator/__init__.py`, `orchestrator/contract/`, `entrypoints/`.
"""

from enum import StrEnum
from pathlib import Path


class BundleKind(StrEnum):
    """What a bundle is for."""

    TRAINING = "training"
    SERVING = "serving"


_LEFT_OUT = {
    BundleKind.TRAINING: ("entrypoints/serve.py", "entrypoints/serving/"),
    BundleKind.SERVING: (
        "entrypoints/train.py",
        "entrypoints/launch.py",
        "entrypoints/evaluate.py",
        "entrypoints/draw_batch.py",
        "entrypoints/batches/",
        "entrypoints/recipes/",
        "entrypoints/training/",
    ),
}
"""Beginnings of paths within a bundle that are no part of it."""


def bundle_files(kind: BundleKind, package: Path, entrypoints: Path) -> dict[str, Path]:
    """Return the files of a bundle: each path within it, and where the file lies.

    `package` is the folder of `orchestrator` and `entrypoints` that of the entrypoints: beside it in a checkout and in
    a bundle, within it in an installed wheel.
    """
    found = {"orchestrator/__init__.py": package / "__init__.py"}
    for name, folder in (("orchestrator/contract", package / "contract"), ("entrypoints", entrypoints)):
        for path in sorted(folder.rglob("*.py")):
            found[f"{name}/{path.relative_to(folder).as_posix()}"] = path
    return {name: path for name, path in found.items() if not name.startswith(_LEFT_OUT[kind])}
