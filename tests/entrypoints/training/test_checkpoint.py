"""Checkpoints on disk: what is whole is found, what is not is skipped."""

from pathlib import Path

import pytest
import torch

from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.machine import Machine
from entrypoints.training import checkpoint
from entrypoints.training.checkpoint import Identity, Manifest
from orchestrator.contract.digest import FileDigest

IDENTITY = Identity(recipe="r", dataset="d", bundle="b", base_model="m")
MACHINE = Machine(device="cpu (AVX2)", threads=3, libraries={"torch": "2"})


def write(root: Path, step: int, keep: int = 5) -> Path:
    manifest = Manifest(step=step, identity=IDENTITY, machine=MACHINE, tensors=FileDigest(sha256="", size=0))
    checkpoint.save(root, manifest, {"weight/a": torch.full((4,), float(step))}, keep)
    return checkpoint.folder_of(root, step)


def newest_step(root: Path) -> int | None:
    _, manifest, _ = checkpoint.find(root, IDENTITY)
    return manifest.step if manifest else None


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    found, manifest, complaints = checkpoint.find(tmp_path, IDENTITY)
    assert found == folder
    assert complaints == []
    assert manifest
    assert (manifest.step, manifest.machine) == (7, MACHINE)
    assert torch.equal(dict(checkpoint.read_tensors(folder, torch.device("cpu")))["weight/a"], torch.full((4,), 7.0))


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        write(tmp_path, step, keep=2)
    assert [path.name for path in checkpoint.newest_first(tmp_path)] == ["step-00000011", "step-00000010"]


def test_any_flipped_byte_makes_it_invalid(tmp_path: Path) -> None:
    write(tmp_path, 1)
    newer = write(tmp_path, 2)
    for path in newer.iterdir():
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert newest_step(tmp_path) == 1, (path.name, place)
        path.write_bytes(whole)
    assert newest_step(tmp_path) == 2


@pytest.mark.parametrize("missing", [checkpoint.MANIFEST_FILE, checkpoint.TENSORS_FILE])
def test_an_incomplete_one_is_skipped_with_a_warning(tmp_path: Path, missing: str) -> None:
    write(tmp_path, 1)
    (write(tmp_path, 2) / missing).unlink()
    _, manifest, complaints = checkpoint.find(tmp_path, IDENTITY)
    assert manifest
    assert manifest.step == 1
    assert "step-00000002" in complaints[0]


def test_a_truncated_one_is_skipped(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = write(tmp_path, 2) / checkpoint.TENSORS_FILE
    path.write_bytes(path.read_bytes()[:-3])
    assert newest_step(tmp_path) == 1


def test_an_invalid_newer_one_never_pushes_out_the_one_just_saved(tmp_path: Path) -> None:
    for step in (8, 9):
        (write(tmp_path, step) / checkpoint.MANIFEST_FILE).unlink()
    write(tmp_path, 5, keep=2)
    assert newest_step(tmp_path) == 5


def test_a_copy_under_another_step_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path, 1).rename(tmp_path / "step-00000009")
    assert newest_step(tmp_path) is None


@pytest.mark.parametrize("part", ["recipe", "dataset", "bundle", "base_model"])
def test_one_of_another_run_is_refused(tmp_path: Path, part: str) -> None:
    write(tmp_path, 1)
    with pytest.raises(TrainingError, match="belongs to another run") as caught:
        checkpoint.find(tmp_path, IDENTITY.model_copy(update={part: "other"}))
    assert caught.value.kind == "resume"


def test_a_full_disk_leaves_the_older_one_and_no_rubbish(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / ".step-00000002.draft").write_text("in the way: a draft cannot be made here")
    with pytest.raises(OSError, match="draft"):
        write(tmp_path, 2)
    assert newest_step(tmp_path) == 1
