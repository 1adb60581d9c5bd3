"""Checkpoints that are whole or do not exist: safetensors and JSON, hashed, written to a draft folder and renamed.

`step-00000100/` holds `tensors.safetensors` and, written last, `checkpoint.json` with the sha256 of the tensors and of
itself (the "seal"). SageMaker copies the folder to S3 file by file, in any order, while the run continues; half of a
checkpoint is recognised, because without a manifest that matches a checkpoint does not exist.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from torch import Tensor

from entrypoints.adapters.weights import save_weights
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.machine import Machine
from orchestrator.contract.checkpoints import MANIFEST_FILE, PREFIX, TENSORS_FILE, folder_name
from orchestrator.contract.digest import FileDigest, hash_file

IDENTITY_WORDS = {
    "recipe": "recipe",
    "dataset": "training data",
    "bundle": "code",
    "base_model": "base model",
}
"""Fields of `Identity` as an error names them."""


class Identity(BaseModel):
    """What must be equal for a run to resume from a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    """sha256 of the hyperparameters."""
    dataset: str
    """sha256 over the training images and captions."""
    bundle: str
    """sha256 of the code."""
    base_model: str
    """Fingerprint of the base model's weights, and hash of its configurations."""
    ranks: int = 1
    """How many processes train together: another number of them splits the samples into other batches."""

    @property
    def number(self) -> int:
        """A hash of 48 bits, which the ranks compare: an int64 holds it, and its negative."""
        text = self.model_dump_json()
        digest = hashlib.sha256(text.encode()).hexdigest()
        return int(digest[:12], 16)


class Manifest(BaseModel):
    """What a checkpoint holds and what it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    """Optimizer steps done."""
    identity: Identity
    """The run it belongs to."""
    machine: Machine
    """What it was computed on."""
    scaler: dict[str, int | float] = {}
    """State of the gradient scaler, empty without one."""
    optimizer: dict[str, int | float] = {}
    """What the optimizer keeps beside tensors."""
    tensors: FileDigest
    """Digest of the tensors' file."""


def folder_of(root: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return root / folder_name(step)


def save(
    root: Path,
    manifest: Manifest,
    tensors: dict[str, Tensor],
    keep: int,
) -> None:
    """Write a checkpoint, read it back, and only then delete all but the newest `keep`.

    `manifest.tensors` is filled in here. Raises OSError when the disk is full; older checkpoints stay.
    """
    final = folder_of(root, manifest.step)
    draft = root / f".{final.name}.draft"
    # Drafts are left over from a run that was killed while it saved.
    for leftover in root.glob(f".{PREFIX}*.draft"):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        _write(draft, manifest, tensors)
        # What has this name is invalid, or the run would have resumed from it.
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        _sync(root)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    read_manifest(final)
    _drop_older(root, manifest.step, keep)


def _write(folder: Path, manifest: Manifest, tensors: dict[str, Tensor]) -> None:
    """Write the tensors and then the manifest, each to the disk itself before the next step."""
    tensors_file = folder / TENSORS_FILE
    digest = save_weights(tensors, tensors_file)
    _sync(tensors_file)

    complete = manifest.model_copy(update={"tensors": digest})
    text = json.dumps(_sealed(complete), indent=2)
    manifest_file = folder / MANIFEST_FILE
    manifest_file.write_text(text + "\n")
    _sync(manifest_file)
    _sync(folder)


def _sealed(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest's fields with a hash over them, the seal."""
    fields = manifest.model_dump(mode="json")
    text = json.dumps(fields, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return {**fields, "seal": seal}


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
        raise ValueError(f"it is incomplete ({error})") from error
    if digest != manifest.tensors:
        raise ValueError(f"{TENSORS_FILE} was changed")
    return manifest


def _read_sealed(folder: Path) -> Manifest:
    """Return a checkpoint's manifest without checking its tensors; raises ValueError unless it matches its seal."""
    path = folder / MANIFEST_FILE
    try:
        fields = json.loads(path.read_text())
        seal = fields.pop("seal")
        manifest = Manifest.model_validate(fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # whatever damage does
        raise ValueError(f"it is incomplete ({type(error).__name__})") from error
    expected_folder = folder_of(folder.parent, manifest.step)
    is_changed = _sealed(manifest)["seal"] != seal
    is_renamed = folder.name != expected_folder.name
    if is_changed or is_renamed:
        raise ValueError(f"{MANIFEST_FILE} was changed")
    return manifest


def read_tensors(folder: Path, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Yield a verified checkpoint's tensors with their names, one at a time: together they may be several models.

    Raises TrainingError("resume") when they cannot be read.
    """
    try:
        with safe_open(folder / TENSORS_FILE, framework="pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118 - the library's object is no mapping
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise TrainingError(
            "resume",
            f"The checkpoint {folder.name} cannot be read: {error}",
            "Submit the job again with --restart.",
        ) from error


def newest_first(root: Path) -> Iterator[Path]:
    """Yield the folders of checkpoints, valid or not, from the newest to the oldest; none when `root` is missing."""
    if not root.is_dir():
        return
    paths = root.glob(f"{PREFIX}*")
    # Steps are written with leading zeros, so that names sort as numbers.
    for path in sorted(paths, reverse=True):
        if path.is_dir():
            yield path


def find(root: Path, identity: Identity) -> tuple[Path | None, Manifest | None, list[str]]:
    """Return the newest valid checkpoint with its manifest, or None twice, and what was wrong with newer ones.

    Raises TrainingError("resume") when it belongs to another run: nothing is overwritten then.
    """
    complaints = []
    for folder in newest_first(root):
        try:
            manifest = read_manifest(folder)
        except ValueError as error:
            complaints.append(f"Checkpoint {folder.name} is skipped: {error}.")
            continue
        require_identity(identity, manifest, folder)
        return folder, manifest, complaints
    return None, None, complaints


def require_identity(identity: Identity, manifest: Manifest, folder: Path) -> None:
    """Raise TrainingError("resume") when the checkpoint in `folder` was written by a run of another identity."""
    then = manifest.identity
    changed = []
    for name, words in IDENTITY_WORDS.items():
        if getattr(identity, name) != getattr(then, name):
            changed.append(words)
    if identity.ranks != then.ranks:
        changed.append(f"number of processes that train together (was {then.ranks}, is {identity.ranks})")
    if changed:
        differences = " and the ".join(changed)
        raise TrainingError(
            "resume",
            f"The checkpoint {folder.name} belongs to another run: the {differences} changed since.",
            "Resume with what the run was started with, or submit the job again with --restart.",
        )


def _drop_older(root: Path, step: int, keep: int) -> None:
    """Delete all but the newest `keep` whole checkpoints up to `step`, the one that was verified just now.

    Later ones are invalid, since the run did not resume from them. They do not count.
    """
    newest = folder_of(root, step).name
    kept = 0
    for folder in newest_first(root):
        if folder.name > newest:
            continue
        if kept < keep and _is_sealed(folder):
            kept += 1
        else:
            shutil.rmtree(folder, ignore_errors=True)


def drop_before(root: Path, step: int) -> None:
    """Delete the checkpoints before that of `step`, valid or not, and drafts; the one of `step` stays.

    A host whose processes write none has copies of those that the run was resumed from.
    """
    drafts = list(root.glob(f".{PREFIX}*.draft"))
    last = folder_name(step)
    older = [folder for folder in newest_first(root) if folder.name < last]
    for folder in [*drafts, *older]:
        shutil.rmtree(folder, ignore_errors=True)


def _is_sealed(folder: Path) -> bool:
    """Whether a folder has a whole manifest."""
    try:
        _read_sealed(folder)
    except ValueError:
        return False
    return True


def recorded_threads(root: Path) -> int | None:
    """Return the CPU threads of the run that left checkpoints here, None without any.

    A sum over threads depends on how many there are, so a resumed run uses as many as before.
    """
    for folder in newest_first(root):
        try:
            return _read_sealed(folder).machine.threads
        except ValueError:
            continue
    return None
