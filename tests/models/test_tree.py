"""A base model as a tree: the files a run reads, and another tree when one of them changes."""

import shutil
from pathlib import Path

import pytest

from orchestrator.contract.model_layout import files_sha256, model_files
from orchestrator.models.tree import model_tree
from orchestrator.resources import BUILTIN_MODEL


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(BUILTIN_MODEL, tmp_path / "model")
    return tmp_path / "model"


def test_equal_models_in_different_folders_are_one_tree(model: Path) -> None:
    (model / "notes.txt").write_text("nothing reads this")
    tree = model_tree(model)
    assert tree.name == model_tree(BUILTIN_MODEL).name
    assert tree.sha256 == files_sha256(model, model_files(model))
    assert "notes.txt" not in tree.files
    assert tree.bytes == sum(path.stat().st_size for path in model_files(model))


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"])
def test_a_changed_byte_makes_another_tree(model: Path, name: str) -> None:
    content = bytearray((model / name).read_bytes())
    content[-2] ^= 1
    (model / name).write_bytes(content)
    assert model_tree(model).name != model_tree(BUILTIN_MODEL).name


def test_the_clip_a_model_is_judged_by_is_part_of_it(model: Path) -> None:
    (model / "clip" / "model.safetensors").unlink()
    assert model_tree(model).name != model_tree(BUILTIN_MODEL).name
