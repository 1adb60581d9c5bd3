"""SageMaker's copying of checkpoints in small: what a job finds on another instance after it was cut off anywhere.

SageMaker copies the checkpoint folder to S3 while the run goes on: file by file, in any order, also files that are
being written, and it deletes there what is gone here. A new instance gets what S3 holds. Each schedule is a run of some
saves with the copier at work before, between and in the midst of them, which loses its instance several times; every
time the newest whole checkpoint of the copy has to be found, and nothing else. `python -m benchmarks.kill` runs a
thousand schedules, the test suite some of them.
"""

import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # entrypoints: reached by path, never installed

from entrypoints.runtime.machine import this_machine
from entrypoints.training import checkpoint
from orchestrator.contract.digest import FileDigest

CPU = torch.device("cpu")
MACHINE = this_machine(CPU)
IDENTITY = checkpoint.Identity(recipe="r", dataset="d", bundle="b", base_model="m")
LOSSES = 3
"""How often a schedule loses its instance."""
SAVES = 5
"""Most checkpoints between two losses."""
ACTIONS = 6
"""Most files that are copied or deleted at a time."""
DELETED = 0.4
"""Share of its turns in which the copier deletes what is gone here, if anything is."""
CUT = 0.3
"""Share of the copies that are cut."""


class WrongCheckpointError(Exception):
    """Another checkpoint was found than the newest whole one, or it was not as it had been saved."""


class Copier:
    """Copies a folder to another, a file at a time, and may be caught at any byte of it."""

    def __init__(self, mirror: Path, dice: random.Random) -> None:
        self.mirror = mirror
        self.dice = dice
        self.source = mirror
        self.seen: Counter[str] = Counter()
        """What it did, by kind."""

    def work(self, *_: object) -> None:
        """Copy or delete some files."""
        for _number in range(self.dice.randint(0, ACTIONS)):
            here = relative_files(self.source)
            there = relative_files(self.mirror)
            gone = sorted(there - here)
            if gone and self.dice.random() < DELETED:
                (self.mirror / self.dice.choice(gone)).unlink()
                self.seen["deleted"] += 1
            elif here:
                self._copy(self.dice.choice(sorted(here)))

    def _copy(self, name: Path) -> None:
        """Copy a file, or the beginning of it: as much as was written when it was read."""
        content = (self.source / name).read_bytes()
        if self.dice.random() < CUT:
            content = content[: self.dice.randrange(len(content) + 1)]
            self.seen["cut"] += 1
        target = self.mirror / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self.seen["copied"] += 1


def relative_files(folder: Path) -> set[Path]:
    """Return the files below a folder, relative to it."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def run_schedule(folder: Path, seed: int) -> Counter[str]:
    """Run one schedule in an empty folder and return what it met; raises WrongCheckpointError."""
    dice = random.Random(seed)  # noqa: S311 - dice for faults, not for secrets
    copier = Copier(folder / "bucket", dice)
    copier.mirror.mkdir()
    saved: dict[int, dict[str, Tensor]] = {}
    wholes: dict[int, dict[Path, bytes]] = {}
    met: Counter[str] = Counter()
    step = 0
    for life in range(LOSSES):
        root = folder / f"instance-{life}"
        shutil.copytree(copier.mirror, root)
        expected = newest_whole(root, wholes)
        found = found_step(root, saved)
        if found != expected:
            raise WrongCheckpointError(f"schedule {seed}: the checkpoint of step {found} instead of {expected}")
        met["resumed" if found else "began"] += 1
        step = found
        copier.source = root
        for _number in range(dice.randint(1, SAVES)):
            step += dice.randint(1, 3)
            tensors = tensors_of(step)
            saved[step] = tensors
            copier.work()
            save(root, step, tensors, copier)
            name = checkpoint.folder_of(root, step)
            wholes[step] = {path.relative_to(root): path.read_bytes() for path in name.iterdir()}
            copier.work()
    return met + copier.seen


def tensors_of(step: int) -> dict[str, Tensor]:
    """Return what a run has trained after `step`, whatever it was resumed from."""
    random = torch.Generator().manual_seed(step)
    return {
        "weight/a": torch.rand(step % 40 + 1, generator=random),
        "exp_avg/a": torch.rand(3, generator=random),
    }


def save(root: Path, step: int, tensors: dict[str, Tensor], copier: Copier) -> None:
    """Save a checkpoint while the copier works: whenever bytes are forced to the disk, it gets its turn."""
    manifest = checkpoint.Manifest(
        step=step,
        identity=IDENTITY,
        machine=MACHINE,
        tensors=FileDigest(sha256="", size=0),
    )
    with patch("os.fsync", copier.work):
        checkpoint.save(root, manifest, tensors, keep=2)


def newest_whole(root: Path, wholes: dict[int, dict[Path, bytes]]) -> int:
    """Return the newest step of which every file is there as it was saved; 0 without any."""
    for step in sorted(wholes, reverse=True):
        files = wholes[step]
        if all((root / name).is_file() and (root / name).read_bytes() == content for name, content in files.items()):
            return step
    return 0


def found_step(root: Path, saved: dict[int, dict[str, Tensor]]) -> int:
    """Return the step that a run would resume from, after comparing its tensors with those saved; 0 without any."""
    folder, manifest, _ = checkpoint.find(root, IDENTITY)
    if folder is None or manifest is None:
        return 0
    tensors = dict(checkpoint.read_tensors(folder, CPU))
    expected = saved[manifest.step]
    is_equal = tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        is_equal = is_equal and torch.equal(tensor, expected[name])
    if not is_equal:
        raise WrongCheckpointError(f"the checkpoint of step {manifest.step} has other tensors than were saved")
    return manifest.step
