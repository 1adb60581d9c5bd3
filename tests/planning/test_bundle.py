import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.planning.bundle import store_bundle
from orchestrator.storage import DryStore, FolderStore, folder_of


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return folder_of(store_bundle(FolderStore(tmp_path / "store")))


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


def test_equal_code_is_stored_once_under_its_hash(bundle: Path, tmp_path: Path) -> None:
    assert store_bundle(FolderStore(tmp_path / "store")) == bundle.as_uri()
    assert len(list(bundle.parent.iterdir())) == 1
    assert len(bundle.name) == 64


def test_a_dry_store_names_the_same_place_and_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    dry = DryStore(tmp_path / "elsewhere")
    uri = store_bundle(dry)
    assert folder_of(uri).name == bundle.name
    assert "entrypoints/train.py" in dry.trees[uri]
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_half_made_stays_in_the_store_when_staging_fails(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with pytest.raises(RuntimeError), store.staging() as folder:
        (folder / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
