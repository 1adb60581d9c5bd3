"""The code that travels with a job, and the code that does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.contract.bundle import BundleKind, bundle_files
from orchestrator.planning.bundle import bundle_tree
from orchestrator.resources import ENTRYPOINTS, PACKAGE
from orchestrator.storage import FolderStore, folder_of
from orchestrator.storage.tree import Tree, tree_of_files


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return folder_of(FolderStore(tmp_path / "store").put_tree(bundle_tree(BundleKind.TRAINING)))


def run(code: str, bundle: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(bundle), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, cwd=tmp_path, capture_output=True, text=True, check=False
    )


def test_the_bundle_holds_the_contract_and_the_entrypoints_and_nothing_of_the_client(
    bundle: Path, tmp_path: Path
) -> None:
    assert run("import orchestrator.contract.recipe, entrypoints", bundle, tmp_path).returncode == 0
    assert "No module named 'orchestrator.jobs'" in run("import orchestrator.jobs", bundle, tmp_path).stderr


def test_the_bundle_wins_over_an_installed_package(bundle: Path, tmp_path: Path) -> None:
    found = run("import orchestrator; print(orchestrator.__file__)", bundle, tmp_path).stdout
    assert found.startswith(str(bundle))


def test_a_job_names_the_code_it_runs_as_its_bundle_is_named(bundle: Path, tmp_path: Path) -> None:
    code = """
from pathlib import Path
import orchestrator
from orchestrator.contract.bundle import BundleKind, bundle_files
from orchestrator.contract.digest import hash_file, tree_sha256
root = Path(orchestrator.__file__).parents[1]
files = bundle_files(BundleKind.TRAINING, root / "orchestrator", root / "entrypoints")
print(tree_sha256({name: hash_file(path) for name, path in files.items()}))
"""
    assert run(code, bundle, tmp_path).stdout.strip() == bundle.name


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for source, name in ((PACKAGE, "orchestrator"), (ENTRYPOINTS, "entrypoints")):
        shutil.copytree(source, tmp_path / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    return tmp_path / "checkout"


def bundles(package: Path, entrypoints: Path) -> dict[BundleKind, Tree]:
    return {kind: tree_of_files("code", bundle_files(kind, package, entrypoints)) for kind in BundleKind}


def changed(checkout: Path, *names: str) -> set[BundleKind]:
    """Return which bundles change with a new module."""
    before = bundles(checkout / "orchestrator", checkout / "entrypoints")
    for name in names:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("new = True\n")
    after = bundles(checkout / "orchestrator", checkout / "entrypoints")
    return {kind for kind in BundleKind if before[kind].name != after[kind].name}


def test_an_edit_of_the_server_changes_no_training_job_and_the_other_way_round(checkout: Path) -> None:
    assert changed(checkout, "entrypoints/serve.py", "entrypoints/serving/slots.py") == {BundleKind.SERVING}
    training = (
        "entrypoints/train.py",
        "entrypoints/launch.py",
        "entrypoints/draw_batch.py",
        "entrypoints/batches/share.py",
        "entrypoints/recipes/new.py",
    )
    assert changed(checkout, *training, "entrypoints/training/new.py") == {BundleKind.TRAINING}
    assert changed(checkout, "entrypoints/models/new.py") == set(BundleKind)
    assert changed(checkout, "orchestrator/contract/new.py") == set(BundleKind)


def test_what_is_no_module_of_a_bundle_changes_none(checkout: Path) -> None:
    assert changed(checkout, "orchestrator/jobs/new.py", "entrypoints/notes.txt") == set()


def test_an_installed_wheel_has_the_same_bundles_as_its_checkout(checkout: Path) -> None:
    before = bundles(checkout / "orchestrator", checkout / "entrypoints")
    (checkout / "entrypoints").rename(checkout / "orchestrator" / "_entrypoints")
    after = bundles(checkout / "orchestrator", checkout / "orchestrator" / "_entrypoints")
    for kind in BundleKind:
        assert after[kind].name == before[kind].name
