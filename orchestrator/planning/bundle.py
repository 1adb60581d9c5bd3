"""The code a job runs: `contract` and `entrypoints`, frozen under the hash of their bytes.

A job always runs the bundle it was submitted with, also when it is resumed after the code has changed.
"""

import shutil
from pathlib import Path

from orchestrator.resources import ENTRYPOINTS, PACKAGE
from orchestrator.storage import TreeStore


def store_bundle(store: TreeStore) -> str:
    """Put the bundle into the store and return the URI of its root, which becomes the job's PYTHONPATH."""
    with store.staging() as folder:
        _copy_python(PACKAGE / "contract", folder / "orchestrator" / "contract")
        # An empty package of its own: a namespace package would lose to an installed `orchestrator`.
        (folder / "orchestrator" / "__init__.py").touch()
        _copy_python(ENTRYPOINTS, folder / "entrypoints")
        return store.put_tree("code", folder)


def _copy_python(source: Path, destination: Path) -> None:
    shutil.copytree(source, destination, ignore=_not_python)


def _not_python(folder: str, names: list[str]) -> list[str]:
    return [
        name for name in names if name == "__pycache__" or not (Path(folder, name).is_dir() or name.endswith(".py"))
    ]
