"""Checkpoints that are whole or do not exist: safetensors and JSON, hashed, written aside and renamed.

`step-00000100/` holds `tensors.safetensors` and, written last, `checkpoint.json` with the sha256 of the tensors and of
itself. A service that copies the folder away file by file, in any order, therefore never passes off half of one as
good: without a manifest that matches, a checkpoint does not exist.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from entrypoints.adapters.weights import on_cpu
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.machine import Machine
from orchestrator.contract.checkpoints import MANIFEST_FILE, PREFIX, TENSORS_FILE, folder_name
from orchestrator.contract.digest import FileDigest, hash_file

_IDENTITY_WORDS = {"recipe": "recipe", "dataset": "training data", "bundle": "code", "base_model": "base model"}


class Identity(BaseModel):
    """What must be equal for a run to go on from a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: str
    """sha256 of the hyperparameters."""
    dataset: str
    """sha256 over the training pictures and captions."""
    bundle: str
    """sha256 of the code."""
    base_model: str
    """Fingerprint of the base model, and hash of its settings."""
    ranks: int = 1
    """How many processes train together: another number of them sees other batches."""

    @property
    def number(self) -> int:
        """A number of 48 bits that differs for every identity."""
        return int(hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12], 16)


class Manifest(BaseModel):
    """What a checkpoint holds and what it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step: int
    """Optimizer steps done."""
    identity: Identity
    """The run it belongs to."""
    machine: Machine
    """What it was computed on."""
    scaler: dict[str, int | float] = {}
    """State of the gradient scaler, empty without one."""
    tensors: FileDigest
    """Digest of the tensors' file."""


def folder_of(root: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return root / folder_name(step)


def save(root: Path, manifest: Manifest, tensors: dict[str, Tensor], keep: int) -> None:
    """Write a checkpoint, read it back, and only then let go of all but the newest `keep`.

    `manifest.tensors` is filled in here. Raises OSError or SafetensorError when the disk is full; what was there stays.
    """
    final = folder_of(root, manifest.step)
    draft = root / f".{final.name}.draft"
    for left in root.glob(f".{PREFIX}*.draft"):  # of a run that was killed while it saved
        shutil.rmtree(left, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        _write(draft, manifest, tensors)
        shutil.rmtree(final, ignore_errors=True)  # an invalid one of this step, or it would have been resumed
        draft.rename(final)
        _sync(root)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    read_manifest(final)
    _drop_older(root, manifest.step, keep)


def _write(folder: Path, manifest: Manifest, tensors: dict[str, Tensor]) -> None:
    path = folder / TENSORS_FILE
    save_file({name: on_cpu(tensor) for name, tensor in tensors.items()}, path)
    _sync(path)
    complete = manifest.model_copy(update={"tensors": hash_file(path)})
    (folder / MANIFEST_FILE).write_text(json.dumps(_sealed(complete), indent=2) + "\n")
    _sync(folder / MANIFEST_FILE)
    _sync(folder)


def _sealed(manifest: Manifest) -> dict[str, Any]:
    fields = manifest.model_dump(mode="json")
    return {**fields, "seal": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()}


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> Manifest:
    """Return a checkpoint's manifest after checking every byte; raises ValueError with what is wrong."""
    manifest = _read_sealed(folder)
    try:
        digest = hash_file(folder / TENSORS_FILE)
    except OSError as error:
        raise ValueError(f"it is not complete ({error})") from error
    if digest != manifest.tensors:
        raise ValueError(f"{TENSORS_FILE} was changed")
    return manifest


def _read_sealed(folder: Path) -> Manifest:
    """Return the manifest as it was written; the tensors are not looked at."""
    try:
        fields = json.loads((folder / MANIFEST_FILE).read_text())
        seal = fields.pop("seal")
        manifest = Manifest.model_validate(fields)
    except (OSError, KeyError, AttributeError, UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
        raise ValueError(f"it is not complete ({type(error).__name__})") from error
    if _sealed(manifest)["seal"] != seal or folder.name != folder_of(folder.parent, manifest.step).name:
        raise ValueError(f"{MANIFEST_FILE} was changed")
    return manifest


def load_tensors(folder: Path, device: torch.device) -> dict[str, Tensor]:
    """Return a verified checkpoint's tensors by name."""
    try:
        tensors: dict[str, Tensor] = load_file(folder / TENSORS_FILE, device=str(device))
    except SafetensorError as error:
        raise TrainingError("resume", f"{folder.name} cannot be read: {error}", "Start the job anew.") from error
    return tensors


def newest_first(root: Path) -> Iterator[Path]:
    """Yield the folders of checkpoints, valid or not, from the newest to the oldest."""
    folders = [path for path in root.glob(f"{PREFIX}*") if path.is_dir()] if root.is_dir() else []
    yield from sorted(folders, reverse=True)


def find(root: Path, identity: Identity) -> tuple[Path | None, Manifest | None, list[str]]:
    """Return the newest valid checkpoint, or None, and what was wrong with newer ones.

    Raises TrainingError("resume") when it belongs to another run: nothing is overwritten then.
    """
    complaints = []
    for folder in newest_first(root):
        try:
            manifest = read_manifest(folder)
        except ValueError as error:
            complaints.append(f"Checkpoint {folder.name} is passed over: {error}.")
            continue
        _require_identity(identity, manifest, folder)
        return folder, manifest, complaints
    return None, None, complaints


def _require_identity(identity: Identity, manifest: Manifest, folder: Path) -> None:
    then = manifest.identity
    changed = []
    for name, words in _IDENTITY_WORDS.items():
        if getattr(identity, name) != getattr(then, name):
            changed.append(words)
    if identity.ranks != then.ranks:
        changed.append(f"number of processes that train together (was {then.ranks}, is {identity.ranks})")
    if changed:
        raise TrainingError(
            "resume",
            f"The checkpoint {folder.name} belongs to another run: the {' and the '.join(changed)} changed since.",
            "Resume with what the run was started with, or submit the job again with --restart.",
        )


def _drop_older(root: Path, step: int, keep: int) -> None:
    """Delete all but the newest `keep` whole checkpoints up to `step`, the one that was verified just now."""
    done = [folder for folder in newest_first(root) if folder.name <= folder_of(root, step).name]
    whole = [folder for folder in done if _is_sealed(folder)]
    for folder in done:
        if folder not in whole[:keep]:
            shutil.rmtree(folder, ignore_errors=True)


def _is_sealed(folder: Path) -> bool:
    try:
        _read_sealed(folder)
    except ValueError:
        return False
    return True


def recorded_threads(root: Path) -> int | None:
    """Return the CPU threads of the run that left checkpoints here, None without one."""
    for folder in newest_first(root):
        try:
            return _read_sealed(folder).machine.threads
        except ValueError:
            continue
    return None
