"""Publish a finished adapter in its folder: completely or not at all, and never over another job's."""

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.batch_result import DrawnImages
from orchestrator.contract.command_line import command
from orchestrator.contract.evaluation_result import EvaluationResult
from orchestrator.errors import JobError
from orchestrator.requests import Made, made_by
from orchestrator.storage import scratch_folder, sync_tree, write_atomically
from orchestrator.storage.names import is_folder_name
from orchestrator.targets.local.job_folder import JobFolder, owner_file

_Kind = AdapterManifest | EvaluationResult | DrawnImages
_KINDS: dict[Made, type[_Kind]] = {
    Made.ADAPTER: AdapterManifest,
    Made.EVALUATION: EvaluationResult,
    Made.IMAGES: DrawnImages,
}
"""What says of each thing that a job makes which files belong to it."""


def reserve(adapter: Path, job: JobFolder) -> None:
    """Make `job` the owner of an adapter's folder before it starts; raises JobError when another job owns it.

    An owner that no longer exists, or has ended without an adapter, loses the folder.
    """
    with _locked_owner(adapter) as file:
        require_free(adapter, job)
        if _read(file) != job.name:
            write_atomically(file, job.name)


def withdraw(adapter: Path, job: JobFolder) -> None:
    """Delete what `job` has made, and give up the folder; another job's stays."""
    if not owner_file(adapter).exists():
        return
    with _locked_owner(adapter) as file:
        if _read(file) != job.name:
            return
        if adapter.exists():
            with scratch_folder(adapter.parent) as trash:
                adapter.rename(trash / adapter.name)
        file.unlink()


def publish(source: Path, adapter: Path, job: JobFolder) -> None:
    """Verify what a job made in `source` and copy it to the folder `adapter`, replacing an earlier one of the same job.

    Raises JobError when it is damaged or another job owns the folder.
    """
    made = made_by(job.request())
    damaged = _damage(source, _KINDS[made])
    if damaged:
        verb = "are" if made is Made.IMAGES else "is"
        retry = command("jobs", "retry", job.name)
        raise JobError(f"The {made} {verb} damaged: {damaged}.", next_step=retry)
    reserve(adapter, job)
    with scratch_folder(adapter.parent) as staging:
        copy = staging / "new"
        old = staging / "old"
        shutil.copytree(source, copy)
        sync_tree(copy)
        if adapter.exists():
            adapter.rename(old)
        copy.rename(adapter)
    _sync_folder(adapter.parent)


def require_free(adapter: Path, job: JobFolder) -> None:
    """Raise JobError when another job than `job` owns an adapter's folder: it made what lies there, or is making it."""
    name = _read(owner_file(adapter))
    if name == job.name:
        return
    owner = None
    if name is not None:
        owner = JobFolder(job.path.with_name(name))
    another_name = "submit with another --name"
    taken = f'The adapter name "{adapter.name}" is taken by'
    if owner is not None and owner.is_running():
        raise JobError(f"{taken} the job {owner.name}, which is running.", next_step=another_name)
    if not adapter.exists():
        return
    if owner is not None and owner.exists():
        remove = command("jobs", "remove", "--adapter", owner.name)
        raise JobError(
            f"{taken} the job {owner.name}, which made {adapter}.",
            next_step=f"{another_name}, or: {remove}",
        )
    folder = shlex.quote(str(adapter))
    raise JobError(
        f"{taken} {adapter}, which belongs to no job.",
        next_step=f"{another_name}, or: rm -r {folder}",
    )


def base_model_of(adapter: Path, jobs: Path) -> Path | None:
    """Return the folder of the base model that an adapter's job read; None where there is no such job.

    An adapter has only the name of that folder: where it lies is in the request of its job, in the folder `jobs`.
    """
    owner = _read(owner_file(adapter))
    if owner is None:
        return None
    return JobFolder(jobs / owner).base_model()


def _damage(folder: Path, kind: type[_Kind]) -> str:
    """Return what is wrong with what a job made; empty when nothing is."""
    try:
        manifest = kind.read(folder)
        return ", ".join(manifest.damaged_files(folder))
    except FileNotFoundError:
        return "it has no manifest"
    except ValueError as error:
        return f"its manifest cannot be read ({type(error).__name__})"


@contextmanager
def _locked_owner(adapter: Path) -> Iterator[Path]:
    """Yield the file that names an adapter's owner, locked against other processes."""
    file = owner_file(adapter)
    owners = file.parent
    owners.mkdir(parents=True, exist_ok=True)
    with (owners / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield file


def _read(file: Path) -> str | None:
    """Return the owner that a file names; None without one, and when the file is damaged."""
    try:
        owner = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    if owner.isprintable() and is_folder_name(owner):
        return owner
    return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
